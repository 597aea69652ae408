//! Normalisations over the last axis, which the engine runs as chains of simpler ops.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Norm};
use crate::ir::op::{Case, Grad, Mil, Op, Operator, Tolerance};
use crate::ir::ops::reduce::axis_mask;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Tensor};

/// The least positive number of half precision, 2^-24: what an `eps` that would round to 0 becomes, and what keeps a row
/// of equal values from dividing 0 by 0. Its reciprocal root is 4096.
pub(crate) const TINIEST: f64 = 1.0 / (1 << 24) as f64;

/// `eps` as a norm adds it.
pub(crate) fn eps_of(eps: Real, p: Precision) -> f64 {
    match p {
        Precision::F64 => eps.0,
        Precision::F16(_) => p.scalar(eps.0).max(TINIEST),
    }
}

/// The chain rounds after every op, so its error is a few units, and absolute where the mean cancels.
pub(crate) const CHAIN: Tolerance =
    Tolerance { ulp: 8.0, absolute: 4e-3, reason: "each op of the chain rounds" };

op! {
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` over the last axis.
    ///
    /// `x` is `[..., D]`, `gamma` and `beta` `[D]` or `[1, D]`. The variance is the population's. `eps`
    /// is rounded to half precision, to 2^-24 at least. Runs as mean, difference, product, mean,
    /// sum, reciprocal root and products, each rounded; so a difference to the mean above 255 overflows, and values
    /// whose variance is below 2^-24 vanish, unless norms are compiled to be robust.
    /// In Python, `x.layer_norm(gamma, beta)`.
    pub struct LayerNorm = "layer_norm"("x", "gamma", "beta") {
        /// Added to the variance.
        eps: Real = Real(1e-5),
    }
}

op! {
    /// `x / max(|x|, sqrt(D * eps)) * sqrt(D) * gamma` over the last axis, where `|x|` is its length.
    ///
    /// `x` is `[..., D]`, `gamma` `[D]` or `[1, D]`. This is `x / sqrt(mean(x^2)) * gamma` with `eps` as
    /// a floor of the mean square, in the form the engine fuses.
    /// In Python, `x.rms_norm(gamma)`.
    pub struct RmsNorm = "rms_norm"("x", "gamma") {
        /// The floor of the mean square.
        eps: Real = Real(1e-5),
    }
}

op! {
    /// `x / max(|x|, sqrt(eps))`, where `|x|` is the length along one axis.
    pub struct L2Norm = "l2_norm"("x") {
        /// The axis; negative counts from the last.
        axis: i64 as axes = -1,
        /// The floor of the squared length.
        eps: Real = Real(1e-12),
    }
}

/// The least length that rows are divided by.
fn least_length(floor: f64, p: Precision) -> f64 {
    match p {
        Precision::F64 => floor,
        Precision::F16(_) => p.scalar(floor).max(TINIEST),
    }
}

fn last_axis(x: &[TensorType]) -> Result<TensorType, String> {
    for ty in x {
        half_only(ty)?;
    }
    let shape = x[0].shape;
    if shape.rank() == 0 {
        return Err("x needs at least one axis".into());
    }
    let size = shape[shape.rank() - 1];
    for (ty, param) in x[1..].iter().zip(["gamma", "beta"]) {
        let s = ty.shape;
        if s.count() != size || s.rank() == 0 || s[s.rank() - 1] != size {
            return Err(format!("{param} must have {size} elements on its last axis, got {s}"));
        }
    }
    Ok(x[0])
}

/// Calls `f` with each row along the last axis and writes what it returns.
fn rows(x: &Array, mut f: impl FnMut(&[f64]) -> Vec<f64>) -> Array {
    let size = x.shape[x.shape.rank() - 1];
    Array { shape: x.shape, data: x.data.chunks(size).flat_map(&mut f).collect() }
}

/// `(x - mean) / sqrt(variance + eps)` over the elements of `row`.
pub(crate) fn normalized(row: &[f64], eps: f64, p: Precision) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = p.divide(p.sum_of(row.iter().copied()), n);
    let variance = p.divide(p.sum_of(row.iter().map(|v| (v - mean) * (v - mean))), n);
    let scale = 1.0 / (variance + eps).sqrt();
    row.iter().map(|v| (v - mean) * scale).collect()
}

/// A gradient through what the op is written as.
pub(crate) fn through(op: &Op, x: &[Var], dy: &Var) -> Vec<Grad> {
    let Mil::Decompose(write) = op.mil() else { unreachable!("norms are decomposed") };
    let leaves = distinct(x);
    pulled_back(&write(op, &leaves), dy, &leaves)
}

/// The cotangents of `leaves`, which are [`distinct`], of what is built on them.
pub(crate) fn pulled_back(y: &Var, dy: &Var, leaves: &[Var]) -> Vec<Grad> {
    crate::grad::pull_back(y, dy, leaves)
}

/// The inputs as nodes that differ, so that each gets the cotangent of its own use: an input that is given
/// twice becomes `x * 1.0`, which canonicalization removes.
pub(crate) fn distinct(x: &[Var]) -> Vec<Var> {
    let again = |i: usize| x[..i].iter().any(|earlier| earlier.id() == x[i].id());
    (0..x.len()).map(|i| if again(i) { x[i].muls(1.0) } else { x[i].clone() }).collect()
}

impl Operator for LayerNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        last_axis(x)
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let terms = x[0].shape[x[0].shape.rank() - 1];
        Form::Normalise(Norm::Centred { terms, eps: self.eps.0 })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        rows(x[0], |row| {
            let unit = normalized(row, eps_of(self.eps, p), p).into_iter().enumerate();
            unit.map(|(i, v)| p.store(v * x[1].data[i] + x[2].data[i])).collect()
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(&self.clone().into(), x, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::LayerNorm(LayerNorm { eps }) = op else { unreachable!("called on its own op") };
            let last = [x[0].shape().rank() as i64 - 1];
            let centred = &x[0] - x[0].mean(&last);
            let variance = (&centred * &centred).mean(&last);
            centred * variance.adds(eps.0.max(TINIEST)).rsqrt(0.0) * &x[1] + &x[2]
        })
    }
    fn cases() -> Vec<Case> {
        let on = |shapes: &[&[usize]], eps: f64| {
            Case::new(LayerNorm { eps: Real(eps) }, shapes, (-2.0, 2.0), CHAIN).constants_from(1)
        };
        vec![
            on(&[&[3, 8], &[1, 8], &[1, 8]], 1e-5),
            on(&[&[2, 3, 40], &[40], &[40]], 0.125),
            on(&[&[7], &[7], &[7]], 1e-3),
        ]
    }
}

impl Operator for RmsNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        last_axis(x)
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        Form::Normalise(Norm::Length { terms: x[0].shape[x[0].shape.rank() - 1] })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        rows(x[0], |row| {
            let d = row.len() as f64;
            let floor = least_length((d * self.eps.0).sqrt(), p);
            let scale = d.sqrt() / p.sum_of(row.iter().map(|v| v * v)).sqrt().max(floor);
            row.iter().enumerate().map(|(i, v)| p.store(v * scale * x[1].data[i])).collect()
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(&self.clone().into(), x, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::RmsNorm(RmsNorm { eps }) = op else { unreachable!("called on its own op") };
            let rank = x[0].shape().rank();
            let d = x[0].shape()[rank - 1] as f64;
            let length = x[0].reduce_l2_norm(&[rank as i64 - 1]);
            let unit =
                &x[0] / length.maximum(&Var::full(Shape::SCALAR, (d * eps.0.max(0.0)).sqrt().max(TINIEST)));
            unit * scaled(&x[1], d.sqrt())
        })
    }
    fn cases() -> Vec<Case> {
        let on = |shapes: &[&[usize]]| {
            Case::new(RmsNorm { eps: Real(1e-5) }, shapes, (-2.0, 2.0), CHAIN).constants_from(1)
        };
        vec![on(&[&[3, 8], &[1, 8]]), on(&[&[2, 3, 40], &[40]]), on(&[&[5], &[5]])]
    }
}

/// `gamma * k`, multiplied before it is encoded when it is a constant.
fn scaled(gamma: &Var, k: f64) -> Var {
    let Some(tensor) = gamma.data() else { return gamma.muls(k) };
    let values: Vec<f32> = tensor.to_f32().into_iter().map(|v| v * k as f32).collect();
    Var::constant(Tensor::from_slice(tensor.shape(), &values).expect("invariant: as many values as before"))
}

impl Operator for L2Norm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        half_only(&x[0])?;
        axis_mask(x[0].shape, &[self.axis])?;
        Ok(x[0])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let axis = x[0].shape.axis(self.axis).expect("invariant: inferred");
        Form::Normalise(Norm::Length { terms: x[0].shape[axis] })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let mask = axis_mask(out.shape, &[self.axis]).expect("invariant: inferred");
        let floor = least_length(self.eps.0.max(0.0).sqrt(), p);
        let length = |e: &[f64]| p.sum_of(e.iter().map(|v| v * v)).sqrt().max(floor);
        let lengths = crate::ir::ops::reduce::groups(x[0], &mask, length);
        Array::from_fn(out.shape, |i| {
            p.store(x[0].data[i] / lengths.data[crate::ir::ops::binary::source(lengths.shape, out.shape, i)])
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(&self.clone().into(), x, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::L2Norm(L2Norm { axis, eps }) = op else { unreachable!("called on its own op") };
            let floor = Var::full(Shape::SCALAR, eps.0.max(0.0).sqrt().max(TINIEST));
            &x[0] / x[0].reduce_l2_norm(&[*axis]).maximum(&floor)
        })
    }
    fn cases() -> Vec<Case> {
        let on =
            |axis: i64, x: &[usize]| Case::new(L2Norm { axis, eps: Real(1e-12) }, &[x], (-2.0, 2.0), CHAIN);
        vec![on(-1, &[3, 8]), on(1, &[1, 4, 2, 3]), on(0, &[17])]
    }
}

impl Var {
    /// Normalises the last axis to zero mean and unit variance, then scales and shifts it.
    #[track_caller]
    pub fn layer_norm(&self, gamma: &Var, beta: &Var, eps: f64) -> Var {
        Var::apply(LayerNorm { eps: Real(eps) }, &[self, gamma, beta])
    }

    /// Scales the last axis to unit mean square, then by `gamma`.
    #[track_caller]
    pub fn rms_norm(&self, gamma: &Var, eps: f64) -> Var {
        Var::apply(RmsNorm { eps: Real(eps) }, &[self, gamma])
    }

    /// Scales one axis to unit length.
    #[track_caller]
    pub fn l2_norm(&self, axis: i64, eps: f64) -> Var {
        Var::apply(L2Norm { axis, eps: Real(eps) }, &[self])
    }
}
