//! Copies of a tensor side by side.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::Shape;

op! {
    /// `x` repeated along its axes, as a whole: `y[i] = x[i mod d]` per axis of size `d`.
    ///
    /// The engine repeats 2, 3, 4 and 8 times; legalization writes other factors with these, and with
    /// `concat`.
    pub struct Tile = "tile"("x") {
        /// How often each axis repeats, at least once.
        reps: Vec<i64>,
    }
}

impl Tile {
    /// Where each place of the result along `axis` comes from.
    pub(crate) fn places(&self, x: Shape, axis: usize) -> Vec<usize> {
        (0..x[axis] * self.reps[axis] as usize).map(|i| i % x[axis]).collect()
    }
}

/// Copies the elements that one table of places per axis names.
pub(crate) fn picked(x: &Array, out: Shape, tables: &[Vec<usize>]) -> Array {
    let (from, to) = (x.shape.strides(), out.strides());
    Array::from_fn(out, |i| {
        let place = |(axis, table): (usize, &Vec<usize>)| table[i / to[axis] % out[axis]] * from[axis];
        x.data[tables.iter().enumerate().map(place).sum::<usize>()]
    })
}

impl Operator for Tile {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let shape = x[0].shape;
        if self.reps.len() != shape.rank() {
            return Err(format!("reps {:?} need one factor per axis of {shape}", self.reps));
        }
        if self.reps.iter().any(|&r| r < 1) {
            return Err(format!("reps {:?} must be at least 1", self.reps));
        }
        let size = |(&d, &r): (&usize, &i64)| d.checked_mul(usize::try_from(r).ok()?);
        let dims: Option<Vec<usize>> = shape.dims().iter().zip(&self.reps).map(size).collect();
        let dims = dims.ok_or_else(|| format!("reps {:?} of {shape} are too many to count", self.reps))?;
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Repeat(self.reps.iter().map(|&r| r as usize).collect()))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        let tables: Vec<_> = (0..out.shape.rank()).map(|axis| self.places(x[0].shape, axis)).collect();
        picked(x[0], out.shape, &tables)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let shape = x[0].shape();
        let mut dx = dy.clone();
        for (axis, &reps) in self.reps.iter().enumerate().filter(|(_, r)| **r > 1) {
            let after = dx.shape().with(axis, shape[axis]);
            let inner = after.strides()[axis] as i64;
            dx = dx.reshape(&[-1, reps, shape[axis] as i64, inner]).sum(&[1]).reshape_to(after);
        }
        vec![Grad::To(dx)]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "tile",
            args: &[("x", Arg::In(0)), ("reps", Arg::Named("reps", Lit::Ints))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], reps: &[i64]| {
            Case::new(Tile { reps: reps.to_vec() }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[2, 3], &[1, 2]),
            on(&[3], &[4]),
            on(&[1, 2, 3, 2], &[2, 3, 1, 2]),
            on(&[2, 2], &[6, 5]),
            on(&[2, 1, 2, 1, 2], &[2, 2, 2, 2, 2]),
        ]
    }
}

impl Var {
    /// Repeated `reps[axis]` times along every axis.
    #[track_caller]
    pub fn tile(&self, reps: &[usize]) -> Var {
        Var::apply(Tile { reps: reps.iter().map(|&r| r as i64).collect() }, &[self])
    }
}
