//! Elementwise functions of one input with scalar parameters: a row each.
//!
//! Parameters are rounded to half precision when the program is emitted, so 1e-8 becomes 0.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::{half_only, map};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::round_f16;

/// The kernel that computes each op: its namesake, but for three.
mod kernel_of {
    pub use aneforge_kernels::map::Unary::*;
    pub use aneforge_kernels::map::Unary::{
        AddScalar as Adds, Linear as LinearActivation, MulScalar as Muls,
    };
}

/// Declares a family of ops with real parameters. A row gives documentation, names, parameters with
/// defaults, the domain of its case and its tolerance, the exact function, the gradient and the MIL
/// arguments.
macro_rules! scalar {
    ($( $(#[doc = $doc:literal])* $Op:ident $name:literal
        { $( $(#[doc = $attr_doc:literal])* $attr:ident $(= $default:expr)? ),* }
        on $domain:expr, $tolerance:ident $({ $($facts:tt)* })?, $example:tt;
        exact = |$x:ident| $exact:expr; vjp = $vjp:expr; mil = $mil:literal $args:expr; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x") { $( $(#[doc = $attr_doc])* $attr: Real $(= Real($default))? ),* } }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                half_only(&x[0])?;
                $(self.$attr.check()?;)*
                Ok(x[0])
            }
            fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
                $(let $attr = round_f16(self.$attr.0).to_f32();)*
                Form::Map(kernel_of::$Op { $($attr),* })
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts { $($($facts)*,)? ..Facts::ANY }
            }
            fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
                $(let $attr = p.scalar(self.$attr.0);)*
                map(x[0], p, kernel_of::$Op { $($attr: $attr as f32),* }, |$x| $exact)
            }
            fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                let rule: fn(&$Op, &Var, &Var, &Var) -> Var = $vjp;
                vec![Grad::To(rule(self, &x[0], y, dy))]
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling { op: $mil, args: &$args })
            }
            fn cases() -> Vec<Case> {
                let on = |dims: &[usize]| Case::new($Op $example, &[dims], $domain, Tolerance::$tolerance);
                vec![on(&[2, 3]), on(&[1, 4, 3, 5]), on(&[1, 2, 1, 2, 3])]
            }
        }
    )* };
}

/// `alpha, x` and `alpha, beta, x`, as immediates.
const ALPHA: [(&str, Arg); 2] = [("alpha", Arg::Inline("alpha", Lit::Fp16)), ("x", Arg::In(0))];
const ALPHA_BETA: [(&str, Arg); 3] =
    [("alpha", Arg::Inline("alpha", Lit::Fp16)), ("beta", Arg::Inline("beta", Lit::Fp16)), ("x", Arg::In(0))];
const EPSILON: [(&str, Arg); 2] = [("epsilon", Arg::Inline("eps", Lit::Fp16)), ("x", Arg::In(0))];
const K: [(&str, Arg); 2] = [("x", Arg::In(0)), ("y", Arg::Named("k", Lit::Fp16))];

/// `yes` where `x` is at least (or above) `bound`, else `no`.
fn where_at_least(x: &Var, bound: f64, yes: &Var, no: &Var) -> Var {
    x.greater_equal(&Var::from(bound as f32)).select(yes, no)
}
fn where_above(x: &Var, bound: f64, yes: &Var, no: &Var) -> Var {
    x.greater(&Var::from(bound as f32)).select(yes, no)
}
fn zero() -> Var {
    Var::from(0.0)
}

