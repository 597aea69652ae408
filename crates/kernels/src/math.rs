//! Elementary functions from `f32` to `f32`, exact enough for results that are rounded to `f16`.
//!
//! Each is a fixed sequence of IEEE operations without branches, written once for a single value and for a vector,
//! so both give the same bits. The errors stated are measured over every finite `f16` input, in units in the last
//! place of the correctly rounded `f16` result, after rounding; see `tests/it/math.rs`.

mod exponential;
mod normal;
mod power;
mod trigonometric;

use crate::simd::Real;

/// The functions over any [`Real`].
pub(crate) mod real {
    pub(crate) use super::exponential::{
        exp, exp_m1, exp2, log, log_1p, log2, sigmoid, silu, softplus, tanh,
    };
    pub(crate) use super::normal::{erf, gelu};
    pub(crate) use super::power::{pow, rsqrt};
    pub(crate) use super::trigonometric::{atan, cos, sin};
    pub(crate) use super::{larger as maximum, smaller as minimum};
}

macro_rules! scalar {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),*);)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            #[must_use]
            pub fn $name($($argument: f32),*) -> f32 {
                real::$name($($argument),*)
            }
        )*
    };
}

scalar! {
    /// `e^x`. 0 ulp.
    exp(x);
    /// `2^x`. 0 ulp.
    exp2(x);
    /// `e^x - 1`, accurate near zero. At most 1 ulp.
    exp_m1(x);
    /// The natural logarithm. 0 ulp.
    log(x);
    /// The logarithm to base 2. 0 ulp.
    log2(x);
    /// `ln(1 + x)`, accurate near zero. 0 ulp.
    log_1p(x);
    /// `1 / (1 + e^-x)`. At most 1 ulp.
    sigmoid(x);
    /// `x * sigmoid(x)`. At most 1 ulp.
    silu(x);
    /// `ln(1 + e^x)`. At most 1 ulp.
    softplus(x);
    /// The hyperbolic tangent. At most 1 ulp.
    tanh(x);
    /// The error function. 0 ulp.
    erf(x);
    /// `x * Phi(x)`, `Phi` the distribution function of the standard normal. At most 1 ulp.
    gelu(x);
    /// `1 / sqrt(x)`. 0 ulp.
    rsqrt(x);
    /// `x^y` with the special cases of IEEE 754. At most 1 ulp.
    pow(x, y);
    /// The sine, for `|x| <= 2^17`. At most 1 ulp.
    sin(x);
    /// The cosine, for `|x| <= 2^17`. 0 ulp.
    cos(x);
    /// The arc tangent. At most 1 ulp.
    atan(x);
    /// The larger of two values; the first of equals; NaN when either is NaN.
    maximum(a, b);
    /// The smaller of two values; the first of equals; NaN when either is NaN.
    minimum(a, b);
}

/// The square root, correctly rounded in `f32`.
#[inline(always)]
#[must_use]
pub fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

/// The nearest integer, ties to even, for `|x| < 2^22`: as a number and as an integer.
#[inline(always)]
fn round_small<V: Real>(x: V) -> (V, V::Int) {
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x + V::splat(MAGIC);
    (shifted - V::splat(MAGIC), V::int_sub(shifted.bits(), V::int(MAGIC.to_bits() as i32)))
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule with fused multiply-adds.
#[inline(always)]
fn polynomial<V: Real, const N: usize>(x: V, coefficients: [f32; N]) -> V {
    let mut sum = V::splat(coefficients[N - 1]);
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = sum.mul_add(x, V::splat(coefficients[index]));
    }
    sum
}

/// See [`maximum`].
#[inline(always)]
pub(crate) fn larger<V: Real>(a: V, b: V) -> V {
    V::select(V::or(b.le(a), a.is_nan()), a, b)
}

/// See [`minimum`].
#[inline(always)]
pub(crate) fn smaller<V: Real>(a: V, b: V) -> V {
    V::select(V::or(a.le(b), a.is_nan()), a, b)
}
