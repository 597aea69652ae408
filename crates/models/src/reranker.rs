//! Rerankers: how well two texts go together, read as one.

use crate::encoder::{EncodeError, Files, LoadError};
use crate::resolve::{HubOptions, Reads, resolve};
use crate::transformer::config::Activation;
use crate::transformer::run::{Progress, Runner, RunnerOptions, SentenceConfig, longest};
use crate::transformer::tokens::{Input, Reader, Tokens};
use crate::weights::{Stored, WeightError};
use aneforge::device::Device;
use aneforge::target::Target;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// How a reranker is loaded.
#[derive(Clone, Default)]
pub struct CrossEncoderOptions {
    /// The most tokens of a pair, the rest of its longer text being cut off; by default what `tokenizer_config.json` says,
    /// else the tokenizer file. Never more than the model has positions.
    pub max_length: Option<usize>,
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine, as [`default`](aneforge::device::default)(aneforge::device::default) gives it.
    pub device: Option<Arc<dyn Device>>,
    /// Whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
    pub int8: bool,
    /// How many programs are kept loaded, one per length and number of pairs; the one unused for longest goes first. By default 8
    /// on the host and 32 elsewhere.
    pub programs: Option<usize>,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

/// A pretrained reranker: a transformer that reads a pair of texts, and a head that scores it.
///
/// The transformer runs as an [encoder](crate::Encoder)'s does; the head is computed on the host, in double precision.
///
/// ```no_run
/// use aneforge_models::{CrossEncoder, CrossEncoderOptions};
///
/// let mut reranker =
///     CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L6-v2", CrossEncoderOptions::default())?;
/// let scores = reranker.predict(&[("how tall is it", "It is 8 m tall."), ("how tall is it", "It is red.")])?;
/// assert!(scores[0][0] > scores[1][0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CrossEncoder {
    runner: Runner,
    head: Head,
    name: String,
    files: Files,
    int8: bool,
}

/// A layer of a head.
struct Dense {
    /// `[out, inputs]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// What makes scores of states.
struct Head {
    /// Whether it takes the mean of the states, or the first.
    mean: bool,
    dense: Dense,
    activation: Between,
    /// What scales and shifts the norm of what the function gives, and what is added to its variance.
    norm: Option<(Vec<f32>, Vec<f32>, f64)>,
    out: Dense,
}

/// The function between the layers of a head.
#[derive(Clone, Copy)]
enum Between {
    Tanh,
    Other(Activation),
}

/// A head's first layer and its last; the first is beside the words where it begins with a dot.
const HEADS: [([&str; 2], Between); 4] = [
    (["pre_classifier", "classifier"], Between::Other(Activation::Relu)),
    (["classifier.dense", "classifier.out_proj"], Between::Tanh),
    (["head.dense", "classifier"], Between::Other(Activation::Gelu)),
    ([".pooler.dense", "classifier"], Between::Tanh),
];

impl Dense {
    fn new(weights: &mut Stored, name: &str, [out, inputs]: [usize; 2]) -> Result<Dense, WeightError> {
        let weight = weights.beyond_prefix(&format!("{name}.weight"), &[out, inputs])?;
        let bias = format!("{name}.bias");
        let bias = match weights.contains(&bias) {
            true => weights.beyond_prefix(&bias, &[weight.shape()[0]])?.to_f32(),
            false => vec![0.0; weight.shape()[0]],
        };
        Ok(Dense { weight: weight.to_f32(), bias })
    }

    fn of(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, v)| f64::from(*w) * v).sum::<f64>();
        rows.map(|(row, bias)| dot(row) + f64::from(*bias)).collect()
    }
}

impl Head {
    fn new(runner: &mut Runner, root: &Path, file: &Map<String, Value>) -> Result<Head, LoadError> {
        let (d, eps) = (runner.dim(), runner.model.config.eps);
        let weights = &mut runner.model.weights;
        let full = |weights: &Stored, name: &str| match name.strip_prefix('.') {
            Some(name) => format!("{}{name}", weights.prefix()),
            None => name.to_owned(),
        };
        let found = HEADS.into_iter().find(|(names, _)| {
            names.iter().all(|name| weights.contains(&format!("{}.weight", full(weights, name))))
        });
        let ([dense, out], activation) = found.ok_or_else(|| LoadError::NoHead(root.to_owned()))?;
        let text = |key: &str| file.get(key).and_then(Value::as_str);
        let activation = match text("classifier_activation") {
            Some(name) if dense == "head.dense" => {
                let fail = |why| LoadError::Config { path: root.join("config.json"), why };
                Between::Other(Activation::named(name).map_err(fail)?)
            }
            _ => activation,
        };
        let norm = match weights.contains("head.norm.weight") && dense == "head.dense" {
            false => None,
            true => {
                let gamma = weights.beyond_prefix("head.norm.weight", &[d])?.to_f32();
                let beta = match weights.contains("head.norm.bias") {
                    true => weights.beyond_prefix("head.norm.bias", &[d])?.to_f32(),
                    false => vec![0.0; d],
                };
                Some((gamma, beta, eps))
            }
        };
        let mean = dense == "head.dense" && text("classifier_pooling") == Some("mean");
        let dense = full(weights, dense);
        let dense = Dense::new(weights, &dense, [d, d])?;
        let out = Dense::new(weights, out, [0, d])?;
        Ok(Head { mean, dense, activation, norm, out })
    }

