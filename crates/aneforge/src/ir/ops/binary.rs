//! Elementwise functions of two inputs, which broadcast by NumPy's rule: a row each.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::map::Binary;
use aneforge_tensor::Shape;
use std::ops;

pub(crate) fn broadcast_type(x: &[TensorType]) -> Result<TensorType, String> {
    half_only(&x[0])?;
    half_only(&x[1])?;
    Ok(TensorType::f16(x[0].shape.broadcast(x[1].shape).map_err(|e| e.to_string())?))
}

/// The element of a `from`-shaped array that row-major element `index` of `to` broadcasts from.
pub(crate) fn source(from: Shape, to: Shape, mut index: usize) -> usize {
    let (mut at, mut stride) = (0, 1);
    for back in 1..=to.rank() {
        let size = to[to.rank() - back];
        let place = index % size;
        index /= size;
        if back <= from.rank() {
            let extent = from[from.rank() - back];
            if extent > 1 {
                at += place * stride;
            }
            stride *= extent;
        }
    }
    at
}

/// Sums `grad` over the axes along which `shape` was broadcast, so that it has that shape again.
pub(crate) fn unbroadcast(grad: Var, shape: Shape) -> Var {
    let from = grad.shape();
    let lead = from.rank() - shape.rank();
    let repeated = |&axis: &usize| axis < lead || (shape[axis - lead] == 1 && from[axis] > 1);
    let axes: Vec<i64> = (0..from.rank()).filter(repeated).map(|a| a as i64).collect();
    let summed = if axes.is_empty() { grad } else { grad.sum(&axes) };
    if summed.shape() == shape { summed } else { summed.reshape_to(shape) }
}

macro_rules! binary {
    ($( $(#[doc = $doc:literal])* $Op:ident $method:ident $name:literal on $domain:expr, $tolerance:ident $({ $($facts:tt)* })?;
        exact = $exact:expr; vjp = $vjp:expr; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x", "y") {} }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                broadcast_type(x)
            }
            fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
                Form::Zip(Binary::$Op)
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts { $($($facts)*,)? ..Facts::ANY }
            }
            fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
                let exact: fn(f64, f64) -> f64 = $exact;
                Array::from_fn(out.shape, |i| {
                    let a = x[0].data[source(x[0].shape, out.shape, i)];
                    let b = x[1].data[source(x[1].shape, out.shape, i)];
                    p.store(match p {
                        Precision::F64 => exact(a, b),
                        Precision::F16(_) => f64::from(Binary::$Op.eval(a as f32, b as f32)),
                    })
                })
            }
            fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                let rule: fn(&Var, &Var, &Var, &Var) -> [Var; 2] = $vjp;
                let grads = rule(&x[0], &x[1], y, dy);
                grads.into_iter().zip(x).map(|(g, x)| Grad::To(unbroadcast(g, x.shape()))).collect()
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling { op: $name, args: &[("x", Arg::In(0)), ("y", Arg::In(1))] })
            }
            fn cases() -> Vec<Case> {
                let on = |shapes: &[&[usize]]| Case::new($Op {}, shapes, $domain, Tolerance::$tolerance);
                vec![
                    on(&[&[2, 3], &[2, 3]]),
                    on(&[&[2, 3], &[]]).constants_from(1),
                    on(&[&[1, 4, 3, 5], &[1, 4, 1, 1]]).constants_from(1),
                    on(&[&[2, 1, 3], &[4, 1]]),
                    on(&[&[3], &[2, 2, 3]]),
                    on(&[&[2, 1, 2, 1, 3], &[1, 2, 1, 2, 1]]),
                ]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, other: &Var) -> Var { Var::apply($Op {}, &[self, other]) }
        }
    )* };
}

/// `dy` where the first input decides the result, and where the second does; a tie goes to the first.
fn routed(first: Var, dy: &Var) -> [Var; 2] {
    let zero = Var::from(0.0);
    [first.select(dy, &zero), first.select(&zero, dy)]
}

