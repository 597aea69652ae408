//! Roots and powers.

use super::exponential::{exp2, log2};
use crate::simd::Real;

#[inline(always)]
pub(crate) fn rsqrt<V: Real>(x: V) -> V {
    V::splat(1.0) / x.sqrt()
}

#[inline(always)]
pub(crate) fn pow<V: Real>(x: V, y: V) -> V {
    let (magnitude, infinity, one) = (x.abs(), V::splat(f32::INFINITY), V::splat(1.0));
    let value = exp2(y * log2(magnitude));
    let integral = y.floor().eq(y);
    let halved = y * V::splat(0.5);
    let odd = V::and(integral, V::and(y.abs().lt(V::splat(16_777_216.0)), V::not(halved.floor().eq(halved))));
    let value = V::select(odd, value.copysign(x), value);
    let finite = V::not(V::or(magnitude.eq(infinity), y.abs().eq(infinity)));
    let undefined = V::and(x.lt(V::splat(0.0)), V::and(V::not(integral), finite));
    let undefined = V::or(undefined, V::or(x.is_nan(), y.is_nan()));
    let value = V::select(undefined, V::splat(f32::NAN), value);
    let value = V::select(V::and(magnitude.eq(one), y.abs().eq(infinity)), one, value);
    V::select(V::or(y.eq(V::splat(0.0)), x.eq(one)), one, value)
}
