//! Elementwise functions of one input without parameters: a row each.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Fixed, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::map::Unary;
use aneforge_tensor::DType;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, PI};

pub(crate) fn half_only(x: &TensorType) -> Result<(), String> {
    match x.dtype {
        DType::F16 => Ok(()),
        DType::U8 => Err("takes fp16, got uint8; convert the image with image_input or cast first".into()),
        other => Err(format!(
            "takes fp16, got {other}; only select and logical_not take bool: select ones and zeros by it first, \
             in Python with astype(\"fp16\")"
        )),
    }
}

/// Applies a kernel's function, or its exact counterpart, to every element.
pub(crate) fn map(x: &Array, p: Precision, kernel: Unary, exact: impl Fn(f64) -> f64) -> Array {
    Array::from_fn(x.shape, |i| p.store(p.function(kernel, x.data[i], &exact)))
}

/// The same of an op that the engine never meets, as legalization writes it otherwise.
fn map_as_written(x: &Array, p: Precision, kernel: Unary, exact: fn(f64) -> f64) -> Array {
    Array::from_fn(x.shape, |i| p.store(p.call(x.data[i], exact, |v| kernel.eval(v))))
}

/// The error function, to double precision: its series near zero, a continued fraction beyond.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return (FRAC_2_SQRT_PI * sum).copysign(x);
    }
    let mut fraction = 0.0;
    for n in (1..60).rev() {
        fraction = f64::from(n) / 2.0 / (a + fraction);
    }
    (1.0 - (-a * a).exp() / PI.sqrt() / (a + fraction)).copysign(x)
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

fn softplus_of(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The kernel that computes each op: its namesake, but for the engine's own variants.
mod kernel_of {
    pub use aneforge_kernels::map::Unary::*;
    pub use aneforge_kernels::map::Unary::{Round as NativeRound, Softplus as NativeSoftplus};
}

/// Declares a family of unary ops. Each row gives the documentation, the names, the domain of its case,
/// its tolerance, the exact function, the gradient and how it reaches MIL.
macro_rules! unary {
    ($( $(#[doc = $doc:literal])* $Op:ident $method:ident $name:literal on $domain:expr, $tolerance:ident $({ $($facts:tt)* })?;
        exact = $exact:expr; vjp = $vjp:expr; mil = $mil:expr; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x") {} }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                half_only(&x[0])?;
                Ok(x[0])
            }
            fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
                Form::Map(kernel_of::$Op)
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts { $($($facts)*,)? ..Facts::ANY }
            }
            fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
                let exact: fn(f64) -> f64 = $exact;
                match Self::mil() {
                    Mil::Legalized => map_as_written(x[0], p, kernel_of::$Op, exact),
                    _ => map(x[0], p, kernel_of::$Op, exact),
                }
            }
            fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                let rule: fn(&Var, &Var, &Var) -> Grad = $vjp;
                vec![rule(&x[0], y, dy)]
            }
            fn mil() -> Mil {
                $mil
            }
            fn cases() -> Vec<Case> {
                let on = |dims: &[usize]| Case::new($Op {}, &[dims], $domain, Tolerance::$tolerance);
                vec![on(&[2, 3]), on(&[1, 4, 3, 5]), on(&[19]), on(&[2, 1, 3, 1, 2])]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self) -> Var { Var::apply($Op {}, &[self]) }
        }
    )* };
}

/// A statement that takes `x` alone.
const fn plain(op: &'static str) -> Mil {
    Mil::Stmt(Spelling { op, args: &[("x", Arg::In(0))] })
}

const CONSTANT: &str = "piecewise constant";

/// `dy` where `mask` holds, zero elsewhere.
fn keep(mask: &Var, dy: &Var) -> Grad {
    Grad::To(mask.select(dy, &Var::from(0.0)))
}

