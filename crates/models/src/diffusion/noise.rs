//! Normal noise from a seed: the numbers that PyTorch draws on a CPU, so that a seed gives the picture that it gives there.
//!
//! Uniform numbers are those of the Mersenne Twister (Matsumoto and Nishimura, ACM TOMACS 1998), normal ones those of Box and Muller
//! (1958), in PyTorch's order: of sixteen uniform numbers the first eight are radii and the others angles. PyTorch computes in single
//! precision, so that its numbers differ from these in the last digits.

const WORDS: usize = 624;
const SHIFT: usize = 397;
/// Numbers that become normal together.
const TOGETHER: usize = 16;

/// A generator.
#[derive(Clone, Debug)]
pub struct Noise {
    words: Vec<u32>,
    at: usize,
}

impl Noise {
    /// The generator of this seed, of which the lower 32 bits count.
    pub fn new(seed: u64) -> Noise {
        let mut words = vec![seed as u32; WORDS];
        for at in 1..WORDS {
            let before = words[at - 1];
            words[at] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(at as u32);
        }
        Noise { words, at: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.at == WORDS {
            for at in 0..WORDS {
                let mixed = (self.words[at] & 0x8000_0000) | (self.words[(at + 1) % WORDS] & 0x7FFF_FFFF);
                let twist = if mixed & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.words[at] = self.words[(at + SHIFT) % WORDS] ^ (mixed >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut word = self.words[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9D2C_5680;
        word ^= (word << 15) & 0xEFC6_0000;
        word ^ (word >> 18)
    }

    fn uniform(&mut self) -> f64 {
        f64::from(self.word() & 0x00FF_FFFF) / f64::from(1u32 << 24)
    }

    /// So many normal numbers. PyTorch draws fewer than sixteen in another way, and here sixteen are drawn for them.
    pub fn draw(&mut self, count: usize) -> Vec<f64> {
        let mut values: Vec<f64> = (0..count.max(TOGETHER)).map(|_| self.uniform()).collect();
        let whole = values.len() / TOGETHER * TOGETHER;
        values[..whole].chunks_exact_mut(TOGETHER).for_each(normal);
        if whole < values.len() {
            // What is left over is drawn anew with some of those before.
            let first = values.len() - TOGETHER;
            values[first..].iter_mut().for_each(|v| *v = self.uniform());
            normal(&mut values[first..]);
        }
        values.truncate(count);
        values
    }
}

/// Sixteen uniform numbers as normal ones.
fn normal(values: &mut [f64]) {
    for at in 0..TOGETHER / 2 {
        let (radius, angle) =
            ((-2.0 * (1.0 - values[at]).ln()).sqrt(), std::f64::consts::TAU * values[at + TOGETHER / 2]);
        values[at] = radius * angle.cos();
        values[at + TOGETHER / 2] = radius * angle.sin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.randn(n, generator=torch.Generator().manual_seed(seed))`.
    #[test]
    fn numbers_are_those_of_pytorch() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 2e-6, "{got} {want}");
        let mut noise = Noise::new(42);
        let (first, second) = (noise.draw(32), noise.draw(20));
        near(first[0], 1.926_915_287_971_496_7);
        near(first[3], -2.105_520_963_668_823_2);
        // Of twenty, the last sixteen are drawn twice.
        near(second[0], -1.384_673_714_637_756_3);
        near(second[3], 1.717_361_450_195_312_5);
        near(second[4], -0.487_991_720_438_003_54);
        near(second[19], 0.535_654_664_039_611_8);
        let many = Noise::new(7 + (1 << 32)).draw(1024);
        near(many[500], 0.681_514_263_153_076_2);
        near(many[1023], -0.904_100_239_276_886);
        assert_eq!(Noise::new(7).draw(1024), many, "the lower 32 bits of a seed count");
        assert_eq!(Noise::new(7).draw(3).len(), 3);
    }
}
