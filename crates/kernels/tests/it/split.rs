//! The order of [`Sums::Fast`] on AMX-BF16, by its plain model: what it takes for exact, and how far it is from exact sums.

use aneforge_kernels::{f16, order};

use super::support::Random;

/// Every finite number is the sum of two `bf16` that are zero or far from subnormal, the second of few bits; bytes are one
/// `bf16`; what is not finite has no finite parts.
#[test]
fn every_half_is_two_bf16() {
    for value in (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()) {
        let [high, low] = order::parts(value);
        assert_eq!(high.is_finite(), value.is_finite());
        assert_eq!(low.is_finite(), value.is_finite());
        if value.is_finite() {
            assert_eq!((f64::from(high) + f64::from(low)) as f32, value);
            for part in [high, low] {
                assert_eq!(part.to_bits() & 0xffff, 0, "{part} is no bf16");
                assert!(part == 0.0 || part.abs() >= 2.0_f32.powi(-24));
            }
        }
    }
    assert!((-128..=127).all(|byte| order::parts(byte as f32)[1] == 0.0));
}

/// Passes over low parts that are all zero change no bit, so that they may be left out.
#[test]
fn weights_of_one_part_take_two_passes() {
    let mut random = Random(3);
    for _ in 0..500 {
        let terms: Vec<(f32, f32)> = (0..75)
            .map(|_| {
                let a = f16::from_bits(random.next() as u16 & 0xbfff).to_f32();
                (a, f32::from(random.next() as i8) * 0.125)
            })
            .collect();
        let mut sum = 0.0_f32;
        for block in terms.chunks(order::BLOCK) {
            for part in [1, 0] {
                sum += order::dot(block.iter().map(|&(a, b)| (order::parts(a)[part], b)));
            }
        }
        assert_eq!(order::parts_dot(terms).to_bits(), sum.to_bits());
    }
}

#[test]
fn terms_that_are_not_finite_give_the_defined_sum() {
    let (inf, nan, max) = (f32::INFINITY, f32::NAN, 65504.0);
    for (terms, want) in [
        (vec![(inf, 1.0), (1.0, 2.0)], inf),
        (vec![(1.0, -inf), (1.0, 3.001), (max, max)], -inf),
        (vec![(inf, 1.0 + 1.0 / 1024.0), (-inf, 1.0)], nan),
        (vec![(inf, 0.0)], nan),
        (vec![(nan, 1.0)], nan),
        (vec![(max, max); 4], 4.0 * max * max),
    ] {
        let got = order::parts_dot(terms.iter().copied());
        assert!(got == want || got.is_nan() && want.is_nan(), "{terms:?} give {got}");
        let defined = order::dot(terms.iter().copied());
        assert!(got == defined || got.is_nan() && defined.is_nan());
    }
}

/// Sums of one kind: how many there are, how many of them rounded to half precision are not the exact sum, rounded, and
/// the largest error before rounding, as a multiple of 2^-24 of the sum of the terms' magnitudes.
#[derive(Clone, Copy, Default)]
struct Tally {
    sums: usize,
    off: usize,
    error: f64,
}

impl Tally {
    fn share(&self) -> f64 {
        self.off as f64 / self.sums as f64
    }

    fn add(&mut self, terms: &[(f16, f16)], dot: Dot) {
        let sum = dot(terms.iter().map(|(a, b)| (a.to_f32(), b.to_f32())).collect());
        let (exact, wide) = exact(terms);
        let magnitudes: f64 = terms.iter().map(|(a, b)| (a.to_f64() * b.to_f64()).abs()).sum();
        self.sums += 1;
        self.off += usize::from(f16::from_f32(sum) != exact);
        self.error = self.error.max((f64::from(sum) - wide).abs() / magnitudes * 16_777_216.0);
    }
}

type Dot = fn(Vec<(f32, f32)>) -> f32;

/// The exact sum, rounded once to half and once to double precision. Products are multiples of 2^-48, and 128 bits hold
/// their sum.
fn exact(terms: &[(f16, f16)]) -> (f16, f64) {
    let fixed = |value: f16| (value.to_f64() * 16_777_216.0) as i128;
    let sum: i128 = terms.iter().map(|&(a, b)| fixed(a) * fixed(b)).sum();
    // To odd where bits are dropped, so that rounding again is rounding once.
    let (magnitude, sign) = (sum.unsigned_abs(), if sum < 0 { -1.0 } else { 1.0 });
    let drop = (128 - magnitude.leading_zeros()).saturating_sub(50);
    let kept = (magnitude >> drop) | u128::from(magnitude & ((1 << drop) - 1) != 0);
    let wide = sign * kept as f64 * 2.0_f64.powi(drop as i32 - 48);
    (f16::from_f64(wide), wide)
}

