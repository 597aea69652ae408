//! Layers that the networks are made of, in the names that `diffusers` gives their weights.

use crate::weights::{WeightError, Weights};
use aneforge::Var;
use aneforge::ir::attr::Real;
use aneforge::ir::ops::attention::Attention;
use aneforge::ir::ops::conv::Conv;
use aneforge::nn::attention_tiles;
use aneforge_tensor::Shape;

/// Pixels from which a norm over groups takes rows of channels together with rows of the image, and rows of several images are kept
/// apart.
///
/// Evidence: `Limits::tensor_dim`, which is 16,384 before A16; both say how long an axis may be.
const MOST_PIXELS: usize = 16_384;
/// By this much such a norm's operands are scaled down, so that squares of up to 1023 do not overflow: 2^-2, which changes no bit, and
/// with which 1e-6, that is added to variances, is about the least positive number.
const SCALE: f64 = 0.25;
/// Fewer queries, or fewer keys, are attended to at once.
const MANY: [usize; 2] = [768, 512];

/// Takes weights, and builds with them.
pub(super) struct Layers<'a> {
    pub(super) weights: &'a mut dyn Weights,
    /// Groups of the norms over images.
    pub(super) groups: usize,
    /// What those of residual layers add to variances.
    pub(super) eps: f64,
}

/// How many heads attend, to what, and how.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Texts or pictures.
    pub(super) n: usize,
    pub(super) heads: usize,
    pub(super) causal: bool,
    /// Whether scores are scaled before the product.
    pub(super) upcast: bool,
}

/// Whether a value could not be built, so that it has no extents to ask weights by; it says why when it is compiled.
pub(super) fn mistaken(x: &Var) -> bool {
    x.check().is_err()
}

/// The length of rows; 0 of a value that is mistaken.
pub(super) fn width(x: &Var) -> usize {
    x.shape().dims().last().copied().unwrap_or(0)
}

/// An extent; 0 of a value that is mistaken.
pub(super) fn extent(x: &Var, axis: usize) -> usize {
    x.shape().dims().get(axis).copied().unwrap_or(0)
}

impl Layers<'_> {
    pub(super) fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Var, WeightError> {
        let shape = Shape::new(dims).expect("invariant: extents of a checked configuration");
        self.weights.get(name, shape)
    }

    /// A convolution whose windows are `kernel` pixels to a side and `step` apart.
    pub(super) fn conv(
        &mut self,
        x: &Var,
        name: &str,
        to: usize,
        kernel: usize,
        step: i64,
    ) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let weight = self.weight(&format!("{name}.weight"), &[to, extent(x, 1), kernel, kernel])?;
        let bias = self.weight(&format!("{name}.bias"), &[to])?;
        Ok(x.conv(windows(kernel, step), &weight, Some(&bias)))
    }

    /// A product with a matrix, and a bias where there is one.
    pub(super) fn dense(&mut self, x: &Var, name: &str, to: usize, biased: bool) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let weight = self.weight(&format!("{name}.weight"), &[to, width(x)])?;
        let bias = biased.then(|| self.weight(&format!("{name}.bias"), &[to])).transpose()?;
        Ok(x.linear(&weight, bias.as_ref()))
    }

    /// A norm of each row.
    pub(super) fn layer_norm(&mut self, x: &Var, name: &str, eps: f64) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let [gamma, beta] = self.scales(name, width(x))?;
        Ok(x.layer_norm(&gamma, &beta, eps))
    }

    /// A norm of each group of channels.
    pub(super) fn group_norm(&mut self, x: &Var, name: &str, eps: f64) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let [gamma, beta] = self.scales(name, extent(x, 1))?;
        Ok(match extent(x, 2) * extent(x, 3) > MOST_PIXELS {
            true => of_large(x, &gamma, &beta, self.groups, eps),
            false => x.group_norm(&gamma, &beta, self.groups, eps),
        })
    }

    fn scales(&mut self, name: &str, channels: usize) -> Result<[Var; 2], WeightError> {
        let gamma = self.weight(&format!("{name}.weight"), &[channels])?;
        Ok([gamma, self.weight(&format!("{name}.bias"), &[channels])?])
    }

    /// A residual layer to so many channels, to which a time may be added.
    pub(super) fn residual(
        &mut self,
        x: &Var,
        name: &str,
        to: usize,
        time: Option<&Var>,
    ) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let eps = self.eps;
        let h = self.group_norm(x, &format!("{name}.norm1"), eps)?.silu();
        let mut h = self.conv(&h, &format!("{name}.conv1"), to, 3, 1)?;
        if let Some(time) = time {
            let added = self.dense(time, &format!("{name}.time_emb_proj"), to, true)?;
            h = h + added.reshape(&[1, to as i64, 1, 1]);
        }
        let h = self.group_norm(&h, &format!("{name}.norm2"), eps)?.silu();
        let h = self.conv(&h, &format!("{name}.conv2"), to, 3, 1)?;
        Ok(match extent(x, 1) == to {
            true => x + h,
            false => self.conv(x, &format!("{name}.conv_shortcut"), to, 1, 1)? + h,
        })
    }

    /// What the rows of `x` find among those of `context`; `names` are those of the four products, of which the first three
    /// may have no bias.
    pub(super) fn attention(
        &mut self,
        [x, context]: [&Var; 2],
        names: [String; 4],
        biased: bool,
        how: Heads,
    ) -> Result<Var, WeightError> {
        if mistaken(x) {
            return Ok(x.clone());
        }
        let (d, [n, heads]) = (width(x), [how.n, how.heads]);
        let [query, key, value, out] = names;
        let apart =
            |x: Var| x.reshape(&[n as i64, -1, heads as i64, (d / heads) as i64]).transpose(&[0, 2, 1, 3]);
        let query = apart(self.dense(x, &query, d, biased)?);
        let key = apart(self.dense(context, &key, d, biased)?);
        let value = apart(self.dense(context, &value, d, biased)?);
        let [queries, keys] = [&query, &key].map(|x| extent(x, 2));
        let parts = if queries < MANY[0] || keys < MANY[1] { 1 } else { attention_tiles(queries) };
        let scale = ((d / heads) as f64).powf(-0.5);
        // A power of two changes no bit, and half precision holds the product then.
        let before = if how.upcast { 2f64.powf(scale.log2().floor()) } else { 1.0 };
        let query = if how.upcast { query.muls(before) } else { query };
        let op =
            Attention { scale: Real(scale / before), causal: how.causal, parts: parts as i64, layer: false };
        let mixed = Var::apply(op, &[&query, &key, &value]).transpose(&[0, 2, 1, 3]);
        self.dense(&mixed.reshape_to(x.shape()), &out, d, true)
    }
}

