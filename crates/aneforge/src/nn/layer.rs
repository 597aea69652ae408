//! Layers with parameters of their own.

use super::scope::{Init, Scope};
use super::{AttentionWeights, mha};
use crate::ir::ops::conv::Conv;
use crate::ir::types::Caller;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Tensor};

/// Extents as a shape; a mistake becomes one of the value.
fn shaped(dims: &[usize], make: impl FnOnce(Shape) -> Var) -> Var {
    match Shape::new(dims) {
        Ok(shape) => make(shape),
        Err(why) => Var::poisoned("parameter", why.to_string()),
    }
}

/// `x @ weight^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Var,
    /// `[out]`.
    pub bias: Option<Var>,
}

impl Linear {
    /// From `inputs` features to `outputs`: weights as He et al. draw them, a bias of zeros.
    #[track_caller]
    pub fn new(scope: &Scope, inputs: usize, outputs: usize) -> Linear {
        Linear::begun(scope, inputs, outputs, Init::He { fan_in: inputs })
    }

    /// The same with another beginning.
    #[track_caller]
    pub fn begun(scope: &Scope, inputs: usize, outputs: usize, init: Init) -> Linear {
        let weight = shaped(&[outputs, inputs], |shape| scope.parameter("weight", shape, init));
        let bias = shaped(&[outputs], |shape| scope.parameter("bias", shape, Init::Fill(0.0)));
        Linear { weight, bias: Some(bias) }
    }

    /// This layer without a bias.
    #[track_caller]
    pub fn without_bias(scope: &Scope, inputs: usize, outputs: usize, init: Init) -> Linear {
        Linear { weight: shaped(&[outputs, inputs], |s| scope.parameter("weight", s, init)), bias: None }
    }

    /// Of `x` `[..., in]`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// A low-rank correction of a matrix that stays as it is: `x @ weight^T + scale * (x @ down^T) @ up^T` (Hu et al., ICLR 2022).
#[derive(Clone, Debug)]
pub struct Lora {
    /// The matrix `[out, in]`, which may be a constant or a frozen parameter.
    pub weight: Var,
    /// `[rank, in]`.
    pub down: Var,
    /// `[out, rank]`, zeros at first, so that the correction begins with nothing.
    pub up: Var,
    /// What the correction is multiplied with.
    pub scale: f64,
}

impl Lora {
    /// A correction of rank `rank`; `alpha / rank` is its scale.
    #[track_caller]
    pub fn new(scope: &Scope, weight: &Var, rank: usize, alpha: f64) -> Lora {
        let shape = weight.shape();
        let (outputs, inputs) = match shape.dims() {
            [outputs, inputs] => (*outputs, *inputs),
            _ => (0, 0),
        };
        let down = shaped(&[rank, inputs], |s| {
            scope.parameter("lora.down", s, Init::Normal((1.0 / inputs.max(1) as f64).sqrt()))
        });
        let up = shaped(&[outputs, rank], |s| scope.parameter("lora.up", s, Init::Fill(0.0)));
        Lora { weight: weight.clone(), down, up, scale: alpha / rank.max(1) as f64 }
    }

    /// Of `x` `[..., in]`.
    #[track_caller]
    pub fn forward(&self, x: &Var, bias: Option<&Var>) -> Var {
        Caller::here().scope(|| {
            let correction = x.linear(&self.down, None).linear(&self.up, None).muls(self.scale);
            x.linear(&self.weight, bias) + correction
        })
    }
}

/// A convolution.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kH, kW]`.
    pub weight: Var,
    /// `[out]`.
    pub bias: Option<Var>,
    /// How the kernel moves.
    pub op: Conv,
}

impl Conv2d {
    /// From `inputs` channels to `outputs`, with a square kernel and as many zeros around the image as keep its extents.
    #[track_caller]
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, kernel: usize) -> Conv2d {
        let init = Init::He { fan_in: inputs * kernel * kernel };
        let weight = shaped(&[outputs, inputs, kernel, kernel], |s| scope.parameter("weight", s, init));
        let bias = shaped(&[outputs], |shape| scope.parameter("bias", shape, Init::Fill(0.0)));
        let pad = [(kernel / 2) as i64; 4];
        let op = Conv { strides: [1, 1], pad, dilations: [1, 1], groups: 1 };
        Conv2d { weight, bias: Some(bias), op }
    }

    /// Of `x` `[N, C, H, W]`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        x.conv(self.op.clone(), &self.weight, self.bias.as_ref())
    }
}

/// A norm over the last axis, with a factor and, but for `rms`, a summand per feature.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[features]`, ones at first.
    pub gamma: Var,
    /// `[features]`, zeros at first.
    pub beta: Option<Var>,
    /// What is added to the variance.
    pub eps: f64,
}

impl Norm {
    /// Layer normalisation (Ba et al., 2016).
    #[track_caller]
    pub fn layer(scope: &Scope, features: usize) -> Norm {
        let beta = shaped(&[features], |s| scope.parameter("bias", s, Init::Fill(0.0)));
        Norm { beta: Some(beta), ..Norm::rms(scope, features) }
    }

