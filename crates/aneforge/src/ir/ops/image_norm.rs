//! Normalisations of images that the engine has a statement for.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Norm};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::Conv;
use crate::ir::ops::norm::eps_of;
use crate::ir::ops::prelu::{along_channels, channelwise};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::channel::{self, Response};
use aneforge_tensor::{Shape, Tensor, round_f16};

op! {
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each channel of each image.
    ///
    /// `x` is `[N, C, H, W]`, `gamma` and `beta` `[C]`. The variance is the population's; sums are those of
    /// the reductions. All in single precision, rounded once.
    /// In Python, `af.instance_norm(x, gamma, beta)`.
    pub struct InstanceNorm = "instance_norm"("x", "gamma", "beta") {
        /// Added to the variance; rounded to half precision, to 2^-24 at least.
        eps: Real = Real(1e-5),
    }
}

op! {
    /// `x / (k + alpha / size * sum of x^2 over neighbouring channels)^beta`.
    ///
    /// `x` is `[N, C, H, W]`. The neighbours of channel `c` are `c - (size-1)/2` to `c + size/2`, rounded
    /// down, as far as they exist; `alpha` is divided by `size` at the border too. In single precision,
    /// rounded once.
    /// In Python, `af.local_response_norm(x, size=5)`.
    pub struct LocalResponseNorm = "local_response_norm"("x") {
        /// How many channels count as neighbours.
        size: i64 = 5,
        /// The weight of the mean square; rounded to half precision, as the others.
        alpha: Real = Real(1e-4),
        /// The power.
        beta: Real = Real(0.75),
        /// The summand.
        k: Real = Real(1.0),
    }
}

impl Operator for InstanceNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        channelwise(x, 4, &["gamma", "beta"])?;
        match x[0].shape.rank() {
            4 => Ok(x[0]),
            _ => Err(format!("x must be [N, C, H, W], got {}", x[0].shape)),
        }
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Normalise(Norm::Instance { eps: self.eps.0 })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (channels, inner) = (out.shape[1], out.shape.strides()[1]);
        let eps = eps_of(self.eps, p);
        let mut data = Vec::with_capacity(out.shape.count());
        for (plane, x0) in x[0].data.chunks(inner).enumerate() {
            let (gamma, beta) = (x[1].data[plane % channels], x[2].data[plane % channels]);
            let mean = p.divide(p.sum_of(x0.iter().copied()), inner as f64);
            let square = |v: &f64| match p {
                Precision::F64 => (v - mean).powi(2),
                Precision::F16(_) => f64::from((*v as f32 - mean as f32).powi(2)),
            };
            let variance = p.divide(p.sum_of(x0.iter().map(square)), inner as f64);
            data.extend(x0.iter().map(|&v| {
                p.store(match p {
                    Precision::F64 => (v - mean) * (gamma / (variance + eps).sqrt()) + beta,
                    Precision::F16(_) => {
                        let scale = channel::scale(gamma as f32, variance as f32, eps as f32);
                        f64::from(channel::normalized(v as f32, mean as f32, scale, beta as f32))
                    }
                })
            }));
        }
        Array { shape: out.shape, data }
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let planes = |v: &Var| v.mean(&[2, 3]);
        let centred = &x[0] - planes(&x[0]);
        let root = planes(&centred.square()).adds(self.eps.0).rsqrt(0.0);
        let unit = centred * &root;
        let per_channel = |v: Var| Grad::To(v.sum(&[0, 2, 3]).reshape_to(x[1].shape()));
        let inner = dy - planes(dy) - &unit * planes(&(dy * &unit));
        let dx = inner * root * along_channels(&x[1], 4);
        vec![Grad::To(dx), per_channel(dy * unit), per_channel(dy.clone())]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "instance_norm",
            args: &[
                ("beta", Arg::In(2)),
                ("epsilon", Arg::Inline("eps", Lit::Fp16)),
                ("gamma", Arg::In(1)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], eps: f64| {
            let c: &[usize] = &[x[1]];
            Case::new(InstanceNorm { eps: Real(eps) }, &[x, c, c], (-2.0, 2.0), Tolerance::SUM)
                .constants_from(1)
        };
        vec![on(&[1, 4, 3, 5], 1e-5), on(&[2, 3, 6, 6], 0.125), on(&[1, 1, 1, 20], 1e-3)]
    }
}

