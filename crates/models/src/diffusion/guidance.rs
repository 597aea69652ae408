//! Guidance without a classifier (Ho and Salimans, 2021): `plain + scale * (with the text - plain)`.
//!
//! What a text changes is small beside what both forwards say, and is then multiplied, so that it is what rounding hits. The last
//! layer of the network is linear: the difference of its results is its result of the difference. So the difference is taken before
//! it, as a pair of halves that loses nothing, and the last layer gives pairs too: a product is accumulated wide, and what rounding it
//! lost comes out of the same product with the rounded value taken away.

use aneforge::ir::ops::conv::Conv;
use aneforge::paired::Paired;
use aneforge::session::Session;
use aneforge::Var;
use aneforge_tensor::{Shape, Tensor};

/// What the network makes of a picture's latents with two texts, `[C, H, W]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Guided {
    /// With the first text.
    pub plain: Vec<f64>,
    /// What the second text changes.
    pub change: Vec<f64>,
}

impl Guided {
    /// `plain + scale * change`.
    pub fn by(&self, scale: f64) -> Vec<f64> {
        self.plain.iter().zip(&self.change).map(|(plain, change)| plain + scale * change).collect()
    }
}

/// Windows of the last layer.
const LAST: Conv = Conv { strides: [1; 2], pad: [1; 4], dilations: [1; 2], groups: 1 };

/// What a program that guides returns, of what both texts make before the last layer, `[2, C, H, W]`: `plain`, without the last layer's
/// bias, and `change`, each as the high and the low half.
pub(super) fn outputs(before: &Var, kernel: &Tensor) -> Vec<Var> {
    let [plain, text] = [0, 1].map(|at| before.narrow(0, at, at + 1));
    let change = &Paired::from(&text) - &Paired::from(&plain);
    let [plain, change] = [convolved(&[&plain], kernel), convolved(&[&change.hi, &change.lo], kernel)];
    vec![plain.hi, plain.lo, change.hi, change.lo]
}

/// The convolution of a sum of images, as a pair.
fn convolved(terms: &[&Var], kernel: &Tensor) -> Paired {
    let x = Var::concat(terms, 1);
    let high = x.conv(LAST, &beside(kernel, terms.len(), false), None);
    let low = Var::concat(&[&x, &high], 1).conv(LAST, &beside(kernel, terms.len(), true), None);
    Paired::new(&high, &low)
}

/// Kernels of `times` equal terms side by side, behind which may stand that of what is taken away.
fn beside(kernel: &Tensor, times: usize, less: bool) -> Var {
    let dims = kernel.shape();
    let (to, taps) = (dims[0], dims[2] * dims[3]);
    let values = kernel.to_f32();
    let from = dims[1] * times + if less { to } else { 0 };
    let mut all = Vec::with_capacity(to * from * taps);
    for (channel, own) in values.chunks_exact(dims[1] * taps).enumerate() {
        (0..times).for_each(|_| all.extend_from_slice(own));
        if less {
            let middle = |at: usize| at == channel * taps + taps / 2;
            all.extend((0..to * taps).map(|at| if middle(at) { -1.0 } else { 0.0 }));
        }
    }
    let shape = Shape::new(&[to, from, dims[2], dims[3]]).expect("invariant: a few times the extents of a weight");
    Var::constant(Tensor::from_slice(shape, &all).expect("invariant: as many values as the shape says"))
}

/// What such a program has made; the bias, a number for each channel, is added here.
pub(super) fn read(session: &Session, bias: &[f32]) -> Guided {
    let half = |at: usize| {
        let mut values = vec![0.0; session.output(at).len()];
        session.read(at, &mut values);
        values
    };
    let pair = |at: usize| {
        let (high, low): (Vec<f32>, Vec<f32>) = (half(at), half(at + 1));
        high.iter().zip(&low).map(|(high, low)| f64::from(*high) + f64::from(*low)).collect::<Vec<f64>>()
    };
    let (mut plain, change) = (pair(0), pair(2));
    let pixels = plain.len() / bias.len().max(1);
    for (channel, bias) in plain.chunks_exact_mut(pixels.max(1)).zip(bias) {
        channel.iter_mut().for_each(|v| *v += f64::from(*bias));
    }
    Guided { plain, change }
}
