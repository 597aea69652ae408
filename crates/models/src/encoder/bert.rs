use super::config::{Activation, BertConfig};
use super::error::{EncodeError, LoadError};
use aneforge::ir::types::Caller;
use aneforge::ir::var::Var;
use aneforge::nn::{AttentionWeights, gelu_tanh, mha};
use aneforge_formats::Checkpoint;
use aneforge_tensor::{Shape, Tensor};
use std::collections::BTreeMap;

/// What messages call the place where its nodes are made, which is no line of the user's.
const MADE_HERE: Caller = Caller::new("<encoder>", 0);
/// What a hidden key is given. Half precision has no use for -inf.
pub(super) const HIDDEN: f32 = -1e4;

/// The weights of a BERT: mapped tensors, each read when a program is compiled.
pub(super) struct Bert {
    pub(super) config: BertConfig,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    weights: Weights,
}

/// What the host adds up and normalises per token.
struct Embeddings {
    words: Tensor,
    positions: Tensor,
    kind: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

struct Layer {
    attention: AttentionWeights,
    attention_norm: [Var; 2],
    up: [Var; 2],
    down: [Var; 2],
    norm: [Var; 2],
}

/// Checked weights by name, so that a bad value can be told by its name.
struct Weights {
    checkpoint: Checkpoint,
    prefix: String,
    taken: BTreeMap<String, Tensor>,
}

/// The table that every checkpoint of the family has; what precedes its name precedes all names.
const WORDS: &str = "embeddings.word_embeddings.weight";

impl Weights {
    fn new(checkpoint: Checkpoint) -> Result<Weights, LoadError> {
        let prefixes = checkpoint.names().filter_map(|name| name.strip_suffix(WORDS));
        let prefix = prefixes.filter(|p| p.is_empty() || p.ends_with('.')).min_by_key(|p| p.len());
        let absent = || LoadError::NoWeight { directory: checkpoint.directory().into(), key: WORDS.into() };
        let prefix = prefix.ok_or_else(absent)?.to_owned();
        Ok(Weights { checkpoint, prefix, taken: BTreeMap::new() })
    }

    /// A weight of this shape; an extent of 0 stands for any.
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Tensor, LoadError> {
        let key = self.key(name);
        let directory = || self.checkpoint.directory().to_owned();
        if !self.checkpoint.contains(&key) {
            return Err(LoadError::NoWeight { directory: directory(), key });
        }
        let tensor = self.checkpoint.tensor(&key)?;
        let got = tensor.shape();
        if got.rank() != want.len() || got.dims().iter().zip(want).any(|(g, w)| *w != 0 && g != w) {
            let (want, got) = (want.to_vec(), got.dims().to_vec());
            return Err(LoadError::WeightShape { directory: directory(), key, want, got });
        }
        if !tensor.dtype().is_float() {
            return Err(LoadError::WeightType { directory: directory(), key, got: tensor.dtype() });
        }
        self.taken.insert(key, tensor.clone());
        Ok(tensor)
    }

    /// The full name. Checkpoints converted from TensorFlow call the parts of a norm gamma and beta.
    fn key(&self, name: &str) -> String {
        let key = format!("{}{name}", self.prefix);
        let older = match name.rsplit_once("LayerNorm.") {
            Some((stem, "weight")) => format!("{}{stem}LayerNorm.gamma", self.prefix),
            Some((stem, "bias")) => format!("{}{stem}LayerNorm.beta", self.prefix),
            _ => return key,
        };
        if !self.checkpoint.contains(&key) && self.checkpoint.contains(&older) { older } else { key }
    }

    fn constant(&mut self, name: &str, want: &[usize]) -> Result<Var, LoadError> {
        let tensor = self.take(name, want)?;
        Ok(MADE_HERE.scope(|| Var::constant(tensor)))
    }

    /// Weight `[n, k]` and bias `[n]`.
    fn linear(&mut self, name: &str, n: usize, k: usize) -> Result<[Var; 2], LoadError> {
        let weight = self.constant(&format!("{name}.weight"), &[n, k])?;
        Ok([weight, self.constant(&format!("{name}.bias"), &[n])?])
    }

    fn norm(&mut self, name: &str, d: usize) -> Result<[Var; 2], LoadError> {
        let gamma = self.constant(&format!("{name}.weight"), &[d])?;
        Ok([gamma, self.constant(&format!("{name}.bias"), &[d])?])
    }

