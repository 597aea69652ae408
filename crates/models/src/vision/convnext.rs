//! ConvNeXt (Liu et al., CVPR 2022), in the names of `timm`, `transformers` and `torchvision`.

use super::network::Made;
use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge::ir::ops::conv::Conv;
use aneforge_tensor::Tensor;
use serde_json::Value;

/// What the norms within add to variances.
const EPS: f64 = 1e-6;

/// What a library calls the weights: `{s}` is the number of a stage, `{2s}` twice that, `{2s+1}` one more, `{b}` that of a block.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    stem: [&'static str; 2],
    /// The norm and the convolution between two stages.
    between: [&'static str; 2],
    block: &'static str,
    depthwise: &'static str,
    norm: &'static str,
    up: &'static str,
    down: &'static str,
    scale: &'static str,
    last: &'static str,
    head: &'static str,
}

const NAMES: [Names; 3] = [
    Names {
        stem: ["stem.0", "stem.1"],
        between: ["stages.{s}.downsample.0", "stages.{s}.downsample.1"],
        block: "stages.{s}.blocks.{b}.",
        depthwise: "conv_dw",
        norm: "norm",
        up: "mlp.fc1",
        down: "mlp.fc2",
        scale: "gamma",
        last: "head.norm",
        head: "head.fc",
    },
    Names {
        stem: ["embeddings.patch_embeddings", "embeddings.layernorm"],
        between: ["encoder.stages.{s}.downsampling_layer.0", "encoder.stages.{s}.downsampling_layer.1"],
        block: "encoder.stages.{s}.layers.{b}.",
        depthwise: "dwconv",
        norm: "layernorm",
        up: "pwconv1",
        down: "pwconv2",
        scale: "layer_scale_parameter",
        last: "layernorm",
        head: "classifier",
    },
    Names {
        stem: ["features.0.0", "features.0.1"],
        between: ["features.{2s}.0", "features.{2s}.1"],
        block: "features.{2s+1}.{b}.",
        depthwise: "block.0",
        norm: "block.2",
        up: "block.3",
        down: "block.5",
        scale: "layer_scale",
        last: "classifier.0",
        head: "classifier.2",
    },
];

fn numbered(pattern: &str, stage: usize, block: usize) -> String {
    pattern
        .replace("{s}", &stage.to_string())
        .replace("{2s}", &(2 * stage).to_string())
        .replace("{2s+1}", &(2 * stage + 1).to_string())
        .replace("{b}", &block.to_string())
}

/// What a checkpoint's weights and description say of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvNext {
    names: &'static Names,
    /// Of each stage, how many blocks, and of how many channels.
    stages: Vec<(usize, usize)>,
    /// Rows and columns of the pixels that the first convolution takes together.
    patch: usize,
    /// The same of the depthwise convolutions.
    kernel: usize,
    classes: usize,
    /// What the last norm adds to variances.
    eps: f64,
}

impl ConvNext {
    /// The network that these weights are of, by names, shapes and `config.json`; `None` if they are of none.
    pub(super) fn of(
        shape: &dyn Fn(&str) -> Option<Vec<usize>>,
        prefix: &dyn Fn(&str) -> Option<String>,
        config: &Value,
    ) -> Option<ConvNext> {
        let (names, before) = NAMES.iter().find_map(|names| {
            let before = prefix(&format!("{}.weight", names.stem[0]))?;
            shape(&format!("{before}{}{}.weight", numbered(names.block, 0, 0), names.up))?;
            Some((names, before))
        })?;
        let of = |stage, block, name: &str| {
            shape(&format!("{before}{}{name}", numbered(names.block, stage, block)))
        };
        let depthwise = format!("{}.weight", names.depthwise);
        let mut stages = Vec::new();
        while let Some(first) = of(stages.len(), 0, &depthwise) {
            let blocks = (1..).take_while(|&block| of(stages.len(), block, &depthwise).is_some()).count() + 1;
            stages.push((blocks, *first.first()?));
        }
        let [_, 1, kernel, _] = of(0, 0, &depthwise)?[..] else { return None };
        let [_, 3, patch, _] = shape(&format!("{before}{}.weight", names.stem[0]))?[..] else { return None };
        let head = shape(&format!("{}.weight", names.head)).and_then(|dims| dims.first().copied());
        let eps = config["layer_norm_eps"].as_f64().filter(|eps| (0.0..=1.0).contains(eps)).unwrap_or(EPS);
        (patch > 0 && kernel % 2 == 1).then(|| ConvNext {
            names,
            stages,
            patch,
            kernel,
            classes: head.unwrap_or(0),
            eps,
        })
    }

