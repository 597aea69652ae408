//! Two values combined and scaled in one layer.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Layer as Kernel};
use crate::ir::op::{Case, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{of, result, row};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::layers::Combine;
use aneforge_mil::netplist::{Layer, Symbol, half_bits};
use aneforge_tensor::round_f16;

op! {
    /// `scale * (x op z)` of two values with as many elements.
    ///
    /// The result is one line of elements. `op` is `Add`, `Mult`, `Min` or `Max`; the engine ignores the scale
    /// of `Mult`, which must be 1. Computed in single precision and rounded once.
    pub struct ScaledElementwise = "scaled_elementwise"("x", "z") {
        /// What is computed: `Add`, `Mult`, `Min` or `Max`.
        op: String = String::from("Add"),
        /// The factor of the result.
        scale: Real = Real(1.0),
    }
}

impl Operator for ScaledElementwise {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        self.scale.check()?;
        match self.op.as_str() {
            "Add" | "Min" | "Max" => {}
            "Mult" if self.scale.0 == 1.0 => {}
            "Mult" => return Err("the engine ignores the scale of Mult; multiply by it afterwards".into()),
            other => return Err(format!("op must be Add, Mult, Min or Max, got {other:?}; use - for Sub")),
        }
        if x[0].shape.count() != x[1].shape.count() {
            return Err(format!("x and z must have as many elements, got {} and {}", x[0].shape, x[1].shape));
        }
        of(&[x[0].shape.count()])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        let combine = match self.op.as_str() {
            "Add" => Combine::Add,
            "Mult" => Combine::Multiply,
            "Min" => Combine::Minimum,
            _ => Combine::Maximum,
        };
        Form::Layer(Kernel::Scaled(combine, round_f16(self.scale.0)))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let scale = p.scalar(self.scale.0);
        Array::from_fn(out.shape, |i| {
            let (a, b) = (x[0].data[i], x[1].data[i]);
            let value = match self.op.as_str() {
                "Add" => p.call(a + b, |v| v, |v| v),
                "Mult" => a * b,
                "Min" => a.min(b),
                _ => a.max(b),
            };
            p.store(scale * value)
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let line = |v: &Var| v.reshape(&[-1]);
        let (a, b) = (line(&x[0]), line(&x[1]));
        let scaled = dy.muls(self.scale.0);
        // Of equal elements each gets half, as with `minimum` and `maximum`.
        let wins = |a: &Var, b: &Var| (a - b).sign().adds(1.0).muls(0.5);
        let (to_a, to_b) = match self.op.as_str() {
            "Add" => (scaled.clone(), scaled),
            "Mult" => (&scaled * &b, &scaled * &a),
            "Min" => (&scaled * wins(&b, &a), &scaled * wins(&a, &b)),
            _ => (&scaled * wins(&a, &b), &scaled * wins(&b, &a)),
        };
        vec![Grad::To(to_a.reshape_to(x[0].shape())), Grad::To(to_b.reshape_to(x[1].shape()))]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::ScaledElementwise(scaled) = op else { unreachable!("called on its own op") };
            let n = x[0].shape.count();
            let params = [("Type", scaled.op.as_str().into()), ("Scale", half_bits(scaled.scale.0))];
            let feeds = [Symbol::dense("x", row(n)), Symbol::dense("z", row(n))];
            Layer::new("ScaledElementWise", params, feeds, result(row(n)))
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |a: &[usize], b: &[usize], op: &str, scale: f64| {
            let op = ScaledElementwise { op: op.into(), scale: Real(scale) };
            Case::new(op, &[a, b], (-2.0, 2.0), Tolerance::ROUNDED)
        };
        vec![
            on(&[7], &[7], "Add", 0.5),
            on(&[2, 3], &[6], "Mult", 1.0),
            on(&[4], &[2, 2], "Min", 2.0),
            on(&[5], &[5], "Max", -1.5),
        ]
    }
}

impl Var {
    /// `scale * (self op other)`, with `op` one of `Add`, `Mult`, `Min`, `Max`.
    #[track_caller]
    pub fn scaled_elementwise(&self, other: &Var, op: &str, scale: f64) -> Var {
        Var::apply(ScaledElementwise { op: op.into(), scale: Real(scale) }, &[self, other])
    }
}
