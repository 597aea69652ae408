//! Residual networks (He et al., 2015) with normalisation folded into the convolutions.

use crate::weights::{WeightError, Weights};
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::pool::MaxPool;
use aneforge::ir::types::Caller;
use aneforge::ir::var::Var;
use aneforge_tensor::Shape;

/// How deep, and of which blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Basic blocks, 2-2-2-2.
    D18,
    /// Basic blocks, 3-4-6-3.
    D34,
    /// Bottleneck blocks, 3-4-6-3.
    D50,
    /// Bottleneck blocks, 3-4-23-3.
    D101,
}

/// What the normalisation of these networks adds to variances.
pub(crate) const EPS: f32 = 1e-5;

impl Depth {
    /// All of them.
    pub const ALL: [Depth; 4] = [Depth::D18, Depth::D34, Depth::D50, Depth::D101];

    /// Layers with weights, by which they are called.
    pub fn layers(self) -> u32 {
        match self {
            Depth::D18 => 18,
            Depth::D34 => 34,
            Depth::D50 => 50,
            Depth::D101 => 101,
        }
    }

    pub(crate) fn blocks(self) -> [usize; 4] {
        match self {
            Depth::D18 => [2, 2, 2, 2],
            Depth::D34 | Depth::D50 => [3, 4, 6, 3],
            Depth::D101 => [3, 4, 23, 3],
        }
    }

    /// Channels out of a block per channel of its stage.
    pub(crate) fn expansion(self) -> usize {
        match self {
            Depth::D18 | Depth::D34 => 1,
            Depth::D50 | Depth::D101 => 4,
        }
    }
}

/// Logits `[N, classes]` of images `x` `[N, 3, H, W]`.
///
/// Strided 3 by 3 convolutions carry the stride of a bottleneck block. Biases come from folded
/// normalisation: `bias = beta - mean * gamma / sqrt(variance + 1e-5)`. Weights are called `conv1.weight`,
/// `layer2.0.conv1.bias`, `fc.weight`.
///
/// ```
/// use aneforge::{Shape, Var};
/// use aneforge_models::resnet::{Depth, resnet};
/// use aneforge_models::weights::random_weights;
///
/// let image = Var::input(Shape::new(&[1, 3, 32, 32])?);
/// let logits = resnet(Depth::D18, &image, 10, &mut random_weights(1))?;
/// assert_eq!(logits.check()?.shape.dims(), [1, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn resnet(depth: Depth, x: &Var, classes: usize, weights: &mut dyn Weights) -> Result<Var, WeightError> {
    Caller::here().scope(|| with_features(depth, x, classes, weights)).map(|(logits, _)| logits)
}

/// The logits, and the features `[N, D]` that they are of.
pub(crate) fn with_features(
    depth: Depth,
    x: &Var,
    classes: usize,
    weights: &mut dyn Weights,
) -> Result<(Var, Var), WeightError> {
    let network = &mut Network { weights };
    let stem = network.conv("conv1", x, 64, 7, 2)?.relu();
    let pool = MaxPool { kernel_sizes: [3, 3], strides: [2, 2], pad: [1; 4], ceil_mode: false };
    let mut h = Var::apply(pool, &[&stem]);
    for (stage, blocks) in depth.blocks().into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            h = network.block(depth, &name, &h, 64 << stage, stride)?;
        }
    }
    let features = h.mean(&[2, 3]);
    let channels = features.shape().count() / features.shape().dims().first().copied().unwrap_or(1);
    let flat = features.reshape(&[-1, channels as i64]);
    let weight = network.weight("fc.weight", &[classes, channels])?;
    let bias = network.weight("fc.bias", &[classes])?;
    Ok((flat.linear(&weight, Some(&bias)), flat))
}

struct Network<'a> {
    weights: &'a mut dyn Weights,
}

impl Network<'_> {
    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Var, WeightError> {
        self.weights.get(name, Shape::new(dims).expect("invariant: layers have weights"))
    }

    fn conv(
        &mut self,
        name: &str,
        x: &Var,
        channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Var, WeightError> {
        let from = x.shape().dims().get(1).copied().unwrap_or(1);
        let weight = self.weight(&format!("{name}.weight"), &[channels, from, kernel, kernel])?;
        let bias = self.weight(&format!("{name}.bias"), &[channels])?;
        let op =
            Conv { strides: [stride as i64; 2], pad: [(kernel / 2) as i64; 4], dilations: [1, 1], groups: 1 };
        Ok(x.conv(op, &weight, Some(&bias)))
    }

    fn block(
        &mut self,
        depth: Depth,
        name: &str,
        x: &Var,
        width: usize,
        stride: usize,
    ) -> Result<Var, WeightError> {
        let channels = width * depth.expansion();
        let body = if depth.expansion() == 1 {
            let first = self.conv(&format!("{name}.conv1"), x, width, 3, stride)?.relu();
            self.conv(&format!("{name}.conv2"), &first, width, 3, 1)?
        } else {
            let first = self.conv(&format!("{name}.conv1"), x, width, 1, 1)?.relu();
            let second = self.conv(&format!("{name}.conv2"), &first, width, 3, stride)?.relu();
            self.conv(&format!("{name}.conv3"), &second, channels, 1, 1)?
        };
        let same = stride == 1 && x.shape().dims().get(1) == Some(&channels);
        let shortcut = match same {
            true => x.clone(),
            false => self.conv(&format!("{name}.downsample.0"), x, channels, 1, stride)?,
        };
        Ok((body + shortcut).relu())
    }
}
