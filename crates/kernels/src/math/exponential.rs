//! Exponential, logarithm and what is made of them.

use std::f32::consts::{LN_2, LOG2_E};

use super::{polynomial, round_small};
use crate::simd::Real;

const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `1/n!`.
const EXP: [f32; 8] = [1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];

#[inline(always)]
pub(crate) fn exp<V: Real>(x: V) -> V {
    // NaN comes through every step.
    let bounded = x.not_below(V::splat(-104.0)).not_above(V::splat(89.0));
    let (n, integer) = round_small(bounded * V::splat(LOG2_E));
    let r = n.mul_add(V::splat(-LN_2_LOW), n.mul_add(V::splat(-LN_2_HIGH), bounded));
    polynomial(r, EXP).scale(n, integer)
}

#[inline(always)]
pub(crate) fn exp2<V: Real>(x: V) -> V {
    let bounded = x.not_below(V::splat(-150.0)).not_above(V::splat(129.0));
    let (n, integer) = round_small(bounded);
    polynomial((bounded - n) * V::splat(LN_2), EXP).scale(n, integer)
}

#[inline(always)]
pub(crate) fn exp_m1<V: Real>(x: V) -> V {
    let near = x * polynomial(
        x,
        [1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0],
    );
    let far = exp(x) - V::splat(1.0);
    V::select(x.abs().lt(V::splat(0.5)), near, far)
}

#[inline(always)]
fn keep_nan<V: Real>(x: V, y: V) -> V {
    V::select(x.is_nan(), x, y)
}

/// `(e, ln m)` with `x = m * 2^e` and `m` in `[sqrt(1/2), sqrt(2)]`, for finite positive `x`.
#[inline(always)]
fn log_parts<V: Real>(x: V) -> (V, V) {
    const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
    let subnormal = x.lt(V::splat(f32::MIN_POSITIVE));
    let scaled = V::select(subnormal, x * V::splat(8_388_608.0), x);
    let bits = scaled.bits();
    let exponent = V::exponent_of(V::int_sub(bits, V::int(SQRT_HALF_BITS)));
    let m = V::from_bits(V::int_sub(bits, V::to_exponent(exponent)));
    let exponent = V::from_int(exponent) - V::select(subnormal, V::splat(23.0), V::splat(0.0));
    let f = m - V::splat(1.0);
    // ln(1+f) = 2 atanh(s), s = f/(2+f), |s| <= 0.1716, written so that the leading f stays exact.
    let s = f / (V::splat(2.0) + f);
    let z = s * s;
    let tail = z * polynomial(z, [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0]);
    (exponent, f - s * (f - tail))
}

#[inline(always)]
fn log_special<V: Real>(x: V, y: V) -> V {
    let y = V::select(x.eq(V::splat(f32::INFINITY)), x, y);
    let y = V::select(x.eq(V::splat(0.0)), V::splat(f32::NEG_INFINITY), y);
    V::select(x.ge(V::splat(0.0)), y, V::splat(f32::NAN))
}

#[inline(always)]
pub(crate) fn log<V: Real>(x: V) -> V {
    let (exponent, fraction) = log_parts(x);
    let low = exponent.mul_add(V::splat(LN_2_LOW), fraction);
    log_special(x, exponent.mul_add(V::splat(LN_2_HIGH), low))
}

#[inline(always)]
pub(crate) fn log2<V: Real>(x: V) -> V {
    let (exponent, fraction) = log_parts(x);
    log_special(x, fraction.mul_add(V::splat(LOG2_E), exponent))
}

#[inline(always)]
pub(crate) fn log_1p<V: Real>(x: V) -> V {
    let y = V::splat(1.0) + x;
    let correction = (x - (y - V::splat(1.0))) / y;
    let finite = V::and(y.gt(V::splat(0.0)), y.lt(V::splat(f32::INFINITY)));
    log(y) + V::select(finite, correction, V::splat(0.0))
}

#[inline(always)]
pub(crate) fn sigmoid<V: Real>(x: V) -> V {
    V::splat(1.0) / (V::splat(1.0) + exp(x.neg()))
}

#[inline(always)]
pub(crate) fn silu<V: Real>(x: V) -> V {
    x / (V::splat(1.0) + exp(x.neg()))
}

#[inline(always)]
pub(crate) fn softplus<V: Real>(x: V) -> V {
    let positive = V::select(x.gt(V::splat(0.0)), x, V::splat(0.0));
    keep_nan(x, positive + log_1p(exp(x.abs().neg())))
}

#[inline(always)]
pub(crate) fn tanh<V: Real>(x: V) -> V {
    let e = exp_m1(V::splat(-2.0) * x.abs());
    keep_nan(x, (e.neg() / (V::splat(2.0) + e)).copysign(x))
}
