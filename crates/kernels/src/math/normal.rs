//! The error function and the Gaussian error linear unit.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::exponential::exp;
use super::polynomial;
use crate::simd::Real;

/// `erfc(z) = t e^(-z^2 + P(t))`, `t = 1/(1 + z/2)`, for `z >= 0`; relative error of the fit below 6e-8 up to
/// `z = 10`. Chebyshev interpolation of degree 9 on `t` in `[0.16, 1]`.
const ERFC: [f32; 10] = [
    -1.265_459_5,
    0.998_868_4,
    0.384_606_37,
    0.044_362_343,
    -0.027_512_09,
    -0.025_994_685,
    -0.761_984_2,
    1.206_169_5,
    -0.701_848_3,
    0.148_791_15,
];

/// `(-1)^n / (n! (2n+1))`.
const ERF: [f32; 10] = [
    1.0,
    -1.0 / 3.0,
    1.0 / 10.0,
    -1.0 / 42.0,
    1.0 / 216.0,
    -1.0 / 1320.0,
    1.0 / 9360.0,
    -1.0 / 75_600.0,
    1.0 / 685_440.0,
    -1.0 / 6_894_720.0,
];

/// `erfc(z)` for `z >= 0`, relatively accurate.
#[inline(always)]
fn erfc<V: Real>(z: V) -> V {
    let t = V::splat(1.0) / V::splat(0.5).mul_add(z, V::splat(1.0));
    t * exp(z.mul_add(z.neg(), polynomial(t, ERFC)))
}

#[inline(always)]
pub(crate) fn erf<V: Real>(x: V) -> V {
    let z = x.abs();
    let near = z * V::splat(FRAC_2_SQRT_PI) * polynomial(z * z, ERF);
    let far = V::splat(1.0) - erfc(z);
    V::select(z.lt(V::splat(1.0)), near, far).copysign(x)
}

#[inline(always)]
pub(crate) fn gelu<V: Real>(x: V) -> V {
    let tail = V::splat(0.5) * erfc(x.abs() * V::splat(FRAC_1_SQRT_2));
    x * V::select(x.gt(V::splat(0.0)), V::splat(1.0) - tail, tail)
}
