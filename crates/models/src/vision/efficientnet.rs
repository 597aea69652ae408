//! EfficientNet-lite (Google, 2020): EfficientNets without what small accelerators lack, squeezing and swish.

use super::folded::Folded;
use super::network::Made;
use crate::weights::WeightError;
use aneforge::Var;
use aneforge::ir::ops::conv::Conv;

/// Steps of the stages' first blocks.
const STRIDES: [i64; 7] = [1, 2, 2, 2, 1, 2, 1];
/// What the normalisation of these networks adds to variances.
pub(super) const EPS: f32 = 1e-3;
/// Sides of the pictures that they are trained with, by the number of blocks; two have as many.
const SIDES: [(usize, usize, usize); 5] =
    [(16, 32, 224), (23, 32, 240), (23, 32, 260), (26, 32, 280), (33, 32, 300)];

/// What a checkpoint's weights say of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lite {
    blocks: Vec<Block>,
    stem: usize,
    head: usize,
    classes: usize,
}

/// An inverted bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    from: usize,
    inner: usize,
    to: usize,
    kernel: usize,
    stride: i64,
}

impl Lite {
    /// The network that these weights are of, by their shapes; `None` if they are of none.
    pub(super) fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Lite> {
        let first = |name: &str| shape(name).and_then(|dims| dims.first().copied());
        let stem = first("_conv_stem.weight")?;
        let (mut blocks, mut from, mut stage): (Vec<Block>, usize, usize) = (Vec::new(), stem, 0);
        while let Some(depthwise) = shape(&format!("_blocks.{}._depthwise_conv.weight", blocks.len())) {
            let to = first(&format!("_blocks.{}._project_conv.weight", blocks.len()))?;
            let [inner, _, kernel, _] = depthwise[..] else { return None };
            // A stage begins where the width changes, and its first block takes its stride.
            let begins = blocks.last().is_some_and(|last| last.to != to);
            stage += usize::from(begins);
            let leads = begins || blocks.is_empty();
            let stride = if leads { *STRIDES.get(stage)? } else { 1 };
            blocks.push(Block { from, inner, to, kernel, stride });
            from = to;
        }
        let (head, classes) = (first("_conv_head.weight")?, first("_fc.weight")?);
        (stage + 1 == STRIDES.len()).then_some(Lite { blocks, stem, head, classes })
    }

    /// Rows and columns of the pictures that it is trained with.
    pub fn side(&self) -> usize {
        let of = SIDES.iter().filter(|(blocks, ..)| *blocks == self.blocks.len());
        // Of two with as many blocks, the one with the wider head of the first stages takes the larger pictures.
        let wide = self.blocks.iter().any(|block| block.to == 48);
        let mut sides = of.map(|(_, _, side)| *side);
        match (sides.next(), sides.next()) {
            (Some(_), Some(larger)) if wide => larger,
            (Some(side), _) => side,
            (None, _) => 224,
        }
    }

    /// How many classes it has.
    pub fn classes(&self) -> usize {
        self.classes
    }

    pub(super) fn build(&self, x: &Var, weights: &mut Folded) -> Result<Made, WeightError> {
        let mut conv =
            |x: &Var, name: &str, norm: &str, to: usize, kernel: usize, stride: i64, groups: i64| {
                let from = x.shape().dims().get(1).copied().unwrap_or(1);
                let [weight, bias] =
                    weights.conv(name, norm, &[to, from / groups as usize, kernel, kernel])?;
                let pad = same(x, kernel, stride);
                Ok::<_, WeightError>(x.conv(
                    Conv { strides: [stride; 2], pad, dilations: [1, 1], groups },
                    &weight,
                    Some(&bias),
                ))
            };
        let mut h = conv(x, "_conv_stem", "_bn0", self.stem, 3, 2, 1)?.relu6();
        for (index, block) in self.blocks.iter().enumerate() {
            let at = format!("_blocks.{index}.");
            let mut inner = h.clone();
            if block.inner != block.from {
                inner =
                    conv(&inner, &format!("{at}_expand_conv"), &format!("{at}_bn0"), block.inner, 1, 1, 1)?
                        .relu6();
            }
            let (name, groups) = (format!("{at}_depthwise_conv"), block.inner as i64);
            inner =
                conv(&inner, &name, &format!("{at}_bn1"), block.inner, block.kernel, block.stride, groups)?
                    .relu6();
            inner = conv(&inner, &format!("{at}_project_conv"), &format!("{at}_bn2"), block.to, 1, 1, 1)?;
            h = if block.stride == 1 && block.from == block.to { inner + h } else { inner };
        }
        let h = conv(&h, "_conv_head", "_bn1", self.head, 1, 1, 1)?.relu6();
        let features = h.mean(&[2, 3]).reshape(&[-1, self.head as i64]);
        let logits = super::network::linear(&features, &mut weights.stored, "_fc", self.classes)?;
        Ok(Made { logits: Some(logits), features, looks: None })
    }
}

/// Zeros around an image so that a step of `stride` leaves so many parts of its side, rounded up: the odd one comes last, as
/// TensorFlow's `SAME` has it.
fn same(x: &Var, kernel: usize, stride: i64) -> [i64; 4] {
    let side = |axis: usize| {
        let size = x.shape().dims().get(axis).map_or(0, |&n| n as i64);
        let all = ((size + stride - 1) / stride - 1) * stride + kernel as i64 - size;
        let all = all.max(0);
        [all / 2, all - all / 2]
    };
    let ([top, bottom], [left, right]) = (side(2), side(3));
    [top, bottom, left, right]
}