unary! {
    /// `max(x, 0)`.
    Relu relu "relu" on (-4.0, 4.0), EXACT { stays_finite: true, never_negative: true }; exact = |x| x.max(0.0);
        vjp = |x, _, dy| keep(&x.greater(&Var::from(0.0)), dy); mil = plain("relu");
    /// `x * Phi(x)` with the normal distribution's `Phi`: the exact form, through the error function.
    Gelu gelu "gelu" on (-5.0, 5.0), FUNCTION; exact = |x| x * normal_cdf(x);
        vjp = |x, _, dy| {
            let cdf = x.muls(FRAC_1_SQRT_2).erf().muls(0.5).adds(0.5);
            let density = x.square().muls(-0.5).exp().muls(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            Grad::To(dy * (cdf + x * density))
        };
        mil = Mil::Stmt(Spelling { op: "gelu", args: &[("x", Arg::In(0)), ("mode", Arg::NamedFixed(Fixed::Str("EXACT")))] });
    /// `x * sigmoid(x)`, also called swish.
    Silu silu "silu" on (-5.0, 5.0), FUNCTION; exact = |x| x * sigmoid(x);
        vjp = |x, y, dy| { let s = x.sigmoid(); Grad::To(dy * (&s + y * (1.0 - &s))) }; mil = plain("silu");
    /// The logistic function, `1 / (1 + exp(-x))`.
    Sigmoid sigmoid "sigmoid" on (-5.0, 5.0), FUNCTION { never_negative: true }; exact = sigmoid;
        vjp = |_, y, dy| Grad::To(dy * y * (1.0 - y)); mil = plain("sigmoid");
    /// The hyperbolic tangent.
    Tanh tanh "tanh" on (-3.0, 3.0), FUNCTION; exact = f64::tanh;
        vjp = |_, y, dy| Grad::To(dy * (1.0 - y * y)); mil = plain("tanh");
    /// `e` to the power `x`. Overflows to infinity above 11.09.
    Exp exp "exp" on (-3.0, 3.0), FUNCTION { never_negative: true }; exact = f64::exp;
        vjp = |_, y, dy| Grad::To(dy * y); mil = plain("exp");
    /// Two to the power `x`.
    Exp2 exp2 "exp2" on (-4.0, 4.0), FUNCTION { never_negative: true }; exact = f64::exp2;
        vjp = |_, y, dy| Grad::To(dy * y.muls(LN_2)); mil = plain("exp2");
    /// The square root.
    Sqrt sqrt "sqrt" on (0.1, 4.0), ROUNDED { never_negative: true }; exact = f64::sqrt;
        vjp = |_, y, dy| Grad::To(dy.muls(0.5) / y); mil = plain("sqrt");
    /// The magnitude.
    Abs abs "abs" on (-4.0, 4.0), EXACT { stays_finite: true, never_negative: true }; exact = f64::abs;
        vjp = |x, _, dy| Grad::To(dy * x.sign()); mil = plain("abs");
    /// `x * x`.
    Square square "square" on (-4.0, 4.0), ROUNDED { never_negative: true }; exact = |x| x * x;
        vjp = |x, _, dy| Grad::To(dy * x.muls(2.0)); mil = Mil::Legalized;
    /// The sine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400.
    Sin sin "sin" on (-3.0, 3.0), FUNCTION; exact = f64::sin;
        vjp = |x, _, dy| Grad::To(dy * x.cos()); mil = plain("sin");
    /// The cosine of `x` in radians. Before A15 a polynomial, within 1.5e-3 for magnitudes up to 400.
    Cos cos "cos" on (-3.0, 3.0), FUNCTION; exact = f64::cos;
        vjp = |x, _, dy| Grad::To(dy * x.sin().muls(-1.0)); mil = plain("cos");
    /// The angle in radians whose tangent is `x`.
    Atan atan "atan" on (-4.0, 4.0), FUNCTION; exact = f64::atan;
        vjp = |x, _, dy| Grad::To(dy / x.square().adds(1.0)); mil = plain("atan");
    /// The error function.
    Erf erf "erf" on (-3.0, 3.0), FUNCTION; exact = erf;
        vjp = |x, _, dy| Grad::To(dy * x.square().muls(-1.0).exp().muls(FRAC_2_SQRT_PI)); mil = plain("erf");
    /// `min(max(x, 0), 6)`.
    Relu6 relu6 "relu6" on (-4.0, 10.0), EXACT { stays_finite: true, never_negative: true }; exact = |x| x.clamp(0.0, 6.0);
        vjp = |x, _, dy| match keep(&x.greater(&Var::from(0.0)), dy) {
            Grad::To(dx) => keep(&x.less(&Var::from(6.0)), &dx),
            none => none,
        };
        mil = plain("relu6");
    /// `x / (1 + abs(x))`.
    Softsign softsign "softsign" on (-4.0, 4.0), FUNCTION; exact = |x| x / (1.0 + x.abs());
        vjp = |x, _, dy| Grad::To(dy / x.abs().adds(1.0).square()); mil = plain("softsign");
    /// `ln(1 + exp(x))`. As compiled, off by at most 4.6e-5.
    Softplus softplus "softplus" on (-5.0, 14.0), SPLIT { never_negative: true }; exact = softplus_of;
        vjp = |x, _, dy| Grad::To(dy * x.sigmoid());
        mil = Mil::Legalized;
    /// The engine's own `softplus`, right below 11.09 only: legalization makes it from `softplus`.
    NativeSoftplus native_softplus "native_softplus" on (-5.0, 10.0), FUNCTION { never_negative: true }; exact = softplus_of;
        vjp = |x, _, dy| Grad::To(dy * x.sigmoid()); mil = plain("softplus");
    /// The greatest integer not above `x`.
    Floor floor "floor" on (-4.0, 4.0), EXACT { stays_finite: true, whole: true, flat_in: 1 }; exact = f64::floor; vjp = |_, _, _| Grad::Zero(CONSTANT);
        mil = plain("floor");
    /// The least integer not below `x`.
    Ceil ceil "ceil" on (-4.0, 4.0), EXACT { stays_finite: true, whole: true, flat_in: 1 }; exact = f64::ceil; vjp = |_, _, _| Grad::Zero(CONSTANT);
        mil = plain("ceil");
    /// The nearest integer, ties away from zero.
    Round round "round" on (-4.0, 4.0), EXACT { stays_finite: true, whole: true, flat_in: 1 }; exact = f64::round; vjp = |_, _, _| Grad::Zero(CONSTANT);
        mil = Mil::Legalized;
    /// The engine's own `round`, right for magnitudes below 1024 only: legalization makes it from `round`.
    NativeRound native_round "native_round" on (-4.0, 4.0), EXACT { stays_finite: true, whole: true, flat_in: 1 }; exact = f64::round;
        vjp = |_, _, _| Grad::Zero(CONSTANT); mil = plain("round");
    /// -1, 0 or 1.
    Sign sign "sign" on (-4.0, 4.0), EXACT { stays_finite: true, whole: true, flat_in: 1 }; exact = |x| if x == 0.0 { 0.0 } else { x.signum() };
        vjp = |_, _, _| Grad::Zero(CONSTANT); mil = plain("sign");
}
