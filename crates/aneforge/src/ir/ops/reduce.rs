//! Reductions over any axes, which stay with size one: a row each.
//!
//! Sums are taken in single precision: within the reduced elements in row-major order, element `i` goes
//! to lane `i % 16`, and the lanes are added as a tree.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::reduce::Reduction;
use aneforge_tensor::Shape;

/// Which axes are reduced, or why these are not axes of `shape`.
pub(crate) fn axis_mask(shape: Shape, axes: &[i64]) -> Result<Vec<bool>, String> {
    let mut mask = vec![false; shape.rank()];
    for &axis in axes {
        let at = shape.axis(axis).map_err(|e| e.to_string())?;
        if std::mem::replace(&mut mask[at], true) {
            return Err(format!("axis {axis} is named twice in {axes:?}"));
        }
    }
    Ok(mask)
}

/// `shape` with the masked axes of size one.
fn reduced(shape: Shape, mask: &[bool]) -> Shape {
    (0..shape.rank()).filter(|&a| mask[a]).fold(shape, |s, axis| s.with(axis, 1))
}

/// Valid axes as a set of bits, with axis 0 as the lowest.
pub(crate) fn axis_bits(shape: Shape, axes: &[i64]) -> u32 {
    axes.iter().map(|&a| 1 << shape.axis(a).expect("invariant: inferred")).sum()
}

/// Calls `f` with the reduced elements of each output, in row-major order.
pub(crate) fn groups(x: &Array, mask: &[bool], mut f: impl FnMut(&[f64]) -> f64) -> Array {
    let out = reduced(x.shape, mask);
    let (strides, extents) = (x.shape.strides(), x.shape.dims());
    let inner =
        Shape::new(&extents.iter().zip(mask).map(|(&d, &m)| if m { d } else { 1 }).collect::<Vec<_>>());
    let inner = inner.expect("invariant: no larger than the shape itself");
    let offset = |shape: Shape, index: usize| -> usize {
        let steps = shape.strides();
        (0..shape.rank()).map(|a| index / steps[a] % shape[a] * strides[a]).sum()
    };
    let places: Vec<usize> = (0..inner.count()).map(|i| offset(inner, i)).collect();
    let mut elements = vec![0.0; places.len()];
    Array::from_fn(out, |i| {
        let start = offset(out, i);
        for (e, place) in elements.iter_mut().zip(&places) {
            *e = x.data[start + place];
        }
        f(&elements)
    })
}

/// `dy`, whose reduced axes have size one, repeated to `x`'s shape.
pub(crate) fn spread(dy: &Var, x: &Var) -> Var {
    let shape = (0..x.shape().rank())
        .filter(|&axis| dy.shape()[axis] == x.shape()[axis])
        .fold(x.shape(), |s, axis| s.with(axis, 1));
    if shape.count() == 1 { dy.clone() } else { dy * Var::full(shape, 1.0) }
}

macro_rules! reduce {
    ($( $(#[doc = $doc:literal])* $Op:ident $method:ident $name:literal by $kernel:ident on $domain:expr, $tolerance:ident $({ $($facts:tt)* })?;
        value = |$p:ident, $e:ident| $value:expr; vjp = $vjp:expr; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name as $method ("x") {
            /// The axes reduced; negative ones count from the last.
            axes: Vec<i64> as axes,
        } }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                half_only(&x[0])?;
                Ok(TensorType::f16(reduced(x[0].shape, &axis_mask(x[0].shape, &self.axes)?)))
            }
            fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
                Form::Reduce(Reduction::$kernel, axis_bits(x[0].shape, &self.axes))
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts { $($($facts)*,)? ..Facts::ANY }
            }
            fn eval(&self, x: &[&Array], _: &TensorType, $p: Precision) -> Array {
                let mask = axis_mask(x[0].shape, &self.axes).expect("invariant: inferred");
                groups(x[0], &mask, |$e| $p.store($value))
            }
            fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                let rule: fn(&$Op, &Var, &Var, &Var) -> Var = $vjp;
                vec![Grad::To(rule(self, &x[0], y, dy))]
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling {
                    op: $name,
                    args: &[
                        ("axes", Arg::Named("axes", Lit::Ints)),
                        ("keep_dims", Arg::NamedFixed(Fixed::Bool(true))),
                        ("x", Arg::In(0)),
                    ],
                })
            }
            fn cases() -> Vec<Case> {
                let on = |axes: &[i64], x: &[usize]| {
                    Case::new($Op { axes: axes.to_vec() }, &[x], $domain, Tolerance::$tolerance)
                };
                vec![
                    on(&[1], &[2, 5]),
                    on(&[2, 3], &[1, 3, 4, 6]),
                    on(&[0, 2], &[3, 2, 7]),
                    on(&[0], &[37]),
                    on(&[1, 4], &[2, 3, 1, 2, 3]),
                ]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, axes: &[i64]) -> Var {
                let rank = self.shape().rank() as i64;
                // MIL takes axes from the first; those out of range stay for the check to name.
                let from_first = |&a: &i64| if (-rank..0).contains(&a) { a + rank } else { a };
                Var::apply($Op { axes: axes.iter().map(from_first).collect() }, &[self])
            }
        }
    )* };
}

