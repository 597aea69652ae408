//! MobileNetV3 (Howard et al., ICCV 2019), in the names of torchvision and of timm.

use super::folded::Folded;
use super::network::Made;
use crate::weights::WeightError;
use aneforge::Var;
use aneforge::ir::ops::conv::Conv;

/// A function that gives the shape of a weight that is there.
type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;

/// What no weight says of a network, block by block.
struct Plan {
    name: &'static str,
    strides: &'static [i64],
    /// The first block behind whose convolutions `x hard_sigmoid(x)` stands; before it, it is the positive part.
    swish_from: usize,
    /// Blocks of the stages, as `timm` numbers them.
    stages: &'static [usize],
}

/// Table 1 of the paper.
static LARGE: Plan = Plan {
    name: "MobileNetV3-Large",
    strides: &[1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
    swish_from: 6,
    stages: &[1, 2, 3, 4, 2, 3],
};
/// Table 2 of the paper.
static SMALL: Plan = Plan {
    name: "MobileNetV3-Small",
    strides: &[2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
    swish_from: 3,
    stages: &[1, 2, 3, 2, 3],
};

/// What the normalisation adds to variances in torchvision's networks, and in timm's.
const EPS: [f32; 2] = [1e-3, 1e-5];

/// What a checkpoint's weights say of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct MobileNet {
    name: &'static str,
    stem: Normed,
    blocks: Vec<Block>,
    last: Normed,
    head: Head,
    eps: f32,
}

/// A convolution with its normalisation, by their names.
#[derive(Clone, Debug, PartialEq)]
struct Normed {
    conv: String,
    norm: String,
    /// The shape of the kernel.
    dims: [usize; 4],
}

/// An inverted bottleneck.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    expand: Option<Normed>,
    depthwise: Normed,
    /// What weighs the channels by their means, where there is such a part: two layers and how many numbers lie between them.
    squeeze: Option<([String; 2], usize)>,
    project: Normed,
    stride: i64,
    swish: bool,
}

/// Two layers behind the means, the first followed by `x hard_sigmoid(x)`.
#[derive(Clone, Debug, PartialEq)]
struct Head {
    layers: [&'static str; 2],
    inner: usize,
    classes: usize,
}

impl MobileNet {
    /// The network that these weights are of, by their names and shapes; `None` if they are of none.
    pub(super) fn of(shape: Shapes<'_>) -> Option<MobileNet> {
        torchvision(shape).or_else(|| timm(shape))
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// How many classes it has.
    pub fn classes(&self) -> usize {
        self.head.classes
    }

    /// What its normalisations add to variances.
    pub(super) fn eps(&self) -> f32 {
        self.eps
    }

    pub(super) fn build(&self, x: &Var, weights: &mut Folded) -> Result<Made, WeightError> {
        let mut h = swish(&self.stem.of(x, 2, weights)?);
        for block in &self.blocks {
            h = block.build(&h, weights)?;
        }
        let h = swish(&self.last.of(&h, 1, weights)?);
        let means = h.mean(&[2, 3]).reshape(&[-1, self.last.dims[0] as i64]);
        let Head { layers, inner, classes } = &self.head;
        let features = swish(&dense(&means, layers[0], *inner, weights)?);
        let logits = dense(&features, layers[1], *classes, weights)?;
        Ok(Made { logits: Some(logits), features, looks: None })
    }
}

impl Normed {
    /// The convolution of this name, if it is there.
    fn found(shape: Shapes<'_>, conv: String, norm: String) -> Option<Normed> {
        let dims = shape(&format!("{conv}.weight"))?.try_into().ok()?;
        Some(Normed { conv, norm, dims })
    }