impl LocalResponseNorm {
    /// What it divides by, as the engine has its numbers.
    fn response(&self) -> Response {
        let [alpha, beta, k] = [self.alpha, self.beta, self.k].map(|v| round_f16(v.0).to_f32());
        Response { size: self.size as usize, alpha, beta, k }
    }

    /// Sums over the neighbours of every channel, as a convolution with a band of ones, or over the channels
    /// that every channel is a neighbour of.
    fn band(&self, x: &Var, turned: bool) -> Var {
        let channels = x.shape()[1];
        let inside = |i: usize| {
            let (row, column) = (i / channels, i % channels);
            let (of, neighbour) = if turned { (column, row) } else { (row, column) };
            f32::from(u8::from(self.response().neighbours(of, channels).contains(&neighbour)))
        };
        let ones: Vec<f32> = (0..channels * channels).map(inside).collect();
        let shape = Shape::new(&[channels, channels, 1, 1]).expect("invariant: four axes");
        let weight = Var::constant(Tensor::from_slice(shape, &ones).expect("invariant: one value each"));
        let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        x.conv(op, &weight, None)
    }
}

impl Operator for LocalResponseNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        [self.alpha, self.beta, self.k].into_iter().try_for_each(Real::check)?;
        if x[0].shape.rank() != 4 {
            return Err(format!("x must be [N, C, H, W], got {}", x[0].shape));
        }
        if self.size < 1 {
            return Err(format!("size must be at least 1, got {}", self.size));
        }
        Ok(x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Normalise(Norm::Response(self.response()))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (channels, inner) = (out.shape[1], out.shape.strides()[1]);
        let ([alpha, beta, k], response) = ([self.alpha.0, self.beta.0, self.k.0], self.response());
        Array::from_fn(out.shape, |i| {
            let channel = i / inner % channels;
            let first = i - channel * inner;
            let square = |c: usize| x[0].data[first + c * inner].powi(2);
            let total = p.inner_sum_of(response.neighbours(channel, channels).map(square));
            p.store(match p {
                Precision::F64 => x[0].data[i] / (k + alpha / self.size as f64 * total).powf(beta),
                Precision::F16(_) => f64::from(response.of(x[0].data[i] as f32, total as f32)),
            })
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let share = self.alpha.0 / self.size as f64;
        let base = self.band(&x[0].square(), false).muls(share).adds(self.k.0);
        let power = base.log(0.0).muls(-self.beta.0).exp();
        let back = self.band(&(dy * &x[0] * &power / base), true);
        vec![Grad::To(dy * power - (back * &x[0]).muls(2.0 * self.beta.0 * share))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "local_response_norm",
            args: &[
                ("alpha", Arg::Inline("alpha", Lit::Fp16)),
                ("beta", Arg::Inline("beta", Lit::Fp16)),
                ("k", Arg::Inline("k", Lit::Fp16)),
                ("size", Arg::Named("size", Lit::Int32)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], size: i64, [alpha, beta, k]: [f64; 3]| {
            let op = LocalResponseNorm { size, alpha: Real(alpha), beta: Real(beta), k: Real(k) };
            Case::new(op, &[x], (-4.0, 4.0), Tolerance::FUNCTION)
        };
        vec![
            on(&[1, 7, 2, 3], 5, [0.5, 0.75, 1.0]),
            on(&[2, 5, 3, 2], 4, [0.25, 0.5, 2.0]),
            on(&[1, 3, 2, 2], 1, [1.0, 1.0, 0.5]),
            on(&[1, 2, 1, 3], 9, [0.5, 0.75, 1.0]),
        ]
    }
}

impl Var {
    /// Normalises each channel of each image, then scales and shifts it.
    #[track_caller]
    pub fn instance_norm(&self, gamma: &Var, beta: &Var, eps: f64) -> Var {
        Var::apply(InstanceNorm { eps: Real(eps) }, &[self, gamma, beta])
    }

    /// Divides by a power of the mean square of `size` neighbouring channels.
    #[track_caller]
    pub fn local_response_norm(&self, size: usize, alpha: f64, beta: f64, k: f64) -> Var {
        let [alpha, beta, k] = [alpha, beta, k].map(Real);
        Var::apply(LocalResponseNorm { size: size as i64, alpha, beta, k }, &[self])
    }
}
