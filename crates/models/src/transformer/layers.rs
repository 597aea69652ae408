//! The weights of a transformer: mapped tensors, each read when a program is compiled.

use super::MADE_HERE;
use super::config::Config;
use super::family::{Biases, Names, Projections, Up};
use crate::weights::{Stored, WeightError, Weights};
use aneforge::ir::var::Var;
use aneforge::quantize;
use aneforge_formats::Checkpoint;
use aneforge_tensor::{Shape, Tensor, Weight};

/// The layers, and what the host looks up.
pub(crate) struct Transformer {
    pub(crate) config: Config,
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    /// The norm after the last layer.
    pub(super) last: Option<Norm>,
    /// What scores get by the distance of query and key: `[distances, heads]`.
    pub(super) distances: Option<Tensor>,
    pub(crate) weights: Stored,
}

/// What the host adds up and normalises per token.
pub(super) struct Embeddings {
    pub(super) words: Tensor,
    pub(super) positions: Option<Tensor>,
    pub(super) kinds: Option<Tensor>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

/// A layer that multiplies, and adds a bias.
pub(super) struct Dense {
    pub(super) weight: Var,
    pub(super) bias: Option<Var>,
}

pub(super) struct Norm {
    pub(super) gamma: Var,
    pub(super) beta: Var,
}

pub(super) struct Layer {
    pub(super) projections: [Dense; 3],
    pub(super) attended: Dense,
    /// Before the first layer's attention there may be none.
    pub(super) attention_norm: Option<Norm>,
    /// The function is applied to its result.
    pub(super) up: Dense,
    /// Its result is multiplied with that of the function.
    pub(super) gate: Option<Dense>,
    pub(super) down: Dense,
    pub(super) norm: Norm,
}

pub(super) fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("invariant: sizes were checked when the configuration was read")
}

/// A weight as bytes with a scale per row; as it is where a value is none of half precision's, which compiling tells of.
fn in_bytes(weight: Var) -> Var {
    let dense = weight.data().filter(|dense| dense.first_beyond_half().is_none());
    dense.and_then(quantize::int8).map_or_else(|| weight.clone(), Var::constant)
}

/// Rows of a tensor, which share its bytes.
fn rows(tensor: &Tensor, start: usize, count: usize) -> Tensor {
    let mut dims = tensor.shape().dims().to_vec();
    let row = dims[1..].iter().product::<usize>() * tensor.dtype().size();
    dims[0] = count;
    let bytes = tensor.bytes().slice(start * row..(start + count) * row);
    let bytes = bytes.expect("invariant: the tensor has the rows that its shape was checked for");
    Tensor::new(tensor.dtype(), shape(&dims), bytes).expect("invariant: as many bytes as elements take")
}

/// Takes the weights of one layer.
struct Reader<'a> {
    weights: &'a mut Stored,
    config: &'a Config,
    prefix: String,
    int8: bool,
}