    /// The scores of a pair with such states, one for each label.
    fn scores(&self, states: &[f32], d: usize) -> Vec<f32> {
        let rows = if self.mean { states.len() / d } else { 1 };
        let column =
            |at: usize| (0..rows).map(|row| f64::from(states[row * d + at])).sum::<f64>() / rows as f64;
        let pooled: Vec<f64> = (0..d).map(column).collect();
        let mut inner: Vec<f64> = self.dense.of(&pooled).into_iter().map(|v| self.activation.of(v)).collect();
        if let Some((gamma, beta, eps)) = &self.norm {
            let mean = inner.iter().sum::<f64>() / d as f64;
            let variance = inner.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
            for ((v, gamma), beta) in inner.iter_mut().zip(gamma).zip(beta) {
                *v = (*v - mean) / (variance + eps).sqrt() * f64::from(*gamma) + f64::from(*beta);
            }
        }
        self.out.of(&inner).into_iter().map(|v| v as f32).collect()
    }
}

impl Between {
    fn of(self, x: f64) -> f64 {
        match self {
            Between::Tanh => x.tanh(),
            Between::Other(activation) => activation.of(x),
        }
    }
}

impl CrossEncoder {
    /// Loads a model by its directory, in the layout of `transformers`, or by its hub id. The head is told by the names of
    /// its weights: `pre_classifier` (DistilBERT), `classifier.dense` (RoBERTa, MPNet), `head.dense` (ModernBERT) or
    /// `pooler.dense` (BERT, Nomic, GTE). Nothing is compiled yet.
    pub fn load(name_or_path: &str, options: CrossEncoderOptions) -> Result<CrossEncoder, LoadError> {
        options.target.runs_programs()?;
        let root = resolve(name_or_path, Reads::Texts, &options.hub)?;
        let files = Files::of(&root)?;
        let max_seq_length = match options.max_length {
            None => longest(&root, &SentenceConfig::default())?,
            given => given,
        };
        let opened = RunnerOptions {
            max_seq_length,
            lowercase: false,
            pairs: true,
            int8: options.int8,
            target: options.target,
            device: options.device,
            programs: options.programs,
        };
        let (mut runner, file) = Runner::open(&root, opened)?;
        let head = Head::new(&mut runner, &root, &file)?;
        Ok(CrossEncoder { runner, head, name: name_or_path.to_owned(), files, int8: options.int8 })
    }

    /// The scores of each pair, one for each of the model's labels: what the head gives, not made probabilities.
    pub fn predict<T: AsRef<str>>(&mut self, pairs: &[(T, T)]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.predict_with(pairs, &mut |_, _| ControlFlow::Continue(()))
    }

    /// The same. `progress` is told how many pairs of how many are done, before the first and after each batch, and may stop;
    /// so does [stopping](aneforge_kernels::threads::stoppable) the thread's work.
    pub fn predict_with<T: AsRef<str>>(
        &mut self,
        pairs: &[(T, T)],
        progress: Progress<'_>,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let inputs: Vec<Input<'_>> = pairs.iter().map(|(a, b)| Input::Pair(a.as_ref(), b.as_ref())).collect();
        let read = self.runner.reader.read(&inputs, self.runner.model.vocabulary(), false)?;
        let tokens: Vec<&Tokens> = read.iter().map(|(_, tokens)| tokens).collect();
        self.predict_tokens(&tokens, progress)
    }

    /// The same of pairs that were read already, by the model's own [`reader`](CrossEncoder::reader).
    pub fn predict_tokens(
        &mut self,
        pairs: &[&Tokens],
        progress: Progress<'_>,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let (d, head) = (self.runner.dim(), &self.head);
        let mut scores = vec![Vec::new(); pairs.len()];
        self.runner.states(pairs, progress, &mut |pair, states| scores[pair] = head.scores(states, d))?;
        Ok(scores)
    }

    /// What makes tokens of pairs, for other threads.
    pub fn reader(&self) -> Reader {
        self.runner.reader()
    }

    /// Which documents go best with a query, by their places and scores, the best first. Of several labels, the first counts.
    pub fn rank<T: AsRef<str>>(
        &mut self,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<(usize, f32)>, EncodeError> {
        let pairs: Vec<(&str, &str)> = documents.iter().map(|document| (query, document.as_ref())).collect();
        let scores = self.predict(&pairs)?;
        let mut ranked: Vec<(usize, f32)> = scores.iter().map(|scores| scores[0]).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(ranked)
    }

    /// How many scores a pair gets.
    pub fn labels(&self) -> usize {
        self.head.out.bias.len()
    }

    /// The most tokens of a pair, special ones included.
    pub fn max_length(&self) -> usize {
        self.runner.reader.most
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        self.runner.target
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        &*self.runner.device
    }

    /// The files that it was loaded from.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

impl fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, labels, most) = (&self.name, self.labels(), self.max_length());
        let (target, device) = (self.target(), self.device().title());
        let (s, weights) =
            (if labels == 1 { "" } else { "s" }, if self.int8 { ", int8 weights" } else { "" });
        write!(f, "CrossEncoder({name}, {labels} score{s} of up to {most} tokens, ")?;
        write!(f, "target {target}, device {device}{weights})")
    }
}
