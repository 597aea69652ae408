//! The elementary functions over all finite `f16` inputs against `f64`.

use aneforge_kernels::{f16, math};

fn finite() -> impl Iterator<Item = f16> {
    (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite())
}

/// Distance in representable values; infinity is one above the largest.
fn ulps(got: f16, want: f16) -> i32 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0 } else { i32::MAX };
    }
    let key = |x: f16| {
        let magnitude = i32::from(x.to_bits() & 0x7fff);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    (key(got) - key(want)).abs()
}

#[track_caller]
fn check(name: &str, limit: i32, function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) {
    let mut worst = (0, 0.0);
    let mut wrong = 0;
    for x in finite() {
        let distance = ulps(f16::from_f32(function(x.to_f32())), f16::from_f64(exact(x.to_f64())));
        wrong += usize::from(distance > 0);
        if distance > worst.0 {
            worst = (distance, x.to_f64());
        }
    }
    println!("{name}: at most {} ulp, at {}; {wrong} inputs not correctly rounded", worst.0, worst.1);
    assert!(worst.0 <= limit, "{name}: {} ulp at {}", worst.0, worst.1);
}

/// `erfc` of `z >= 0`: series below 2.5, continued fraction above.
fn erfc(z: f64) -> f64 {
    if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = 0.0;
    for n in (1..=60).rev() {
        fraction = f64::from(n) / 2.0 / (z + fraction);
    }
    (-z * z).exp() / (z + fraction) / std::f64::consts::PI.sqrt()
}

fn erf(x: f64) -> f64 {
    let z = x.abs();
    // The series of `erfc` cancels where `erf` is small, so sum it directly.
    let value =
        if z < 1.0e-3 { std::f64::consts::FRAC_2_SQRT_PI * (z - z * z * z / 3.0) } else { 1.0 - erfc(z) };
    value.copysign(x)
}

fn gelu(x: f64) -> f64 {
    let tail = 0.5 * erfc(x.abs() * std::f64::consts::FRAC_1_SQRT_2);
    x * if x > 0.0 { 1.0 - tail } else { tail }
}

#[test]
fn functions_are_within_one_ulp_of_the_rounded_exact_value() {
    check("exp", 1, math::exp, f64::exp);
    check("exp2", 1, math::exp2, f64::exp2);
    check("exp_m1", 1, math::exp_m1, f64::exp_m1);
    check("log", 1, math::log, f64::ln);
    check("log2", 1, math::log2, f64::log2);
    check("log_1p", 1, math::log_1p, f64::ln_1p);
    check("sigmoid", 1, math::sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
    check("silu", 1, math::silu, |x| x / (1.0 + (-x).exp()));
    check("softplus", 1, math::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p());
    check("tanh", 1, math::tanh, f64::tanh);
    check("erf", 1, math::erf, erf);
    check("gelu", 1, math::gelu, gelu);
    check("sin", 1, math::sin, f64::sin);
    check("cos", 1, math::cos, f64::cos);
    check("atan", 1, math::atan, f64::atan);
    check("sqrt", 1, math::sqrt, f64::sqrt);
    check("rsqrt", 1, math::rsqrt, |x| 1.0 / x.sqrt());
}

#[test]
fn powers_are_within_one_ulp() {
    for exponent in [-2.0, -0.5, 0.0, 0.3, 0.5, 1.0, 2.0, 3.0, 7.0, 1000.0] {
        check(&format!("pow(x, {exponent})"), 1, |x| math::pow(x, exponent as f32), |x| x.powf(exponent));
    }
    for base in [-2.0_f64, -1.0, 0.0, 0.5, 0.9990234375, 1.0, 1.0009765625, 10.0] {
        check(&format!("pow({base}, x)"), 1, |x| math::pow(base as f32, x), |x| base.powf(x));
    }
}

#[test]
fn special_values_are_those_of_ieee() {
    let inf = f32::INFINITY;
    assert_eq!((math::exp(inf), math::exp(-inf)), (inf, 0.0));
    assert_eq!((math::log(0.0), math::log(inf)), (-inf, inf));
    assert!(math::log(-1.0).is_nan() && math::sqrt(-1.0).is_nan());
    assert_eq!((math::tanh(inf), math::tanh(-inf)), (1.0, -1.0));
    assert_eq!((math::sigmoid(inf), math::sigmoid(-inf)), (1.0, 0.0));
    assert_eq!((math::erf(inf), math::erf(-inf)), (1.0, -1.0));
    assert_eq!(math::softplus(inf), inf);
    assert_eq!(math::atan(inf), std::f32::consts::FRAC_PI_2);
    assert_eq!((math::pow(-0.0, -1.0), math::pow(-0.0, 3.0).to_bits()), (-inf, (-0.0_f32).to_bits()));
    assert_eq!((math::pow(f32::NAN, 0.0), math::pow(1.0, f32::NAN), math::pow(-1.0, inf)), (1.0, 1.0, 1.0));
    for function in [math::exp, math::exp2, math::log, math::tanh, math::sigmoid, math::erf, math::gelu] {
        assert!(function(f32::NAN).is_nan());
    }
    for function in [math::silu, math::softplus, math::sin, math::cos, math::atan, math::exp_m1] {
        assert!(function(f32::NAN).is_nan());
    }
}