impl Reader<'_> {
    /// Layers whose weights are the rows of one, `[parts * out, inputs]`.
    fn denses<const N: usize>(
        &mut self,
        name: &str,
        [out, inputs]: [usize; 2],
        bias: bool,
    ) -> Result<[Dense; N], WeightError> {
        let name = format!("{}{name}", self.prefix);
        let weight = self.weights.tensor(&format!("{name}.weight"), &[N * out, inputs])?;
        let bias = match bias {
            true => Some(self.weights.tensor(&format!("{name}.bias"), &[N * out])?),
            false => None,
        };
        Ok(std::array::from_fn(|part| {
            let weight = Var::constant(rows(&weight, part * out, out));
            let weight = if self.int8 { in_bytes(weight) } else { weight };
            Dense { weight, bias: bias.as_ref().map(|bias| Var::constant(rows(bias, part * out, out))) }
        }))
    }

    fn dense(&mut self, name: &str, dims: [usize; 2], bias: bool) -> Result<Dense, WeightError> {
        let [dense] = self.denses(name, dims, bias)?;
        Ok(dense)
    }

    fn norm(&mut self, name: &str) -> Result<Norm, WeightError> {
        let (name, of) = (format!("{}{name}", self.prefix), shape(&[self.config.hidden]));
        let gamma = self.weights.get(&format!("{name}.weight"), of)?;
        let beta = match self.config.biases.norm {
            true => self.weights.get(&format!("{name}.bias"), of)?,
            false => Var::full(of, 0.0),
        };
        Ok(Norm { gamma, beta })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, WeightError> {
        let config = self.config;
        let Names { projections, attended, attention_norm, up, down, feed_norm, last, .. } = config.names;
        let Biases { attention, up: up_bias, down: down_bias, .. } = config.biases;
        let (d, f) = (config.hidden, config.intermediate);
        let projections = match projections {
            Projections::One(name) => self.denses(name, [d, d], attention)?,
            Projections::Three([q, k, v]) => [
                self.dense(q, [d, d], attention)?,
                self.dense(k, [d, d], attention)?,
                self.dense(v, [d, d], attention)?,
            ],
        };
        let (up, gate) = match up {
            Up::Plain(name) => (self.dense(name, [f, d], up_bias)?, None),
            Up::Gated([name, gate]) => {
                (self.dense(name, [f, d], up_bias)?, Some(self.dense(gate, [f, d], up_bias)?))
            }
            Up::Joined { name, first } => {
                let [a, b] = self.denses(name, [f, d], up_bias)?;
                if *first { (a, Some(b)) } else { (b, Some(a)) }
            }
        };
        // A family with a norm after all layers has none before the first one's attention.
        let bare = last.is_some() && index == 0;
        Ok(Layer {
            projections,
            attended: self.dense(attended, [d, d], attention)?,
            attention_norm: if bare { None } else { Some(self.norm(attention_norm)?) },
            up,
            gate,
            down: self.dense(down, [d, f], down_bias)?,
            norm: self.norm(feed_norm)?,
        })
    }
}

impl Embeddings {
    fn new(weights: &mut Stored, config: &Config) -> Result<Embeddings, WeightError> {
        let (d, names) = (config.hidden, config.names);
        let mut table = |name: Option<&str>, rows: usize| {
            name.map(|name| weights.tensor(&format!("{name}.weight"), &[rows, d])).transpose()
        };
        let places = config.first + config.positions;
        Ok(Embeddings {
            kinds: table(names.kinds.filter(|_| config.kinds), 0)?,
            positions: table(names.positions, places)?,
            words: weights.tensor(&format!("{}.weight", names.words), &[0, d])?,
            gamma: weights.tensor(&format!("{}.weight", names.norm), &[d])?.to_f32(),
            beta: match config.biases.norm {
                true => weights.tensor(&format!("{}.bias", names.norm), &[d])?.to_f32(),
                false => vec![0.0; d],
            },
        })
    }
}

impl Transformer {
    pub(crate) fn new(
        checkpoint: Checkpoint,
        config: Config,
        int8: bool,
    ) -> Result<Transformer, WeightError> {
        let words = format!("{}.weight", config.names.words);
        // The table that every checkpoint has; what precedes its name precedes all names.
        let mut weights = Stored::new(checkpoint, "config.json").beside(&words)?;
        let embeddings = Embeddings::new(&mut weights, &config)?;
        let distances = config
            .names
            .distances
            .map(|name| weights.tensor(&format!("{name}.weight"), &[config.distances, config.heads]));
        let distances = distances.transpose()?;
        let mut reader = Reader { weights: &mut weights, config: &config, prefix: String::new(), int8 };
        let last = MADE_HERE.scope(|| config.names.last.map(|name| reader.norm(name)).transpose())?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            reader.prefix = format!("{}{index}.", config.names.layers);
            layers.push(MADE_HERE.scope(|| reader.layer(index))?);
        }
        Ok(Transformer { config, embeddings, layers, last, distances, weights })
    }

    /// Puts others in the place of the layers' matrices, where there are.
    pub(crate) fn replace(&mut self, stored: &dyn Fn(&Weight) -> Option<Weight>) {
        for layer in &mut self.layers {
            let Layer { projections, attended, up, gate, down, .. } = layer;
            for dense in projections.iter_mut().chain([attended, up, down]).chain(gate) {
                if let Some(stored) = dense.weight.data().and_then(stored) {
                    dense.weight = MADE_HERE.scope(|| Var::constant(stored));
                }
            }
        }
    }

    /// Rows of the table of words.
    pub(crate) fn vocabulary(&self) -> usize {
        self.embeddings.words.shape()[0]
    }
}
