//! Exponential, logarithm and what is made of them.

use std::f32::consts::{LN_2, LOG2_E};

use super::{polynomial, round_small};

const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `1/n!`.
const EXP: [f32; 8] = [1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];

/// `x * 2^n` for `-252 <= n <= 254`.
#[inline(always)]
fn scale(x: f32, n: i32) -> f32 {
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    x * power(half) * power(n.wrapping_sub(half))
}

/// `e^x`. 0 ulp.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let bounded = clamp(x, -104.0, 89.0);
    let (n, integer) = round_small(bounded * LOG2_E);
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, bounded));
    keep_nan(x, scale(polynomial(r, EXP), integer))
}

/// `2^x`. 0 ulp.
#[inline(always)]
#[must_use]
pub fn exp2(x: f32) -> f32 {
    let bounded = clamp(x, -150.0, 129.0);
    let (n, integer) = round_small(bounded);
    keep_nan(x, scale(polynomial((bounded - n) * LN_2, EXP), integer))
}

/// `e^x - 1`, accurate near zero. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn exp_m1(x: f32) -> f32 {
    let near = x * polynomial(
        x,
        [1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0],
    );
    let far = exp(x) - 1.0;
    if x.abs() < 0.5 { near } else { far }
}

/// `x` limited to `low..=high`; NaN becomes `low`.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

#[inline(always)]
fn keep_nan(x: f32, y: f32) -> f32 {
    if x.is_nan() { x } else { y }
}

/// `(e, ln m)` with `x = m * 2^e` and `m` in `[sqrt(1/2), sqrt(2)]`, for finite positive `x`.
#[inline(always)]
fn log_parts(x: f32) -> (f32, f32) {
    const TINY: f32 = f32::MIN_POSITIVE;
    const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
    let subnormal = x < TINY;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let exponent = bits.wrapping_sub(SQRT_HALF_BITS) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
    let exponent = exponent as f32 - if subnormal { 23.0 } else { 0.0 };
    let f = m - 1.0;
    // ln(1+f) = 2 atanh(s), s = f/(2+f), |s| <= 0.1716, written so that the leading f stays exact.
    let s = f / (2.0 + f);
    let z = s * s;
    let tail = z * polynomial(z, [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0]);
    (exponent, f - s * (f - tail))
}

#[inline(always)]
fn log_special(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// The natural logarithm. 0 ulp.
#[inline(always)]
#[must_use]
pub fn log(x: f32) -> f32 {
    let (exponent, fraction) = log_parts(x);
    log_special(x, exponent.mul_add(LN_2_HIGH, exponent.mul_add(LN_2_LOW, fraction)))
}

/// The logarithm to base 2. 0 ulp.
#[inline(always)]
#[must_use]
pub fn log2(x: f32) -> f32 {
    let (exponent, fraction) = log_parts(x);
    log_special(x, fraction.mul_add(LOG2_E, exponent))
}

/// `ln(1 + x)`, accurate near zero. 0 ulp.
#[inline(always)]
#[must_use]
pub fn log_1p(x: f32) -> f32 {
    let y = 1.0 + x;
    let correction = (x - (y - 1.0)) / y;
    let finite = y > 0.0 && y < f32::INFINITY;
    log(y) + if finite { correction } else { 0.0 }
}

/// `1 / (1 + e^-x)`. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn softplus(x: f32) -> f32 {
    let positive = if x > 0.0 { x } else { 0.0 };
    keep_nan(x, positive + log_1p(exp(-x.abs())))
}

/// The hyperbolic tangent. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let e = exp_m1(-2.0 * x.abs());
    keep_nan(x, (-e / (2.0 + e)).copysign(x))
}
