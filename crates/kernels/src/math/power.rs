//! Roots and powers.

use super::{exp2, log2};

/// The square root, correctly rounded in `f32`.
#[inline(always)]
#[must_use]
pub fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

/// `1 / sqrt(x)`. 0 ulp.
#[inline(always)]
#[must_use]
pub fn rsqrt(x: f32) -> f32 {
    1.0 / x.sqrt()
}

/// `x^y` with the special cases of IEEE 754. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn pow(x: f32, y: f32) -> f32 {
    let magnitude = x.abs();
    let exponent = y * log2(magnitude);
    let value = exp2(exponent);
    let integral = y.floor() == y;
    let odd = integral && y.abs() < 16_777_216.0 && (y * 0.5).floor() != y * 0.5;
    let value = if odd { value.copysign(x) } else { value };
    let value = if x < 0.0 && !integral && magnitude != f32::INFINITY && y.abs() != f32::INFINITY {
        f32::NAN
    } else {
        value
    };
    let value = if x.is_nan() || y.is_nan() { f32::NAN } else { value };
    let value = if magnitude == 1.0 && y.abs() == f32::INFINITY { 1.0 } else { value };
    if y == 0.0 || x == 1.0 { 1.0 } else { value }
}
