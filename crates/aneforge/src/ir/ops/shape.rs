//! Ops that give the same elements another shape or order.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::{Var, dims};
use aneforge_tensor::Shape;

op! {
    /// The same elements, row by row, in another shape.
    /// In Python, `x.reshape(3, -1)`.
    pub struct Reshape = "reshape"("x") {
        /// The new extents, of the same element count.
        shape: Vec<i64>,
    }
}

op! {
    /// Axes in another order: axis `i` of the result is axis `perm[i]` of `x`.
    /// In Python, `x.transpose(1, 0)`.
    pub struct Transpose = "transpose"("x") {
        /// A permutation of the axes.
        perm: Vec<i64> as axes,
    }
}

op! {
    /// Without these axes, which must have size one.
    pub struct Squeeze = "squeeze"("x") {
        /// Axes of `x`.
        axes: Vec<i64> as axes,
    }
}

op! {
    /// With axes of size one at these places of the result.
    pub struct ExpandDims = "expand_dims"("x") {
        /// Axes of the result.
        axes: Vec<i64> as new_axes,
    }
}

op! {
    /// As a matrix: axes before `axis` are rows, the others columns.
    pub struct Flatten2d = "flatten2d"("x") {
        /// The first axis that is part of the columns.
        axis: i64 as axes = 1,
    }
}

/// Copies all elements under a new shape.
fn renamed(x: &Array, out: &TensorType) -> Array {
    Array { shape: out.shape, data: x.data.clone() }
}

