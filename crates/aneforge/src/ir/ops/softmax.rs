//! Softmax.

use crate::ir::form::{Facts, Form, Norm};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::reduce::axis_mask;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::math;

op! {
    /// Exponentials along one axis, scaled to sum to one.
    ///
    /// The greatest element of each lane is subtracted first, so no finite input overflows. The sum is
    /// taken in single precision, element `i` in lane `i % 16`; results are rounded once.
    pub struct Softmax = "softmax"("x") {
        /// The axis normalised over; negative counts from the last.
        axis: i64 as axes = -1,
    }
}

impl Operator for Softmax {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        axis_mask(x[0].shape, &[self.axis])?;
        Ok(x[0])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let axis = x[0].shape.axis(self.axis).expect("invariant: inferred");
        Form::Normalise(Norm::Softmax(axis))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { never_negative: true, ..Facts::ANY }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let axis = out.shape.axis(self.axis).expect("invariant: inferred");
        let (size, stride) = (out.shape[axis], out.shape.strides()[axis]);
        let mut result = x[0].clone();
        for start in (0..out.shape.count()).filter(|i| i / stride % size == 0) {
            let lane = || (0..size).map(|k| start + k * stride);
            let max = lane().map(|i| x[0].data[i]).fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> =
                lane().map(|i| p.call(p.difference(x[0].data[i], max), f64::exp, math::exp)).collect();
            let sum = p.inner_sum_of(exps.iter().copied());
            lane().zip(exps).for_each(|(i, e)| result.data[i] = p.store(p.divide(e, sum)));
        }
        result
    }
    fn vjp(&self, _: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(y * (dy - (dy * y).sum(&[self.axis])))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "softmax",
            args: &[("axis", Arg::Named("axis", Lit::Int32)), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |axis: i64, x: &[usize]| Case::new(Softmax { axis }, &[x], (-4.0, 4.0), Tolerance::FUNCTION);
        vec![on(1, &[2, 3]), on(1, &[1, 4, 1, 3]), on(0, &[37])]
    }
}

impl Var {
    /// Exponentials along `axis`, scaled to sum to one.
    #[track_caller]
    pub fn softmax(&self, axis: i64) -> Var {
        // MIL takes the axis from the first; one out of range stays for the check to name.
        let axis = self.shape().axis(axis).map_or(axis, |at| at as i64);
        Var::apply(Softmax { axis }, &[self])
    }
}
