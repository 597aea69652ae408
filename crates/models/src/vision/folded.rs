//! Convolutions with the normalisation behind them folded in.

use crate::weights::{Stored, WeightError, Weights};
use aneforge::Var;
use aneforge_tensor::{Shape, Tensor, f16};
use std::collections::BTreeMap;

/// Weights of a checkpoint whose convolutions are normalised, each by its mean and variance over all that was trained on.
///
/// With `s = gamma / sqrt(variance + eps)` the kernel of a channel is multiplied with `s`, and its bias is
/// `beta + (bias - mean) s`, all in single precision.
///
/// What was folded once is kept, so that programs for several sizes share it.
pub struct Folded {
    /// The checkpoint.
    pub stored: Stored,
    /// What the normalisation adds to variances.
    eps: f32,
    /// The name of the normalisation behind a convolution, if there is one.
    norm: fn(&str) -> Option<String>,
    folded: BTreeMap<String, [Var; 2]>,
}

impl Folded {
    /// The weights of `stored`; `norm` says what the normalisation behind a convolution is called, if there is one.
    pub fn new(stored: Stored, eps: f32, norm: fn(&str) -> Option<String>) -> Folded {
        Folded { stored, eps, norm, folded: BTreeMap::new() }
    }

    /// A convolution's kernel of this shape and its bias, with the normalisation called `norm` folded in.
    pub fn conv(&mut self, name: &str, norm: &str, dims: &[usize]) -> Result<[Var; 2], WeightError> {
        if let Some(folded) = self.folded.get(name) {
            return Ok(folded.clone());
        }
        let kernel = self.stored.tensor(&format!("{name}.weight"), dims)?.to_f32();
        let channels = &dims[..1];
        let mut of = |part: &str| {
            Ok::<_, WeightError>(self.stored.tensor(&format!("{norm}.{part}"), channels)?.to_f32())
        };
        let (gamma, beta) = (of("weight")?, of("bias")?);
        let (mean, variance) = (of("running_mean")?, of("running_var")?);
        let own = format!("{name}.bias");
        let bias = match self.stored.has(&own) {
            true => self.stored.tensor(&own, channels)?.to_f32(),
            false => vec![0.0; gamma.len()],
        };
        let scales: Vec<f32> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + self.eps).sqrt()).collect();
        let taps = kernel.len() / scales.len().max(1);
        let folded: Vec<f32> = kernel
            .chunks(taps.max(1))
            .zip(&scales)
            .flat_map(|(kernel, s)| kernel.iter().map(move |w| w * s))
            .collect();
        let shifted = |channel: usize| beta[channel] + (bias[channel] - mean[channel]) * scales[channel];
        let biases: Vec<f32> = (0..scales.len()).map(shifted).collect();
        if let Some(&value) =
            folded.iter().chain(&biases).find(|v| !v.is_finite() || v.abs() > f16::MAX.to_f32())
        {
            let (directory, norm) = (self.stored.directory().to_owned(), self.stored.full(norm));
            return Err(WeightError::Normalised { directory, norm, value });
        }
        let folded = [constant(dims, &folded), constant(channels, &biases)];
        self.folded.insert(name.to_owned(), folded.clone());
        Ok(folded)
    }
}

/// Values as a constant.
pub(super) fn constant(dims: &[usize], values: &[f32]) -> Var {
    let shape = Shape::new(dims).expect("invariant: the shape of a weight that was read");
    Var::constant(Tensor::from_slice(shape, values).expect("invariant: as many values as the shape says"))
}

/// Names with `.weight` and `.bias` of convolutions are those of the folded ones.
impl Weights for Folded {
    fn get(&mut self, name: &str, shape: Shape) -> Result<Var, WeightError> {
        let (layer, part) = name.rsplit_once('.').unwrap_or((name, ""));
        let Some(norm) = (self.norm)(layer) else { return self.stored.get(name, shape) };
        // The shape of a bias does not say that of its kernel, which any is for.
        let any = [shape.dims()[0], 0, 0, 0];
        let dims = if part == "bias" { &any[..] } else { shape.dims() };
        let dims = self.stored.tensor(&format!("{layer}.weight"), dims)?.shape();
        let [kernel, bias] = self.conv(layer, &norm, dims.dims())?;
        Ok(if part == "bias" { bias } else { kernel })
    }
}
