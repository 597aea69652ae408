//! Sine, cosine and arc tangent.

use std::f32::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4};

use super::{polynomial, round_small};
use crate::simd::Real;

/// `pi/2` as a sum of three `f32`.
const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];

/// `(quadrant, r)` with `x = quadrant * pi/2 + r`, `|r| <= pi/4`, for `|x| <= 2^17`.
#[inline(always)]
fn reduce<V: Real>(x: V) -> (V::Int, V) {
    let (n, quadrant) = round_small(x * V::splat(FRAC_2_PI));
    let r = HALF_PI.iter().fold(x, |r, &part| n.mul_add(V::splat(-part), r));
    (quadrant, r)
}

/// The sine of `r + quadrant * pi/2`.
#[inline(always)]
fn quadrant_sine<V: Real>(quadrant: V::Int, r: V) -> V {
    let z = r * r;
    let sine = r * polynomial(z, [1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0]);
    let cosine = polynomial(z, [1.0, -0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0]);
    let value = V::select(V::disjoint(quadrant, V::int(1)), sine, cosine);
    V::select(V::disjoint(quadrant, V::int(2)), value, value.neg())
}

#[inline(always)]
pub(crate) fn sin<V: Real>(x: V) -> V {
    let (quadrant, r) = reduce(x);
    quadrant_sine(quadrant, r)
}

#[inline(always)]
pub(crate) fn cos<V: Real>(x: V) -> V {
    let (quadrant, r) = reduce(x);
    quadrant_sine::<V>(V::int_add(quadrant, V::int(1)), r)
}

#[inline(always)]
pub(crate) fn atan<V: Real>(x: V) -> V {
    const TAN_PI_8: f32 = 0.414_213_57;
    const TAN_3_PI_8: f32 = 2.414_213_7;
    const SERIES: [f32; 10] = [
        1.0,
        -1.0 / 3.0,
        1.0 / 5.0,
        -1.0 / 7.0,
        1.0 / 9.0,
        -1.0 / 11.0,
        1.0 / 13.0,
        -1.0 / 15.0,
        1.0 / 17.0,
        -1.0 / 19.0,
    ];
    let (magnitude, one) = (x.abs(), V::splat(1.0));
    let (large, middle) = (magnitude.gt(V::splat(TAN_3_PI_8)), magnitude.gt(V::splat(TAN_PI_8)));
    let offset = V::select(large, V::splat(FRAC_PI_2), V::splat(FRAC_PI_4));
    let offset = V::select(middle, offset, V::splat(0.0));
    // One division for both ranges; it is exact where the quotient is not used.
    let numerator = V::select(large, V::splat(-1.0), magnitude - one);
    let denominator = V::select(large, magnitude, magnitude + one);
    let reduced = V::select(middle, numerator / denominator, magnitude);
    reduced.mul_add(polynomial(reduced * reduced, SERIES), offset).copysign(x)
}