    fn layer(&mut self, index: usize, config: &BertConfig) -> Result<Layer, LoadError> {
        let (d, f) = (config.hidden, config.intermediate);
        let at = |part: &str| format!("encoder.layer.{index}.{part}");
        let [wq, bq] = self.linear(&at("attention.self.query"), d, d)?;
        let [wk, bk] = self.linear(&at("attention.self.key"), d, d)?;
        let [wv, bv] = self.linear(&at("attention.self.value"), d, d)?;
        let [wo, bo] = self.linear(&at("attention.output.dense"), d, d)?;
        let (bq, bk, bv, bo) = (Some(bq), Some(bk), Some(bv), Some(bo));
        Ok(Layer {
            attention: AttentionWeights { wq, bq, wk, bk, wv, bv, wo, bo },
            attention_norm: self.norm(&at("attention.output.LayerNorm"), d)?,
            up: self.linear(&at("intermediate.dense"), f, d)?,
            down: self.linear(&at("output.dense"), d, f)?,
            norm: self.norm(&at("output.LayerNorm"), d)?,
        })
    }
}

impl Embeddings {
    fn new(weights: &mut Weights, config: &BertConfig) -> Result<Embeddings, LoadError> {
        let d = config.hidden;
        let kinds = weights.take("embeddings.token_type_embeddings.weight", &[0, d])?;
        let mut kind = vec![0.0; d];
        kinds.read_f32(0, &mut kind);
        Ok(Embeddings {
            words: weights.take(WORDS, &[0, d])?,
            positions: weights.take("embeddings.position_embeddings.weight", &[config.positions, d])?,
            kind,
            gamma: weights.take("embeddings.LayerNorm.weight", &[d])?.to_f32(),
            beta: weights.take("embeddings.LayerNorm.bias", &[d])?.to_f32(),
        })
    }
}

impl Bert {
    pub(super) fn new(checkpoint: Checkpoint, config: BertConfig) -> Result<Bert, LoadError> {
        let mut weights = Weights::new(checkpoint)?;
        let embeddings = Embeddings::new(&mut weights, &config)?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            layers.push(weights.layer(index, &config)?);
        }
        Ok(Bert { config, embeddings, layers, weights })
    }

    /// Rows of the table of words.
    pub(super) fn vocabulary(&self) -> usize {
        self.embeddings.words.shape()[0]
    }

    /// Writes what the first layer takes for `token` at `position`: the sum of its three embeddings,
    /// normalised, in single precision.
    ///
    /// # Panics
    /// If the token or the position is beyond its table.
    pub(super) fn embed(&self, token: usize, position: usize, out: &mut [f32]) {
        let Embeddings { words, positions, kind, gamma, beta } = &self.embeddings;
        let d = out.len();
        let mut place = vec![0.0; d];
        words.read_f32(token * d, out);
        positions.read_f32(position * d, &mut place);
        for (i, v) in out.iter_mut().enumerate() {
            *v += kind[i] + place[i];
        }
        let mean = (out.iter().map(|v| f64::from(*v)).sum::<f64>() / d as f64) as f32;
        let variance = out.iter().map(|v| f64::from(*v - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = (1.0 / (variance + self.config.eps).sqrt()) as f32;
        for (i, v) in out.iter_mut().enumerate() {
            *v = (*v - mean) * scale * gamma[i] + beta[i];
        }
    }

    /// The encoder for `s` tokens: embedded tokens `[s, D]` and a mask `[1, s, s]` to states `[s, D]`.
    pub(super) fn graph(&self, s: usize) -> Var {
        MADE_HERE.scope(|| self.states(s))
    }

    fn states(&self, s: usize) -> Var {
        let config = &self.config;
        let shape = |dims: &[usize]| Shape::new(dims).expect("invariant: sizes were checked when loaded");
        let mut h = Var::input(shape(&[s, config.hidden]));
        let mask = Var::input(shape(&[1, s, s]));
        for layer in &self.layers {
            let attended = mha(&h, &layer.attention, config.heads, Some(&mask));
            let [gamma, beta] = &layer.attention_norm;
            h = (h + attended).layer_norm(gamma, beta, config.eps);
            let inner = h.linear(&layer.up[0], Some(&layer.up[1]));
            let inner = match config.activation {
                Activation::Gelu => inner.gelu(),
                Activation::GeluTanh => gelu_tanh(&inner),
                Activation::Relu => inner.relu(),
                Activation::Silu => inner.silu(),
            };
            let [gamma, beta] = &layer.norm;
            h = (h + inner.linear(&layer.down[0], Some(&layer.down[1]))).layer_norm(gamma, beta, config.eps);
        }
        h
    }

    /// The first weight that half precision cannot hold, by name.
    pub(super) fn bad_weight(&self) -> Option<EncodeError> {
        self.weights.taken.iter().find_map(|(key, tensor)| {
            let at = tensor.first_beyond_half()?;
            let mut value = [0.0];
            tensor.read_f32(at, &mut value);
            let directory = self.weights.checkpoint.directory().to_owned();
            Some(EncodeError::Weight { directory, key: key.clone(), value: value[0], at })
        })
    }
}
