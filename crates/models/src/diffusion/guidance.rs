//! Guidance without a classifier (Ho and Salimans, 2021): `plain + scale * (with the text - plain)`.
//!
//! What a text changes is small beside what both forwards say, and is then multiplied, so that it is what rounding hits. The last
//! layer of the network is linear: the difference of its results is its result of the difference. So the difference is taken before
//! it, as a pair of halves that loses nothing, and the last layer gives pairs too: a product is accumulated wide, and what rounding it
//! lost comes out of the same product with the rounded value taken away.

use aneforge::Var;
use aneforge::ir::ops::conv::Conv;
use aneforge::paired::Paired;
use aneforge::session::Session;
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
    let shape =
        Shape::new(&[to, from, dims[2], dims[3]]).expect("invariant: a few times the extents of a weight");
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

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::{CompileOptions, compile, device};
    use aneforge_tensor::{f16, random};

    fn session(outputs: &[Var]) -> Session {
        let plan = compile(outputs, &CompileOptions::default()).unwrap();
        Session::new(plan, device::named("host").unwrap()).unwrap()
    }

    /// `|got - want| / |want|`.
    fn apart(got: &[f64], want: &[f64]) -> f64 {
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        length(&mut got.iter().zip(want).map(|(g, w)| g - w)) / length(&mut want.iter().copied())
    }

    /// The convolution in double precision.
    fn exact(x: &[f64], kernel: &Tensor, [c, h, w]: [usize; 3]) -> Vec<f64> {
        let (k, to) = (kernel.to_f32(), kernel.shape()[0]);
        let at =
            |channel: usize, row: usize, column: usize| match (row.wrapping_sub(1), column.wrapping_sub(1)) {
                (row, column) if row < h && column < w => x[(channel * h + row) * w + column],
                _ => 0.0,
            };
        let pixel = |i: usize| {
            let (o, row, column) = (i / (h * w), i / w % h, i % w);
            let tap = |t: usize| {
                let (channel, dy, dx) = (t / 9, t / 3 % 3, t % 3);
                f64::from(f16::from_f32(k[o * c * 9 + t]).to_f32()) * at(channel, row + dy, column + dx)
            };
            (0..c * 9).map(tap).sum()
        };
        (0..to * h * w).map(pixel).collect()
    }

    #[test]
    fn the_last_layer_loses_nothing_that_a_pair_holds() {
        let (c, h, w) = (16, 6, 5);
        let count = c * h * w;
        let shape = Shape::new(&[4, c, 3, 3]).unwrap();
        let kernel = random::normal_tensor(3, shape, 1.0 / 12.0);
        let first = |i: usize| f16::from_f32(random::normal(1, i as u64));
        // A change of half a hundredth.
        let second = |i: usize| f16::from_f32(first(i).to_f32() + 0.005 * random::normal(2, i as u64));
        let values: Vec<f16> = (0..count).map(first).chain((0..count).map(second)).collect();
        let fed = Tensor::from_slice(Shape::new(&[2, c, h, w]).unwrap(), &values).unwrap();
        let x = Var::input(fed.shape());
        let mut paired = session(&outputs(&x, &kernel));
        paired.run(std::slice::from_ref(&fed)).unwrap();
        let bias = [0.5, -0.25, 1.0, 3.0];
        let guided = read(&paired, &bias);
        let mut plain = session(&[x.conv(LAST, &Var::constant(kernel.clone()), None)]);
        let rounded: Vec<f64> =
            plain.run(&[fed]).unwrap()[0].to_f32().iter().map(|v| f64::from(*v)).collect();

        let wide: Vec<f64> = values.iter().map(|v| f64::from(v.to_f32())).collect();
        let change: Vec<f64> = wide[count..].iter().zip(&wide).map(|(b, a)| b - a).collect();
        let want = exact(&change, &kernel, [c, h, w]);
        let half = rounded.len() / 2;
        let difference: Vec<f64> = rounded[half..].iter().zip(&rounded).map(|(b, a)| b - a).collect();
        let errors = [apart(&guided.change, &want), apart(&difference, &want)];
        assert!(errors[0] < 1e-5 && errors[1] > 0.03, "{errors:?}");
        let mut want = exact(&wide[..count], &kernel, [c, h, w]);
        want.iter_mut().enumerate().for_each(|(i, v)| *v += f64::from(bias[i / (h * w)]));
        assert!(apart(&guided.plain, &want) < 1e-6, "{}", apart(&guided.plain, &want));
        assert_eq!(guided.by(2.0)[7], guided.plain[7] + 2.0 * guided.change[7]);
    }
}