impl Operator for Reshape {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let extents: Result<Vec<usize>, _> = self.shape.iter().map(|&d| usize::try_from(d)).collect();
        let extents = extents.map_err(|_| format!("shape {:?} has a negative size", self.shape))?;
        let shape = Shape::new(&extents).map_err(|e| e.to_string())?;
        if shape.count() != x[0].shape.count() {
            return Err(format!(
                "{} has {} elements, {shape} has {}; they must be equal",
                x[0].shape,
                x[0].shape.count(),
                shape.count()
            ));
        }
        Ok(TensorType::f16(shape))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::View
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        renamed(x[0], out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reshape_to(x[0].shape()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "reshape",
            args: &[("shape", Arg::Named("shape", Lit::Ints)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], shape: &[i64]| {
            Case::new(Reshape { shape: shape.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[2, 6], &[3, 4]), on(&[2, 3, 4], &[1, 24])]
    }
}

impl Operator for Transpose {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let rank = x[0].shape.rank();
        let mut seen = vec![false; rank];
        let valid =
            |&p: &i64| usize::try_from(p).is_ok_and(|p| p < rank && !std::mem::replace(&mut seen[p], true));
        if self.perm.len() != rank || !self.perm.iter().all(valid) {
            return Err(format!("perm {:?} is not a permutation of {rank} axes", self.perm));
        }
        let extents: Vec<usize> = self.perm.iter().map(|&p| x[0].shape[p as usize]).collect();
        Ok(TensorType::f16(Shape::new(&extents).map_err(|e| e.to_string())?))
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let perm = self.perm.iter().map(|&p| p as usize).collect();
        Form::Move(Move::Transpose { extents: x[0].shape.dims().into(), perm })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        let (from, to) = (x[0].shape.strides(), out.shape.strides());
        Array::from_fn(out.shape, |i| {
            let place = |(a, &p): (usize, &i64)| i / to[a] % out.shape[a] * from[p as usize];
            x[0].data[self.perm.iter().enumerate().map(place).sum::<usize>()]
        })
    }
    fn vjp(&self, _: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let mut inverse = vec![0; self.perm.len()];
        for (i, &p) in self.perm.iter().enumerate() {
            inverse[p as usize] = i as i64;
        }
        vec![Grad::To(dy.transpose(&inverse))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "transpose",
            args: &[("perm", Arg::Named("perm", Lit::Ints)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], perm: &[i64]| {
            Case::new(Transpose { perm: perm.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[2, 3], &[1, 0]),
            on(&[2, 3, 4], &[1, 0, 2]),
            on(&[2, 3, 4, 5], &[0, 3, 1, 2]),
            on(&[2, 1, 3, 2, 2], &[4, 2, 0, 3, 1]),
        ]
    }
}

impl Operator for Squeeze {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let mask = crate::ir::ops::reduce::axis_mask(x[0].shape, &self.axes)?;
        if let Some(axis) = (0..mask.len()).find(|&a| mask[a] && x[0].shape[a] != 1) {
            return Err(format!("axis {axis} of {} has size {}, not 1", x[0].shape, x[0].shape[axis]));
        }
        let kept: Vec<usize> = (0..mask.len()).filter(|&a| !mask[a]).map(|a| x[0].shape[a]).collect();
        Ok(TensorType::f16(Shape::new(&kept).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::View
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        renamed(x[0], out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reshape_to(x[0].shape()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "squeeze",
            args: &[("axes", Arg::Named("axes", Lit::Ints)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], axes: &[i64]| {
            Case::new(Squeeze { axes: axes.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[1, 3], &[0]), on(&[2, 1, 4, 1], &[1, 3])]
    }
}

impl Operator for ExpandDims {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let rank = x[0].shape.rank() + self.axes.len();
        let ones = Shape::new(&vec![1; rank]).map_err(|e| e.to_string())?;
        let mask = crate::ir::ops::reduce::axis_mask(ones, &self.axes)?;
        let mut kept = x[0].shape.dims().iter();
        let extents: Vec<usize> = mask
            .iter()
            .map(|&new| if new { 1 } else { *kept.next().expect("invariant: one axis each") })
            .collect();
        Ok(TensorType::f16(Shape::new(&extents).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::View
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        renamed(x[0], out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reshape_to(x[0].shape()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "expand_dims",
            args: &[("axes", Arg::Named("axes", Lit::Ints)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], axes: &[i64]| {
            Case::new(ExpandDims { axes: axes.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[2, 3], &[0]), on(&[2, 3], &[1, 3])]
    }
}

impl Operator for Flatten2d {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let axis = x[0].shape.axis(self.axis).map_err(|e| e.to_string())?;
        let (rows, columns) = x[0].shape.dims().split_at(axis);
        let shape = Shape::new(&[rows.iter().product(), columns.iter().product()]);
        Ok(TensorType::f16(shape.map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::View
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        renamed(x[0], out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reshape_to(x[0].shape()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "flatten2d",
            args: &[("axis", Arg::Named("axis", Lit::Int32)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], axis: i64| Case::new(Flatten2d { axis }, &[x], (-4.0, 4.0), Tolerance::EXACT);
        vec![on(&[2, 3, 4], 1), on(&[2, 3, 2, 2], 2)]
    }
}

impl Var {
    /// The same elements in this shape. One size may be -1: it becomes what the element count leaves.
    #[track_caller]
    pub fn reshape(&self, shape: &[i64]) -> Var {
        let mut shape = shape.to_vec();
        let known: i64 = shape.iter().filter(|&&d| d != -1).fold(1, |n, &d| n.saturating_mul(d));
        if shape.iter().filter(|&&d| d == -1).count() == 1 && known > 0 {
            let free = shape.iter().position(|&d| d == -1).expect("invariant: counted one");
            shape[free] = self.shape().count() as i64 / known;
        }
        Var::apply(Reshape { shape }, &[self])
    }

    /// The same elements in this shape.
    #[track_caller]
    pub fn reshape_to(&self, shape: Shape) -> Var {
        Var::apply(Reshape { shape: dims(shape) }, &[self])
    }

    /// Axes in another order; negative ones count from the last.
    #[track_caller]
    pub fn transpose(&self, perm: &[i64]) -> Var {
        let axis = |&p: &i64| self.shape().axis(p).map_or(p, |at| at as i64);
        Var::apply(Transpose { perm: perm.iter().map(axis).collect() }, &[self])
    }

    /// Without these axes of size one.
    #[track_caller]
    pub fn squeeze(&self, axes: &[i64]) -> Var {
        let axis = |&p: &i64| self.shape().axis(p).map_or(p, |at| at as i64);
        Var::apply(Squeeze { axes: axes.iter().map(axis).collect() }, &[self])
    }

    /// With axes of size one at these places of the result.
    #[track_caller]
    pub fn expand_dims(&self, axes: &[i64]) -> Var {
        let rank = (self.shape().rank() + axes.len()) as i64;
        let axis = |&p: &i64| if (-rank..0).contains(&p) { p + rank } else { p };
        Var::apply(ExpandDims { axes: axes.iter().map(axis).collect() }, &[self])
    }

    /// As a matrix, with axes before `axis` as rows.
    #[track_caller]
    pub fn flatten2d(&self, axis: i64) -> Var {
        let axis = self.shape().axis(axis).map_or(axis, |at| at as i64);
        Var::apply(Flatten2d { axis }, &[self])
    }
}