scalar! {
    /// `x * k` with a scalar.
    Muls "muls" { /// The factor.
        k } on (-4.0, 4.0), ROUNDED, { k: Real(0.75) };
        exact = |x| x * k; vjp = |op, _, _, dy| dy.muls(op.k.0); mil = "mul" K;
    /// `x + k` with a scalar.
    Adds "adds" { /// The summand.
        k } on (-4.0, 4.0), ROUNDED, { k: Real(0.75) };
        exact = |x| x + k; vjp = |_, _, _, dy| dy.clone(); mil = "add" K;
    /// `ln(x + eps)`.
    Log "log" { /// Added to `x`; rounded to half precision.
        eps = 0.0 } on (0.1, 4.0), SHIFTED, { eps: Real(0.125) };
        exact = |x| (x + eps).ln(); vjp = |op, x, _, dy| dy / x.adds(op.eps.0); mil = "log" EPSILON;
    /// `1 / sqrt(x + eps)`.
    Rsqrt "rsqrt" { /// Added to `x`; rounded to half precision.
        eps = 0.0 } on (0.1, 4.0), FUNCTION, { eps: Real(0.125) };
        exact = |x| 1.0 / (x + eps).sqrt(); vjp = |_, _, y, dy| (dy * y * y * y).muls(-0.5); mil = "rsqrt" EPSILON;
    /// `1 / (x + eps)`.
    Inverse "inverse" { /// Added to `x`; rounded to half precision.
        eps = 0.0 } on (0.1, 4.0), FUNCTION, { eps: Real(0.125) };
        exact = |x| 1.0 / (x + eps); vjp = |_, _, y, dy| (dy * y * y).muls(-1.0); mil = "inverse" EPSILON;
    /// `x` where it is positive, else `alpha * (exp(x) - 1)`.
    Elu "elu" { /// The limit far below zero, negated.
        alpha = 1.0 } on (-4.0, 4.0), SHIFTED, { alpha: Real(0.5) };
        exact = |x| if x > 0.0 { x } else { alpha * x.exp_m1() };
        vjp = |op, x, y, dy| where_above(x, 0.0, dy, &(dy * y.adds(op.alpha.0))); mil = "elu" ALPHA;
    /// `x` where it is positive, else `alpha * x`.
    LeakyRelu "leaky_relu" { /// The slope below zero.
        alpha = 0.01 } on (-4.0, 4.0), ROUNDED, { alpha: Real(0.125) };
        exact = |x| if x > 0.0 { x } else { alpha * x };
        vjp = |op, x, _, dy| where_above(x, 0.0, dy, &dy.muls(op.alpha.0)); mil = "leaky_relu" ALPHA;
    /// `max(x, alpha)`.
    Threshold "threshold" { /// The lower bound.
        alpha = 0.0 } on (-4.0, 4.0), EXACT, { alpha: Real(0.5) };
        exact = |x| x.max(alpha); vjp = |op, x, _, dy| where_above(x, op.alpha.0, dy, &zero());
        mil = "threshold" ALPHA;
    /// `x` where it is at least `alpha`, else 0.
    ThresholdedRelu "thresholded_relu" { /// The least value kept.
        alpha = 1.0 } on (-4.0, 4.0), EXACT, { alpha: Real(0.5) };
        exact = |x| if x >= alpha { x } else { 0.0 };
        vjp = |op, x, _, dy| where_at_least(x, op.alpha.0, dy, &zero()); mil = "thresholded_relu" ALPHA;
    /// `min(max(x, lo), hi)`.
    Clip "clip" { /// The lower bound.
        lo, /// The upper bound.
        hi } on (-2.0, 2.0), EXACT { stays_finite: true }, { lo: Real(-0.5), hi: Real(0.75) };
        exact = |x| x.max(lo).min(hi);
        vjp = |op, x, _, dy| {
            let low = where_at_least(x, op.lo.0, dy, &zero());
            where_above(x, op.hi.0, &zero(), &low)
        };
        mil = "clip" [("alpha", Arg::Inline("lo", Lit::Fp16)), ("beta", Arg::Inline("hi", Lit::Fp16)), ("x", Arg::In(0))];
    /// `alpha * tanh(beta * x)`.
    ScaledTanh "scaled_tanh" { /// The bound of the result.
        alpha = 1.0, /// The factor of the argument.
        beta = 1.0 } on (-3.0, 3.0), FUNCTION, { alpha: Real(1.5), beta: Real(0.5) };
        exact = |x| alpha * (beta * x).tanh();
        vjp = |op, x, _, dy| {
            let t = x.muls(op.beta.0).tanh();
            (dy * (1.0 - &t * &t)).muls(op.alpha.0 * op.beta.0)
        };
        mil = "scaled_tanh" ALPHA_BETA;
    /// `min(x, beta)` where `x` is not negative, else `min(alpha * x, beta)`.
    ClampedRelu "clamped_relu" { /// The slope below zero.
        alpha = 0.0, /// The upper bound.
        beta = 6.0 } on (-4.0, 8.0), ROUNDED, { alpha: Real(0.25), beta: Real(6.0) };
        exact = |x| if x >= 0.0 { x.min(beta) } else { (alpha * x).min(beta) };
        vjp = |op, x, y, dy| {
            let slope = where_at_least(x, 0.0, dy, &dy.muls(op.alpha.0));
            where_at_least(y, op.beta.0, &zero(), &slope)
        };
        mil = "clamped_relu" ALPHA_BETA;
    /// `min(max(alpha * x + beta, 0), 1)`, a sigmoid made of straight lines.
    SigmoidHard "sigmoid_hard" { /// The slope.
        alpha = 0.2, /// The value at zero.
        beta = 0.5 } on (-4.0, 4.0), SHIFTED, { alpha: Real(0.25), beta: Real(0.5) };
        exact = |x| (alpha * x + beta).clamp(0.0, 1.0);
        vjp = |op, _, y, dy| {
            let rising = where_above(y, 0.0, &dy.muls(op.alpha.0), &zero());
            where_at_least(y, 1.0, &zero(), &rising)
        };
        mil = "sigmoid_hard" ALPHA_BETA;
    /// `alpha * x + beta`, rounded once.
    LinearActivation "linear_activation" { /// The slope.
        alpha = 1.0, /// The value at zero.
        beta = 0.0 } on (-4.0, 4.0), SHIFTED, { alpha: Real(0.75), beta: Real(0.5) };
        exact = |x| alpha * x + beta; vjp = |op, _, _, dy| dy.muls(op.alpha.0); mil = "linear_activation" ALPHA_BETA;
}