    /// How many classes it has; 0 if it does not classify.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        let blocks: Vec<String> = self.stages.iter().map(|(blocks, _)| blocks.to_string()).collect();
        format!("ConvNeXt-{}x{}", blocks.join("-"), self.stages.first().map_or(0, |(_, width)| *width))
    }

    /// The weight that what precedes all names is found by.
    pub(super) fn first(&self) -> String {
        format!("{}.weight", self.names.stem[0])
    }

    pub(super) fn build(&self, x: &Var, stored: &mut Stored) -> Result<Made, WeightError> {
        let mut reader = Reader { names: self.names, stored };
        let mut from = 3;
        let mut h = x.clone();
        for (stage, &(blocks, width)) in self.stages.iter().enumerate() {
            h = match stage {
                0 => {
                    let h = reader.conv(
                        &h,
                        self.names.stem[0],
                        [width, from, self.patch],
                        self.patch as i64,
                        0,
                    )?;
                    reader.normed(&h, self.names.stem[1], width)?
                }
                _ => {
                    let [norm, conv] = self.names.between.map(|name| numbered(name, stage, 0));
                    let normal = reader.normed(&h, &norm, from)?;
                    reader.conv(&normal, &conv, [width, from, 2], 2, 0)?
                }
            };
            for block in 0..blocks {
                h = reader.block(&h, &numbered(self.names.block, stage, block), width, self.kernel)?;
            }
            from = width;
        }
        let n = x.shape().dims().first().copied().unwrap_or(1) as i64;
        let pooled = h.mean(&[2, 3]).reshape(&[n, from as i64]);
        let [gamma, beta] = ["weight", "bias"].map(|part| {
            let name = format!("{}.{part}", self.names.last);
            reader.stored.tensor(&name, &[from]).map(Var::constant)
        });
        let features = pooled.layer_norm(&gamma?, &beta?, self.eps);
        if self.classes == 0 {
            return Ok(Made { logits: None, features, looks: None });
        }
        let [weight, bias] = reader.head(self.names.head, [self.classes, from])?;
        Ok(Made { logits: Some(features.linear(&weight, Some(&bias))), features, looks: None })
    }
}

/// Takes the weights, and builds with them.
struct Reader<'a> {
    names: &'static Names,
    stored: &'a mut Stored,
}

impl Reader<'_> {
    fn constant(&mut self, name: &str, dims: &[usize]) -> Result<Var, WeightError> {
        self.stored.tensor(name, dims).map(Var::constant)
    }

    fn head(&mut self, name: &str, dims: [usize; 2]) -> Result<[Var; 2], WeightError> {
        let weight = self.stored.beyond_prefix(&format!("{name}.weight"), &dims)?;
        let bias = self.stored.beyond_prefix(&format!("{name}.bias"), &dims[..1])?;
        Ok([weight, bias].map(Var::constant))
    }

    /// A convolution `[to, from, kernel, kernel]`; as many groups as channels where `from` is 1.
    fn conv(
        &mut self,
        x: &Var,
        name: &str,
        [to, from, kernel]: [usize; 3],
        stride: i64,
        pad: i64,
    ) -> Result<Var, WeightError> {
        let weight = self.constant(&format!("{name}.weight"), &[to, from, kernel, kernel])?;
        let bias = self.constant(&format!("{name}.bias"), &[to])?;
        let groups = if from == 1 { to as i64 } else { 1 };
        let op = Conv { strides: [stride; 2], pad: [pad; 4], dilations: [1; 2], groups };
        Ok(x.conv(op, &weight, Some(&bias)))
    }

    /// The norm over the channels of each pixel.
    fn normed(&mut self, x: &Var, name: &str, width: usize) -> Result<Var, WeightError> {
        let gamma = self.constant(&format!("{name}.weight"), &[width])?;
        let beta = self.constant(&format!("{name}.bias"), &[width])?;
        Ok(planes(&pixels(x).layer_norm(&gamma, &beta, EPS), x))
    }

    fn block(&mut self, x: &Var, at: &str, width: usize, kernel: usize) -> Result<Var, WeightError> {
        let Names { depthwise, norm, up, down, scale, .. } = *self.names;
        let h = self.conv(x, &format!("{at}{depthwise}"), [width, 1, kernel], 1, kernel as i64 / 2)?;
        let mut part = |name: &str, dims: &[usize]| self.constant(&format!("{at}{name}"), dims);
        let (gamma, beta) =
            (part(&format!("{norm}.weight"), &[width])?, part(&format!("{norm}.bias"), &[width])?);
        let [wide, narrow] = [up, down].map(|name| [format!("{name}.weight"), format!("{name}.bias")]);
        let (up, up_bias) = (part(&wide[0], &[4 * width, width])?, part(&wide[1], &[4 * width])?);
        let (down, down_bias) = (part(&narrow[0], &[width, 4 * width])?, part(&narrow[1], &[width])?);
        let inner = pixels(&h).layer_norm(&gamma, &beta, EPS).linear(&up, Some(&up_bias)).gelu();
        let mut made = inner.linear(&down, Some(&down_bias));
        if let Some(factors) = self.scale(&format!("{at}{scale}"), width)? {
            made = made * factors;
        }
        Ok(x + planes(&made, x))
    }

    /// What scales a block's result, if something does: `[C]`, or `[C, 1, 1]` in torchvision's files.
    fn scale(&mut self, name: &str, width: usize) -> Result<Option<Var>, WeightError> {
        if !self.stored.has(name) {
            return Ok(None);
        }
        let scale = match self.stored.tensor(name, &[width]) {
            Ok(scale) => scale,
            Err(WeightError::Shape { .. }) => self.stored.tensor(name, &[width, 1, 1])?,
            Err(error) => return Err(error),
        };
        let shape =
            aneforge_tensor::Shape::new(&[width]).expect("invariant: the shape of a weight that was read");
        let flat = Tensor::new(scale.dtype(), shape, scale.bytes().clone());
        Ok(Some(Var::constant(flat.expect("invariant: as many elements"))))
    }
}

/// `[N, C, H, W]` as rows of channels `[N, H W, C]`.
fn pixels(x: &Var) -> Var {
    let [n, c] = [0, 1].map(|axis| x.shape().dims().get(axis).copied().unwrap_or(1) as i64);
    x.reshape(&[n, c, -1]).transpose(&[0, 2, 1])
}

/// Rows of channels as images like `image`.
fn planes(x: &Var, image: &Var) -> Var {
    let dims: Vec<i64> = image.shape().dims().iter().map(|&extent| extent as i64).collect();
    x.transpose(&[0, 2, 1]).reshape(&dims)
}
