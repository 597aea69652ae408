//! Normalisations that are layers.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{one_image, result, through, written};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Layer, Symbol, Value, half_bits};

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

/// The most channels that the layer's window takes; 16 fail in the engine's compiler (ANEForge 0.4.0).
pub const MOST_CHANNELS: usize = 15;

op! {
    /// `x / (k + alpha * sum of x^2 over neighbouring channels)^beta`, with as many neighbours as channels.
    ///
    /// `x` is `[1, C, H, W]` with at most 15 channels. The neighbours of channel `c` are `c - (C-1)/2` to
    /// `c + C/2`, rounded down, as far as they exist. `alpha` is not divided by their number, as it is in
    /// `local_response_norm`, whose arithmetic this is. Compiling writes it as that op, which needs no cut,
    /// unless native layers are asked for.
    pub struct Lrn = "lrn"("x") {
        /// The weight of the sum of squares.
        alpha: Real = Real(1.0),
        /// The power.
        beta: Real = Real(0.75),
        /// The summand.
        k: Real = Real(1.0),
    }
}

const RESPONSE: Decompose = |op, x| {
    let Op::Lrn(lrn) = op else { unreachable!("called on its own op") };
    let channels = x[0].shape()[1];
    x[0].local_response_norm(channels, lrn.alpha.0 * channels as f64, lrn.beta.0, lrn.k.0)
};

impl Operator for Lrn {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let [_, channels, ..] = one_image(&x[0])?;
        if channels > MOST_CHANNELS {
            return Err(format!(
                "{channels} channels are above the {MOST_CHANNELS} that the layer takes; use local_response_norm"
            ));
        }
        [Real(self.alpha.0 * channels as f64), self.beta, self.k].into_iter().try_for_each(Real::check)?;
        Ok(x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Opaque("a sum over neighbouring channels, and a power")
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        written(self.clone(), RESPONSE, x, p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(self.clone(), RESPONSE, x, dy)
    }
    fn mil() -> Mil {
        let layer = |op: &Op, x: &[TensorType]| {
            let Op::Lrn(lrn) = op else { unreachable!("called on its own op") };
            let extents = one_image(&x[0]).expect("invariant: inferred");
            let channels = extents[1];
            let params = [
                ("Type", "Channel".into()),
                ("KernelWidth", Value::Int(1)),
                ("KernelHeight", Value::Int(1)),
                // Channels beyond the window would pass through unchanged.
                ("KernelChannel", channels.into()),
                // The layer divides by its window's channels.
                ("Alpha", half_bits(lrn.alpha.0 * channels as f64)),
                ("Beta", Value::Real(lrn.beta.0)),
                ("K", Value::Real(lrn.k.0)),
            ];
            Layer::new("LocalResponseNormalization", params, [Symbol::dense("x", extents)], result(extents))
        };
        Mil::Native(Native { layer, written: Some(RESPONSE), route: |_, _| true })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], [alpha, beta, k]: [f64; 3]| {
            let op = Lrn { alpha: Real(alpha), beta: Real(beta), k: Real(k) };
            Case::new(op, &[x], (-3.0, 3.0), Tolerance::FUNCTION)
        };
        vec![
            on(&[1, 6, 2, 3], [1.0, 0.75, 1.0]),
            on(&[1, 3, 1, 4], [0.125, 0.5, 2.0]),
            on(&[1, 15, 2, 1], [0.25, 1.0, 0.5]),
            on(&[1, 1, 2, 2], [1.0, 0.75, 1.0]),
        ]
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
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Opaque("rows scaled by their extremes")
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
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
        Mil::Native(Native { layer, written: Some(WRITE), route: |_, _| true })
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
    /// Divides by a power of the sum of squares of as many neighbouring channels as there are.
    #[track_caller]
    pub fn lrn(&self, alpha: f64, beta: f64, k: f64) -> Var {
        let [alpha, beta, k] = [alpha, beta, k].map(Real);
        Var::apply(Lrn { alpha, beta, k }, &[self])
    }

    /// Every row (`Width`) or column (`Height`) of an image scaled to 0 to 1.
    #[track_caller]
    pub fn minmax_norm(&self, dimension: &str, eps: f64) -> Var {
        Var::apply(MinmaxNorm { dimension: dimension.into(), eps: Real(eps) }, &[self])
    }
}
