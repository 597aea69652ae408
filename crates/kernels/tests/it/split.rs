//! Why there is no path for AMX-BF16: products split in four do not sum to the same bits.

use aneforge_kernels::{f16, order};

use super::support::Random;

/// The sum as AMX-BF16 would take it: each value is the sum of two `bf16`, and four passes over each block add the
/// products of their parts, every pass in the order of [`order::Dot`].
fn in_four_passes(a: &[f16], b: &[f16]) -> f32 {
    let split = |value: f16| {
        let wide = value.to_f32();
        let high = f32::from_bits(wide.to_bits() & 0xffff_0000);
        [high, wide - high]
    };
    let mut accumulator = 0.0_f32;
    for (a, b) in a.chunks(order::BLOCK).zip(b.chunks(order::BLOCK)) {
        for (part_a, part_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            accumulator += order::dot(a.iter().zip(b).map(|(&a, &b)| (split(a)[part_a], split(b)[part_b])));
        }
    }
    accumulator
}

#[test]
fn four_exact_passes_of_halves_differ_from_the_defined_sum() {
    let mut random = Random(7);
    let mut draw = || f16::from_f32(random.next() as f32 / 2_147_483_648.0 - 1.0);
    let mut different = 0;
    for _ in 0..20_000 {
        let (a, b): (Vec<f16>, Vec<f16>) = (0..64).map(|_| (draw(), draw())).unzip();
        let defined = order::dot(a.iter().zip(&b).map(|(a, b)| (a.to_f32(), b.to_f32())));
        different += usize::from(f16::from_f32(defined) != f16::from_f32(in_four_passes(&a, &b)));
    }
    assert!(different > 0, "no counterexample: the four passes may be exact after all");
}