/// Sends the cotangent to the elements that equal the extremum, in equal shares.
fn to_extremum(axes: &[i64], x: &Var, y: &Var, dy: &Var) -> Var {
    let hit = x.equal(y).select(&Var::from(1.0), &Var::from(0.0));
    &hit * (dy / hit.sum(axes))
}

fn max_of(e: &[f64]) -> f64 {
    e.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

reduce! {
    /// The mean over `axes`.
    ReduceMean mean "reduce_mean" by Mean on (-4.0, 4.0), SUM;
        value = |p, e| p.divide(p.sum_of(e.iter().copied()), e.len() as f64);
        vjp = |_, x, y, dy| spread(&dy.muls(y.shape().count() as f64 / x.shape().count() as f64), x);
    /// The sum over `axes`.
    ReduceSum sum "reduce_sum" by Sum on (-4.0, 4.0), SUM; value = |p, e| p.sum_of(e.iter().copied());
        vjp = |_, x, _, dy| spread(dy, x);
    /// The greatest element over `axes`.
    ReduceMax amax "reduce_max" by Max on (-4.0, 4.0), EXACT { stays_finite: true }; value = |p, e| max_of(e);
        vjp = |op, x, y, dy| to_extremum(&op.axes, x, y, dy);
    /// The least element over `axes`.
    ReduceMin amin "reduce_min" by Min on (-4.0, 4.0), EXACT { stays_finite: true }; value = |p, e| e.iter().copied().fold(f64::INFINITY, f64::min);
        vjp = |op, x, y, dy| to_extremum(&op.axes, x, y, dy);
    /// The sum of magnitudes over `axes`.
    ReduceL1Norm l1_norm "reduce_l1_norm" by SumAbs on (-4.0, 4.0), SUM { never_negative: true }; value = |p, e| p.sum_of(e.iter().map(|v| v.abs()));
        vjp = |_, x, _, dy| dy * x.sign();
    /// The square root of the sum of squares over `axes`.
    ReduceL2Norm reduce_l2_norm "reduce_l2_norm" by L2Norm on (-4.0, 4.0), SUM { never_negative: true };
        value = |p, e| p.call(p.sum_of(e.iter().map(|v| p.square(*v))), f64::sqrt, f32::sqrt);
        vjp = |_, x, y, dy| dy * (x / y);
    /// The natural logarithm of the sum over `axes`.
    ReduceLogSum log_sum "reduce_log_sum" by LogSum on (0.5, 4.0), SUM;
        value = |p, e| p.call(p.sum_of(e.iter().copied()), f64::ln, aneforge_kernels::math::log);
        vjp = |op, x, _, dy| spread(&(dy / x.sum(&op.axes)), x);
    /// The sum of squares over `axes`.
    ReduceSumSquare sum_square "reduce_sum_square" by SumSquare on (-4.0, 4.0), SUM { never_negative: true };
        value = |p, e| p.sum_of(e.iter().map(|v| p.square(*v))); vjp = |_, x, _, dy| dy * x.muls(2.0);
    /// The natural logarithm of the sum of exponentials over `axes`, without overflow.
    ReduceLogSumExp reduce_log_sum_exp "reduce_log_sum_exp" by LogSumExp on (-4.0, 4.0), SUM;
        value = |p, e| {
            let max = max_of(e);
            if max.is_infinite() {
                return max;
            }
            let sum = p.inner_sum_of(e.iter().map(|v| p.call(v - max, f64::exp, aneforge_kernels::math::exp)));
            max + p.call(sum, f64::ln, aneforge_kernels::math::log)
        };
        vjp = |_, x, y, dy| dy * (x - y).exp();
}