/// A number as activations or weights have them: the sum of four uniform ones.
fn bell(random: &mut Random) -> f32 {
    (0..4).map(|_| random.next() as f32 / 2_147_483_648.0 - 1.0).sum()
}

/// The terms of the products and convolutions of ResNet-18 and -50, of an encoder of 6 layers of 384, of ViT-B/16 and of
/// MobileNetV2, without those of few terms.
const TERMS: [usize; 20] =
    [32, 64, 96, 128, 144, 147, 192, 197, 224, 256, 384, 512, 576, 768, 960, 1024, 1152, 1536, 2304, 4608];

/// Sums of the lengths of [`TERMS`], with and without `relu` on the left.
fn of_networks(dot: Dot) -> Tally {
    let mut tally = Tally::default();
    for (index, count) in TERMS.into_iter().enumerate() {
        let (mut random, scale) = (Random(index as u64), (count as f32).sqrt());
        for sum in 0..1500 {
            let mut term = || {
                let a = bell(&mut random);
                let a = if sum % 2 == 0 { a.max(0.0) } else { a };
                (f16::from_f32(a), f16::from_f32(bell(&mut random) / scale))
            };
            let terms: Vec<_> = (0..count).map(|_| term()).collect();
            tally.add(&terms, dot);
        }
    }
    tally
}

/// A kind of hard sum of about 256 terms.
fn hard(kind: usize, random: &mut Random) -> Vec<(f16, f16)> {
    let half = |random: &mut Random| f16::from_f32(bell(random));
    let raw = |random: &mut Random, mask: u32, set: u32| f16::from_bits((random.next() & mask | set) as u16);
    let mut terms: Vec<(f16, f16)> = (0..128).map(|_| (half(random), half(random))).collect();
    match kind {
        // Every term but the last few cancels, far away.
        0 => {
            terms.extend(terms.clone().into_iter().rev().map(|(a, b)| (-a, b)));
            terms.extend((0..8).map(|_| (half(random), f16::from_f32(bell(random) * 1e-3))));
        }
        // Subnormal numbers times others.
        1 => terms = (0..256).map(|_| (raw(random, 0x83ff, 0), half(random))).collect(),
        // Subnormal times large.
        2 => terms = (0..256).map(|_| (raw(random, 0x83ff, 0), raw(random, 0x83ff, 0x7800))).collect(),
        // Sums near the largest number, on either side.
        3 => {
            let size = 65504.0 / 256.0 * (1.0 + bell(random) / 16.0);
            let b = |random: &mut Random| f16::from_f32(size * (1.0 + bell(random) / 64.0));
            terms = (0..256).map(|_| (f16::from_f32(1.0 + bell(random) / 32.0), b(random))).collect();
        }
        // All magnitudes at once.
        _ => terms = (0..256).map(|_| (raw(random, 0xbfff, 0), raw(random, 0xbfff, 0))).collect(),
    }
    terms
}

/// What docs/numerics.md says of accuracy; the same draws every time.
#[test]
fn fast_sums_are_nearly_always_the_exact_sum_rounded_once() {
    let dots: [(&str, Dot); 2] = [("fast", order::parts_dot), ("defined", order::dot)];
    for (name, dot) in dots {
        let tally = of_networks(dot);
        println!("{name}, networks: {:.3} % off, error {:.2}", 100.0 * tally.share(), tally.error);
        assert!(tally.share() <= 0.001 && tally.error <= 6.0, "{name}: {}, {}", tally.share(), tally.error);
        // Next to nothing is left of sums that cancel, and the error stays what it was.
        for (kind, most) in [0.7, 0.001, 0.001, 0.001, 0.004].into_iter().enumerate() {
            let (mut random, mut tally) = (Random(100 + kind as u64), Tally::default());
            (0..4000).for_each(|_| tally.add(&hard(kind, &mut random), dot));
            println!("{name}, kind {kind}: {:.3} % off, error {:.2}", 100.0 * tally.share(), tally.error);
            let (share, error) = (tally.share(), tally.error);
            assert!(share <= most && error <= 6.0, "{name}, kind {kind}: {share}, {error}");
        }
    }
}

/// Three passes are not enough: without low times low parts, one sum in thirty is off.
#[test]
fn the_fourth_pass_is_needed() {
    let three: Dot = |terms| {
        let mut sum = 0.0_f32;
        for block in terms.chunks(order::BLOCK) {
            for (i, j) in [(1, 0), (0, 0), (0, 1)] {
                sum += order::dot(block.iter().map(|&(a, b)| (order::parts(a)[i], order::parts(b)[j])));
            }
        }
        sum
    };
    let share = of_networks(three).share();
    assert!(share > 0.02, "{share}");
}