/// Convolutions with zeros around, so that images keep their size where windows are one pixel apart.
pub(super) fn windows(kernel: usize, step: i64) -> Conv {
    Conv { strides: [step; 2], pad: [(kernel / 2) as i64; 4], dilations: [1; 2], groups: 1 }
}

/// The pixels of images as rows, `[N * H * W, C]`; `[N, H * W, C]` where an axis would be too long.
pub(super) fn rows(x: &Var) -> Var {
    let [n, c, h, w] = [0, 1, 2, 3].map(|axis| extent(x, axis));
    let apart = x.reshape(&[n as i64, c as i64, -1]).transpose(&[0, 2, 1]);
    if n * h * w > MOST_PIXELS { apart } else { apart.reshape(&[-1, c as i64]) }
}

/// Rows as images like `x`.
pub(super) fn image(rows: &Var, x: &Var) -> Var {
    let [n, c, h, w] = [0, 1, 2, 3].map(|axis| extent(x, axis) as i64);
    rows.reshape(&[n, h * w, c]).transpose(&[0, 2, 1]).reshape(&[n, c, h, w])
}

/// A norm over groups of images that have more pixels than an axis may.
fn of_large(x: &Var, gamma: &Var, beta: &Var, groups: usize, eps: f64) -> Var {
    let [n, c, h, w] = [0, 1, 2, 3].map(|axis| extent(x, axis) as i64);
    let groups = groups as i64;
    let x = x.muls(SCALE).reshape(&[n, groups, c / groups * h, w]);
    let centred = &x - x.mean(&[2, 3]);
    let variance = (&centred * &centred).mean(&[2, 3]);
    let unit = centred * variance.adds((eps * SCALE * SCALE).max(LEAST)).rsqrt(0.0);
    let of_channels = |v: &Var| v.reshape(&[1, c, 1, 1]);
    unit.reshape(&[n, c, h, w]) * of_channels(gamma) + of_channels(beta)
}

/// The least positive number of half precision.
const LEAST: f64 = 1.0 / 16_777_216.0;

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::{CompileOptions, Session, compile, device};
    use aneforge_tensor::random;

    #[test]
    fn large_images_are_normalised_as_small_ones() {
        let (shape, channels) = (Shape::new(&[2, 6, 5, 7]).unwrap(), Shape::new(&[6]).unwrap());
        let x = Var::input(shape);
        let [gamma, beta] = [1, 2].map(|seed| Var::constant(random::normal_tensor(seed, channels, 1.0)));
        for scale in [1.0, 300.0, 0.05] {
            let outputs = [x.group_norm(&gamma, &beta, 3, 1e-6), of_large(&x, &gamma, &beta, 3, 1e-6)];
            // Values as large as these overflow in the plain form.
            let options = CompileOptions::default().norms(aneforge::passes::Norms::Robust);
            let mut session =
                Session::new(compile(&outputs, &options).unwrap(), device::named("host").unwrap()).unwrap();
            let made = session.run(&[random::normal_tensor(3, shape, scale)]).unwrap();
            let [want, got] = [0, 1].map(|at| made[at].to_f32());
            let far = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
            assert!(want.iter().any(|w| w.abs() > 1.0) && far < 0.012, "{scale}: {far}");
        }
    }
}
