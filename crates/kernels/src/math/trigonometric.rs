//! Sine, cosine and arc tangent.

use std::f32::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4};

use super::{polynomial, round_small};

/// `pi/2` as a sum of three `f32`.
const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];

/// `(quadrant, r)` with `x = quadrant * pi/2 + r`, `|r| <= pi/4`, for `|x| <= 2^17`.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let (n, quadrant) = round_small(x * FRAC_2_PI);
    let r = n.mul_add(-HALF_PI[0], x);
    let r = n.mul_add(-HALF_PI[1], r);
    let r = n.mul_add(-HALF_PI[2], r);
    (quadrant, r)
}

/// The sine of `r + quadrant * pi/2`.
#[inline(always)]
fn quadrant_sine(quadrant: i32, r: f32) -> f32 {
    let z = r * r;
    let sine = r * polynomial(z, [1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0]);
    let cosine = polynomial(z, [1.0, -0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0]);
    let value = if quadrant & 1 == 0 { sine } else { cosine };
    if quadrant & 2 == 0 { value } else { -value }
}

/// The sine, for `|x| <= 2^17`. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn sin(x: f32) -> f32 {
    let (quadrant, r) = reduce(x);
    quadrant_sine(quadrant, r)
}

/// The cosine, for `|x| <= 2^17`. 0 ulp.
#[inline(always)]
#[must_use]
pub fn cos(x: f32) -> f32 {
    let (quadrant, r) = reduce(x);
    quadrant_sine(quadrant.wrapping_add(1), r)
}

/// The arc tangent. At most 1 ulp.
#[inline(always)]
#[must_use]
pub fn atan(x: f32) -> f32 {
    const TAN_PI_8: f32 = 0.414_213_57;
    const TAN_3_PI_8: f32 = 2.414_213_7;
    let magnitude = x.abs();
    let (large, middle) = (magnitude > TAN_3_PI_8, magnitude > TAN_PI_8);
    let offset = if large { FRAC_PI_2 } else { FRAC_PI_4 };
    let offset = if middle { offset } else { 0.0 };
    let reduced = if large { -1.0 / magnitude } else { (magnitude - 1.0) / (magnitude + 1.0) };
    let reduced = if middle { reduced } else { magnitude };
    let z = reduced * reduced;
    let series = polynomial(
        z,
        [
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
        ],
    );
    reduced.mul_add(series, offset).copysign(x)
}