macro_rules! methods {
    ($( $(#[doc = $doc:literal])* $method:ident($($attr:ident),*) $Op:ident; )*) => {
        impl Var { $(
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, $($attr: f64),*) -> Var {
                Var::apply($Op { $($attr: Real($attr)),* }, &[self])
            }
        )* }
    };
}
methods! {
    /// `ln(x + eps)`.
    log(eps) Log;
    /// `1 / sqrt(x + eps)`.
    rsqrt(eps) Rsqrt;
    /// `1 / (x + eps)`.
    inverse(eps) Inverse;
    /// `x` where it is positive, else `alpha * (exp(x) - 1)`.
    elu(alpha) Elu;
    /// `x` where it is positive, else `alpha * x`.
    leaky_relu(alpha) LeakyRelu;
    /// `max(x, alpha)`.
    threshold(alpha) Threshold;
    /// `x` where it is at least `alpha`, else 0.
    thresholded_relu(alpha) ThresholdedRelu;
    /// `min(max(x, lo), hi)`.
    clip(lo, hi) Clip;
    /// `alpha * tanh(beta * x)`.
    scaled_tanh(alpha, beta) ScaledTanh;
    /// `min(x, beta)` where `x` is not negative, else `min(alpha * x, beta)`.
    clamped_relu(alpha, beta) ClampedRelu;
    /// `min(max(alpha * x + beta, 0), 1)`.
    sigmoid_hard(alpha, beta) SigmoidHard;
    /// `alpha * x + beta`, rounded once.
    linear_activation(alpha, beta) LinearActivation;
}
