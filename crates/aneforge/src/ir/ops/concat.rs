//! Tensors put together, and turned around.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::reduce::{axis_bits, axis_mask};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::Shape;

op! {
    /// Tensors one after another along one axis; their other extents are equal.
    /// In Python, `af.concat([values, values], axis=0)`.
    pub struct Concat = "concat"("values..") {
        /// The axis along which they follow each other.
        axis: i64 as axes = 1,
    }
}

op! {
    /// Tensors of one shape side by side along a new axis.
    /// In Python, `af.stack([values, values], axis=0)`.
    pub struct Stack = "stack"("values..") {
        /// The axis of the result that tells them apart.
        axis: i64 as new_axes = 0,
    }
}

op! {
    /// The elements of some axes in the opposite order.
    pub struct Reverse = "reverse"("x") {
        /// The axes turned around.
        axes: Vec<i64> as axes,
    }
}

/// What `x` hold from `axis` of the result on, in turn.
fn together(x: &[&Array], out: Shape, axis: i64) -> Array {
    let axis = out.axis(axis).expect("invariant: inferred");
    let outer: usize = out.dims()[..axis].iter().product();
    let mut data = Vec::with_capacity(out.count());
    for o in 0..outer {
        for part in x {
            let run = part.shape.count() / outer;
            data.extend_from_slice(&part.data[o * run..(o + 1) * run]);
        }
    }
    Array { shape: out, data }
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
    fn form(&self, _: &[TensorType], out: &TensorType) -> Form {
        Form::Move(Move::Concat(out.shape.axis(self.axis).expect("invariant: inferred")))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        together(x, out.shape, self.axis)
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
        vec![
            on(0, &[&[2, 3], &[1, 3]]),
            on(1, &[&[1, 2, 2, 3], &[1, 1, 2, 3], &[1, 3, 2, 3]]),
            on(0, &[&[3], &[1]]),
            on(4, &[&[2, 1, 2, 1, 2], &[2, 1, 2, 1, 3]]),
        ]
    }
}

impl Operator for Stack {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let shape = x[0].shape;
        for (i, ty) in x.iter().enumerate() {
            half_only(ty)?;
            if ty.shape != shape {
                return Err(format!("value {i} is {}, the first {shape}; all must have one shape", ty.shape));
            }
        }
        let mut dims = shape.dims().to_vec();
        let axis = usize::try_from(self.axis).ok().filter(|&axis| axis <= dims.len());
        let Some(axis) = axis else {
            return Err(format!(
                "axis {} is out of range for a result of rank {}",
                self.axis,
                dims.len() + 1
            ));
        };
        dims.insert(axis, x.len());
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Concat(self.axis as usize))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        together(x, out.shape, self.axis)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let part = |i| dy.narrow(self.axis as usize, i, i + 1).squeeze(&[self.axis]);
        (0..x.len()).map(|i| Grad::To(part(i))).collect()
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "stack",
            args: &[("axis", Arg::Named("axis", Lit::Int32)), ("values", Arg::All)],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |axis: i64, n: usize, shape: &[usize]| {
            Case::new(Stack { axis }, &vec![shape; n], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(0, 2, &[2, 3]), on(2, 3, &[2, 3]), on(1, 2, &[2, 1, 3, 2]), on(0, 4, &[]), on(1, 1, &[3])]
    }
}

impl Operator for Reverse {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        axis_mask(x[0].shape, &self.axes)?;
        Ok(x[0])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Reverse(axis_bits(x[0].shape, &self.axes)))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
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
        vec![on(&[2, 3], &[1]), on(&[2, 3, 4], &[0, 2]), on(&[5], &[0]), on(&[1, 2, 2, 3, 2], &[1, 3, 4])]
    }
}

impl Var {
    /// `values` one after another along `axis`.
    #[track_caller]
    pub fn concat(values: &[&Var], axis: i64) -> Var {
        let axis = values.first().and_then(|v| v.shape().axis(axis).ok()).map_or(axis, |at| at as i64);
        Var::apply(Concat { axis }, values)
    }

    /// `values` of one shape side by side along a new axis, which becomes `axis` of the result.
    #[track_caller]
    pub fn stack(values: &[&Var], axis: i64) -> Var {
        let rank = values.first().map_or(0, |v| v.shape().rank()) as i64 + 1;
        let axis = if (-rank..0).contains(&axis) { axis + rank } else { axis };
        Var::apply(Stack { axis }, values)
    }

    /// The elements of `axes` in the opposite order.
    #[track_caller]
    pub fn reverse(&self, axes: &[i64]) -> Var {
        let axis = |&p: &i64| self.shape().axis(p).map_or(p, |at| at as i64);
        Var::apply(Reverse { axes: axes.iter().map(axis).collect() }, &[self])
    }
}

/// One array of several, which are at least one.
pub(crate) fn joined(parts: &[Var], axis: i64) -> Var {
    match parts {
        [one] => one.clone(),
        _ => Var::concat(&parts.iter().collect::<Vec<_>>(), axis),
    }
}
