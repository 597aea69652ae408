//! Normalisations over channels, and over groups of them, which the engine runs as chains of simpler ops.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Norm};
use crate::ir::op::{Case, Grad, Mil, Op, Operator};
use crate::ir::ops::norm::{CHAIN, TINIEST, eps_of, normalized, through};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` over the channels of each position.
    ///
    /// `x` is `[N, C, 1, S]`, `gamma` and `beta` `[C]` or `[1, C, 1, 1]`. The variance is the population's.
    /// Runs as `layer_norm` does, each op rounded, over axis 1, which spares the transposes around
    /// attention.
    /// In Python, `x.channel_layer_norm(gamma, beta)`.
    pub struct ChannelLayerNorm = "channel_layer_norm"("x", "gamma", "beta") {
        /// Added to the variance; rounded to half precision, to 2^-24 at least.
        eps: Real = Real(1e-5),
    }
}

op! {
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each group of channels of each image.
    ///
    /// `x` is `[N, C, H, W]`, `gamma` and `beta` `[C]` or `[1, C, 1, 1]`; `num_groups` divides `C`, and
    /// neither `C/num_groups` nor `H*W` is above 65536. The variance is the population's. Runs over
    /// `[N, num_groups, C/num_groups, H*W]` as mean, difference, product, mean, sum, reciprocal root and
    /// products, each rounded.
    /// In Python, `x.group_norm(gamma, beta, num_groups=2)`.
    pub struct GroupNorm = "group_norm"("x", "gamma", "beta") {
        /// How many groups the channels divide into.
        num_groups: i64,
        /// Added to the variance; rounded to half precision, to 2^-24 at least.
        eps: Real = Real(1e-5),
    }
}

/// The largest extent that the engine tiles in a group's normalisation.
///
/// Evidence: ANEForge 0.4.0's guard, which its tests confirm up to 512 channels of 128 by 128.
const MAX_EXTENT: usize = 65_536;

/// Checks for an image with parameters per channel.
fn image(x: &[TensorType], form: &str) -> Result<(), String> {
    for ty in x {
        half_only(ty)?;
    }
    let shape = x[0].shape;
    if shape.rank() != 4 {
        return Err(format!("x must be {form}, got {shape}"));
    }
    let c = shape[1];
    for (ty, name) in x[1..].iter().zip(["gamma", "beta"]) {
        if ty.shape.dims() != [c] && ty.shape.dims() != [1, c, 1, 1] {
            return Err(format!("{name} must be [{c}] or [1, {c}, 1, 1], got {}", ty.shape));
        }
    }
    Ok(())
}

/// The definition, for rows of places that are normalised together.
fn over(x: &[&Array], eps: Real, p: Precision, rows: impl Iterator<Item = Vec<usize>>) -> Array {
    let (channels, inner) = (x[0].shape[1], x[0].shape.strides()[1]);
    let mut out = Array::from_fn(x[0].shape, |_| 0.0);
    for places in rows {
        let row: Vec<f64> = places.iter().map(|&i| x[0].data[i]).collect();
        for (&i, unit) in places.iter().zip(normalized(&row, eps_of(eps, p), p)) {
            let c = i / inner % channels;
            out.data[i] = p.store(unit * x[1].data[c] + x[2].data[c]);
        }
    }
    out
}

/// Normalises over `axes`. The two means are one reduction each, also over two axes: its sum stays in
/// single precision, where a sum per axis would round to half precision in between and overflow, for one at
/// 512 channels of 128 by 128 in 32 groups.
fn unit(x: &Var, axes: &[i64], eps: f64) -> Var {
    let centred = x - x.mean(axes);
    let variance = (&centred * &centred).mean(axes);
    centred * variance.adds(eps.max(TINIEST)).rsqrt(0.0)
}

/// `x * gamma + beta`, per channel.
fn scaled(x: &Var, gamma: &Var, beta: &Var) -> Var {
    let channels = |v: &Var| v.reshape(&[1, v.shape().count() as i64, 1, 1]);
    x * channels(gamma) + channels(beta)
}

impl Operator for ChannelLayerNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        image(x, "[N, C, 1, S]")?;
        match x[0].shape[2] {
            1 => Ok(x[0]),
            _ => Err(format!("x must be [N, C, 1, S], got {}; reshape it first", x[0].shape)),
        }
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        Form::Normalise(Norm::Centred { terms: x[0].shape[1], eps: self.eps.0 })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (channels, inner) = (out.shape[1], out.shape[3]);
        let row = |at: usize| {
            let start = at / inner * channels * inner + at % inner;
            (0..channels).map(|c| start + c * inner).collect()
        };
        over(x, self.eps, p, (0..out.shape[0] * inner).map(row))
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(&self.clone().into(), x, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::ChannelLayerNorm(op) = op else { unreachable!("called on its own op") };
            scaled(&unit(&x[0], &[1], op.eps.0), &x[1], &x[2])
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], params: &[usize], eps: f64| {
            let op = ChannelLayerNorm { eps: Real(eps) };
            Case::new(op, &[x, params, params], (-2.0, 2.0), CHAIN).constants_from(1)
        };
        vec![
            on(&[1, 8, 1, 5], &[8], 1e-5),
            on(&[2, 37, 1, 3], &[37], 0.125),
            on(&[1, 6, 1, 1], &[1, 6, 1, 1], 1e-3),
        ]
    }
}

impl Operator for GroupNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        image(x, "[N, C, H, W]")?;
        let (shape, groups) = (x[0].shape, self.num_groups);
        if groups < 1 || shape[1] as i64 % groups != 0 {
            return Err(format!("{} channels do not divide into {groups} groups", shape[1]));
        }
        let (channels, pixels) = (shape[1] / groups as usize, shape[2] * shape[3]);
        if channels.max(pixels) > MAX_EXTENT {
            return Err(format!(
                "{channels} channels per group and {pixels} pixels must be at most {MAX_EXTENT}; use more groups or smaller images"
            ));
        }
        Ok(x[0])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let terms = x[0].shape.count() / x[0].shape[0] / self.num_groups as usize;
        Form::Normalise(Norm::Centred { terms, eps: self.eps.0 })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let size = out.shape.count() / (out.shape[0] * self.num_groups as usize);
        over(x, self.eps, p, (0..out.shape.count()).step_by(size).map(|i| (i..i + size).collect()))
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(&self.clone().into(), x, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::GroupNorm(op) = op else { unreachable!("called on its own op") };
            let [n, c, h, w] = crate::ir::ops::conv::four(x[0].shape()).map(|d| d as i64);
            let groups = x[0].reshape(&[n, op.num_groups, c / op.num_groups, h * w]);
            scaled(&unit(&groups, &[2, 3], op.eps.0).reshape_to(x[0].shape()), &x[1], &x[2])
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], num_groups: i64, params: &[usize], eps: f64| {
            let op = GroupNorm { num_groups, eps: Real(eps) };
            Case::new(op, &[x, params, params], (-2.0, 2.0), CHAIN).constants_from(1)
        };
        vec![
            on(&[1, 6, 3, 4], 2, &[6], 1e-5),
            on(&[2, 4, 3, 3], 4, &[1, 4, 1, 1], 1e-5),
            on(&[1, 5, 2, 7], 1, &[5], 0.125),
        ]
    }
}

impl Var {
    /// Normalises the channels of `[N, C, 1, S]`, then scales and shifts each.
    #[track_caller]
    pub fn channel_layer_norm(&self, gamma: &Var, beta: &Var, eps: f64) -> Var {
        Var::apply(ChannelLayerNorm { eps: Real(eps) }, &[self, gamma, beta])
    }

    /// Normalises each of `num_groups` groups of channels of each image, then scales and shifts each channel.
    #[track_caller]
    pub fn group_norm(&self, gamma: &Var, beta: &Var, num_groups: usize, eps: f64) -> Var {
        Var::apply(GroupNorm { num_groups: num_groups as i64, eps: Real(eps) }, &[self, gamma, beta])
    }
}
