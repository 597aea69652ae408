//! Tensors put together, and turned around.

use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::reduce::axis_mask;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// Tensors one after another along one axis; their other extents are equal.
    pub struct Concat = "concat"("values..") {
        /// The axis along which they follow each other.
        axis: i64 = 1,
    }
}

op! {
    /// The elements of some axes in the opposite order.
    pub struct Reverse = "reverse"("x") {
        /// The axes turned around.
        axes: Vec<i64>,
    }
}

impl Operator for Concat {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let shape = x[0].shape;
        let axis = shape.axis(self.axis).map_err(|e| e.to_string())?;
        let mut total = 0;
        for (i, ty) in x.iter().enumerate() {
            half_only(ty)?;
            let other = ty.shape;
            if other.rank() != shape.rank() || other.with(axis, 1) != shape.with(axis, 1) {
                return Err(format!("value {i} is {other}, the first {shape}; only axis {axis} may differ"));
            }
            total += other[axis];
        }
        Ok(TensorType::f16(shape.with(axis, total)))
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        let axis = out.shape.axis(self.axis).expect("invariant: inferred");
        let inner = out.shape.strides()[axis];
        let outer = out.shape.count() / (inner * out.shape[axis]);
        let mut data = Vec::with_capacity(out.shape.count());
        for o in 0..outer {
            for part in x {
                let run = part.shape[axis] * inner;
                data.extend_from_slice(&part.data[o * run..(o + 1) * run]);
            }
        }
        Array { shape: out.shape, data }
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        let axis = y.shape().axis(self.axis).expect("invariant: inferred");
        let mut start = 0;
        let mut part = |x: &Var| {
            let end = start + x.shape()[axis];
            let grad = dy.narrow(axis, start, end);
            start = end;
            Grad::To(grad)
        };
        x.iter().map(&mut part).collect()
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "concat",
            args: &[
                ("axis", Arg::Named("axis", Lit::Int32)),
                ("interleave", Arg::NamedFixed(Fixed::Bool(false))),
                ("values", Arg::All),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |axis: i64, shapes: &[&[usize]]| {
            Case::new(Concat { axis }, shapes, (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(0, &[&[2, 3], &[1, 3]]), on(1, &[&[1, 2, 2, 3], &[1, 1, 2, 3], &[1, 3, 2, 3]])]
    }
}

impl Operator for Reverse {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        axis_mask(x[0].shape, &self.axes)?;
        Ok(x[0])
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        let mask = axis_mask(out.shape, &self.axes).expect("invariant: inferred");
        let strides = out.shape.strides();
        Array::from_fn(out.shape, |i| {
            let place = |a: usize| {
                let k = i / strides[a] % out.shape[a];
                (if mask[a] { out.shape[a] - 1 - k } else { k }) * strides[a]
            };
            x[0].data[(0..out.shape.rank()).map(place).sum::<usize>()]
        })
    }
    fn vjp(&self, _: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reverse(&self.axes))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "reverse",
            args: &[("x", Arg::In(0)), ("axes", Arg::Named("axes", Lit::Ints))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], axes: &[i64]| {
            Case::new(Reverse { axes: axes.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[2, 3], &[1]), on(&[2, 3, 4], &[0, 2])]
    }
}

impl Var {
    /// `values` one after another along `axis`.
    #[track_caller]
    pub fn concat(values: &[&Var], axis: i64) -> Var {
        let axis = values.first().and_then(|v| v.shape().axis(axis).ok()).map_or(axis, |at| at as i64);
        Var::apply(Concat { axis }, values)
    }

    /// The elements of `axes` in the opposite order.
    #[track_caller]
    pub fn reverse(&self, axes: &[i64]) -> Var {
        let axis = |&p: &i64| self.shape().axis(p).map_or(p, |at| at as i64);
        Var::apply(Reverse { axes: axes.iter().map(axis).collect() }, &[self])
    }
}
