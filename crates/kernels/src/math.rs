//! Elementary functions from `f32` to `f32`, exact enough for results that are rounded to `f16`.
//!
//! Each is a fixed sequence of IEEE operations without branches, so the scalar call and the vectorised loop
//! give the same bits. The errors stated are measured over every finite `f16` input, in units in the last
//! place of the correctly rounded `f16` result, after rounding; see `tests/it/math.rs`.

mod exponential;
mod normal;
mod power;
mod trigonometric;

pub use exponential::{exp, exp_m1, exp2, log, log_1p, log2, sigmoid, silu, softplus, tanh};
pub use normal::{erf, gelu};
pub use power::{pow, rsqrt, sqrt};
pub use trigonometric::{atan, cos, sin};

/// The nearest integer, ties to even, for `|x| < 2^22`: as `f32` and, read from the bits, as `i32`.
#[inline(always)]
pub(crate) fn round_small(x: f32) -> (f32, i32) {
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x + MAGIC;
    (shifted - MAGIC, shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32)
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule with fused multiply-adds.
#[inline(always)]
pub(crate) fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = sum.mul_add(x, coefficients[index]);
    }
    sum
}

/// The larger of two values; the first of equals; NaN when either is NaN.
#[inline(always)]
#[must_use]
pub fn maximum(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The smaller of two values; the first of equals; NaN when either is NaN.
#[inline(always)]
#[must_use]
pub fn minimum(a: f32, b: f32) -> f32 {
    if a <= b || a.is_nan() { a } else { b }
}
