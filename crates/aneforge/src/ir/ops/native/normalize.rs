//! Normalisations that are layers.

use crate::ir::attr::Real;
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{one_image, result, through, written};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Layer, Symbol, half_bits};

op! {
    /// `(x - min) / (max - min + eps)` over each row, or each column, of every channel.
    ///
    /// `x` is `[1, C, H, W]`. Every step of the formula rounds; a constant row gives 0. Compiling writes it
    /// with other ops, which need no cut, unless native layers are asked for.
    pub struct MinmaxNorm = "minmax_norm"("x") {
        /// `Width` for rows, `Height` for columns.
        dimension: String = String::from("Width"),
        /// Added to the range.
        eps: Real = Real(1e-4),
    }
}

const WRITE: Decompose = |op, x| {
    let Op::MinmaxNorm(MinmaxNorm { dimension, eps }) = op else { unreachable!("called on its own op") };
    let axis = if dimension == "Height" { 2 } else { 3 };
    let least = x[0].amin(&[axis]);
    (&x[0] - &least) / (x[0].amax(&[axis]) - &least).adds(eps.0)
};

impl Operator for MinmaxNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        one_image(&x[0])?;
        if !matches!(self.dimension.as_str(), "Width" | "Height") {
            return Err(format!(
                "dimension must be \"Width\" or \"Height\", got {:?}; the layer takes no other",
                self.dimension
            ));
        }
        Ok(x[0])
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        written(self.clone(), WRITE, x, p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(self.clone(), WRITE, x, dy)
    }
    fn mil() -> Mil {
        let layer = |op: &Op, x: &[TensorType]| {
            let Op::MinmaxNorm(norm) = op else { unreachable!("called on its own op") };
            let extents = one_image(&x[0]).expect("invariant: inferred");
            let params = [("Dimension", norm.dimension.as_str().into()), ("Epsilon", half_bits(norm.eps.0))];
            Layer::new("MinMaxNormalization", params, [Symbol::dense("x", extents)], result(extents))
        };
        Mil::Native(Native { layer, fused: Some(WRITE), route: |_, _| true })
    }
    fn cases() -> Vec<Case> {
        let tolerance = Tolerance { ulp: 4.0, absolute: 2e-3, reason: "each step rounds, and one cancels" };
        let on = |x: &[usize], dimension: &str, eps: f64| {
            let op = MinmaxNorm { dimension: dimension.into(), eps: Real(eps) };
            Case::new(op, &[x], (-3.0, 3.0), tolerance)
        };
        vec![
            on(&[1, 2, 3, 8], "Width", 1e-4),
            on(&[1, 3, 7, 2], "Height", 1e-4),
            on(&[1, 1, 2, 5], "Width", 0.25),
        ]
    }
}

impl Var {
    /// Every row (`Width`) or column (`Height`) of an image scaled to 0 to 1.
    #[track_caller]
    pub fn minmax_norm(&self, dimension: &str, eps: f64) -> Var {
        Var::apply(MinmaxNorm { dimension: dimension.into(), eps: Real(eps) }, &[self])
    }
}