    fn of(&self, x: &Var, stride: i64, weights: &mut Folded) -> Result<Var, WeightError> {
        let [to, from, kernel, _] = self.dims;
        let [weight, bias] = weights.conv(&self.conv, &self.norm, &self.dims)?;
        let groups = if from == 1 { to as i64 } else { 1 };
        let conv = Conv { strides: [stride; 2], pad: [(kernel / 2) as i64; 4], dilations: [1, 1], groups };
        Ok(x.conv(conv, &weight, Some(&bias)))
    }
}

impl Block {
    fn build(&self, x: &Var, weights: &mut Folded) -> Result<Var, WeightError> {
        let activation = |h: &Var| if self.swish { swish(h) } else { h.relu() };
        let mut h = x.clone();
        if let Some(expand) = &self.expand {
            h = activation(&expand.of(&h, 1, weights)?);
        }
        h = activation(&self.depthwise.of(&h, self.stride, weights)?);
        if let Some(([reduce, expand], inner)) = &self.squeeze {
            let channels = self.depthwise.dims[0];
            let means = h.mean(&[2, 3]).reshape(&[-1, channels as i64]);
            let inner = dense(&means, reduce, *inner, weights)?.relu();
            let share = hard_sigmoid(&dense(&inner, expand, channels, weights)?);
            h = h * share.reshape(&[-1, channels as i64, 1, 1]);
        }
        let made = self.project.of(&h, 1, weights)?;
        let same = self.stride == 1 && x.shape().dims().get(1) == Some(&self.project.dims[0]);
        Ok(if same { made + x } else { made })
    }
}

/// A line through a half at 0 that is 0 up to -3 and 1 from 3 on.
fn hard_sigmoid(x: &Var) -> Var {
    x.sigmoid_hard(1.0 / 6.0, 0.5)
}

fn swish(x: &Var) -> Var {
    x * hard_sigmoid(x)
}

/// A layer whose weight is a matrix, or a kernel of one place.
fn dense(x: &Var, name: &str, to: usize, weights: &mut Folded) -> Result<Var, WeightError> {
    let (from, stored) = (x.shape().dims().last().copied().unwrap_or(0), &mut weights.stored);
    let matrix = name.starts_with("classifier");
    let dims = if matrix { &[to, from][..] } else { &[to, from, 1, 1] };
    let weight = Var::constant(stored.tensor(&format!("{name}.weight"), dims)?);
    let bias = Var::constant(stored.tensor(&format!("{name}.bias"), &[to])?);
    Ok(x.linear(&weight.reshape(&[to as i64, from as i64]), Some(&bias)))
}

/// The plan of so many blocks.
fn plan(blocks: usize) -> Option<&'static Plan> {
    [&LARGE, &SMALL].into_iter().find(|plan| plan.strides.len() == blocks)
}

/// A block of the plan, of these parts.
fn block(
    plan: &Plan,
    index: usize,
    expand: Option<Normed>,
    depthwise: Normed,
    squeeze: Option<([String; 2], usize)>,
    project: Normed,
) -> Block {
    let (stride, swish) = (plan.strides[index], index >= plan.swish_from);
    Block { expand, depthwise, squeeze, project, stride, swish }
}

/// Two layers that weigh channels, if they are there.
fn squeeze(shape: Shapes<'_>, names: [String; 2]) -> Option<([String; 2], usize)> {
    let inner = *shape(&format!("{}.weight", names[0]))?.first()?;
    Some((names, inner))
}

fn torchvision(shape: Shapes<'_>) -> Option<MobileNet> {
    let normed = |at: String| Normed::found(shape, format!("{at}.0"), format!("{at}.1"));
    let count = (1..).take_while(|i| shape(&format!("features.{i}.block.0.0.weight")).is_some()).count();
    let plan = plan(count)?;
    let mut blocks = Vec::with_capacity(count);
    for index in 0..count {
        let at = |part: usize| format!("features.{}.block.{part}", index + 1);
        let first = normed(at(0))?;
        // Where nothing is expanded, the first part is that of each channel by itself.
        let (expand, depthwise, next) = match first.dims[1] {
            1 => (None, first, 1),
            _ => (Some(first), normed(at(1))?, 2),
        };
        let squeeze = squeeze(shape, ["fc1", "fc2"].map(|layer| format!("{}.{layer}", at(next))));
        let project = normed(at(next + usize::from(squeeze.is_some())))?;
        blocks.push(block(plan, index, expand, depthwise, squeeze, project));
    }
    let layers = ["classifier.0", "classifier.3"];
    let [inner, classes] = layers.map(|name| shape(&format!("{name}.weight")).map(|dims| dims[0]));
    Some(MobileNet {
        name: plan.name,
        stem: normed("features.0".into())?,
        blocks,
        last: normed(format!("features.{}", count + 1))?,
        head: Head { layers, inner: inner?, classes: classes? },
        eps: EPS[0],
    })
}

fn timm(shape: Shapes<'_>) -> Option<MobileNet> {
    let normed =
        |at: &str, conv: &str, norm: &str| Normed::found(shape, format!("{at}{conv}"), format!("{at}{norm}"));
    let plan = [&LARGE, &SMALL].into_iter().find(|plan| {
        let behind = plan.stages.len();
        shape(&format!("blocks.{behind}.0.conv.weight")).is_some()
    })?;
    let mut blocks = Vec::with_capacity(plan.strides.len());
    for (stage, &count) in plan.stages.iter().enumerate() {
        for index in 0..count {
            let at = format!("blocks.{stage}.{index}.");
            let squeeze = squeeze(shape, ["conv_reduce", "conv_expand"].map(|part| format!("{at}se.{part}")));
            let (expand, depthwise, project) = match normed(&at, "conv_pwl", "bn3") {
                Some(project) => {
                    (Some(normed(&at, "conv_pw", "bn1")?), normed(&at, "conv_dw", "bn2")?, project)
                }
                None => (None, normed(&at, "conv_dw", "bn1")?, normed(&at, "conv_pw", "bn2")?),
            };
            blocks.push(block(plan, blocks.len(), expand, depthwise, squeeze, project));
        }
    }
    let layers = ["conv_head", "classifier"];
    let [inner, classes] = layers.map(|name| shape(&format!("{name}.weight")).map(|dims| dims[0]));
    // Other networks in these names have a normalisation instead.
    shape("conv_head.bias")?;
    Some(MobileNet {
        name: plan.name,
        stem: normed("", "conv_stem", "bn1")?,
        blocks,
        last: normed(&format!("blocks.{}.0.", plan.stages.len()), "conv", "bn1")?,
        head: Head { layers, inner: inner?, classes: classes? },
        eps: EPS[1],
    })
}
