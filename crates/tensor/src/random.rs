//! A counter-based generator for fixtures: value `i` of seed `s` is a pure function of both.
//!
//! NumPy computes the same bits in a few lines (`tests/oracle/fixture_random.py`), so fixtures ship outputs
//! only, never weights. The mixer is SplitMix64's finaliser (Steele, Lea and Flood, 2014).

use crate::{AlignedBytes, Bytes, DType, Shape, Tensor};
use half::f16;

/// The `index`-th 64-bit word of the stream `seed`.
pub fn word(seed: u64, index: u64) -> u64 {
    let stream = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut z = stream.wrapping_add((index.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Uniform in `[0, 1)`, a multiple of 2^-24.
pub fn uniform(seed: u64, index: u64) -> f32 {
    (word(seed, index) >> 40) as f32 / (1u32 << 24) as f32
}

/// Close to the standard normal: the sum of four uniform 16-bit fields, centred and scaled to unit
/// variance. It uses no transcendental function, so every platform computes the same bits.
pub fn normal(seed: u64, index: u64) -> f32 {
    let w = word(seed, index);
    let sum: u32 = (0..4).map(|i| ((w >> (16 * i)) & 0xFFFF) as u32).sum();
    // Four fields of variance (2^32 - 1) / 12 each.
    const INVERSE_DEVIATION: f32 = 2.642_927_6e-5;
    (sum as f32 - 131_070.0) * INVERSE_DEVIATION
}

/// A single-precision tensor of [`normal`] values times `scale`.
pub fn normal_tensor(seed: u64, shape: Shape, scale: f32) -> Tensor {
    let values: Vec<f32> = (0..shape.count() as u64).map(|i| normal(seed, i) * scale).collect();
    Tensor::from_slice(shape, &values).expect("invariant: one value per element")
}

/// A half-precision tensor of [`normal`] values, or `None` where there is no memory for it.
pub fn try_normal_f16(seed: u64, shape: Shape) -> Option<Tensor> {
    let mut bytes = AlignedBytes::try_zeroed(shape.count().checked_mul(2)?)?;
    for (i, value) in (0..).zip(bytes.as_mut_slice::<f16>()) {
        *value = f16::from_f32(normal(seed, i));
    }
    Some(Tensor::new(DType::F16, shape, Bytes::new(bytes)).expect("invariant: two bytes per element"))
}

/// Random bytes, or `None` where there is no memory for them.
pub fn try_bytes(seed: u64, shape: Shape) -> Option<Tensor> {
    let mut bytes = AlignedBytes::try_zeroed(shape.count())?;
    for (i, byte) in (0..).zip(bytes.iter_mut()) {
        *byte = word(seed, i) as u8;
    }
    Some(Tensor::new(DType::U8, shape, Bytes::new(bytes)).expect("invariant: one byte per element"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_standard_normal() {
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(normal(7, i))).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn streams_are_pinned() {
        // From `tests/oracle/fixture_random.py`, which `python/tests/test_fixture_random.py` holds to the same.
        let words = [word(0, 0), word(1, 0), word(1, 1)];
        assert_eq!(words, [0xE220_A839_7B1D_CDAF, 0xF4A9_0164_C474_9E1A, 0xBFA9_AE8D_44B4_5A35]);
        assert_eq!(f64::from(uniform(7, 2)), 0.841_427_028_179_168_7);
        let normals = [0, 1, 2].map(|i| f64::from(normal(5, i) * 0.1));
        assert_eq!(
            normals,
            [0.030_377_808_958_292_007, -0.014_816_251_583_397_388, 0.008_378_080_092_370_51]
        );
    }
}
