//! The text encoder, which is CLIP's (Radford et al., ICML 2021), in the names of `transformers`.

use super::component::{Component, Runtime};
use super::config::{Activation, TextConfig};
use super::error::DiffusionError;
use super::layers::{Heads, Layers, width};
use super::tokenizer::Reader;
use crate::weights::{Stored, WeightError, Weights};
use aneforge::nn::gelu_tanh;
use aneforge::session::Session;
use aneforge::{Feed, Var};
use aneforge_formats::Checkpoint;
use aneforge_tensor::{Shape, Tensor};
use std::path::Path;

const WORDS: &str = "embeddings.token_embedding.weight";
const POSITIONS: &str = "embeddings.position_embedding.weight";
const DESCRIBED_BY: &str = "text_encoder/config.json";
/// Texts of one program.
const TOGETHER: usize = 8;

/// The text encoder of a pipeline, with its tokenizer. Words and positions are looked up on the host; the layers are one program for
/// each number of texts.
pub struct TextEncoder {
    config: TextConfig,
    parts: Component<usize>,
    words: Tensor,
    positions: Tensor,
    reader: Reader,
}

impl TextEncoder {
    /// Reads the folders `text_encoder` and `tokenizer` of a pipeline. No weight of the layers is read yet.
    pub fn load(folder: &Path, tokenizer: &Path, runtime: &Runtime) -> Result<TextEncoder, DiffusionError> {
        let config = TextConfig::read(&folder.join("config.json"))?;
        let mut stored = Stored::new(Checkpoint::open_encoder(folder)?, DESCRIBED_BY).beside(WORDS)?;
        let words = stored.tensor(WORDS, &[config.words, config.width])?;
        let positions = stored.tensor(POSITIONS, &[config.positions, config.width])?;
        let reader = Reader::load(tokenizer, config.positions)?;
        Ok(TextEncoder { config, parts: Component::new(stored, runtime), words, positions, reader })
    }

    /// What its file says.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The numbers of each text's tokens, cut and padded to as many as there are positions.
    pub fn tokens<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, DiffusionError> {
        self.reader.read(texts, self.config.words)
    }

    /// The states of texts, `[N, positions, D]`.
    pub fn run<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<f32>, DiffusionError> {
        let tokens = self.tokens(texts)?;
        let mut all = Vec::with_capacity(texts.len() * self.config.positions * self.config.width);
        for part in tokens.chunks(TOGETHER) {
            all.extend(self.states(part)?);
        }
        Ok(all)
    }

    fn states(&mut self, texts: &[Vec<u32>]) -> Result<Vec<f32>, DiffusionError> {
        let TextConfig { width: d, positions, .. } = self.config;
        let mut states = vec![0.0f32; texts.len() * positions * d];
        let mut place = vec![0.0; d];
        for (text, rows) in texts.iter().zip(states.chunks_exact_mut(positions * d)) {
            for (at, (row, token)) in rows.chunks_exact_mut(d).zip(text).enumerate() {
                let word = usize::try_from(*token).expect("invariant: tokens are those of the table");
                self.words.read_f32(word * d, row);
                self.positions.read_f32(at * d, &mut place);
                row.iter_mut().zip(&place).for_each(|(v, place)| *v += place);
            }
        }
        let session = self.program(texts.len())?;
        session.set(0, Feed::F32(&states), &[texts.len() * positions, d])?;
        session.execute()?;
        session.read(0, &mut states);
        match states.iter().all(|v| v.is_finite()) {
            true => Ok(states),
            false => Err(DiffusionError::Overflow { network: "the text encoder", at: String::new() }),
        }
    }

    /// The program for so many texts, compiled and loaded if it is not yet.
    pub fn program(&mut self, texts: usize) -> Result<&mut Session, DiffusionError> {
        let TextEncoder { config, parts, .. } = self;
        // Weights of other parts, such as a projection, are not read.
        let ours = format!("{}encoder.", parts.stored.prefix());
        parts.program(texts, [&ours, &ours], DESCRIBED_BY, |stored| {
            let shape = Shape::new(&[texts * config.positions, config.width]);
            let h = Var::input(shape.map_err(|e| DiffusionError::Asked(e.to_string()))?);
            Ok(vec![config.states(&h, texts, stored)?])
        })
    }
}

impl TextConfig {
    /// The graph: of words with their positions, `[N * positions, D]`, states.
    pub fn states(&self, words: &Var, texts: usize, weights: &mut dyn Weights) -> Result<Var, WeightError> {
        let mut layers = Layers { weights, groups: 1, eps: self.eps };
        let mut h = words.clone();
        for layer in 0..self.layers {
            h = self.layer(&h, &format!("encoder.layers.{layer}"), texts, &mut layers)?;
        }
        layers.layer_norm(&h, "final_layer_norm", self.eps)
    }

    fn layer(&self, h: &Var, name: &str, texts: usize, layers: &mut Layers<'_>) -> Result<Var, WeightError> {
        let normal = layers.layer_norm(h, &format!("{name}.layer_norm1"), self.eps)?;
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|part| format!("{name}.self_attn.{part}"));
        let how = Heads { n: texts, heads: self.heads, causal: true, upcast: false };
        let h = h + layers.attention([&normal, &normal], names, true, how)?;
        let normal = layers.layer_norm(&h, &format!("{name}.layer_norm2"), self.eps)?;
        let inner =
            self.activation.of(&layers.dense(&normal, &format!("{name}.mlp.fc1"), self.inner, true)?);
        let fed = layers.dense(&inner, &format!("{name}.mlp.fc2"), width(&h), true)?;
        Ok(&h + fed)
    }
}

impl Activation {
    fn of(self, x: &Var) -> Var {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::QuickGelu => x * x.muls(1.702).sigmoid(),
        }
    }
}