    /// By the root of the mean square alone (Zhang and Sennrich, NeurIPS 2019).
    #[track_caller]
    pub fn rms(scope: &Scope, features: usize) -> Norm {
        let gamma = shaped(&[features], |s| scope.parameter("weight", s, Init::Fill(1.0)));
        Norm { gamma, beta: None, eps: 1e-5 }
    }

    /// Of `x` `[..., features]`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        match &self.beta {
            Some(beta) => x.layer_norm(&self.gamma, beta, self.eps),
            None => x.rms_norm(&self.gamma, self.eps),
        }
    }
}

/// Normalisation over groups of channels and the image (Wu and He, ECCV 2018), for any number of images.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `[channels]`, ones at first.
    pub gamma: Var,
    /// `[channels]`, zeros at first.
    pub beta: Var,
    /// The number of groups.
    pub groups: usize,
    /// What is added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// With `groups` groups of `channels`.
    #[track_caller]
    pub fn new(scope: &Scope, channels: usize, groups: usize) -> GroupNorm {
        let gamma = shaped(&[channels], |s| scope.parameter("weight", s, Init::Fill(1.0)));
        let beta = shaped(&[channels], |s| scope.parameter("bias", s, Init::Fill(0.0)));
        GroupNorm { gamma, beta, groups, eps: 1e-5 }
    }

    /// Of `x` `[N, C, H, W]`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        x.group_norm(&self.gamma, &self.beta, self.groups, self.eps)
    }
}

/// The largest vocabulary whose numbers half precision tells apart.
const VOCABULARY: usize = 2048;

/// A row of a table for each number.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[vocabulary, features]`.
    pub weight: Var,
}

impl Embedding {
    /// A table of `rows` rows, normally distributed with deviation 0.02.
    #[track_caller]
    pub fn new(scope: &Scope, rows: usize, features: usize) -> Embedding {
        Embedding { weight: shaped(&[rows, features], |s| scope.parameter("weight", s, Init::Normal(0.02))) }
    }

    /// The rows of `ids` `[S]`, whole numbers: `[S, features]`. An engine cannot look up by a value, so the table is multiplied
    /// with rows of ones and zeros.
    #[track_caller]
    pub fn forward(&self, ids: &Var) -> Var {
        Caller::here().scope(|| self.one_hot(ids).matmul_value(&self.weight))
    }

    /// The rows of ones and zeros that select those of `ids` `[S]`.
    #[track_caller]
    pub fn one_hot(&self, ids: &Var) -> Var {
        let rows = self.weight.shape().dims().first().copied().unwrap_or(0);
        if rows > VOCABULARY {
            let why = format!(
                "half precision tells {VOCABULARY} rows apart, and the table has {rows}; feed rows of ones and zeros"
            );
            return Var::poisoned("embedding", why);
        }
        if ids.check().is_ok() && ids.shape().rank() != 1 {
            return Var::poisoned("embedding", format!("ids must be [S], got {}", ids.shape()));
        }
        Caller::here().scope(|| {
            let numbers: Vec<f32> = (0..rows).map(|i| i as f32).collect();
            let shape = Shape::new(&[1, rows]).expect("invariant: the table has rows");
            let numbers = Var::constant(Tensor::from_slice(shape, &numbers).expect("invariant: one per row"));
            let hit = ids.expand_dims(&[1]).equal(&numbers);
            hit.select(&Var::scalar(1.0), &Var::scalar(0.0))
        })
    }
}

/// Self-attention of several heads.
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    /// The projections.
    pub weights: AttentionWeights,
    /// How many heads.
    pub heads: usize,
}

impl MultiHeadAttention {
    /// Of `features` features in `heads` heads.
    #[track_caller]
    pub fn new(scope: &Scope, features: usize, heads: usize) -> MultiHeadAttention {
        let init = Init::Glorot { fan_in: features, fan_out: features };
        let [q, k, v, o] =
            ["q", "k", "v", "o"].map(|name| Linear::begun(&scope.at(name), features, features, init));
        let weights = AttentionWeights {
            wq: q.weight,
            bq: q.bias,
            wk: k.weight,
            bk: k.bias,
            wv: v.weight,
            bv: v.bias,
            wo: o.weight,
            bo: o.bias,
        };
        MultiHeadAttention { weights, heads }
    }

    /// Of `x` `[S, D]`; `mask` is added to the scores.
    #[track_caller]
    pub fn forward(&self, x: &Var, mask: Option<&Var>) -> Var {
        mha(x, &self.weights, self.heads, mask)
    }
}

/// What hides keys that come after a query: `[tokens, tokens]`, -10,000 above the diagonal.
#[track_caller]
pub fn causal_mask(tokens: usize) -> Var {
    const HIDDEN: f32 = -1e4;
    let value = |i: usize| if i % tokens > i / tokens { HIDDEN } else { 0.0 };
    let values: Vec<f32> = (0..tokens * tokens).map(value).collect();
    shaped(&[tokens, tokens], |shape| {
        Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one value per element"))
    })
}