binary! {
    /// `x + y`.
    /// In Python, `x + y`.
    Add plus "add" on (-4.0, 4.0), ROUNDED; exact = |a, b| a + b; vjp = |_, _, _, dy| [dy.clone(), dy.clone()];
    /// `x - y`.
    /// In Python, `x - y`.
    Sub minus "sub" on (-4.0, 4.0), ROUNDED; exact = |a, b| a - b; vjp = |_, _, _, dy| [dy.clone(), dy.muls(-1.0)];
    /// `x * y`.
    /// In Python, `x * y`.
    Mul times "mul" on (-4.0, 4.0), ROUNDED; exact = |a, b| a * b; vjp = |a, b, _, dy| [dy * b, dy * a];
    /// `x / y`.
    /// In Python, `x / y`.
    RealDiv real_div "real_div" on (0.5, 4.0), ROUNDED; exact = |a, b| a / b;
        vjp = |_, b, y, dy| { let q = dy / b; [q.clone(), (q * y).muls(-1.0)] };
    /// The greater of `x` and `y`.
    /// In Python, `af.maximum(x, y)`.
    Maximum maximum "maximum" on (-4.0, 4.0), EXACT { stays_finite: true }; exact = f64::max; vjp = |a, b, _, dy| routed(a.greater_equal(b), dy);
    /// The lesser of `x` and `y`.
    /// In Python, `af.minimum(x, y)`.
    Minimum minimum "minimum" on (-4.0, 4.0), EXACT { stays_finite: true }; exact = f64::min; vjp = |a, b, _, dy| routed(a.less_equal(b), dy);
    /// `x` to the power `y`, for positive `x`.
    /// In Python, `x**y`.
    Pow pow "pow" on (0.5, 2.0), FUNCTION; exact = f64::powf;
        vjp = |a, b, y, dy| [dy * b * a.pow(&b.adds(-1.0)), dy * y * a.log(0.0)];
}

macro_rules! operators {
    ($($Trait:ident $method:ident, $with:ident, $by:expr, $from:expr;)*) => { $(
        impl ops::$Trait<&Var> for &Var { type Output = Var; #[track_caller] fn $method(self, y: &Var) -> Var { self.$with(y) } }
        impl ops::$Trait<Var> for &Var { type Output = Var; #[track_caller] fn $method(self, y: Var) -> Var { self.$with(&y) } }
        impl ops::$Trait<&Var> for Var { type Output = Var; #[track_caller] fn $method(self, y: &Var) -> Var { self.$with(y) } }
        impl ops::$Trait<Var> for Var { type Output = Var; #[track_caller] fn $method(self, y: Var) -> Var { self.$with(&y) } }
        impl ops::$Trait<f64> for &Var { type Output = Var; #[track_caller] fn $method(self, k: f64) -> Var { let f: fn(&Var, f64) -> Var = $by; f(self, k) } }
        impl ops::$Trait<f64> for Var { type Output = Var; #[track_caller] fn $method(self, k: f64) -> Var { ops::$Trait::$method(&self, k) } }
        impl ops::$Trait<&Var> for f64 { type Output = Var; #[track_caller] fn $method(self, x: &Var) -> Var { let f: fn(f64, &Var) -> Var = $from; f(self, x) } }
        impl ops::$Trait<Var> for f64 { type Output = Var; #[track_caller] fn $method(self, x: Var) -> Var { ops::$Trait::$method(self, &x) } }
    )* };
}
operators! {
    Add add, plus, |x, k| x.adds(k), |k, x| x.adds(k);
    Sub sub, minus, |x, k| x.adds(-k), |k, x| x.muls(-1.0).adds(k);
    Mul mul, times, |x, k| x.muls(k), |k, x| x.muls(k);
    Div div, real_div, |x, k| x.real_div(&Var::full(Shape::SCALAR, k)), |k, x| Var::full(Shape::SCALAR, k).real_div(x);
}

impl ops::Neg for &Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        self.muls(-1.0)
    }
}
impl ops::Neg for Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        self.muls(-1.0)
    }
}
