//! What truth values are for: choosing between two inputs.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::binary::{source, unbroadcast};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::DType;

fn truth(x: &TensorType) -> Result<(), String> {
    match x.dtype {
        DType::Bool => Ok(()),
        other => Err(format!("takes bool, got {other}; compare first, as in x.greater(y)")),
    }
}

op! {
    /// Whether `x` does not hold, for each element.
    pub struct LogicalNot = "logical_not"("x") {}
}

impl Operator for LogicalNot {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        truth(&x[0])?;
        Ok(x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Not
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { flat_in: 1, ..Facts::TRUTH }
    }
    fn eval(&self, x: &[&Array], _: &TensorType, _: Precision) -> Array {
        Array::from_fn(x[0].shape, |i| 1.0 - x[0].data[i])
    }
    fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
        vec![Grad::Zero("truth values have no gradient")]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling { op: "logical_not", args: &[("x", Arg::In(0))] })
    }
    fn cases() -> Vec<Case> {
        vec![Case::new(LogicalNot {}, &[&[2, 3]], (-1.0, 1.0), Tolerance::EXACT).dtype(0, DType::Bool)]
    }
}

op! {
    /// `a` where `cond` holds, `b` elsewhere. All three broadcast.
    /// In Python, `af.select(cond, a, b)`.
    pub struct Select = "select"("cond", "a", "b") {}
}

impl Operator for Select {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        truth(&x[0])?;
        half_only(&x[1])?;
        half_only(&x[2])?;
        let shape = x[1].shape.broadcast(x[2].shape).and_then(|s| s.broadcast(x[0].shape));
        Ok(TensorType::f16(shape.map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Select
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { flat_in: 1, ..Facts::MOVED }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        Array::from_fn(out.shape, |i| {
            let at = |x: &Array| x.data[source(x.shape, out.shape, i)];
            if at(x[0]) != 0.0 { at(x[1]) } else { at(x[2]) }
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let zero = Var::from(0.0);
        let grads = [x[0].select(dy, &zero), x[0].select(&zero, dy)];
        let to = grads.into_iter().zip(&x[1..]).map(|(g, x)| Grad::To(unbroadcast(g, x.shape())));
        std::iter::once(Grad::Zero("truth values have no gradient")).chain(to).collect()
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "select",
            args: &[("cond", Arg::In(0)), ("a", Arg::In(1)), ("b", Arg::In(2))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |shapes: &[&[usize]]| {
            Case::new(Select {}, shapes, (-4.0, 4.0), Tolerance::EXACT).dtype(0, DType::Bool)
        };
        vec![on(&[&[2, 3], &[2, 3], &[2, 3]]), on(&[&[2, 1], &[2, 3], &[]]).constants_from(2)]
    }
}

impl Var {
    /// `not self`, for a truth value.
    #[track_caller]
    pub fn logical_not(&self) -> Var {
        Var::apply(LogicalNot {}, &[self])
    }

    /// `a` where this truth value holds, `b` elsewhere.
    #[track_caller]
    pub fn select(&self, a: &Var, b: &Var) -> Var {
        Var::apply(Select {}, &[self, a, b])
    }
}
