use super::config::{Activation, BertConfig};
use super::error::EncodeError;
use crate::weights::{Beyond, Stored, WeightError, Weights};
use aneforge::ir::types::Caller;
use aneforge::ir::var::Var;
use aneforge::nn::{AttentionWeights, gelu_tanh, mha};
use aneforge::quantize;
use aneforge_formats::Checkpoint;
use aneforge_tensor::{Shape, Tensor, Weight};

/// What messages call the place where its nodes are made, which is no line of the user's.
const MADE_HERE: Caller = Caller::new("<encoder>", 0);
/// What a hidden key is given. Half precision has no use for -inf.
pub(super) const HIDDEN: f32 = -1e4;

/// The weights of a BERT: mapped tensors, each read when a program is compiled.
pub(super) struct Bert {
    pub(super) config: BertConfig,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    weights: Stored,
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

/// The table that every checkpoint of the family has; what precedes its name precedes all names.
const WORDS: &str = "embeddings.word_embeddings.weight";

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("invariant: sizes were checked when the configuration was read")
}

/// A weight of this shape and its bias, or what scales a norm and what shifts it.
fn pair(weights: &mut dyn Weights, name: &str, dims: &[usize]) -> Result<[Var; 2], WeightError> {
    let weight = weights.get(&format!("{name}.weight"), shape(dims))?;
    Ok([weight, weights.get(&format!("{name}.bias"), shape(&dims[..1]))?])
}

/// A weight as bytes with a scale per row; as it is where a value is none of half precision's, which compiling tells of.
fn in_bytes(weight: Var) -> Var {
    let dense = weight.data().filter(|dense| dense.first_beyond_half().is_none());
    dense.and_then(quantize::int8).map_or_else(|| weight.clone(), Var::constant)
}

impl Layer {
    fn new(
        weights: &mut dyn Weights,
        index: usize,
        config: &BertConfig,
        int8: bool,
    ) -> Result<Layer, WeightError> {
        let (d, f) = (config.hidden, config.intermediate);
        let mut at = |part: &str, dims: &[usize]| {
            let [weight, other] = pair(weights, &format!("encoder.layer.{index}.{part}"), dims)?;
            let weight = if int8 && dims.len() == 2 { in_bytes(weight) } else { weight };
            Ok::<_, WeightError>([weight, other])
        };
        let [wq, bq] = at("attention.self.query", &[d, d])?;
        let [wk, bk] = at("attention.self.key", &[d, d])?;
        let [wv, bv] = at("attention.self.value", &[d, d])?;
        let [wo, bo] = at("attention.output.dense", &[d, d])?;
        let (bq, bk, bv, bo) = (Some(bq), Some(bk), Some(bv), Some(bo));
        Ok(Layer {
            attention: AttentionWeights { wq, bq, wk, bk, wv, bv, wo, bo },
            attention_norm: at("attention.output.LayerNorm", &[d])?,
            up: at("intermediate.dense", &[f, d])?,
            down: at("output.dense", &[d, f])?,
            norm: at("output.LayerNorm", &[d])?,
        })
    }
}

impl Embeddings {
    fn new(weights: &mut Stored, config: &BertConfig) -> Result<Embeddings, WeightError> {
        let d = config.hidden;
        let kinds = weights.tensor("embeddings.token_type_embeddings.weight", &[0, d])?;
        let mut kind = vec![0.0; d];
        kinds.read_f32(0, &mut kind);
        Ok(Embeddings {
            words: weights.tensor(WORDS, &[0, d])?,
            positions: weights.tensor("embeddings.position_embeddings.weight", &[config.positions, d])?,
            kind,
            gamma: weights.tensor("embeddings.LayerNorm.weight", &[d])?.to_f32(),
            beta: weights.tensor("embeddings.LayerNorm.bias", &[d])?.to_f32(),
        })
    }
}

impl Bert {
    pub(super) fn new(checkpoint: Checkpoint, config: BertConfig, int8: bool) -> Result<Bert, WeightError> {
        let mut weights = Stored::new(checkpoint, "config.json").beside(WORDS)?;
        let embeddings = Embeddings::new(&mut weights, &config)?;
        let mut layer = |index| MADE_HERE.scope(|| Layer::new(&mut weights, index, &config, int8));
        let layers = (0..config.layers).map(&mut layer).collect::<Result<_, _>>()?;
        Ok(Bert { config, embeddings, layers, weights })
    }

    /// Puts others in the place of the layers' matrices, where there are.
    pub(super) fn replace(&mut self, stored: &dyn Fn(&Weight) -> Option<Weight>) {
        for layer in &mut self.layers {
            let AttentionWeights { wq, wk, wv, wo, .. } = &mut layer.attention;
            for weight in [wq, wk, wv, wo, &mut layer.up[0], &mut layer.down[0]] {
                if let Some(stored) = weight.data().and_then(stored) {
                    *weight = MADE_HERE.scope(|| Var::constant(stored));
                }
            }
        }
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
        let Beyond { directory, key, value, at } = self.weights.beyond_half()?;
        Some(EncodeError::Weight { directory, key, value, at })
    }
}
