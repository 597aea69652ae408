//! Pictures and texts as vectors of one space: CLIP and SigLIP.

use super::clip::{OF_TEXTS, layers};
use super::network::Network;
use super::picture::Picture;
use super::stack::Stack;
use super::{Class, MADE_HERE, Vision, VisionError, VisionOptions, beyond_half, described};
use crate::encoder::EncodeError;
use crate::programs::Programs;
use crate::transformer::tokens::{Input, TextReader, TokenizerFile};
use crate::weights::Stored;
use aneforge::Feed;
use aneforge::compile::compile;
use aneforge::ir::var::Var;
use aneforge::session::Session;
use aneforge_formats::Checkpoint;
use aneforge_tensor::{Shape, Tensor};
use serde_json::Value;
use std::path::Path;

const WORDS: &str = "embeddings.token_embedding.weight";
const POSITIONS: &str = "embeddings.position_embedding.weight";
const SCALE: &str = "logit_scale";
const BIAS: &str = "logit_bias";
/// Texts of one program.
const TOGETHER: usize = 8;
/// Tokens that texts are padded to are multiples of this.
const STEP: usize = 16;

/// A pretrained model that compares pictures with texts.
///
/// ```no_run
/// use aneforge_models::vision::{Clip, Picture, VisionOptions};
///
/// let mut clip = Clip::load("openai/clip-vit-base-patch32", VisionOptions::default())?;
/// let picture = Picture::open("photograph.jpg")?;
/// for class in clip.classify(&[picture], &["a photo of a cat", "a photo of a dog"])?.remove(0) {
///     println!("{:5.1} % {}", 100.0 * class.probability, class.label);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Clip {
    pictures: Vision,
    texts: Texts,
    /// What cosines are multiplied with, and what is added to them.
    scale: f32,
    bias: f32,
    /// Whether labels are compared with each other, as CLIP has it; else each is judged by itself.
    exclusive: bool,
}

/// What reads texts.
struct Texts {
    stack: Stack,
    stored: Stored,
    words: Tensor,
    positions: Tensor,
    /// What makes a vector of a token's state, and what is added: the host does it.
    projection: (Vec<f32>, Vec<f32>),
    reader: TextReader,
    /// The token whose state is that of a text; the greatest where there is none, and the last where texts are not causal.
    end: Option<u32>,
    pad: u32,
    programs: Programs<(usize, usize)>,
}

impl Clip {
    /// Loads a model from a directory in the layout of `transformers`, or by its hub id.
    pub fn load(name_or_path: &str, options: VisionOptions) -> Result<Clip, VisionError> {
        let pictures = Vision::load(name_or_path, options)?;
        let place = pictures.place.clone();
        let fail = |why: String| VisionError::Described { place: place.clone(), why };
        let exclusive = match &pictures.network {
            Network::Tower(tower) => tower.is_clip(),
            other => {
                return Err(fail(format!(
                    "it is {}, which reads no texts; name a CLIP or a SigLIP",
                    other.name()
                )));
            }
        };
        let config = described(&place, "config.json")?;
        let texts = Texts::load(&place, &config["text_config"], exclusive).map_err(|e| match e {
            Fault::Described(why) => fail(why),
            Fault::Other(error) => error,
        })?;
        let number = |name: &str| -> Result<Option<f32>, VisionError> {
            if !texts.stored.contains(name) {
                return Ok(None);
            }
            let mut value = [0.0];
            texts.stored.raw(name)?.read_f32(0, &mut value);
            Ok(Some(value[0]))
        };
        let scale = number(SCALE)?.map_or(100.0, f32::exp);
        let bias = number(BIAS)?.unwrap_or(0.0);
        if ![scale, bias].into_iter().all(f32::is_finite) {
            return Err(fail(format!(
                "its scale and bias are {scale} and {bias}, which are no numbers to compare with"
            )));
        }
        Ok(Clip { pictures, texts, scale, bias, exclusive })
    }

    /// A vector of unit length for each picture.
    pub fn pictures(&mut self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, VisionError> {
        self.pictures.features(pictures)
    }

    /// A vector of unit length for each text.
    pub fn texts<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Vec<f32>>, VisionError> {
        self.texts.vectors(texts, &self.pictures)
    }

    /// How well each label goes with each picture, the best first: shares of the whole with CLIP, and probabilities by themselves with
    /// SigLIP.
    pub fn classify<T: AsRef<str>>(
        &mut self,
        pictures: &[Picture],
        labels: &[T],
    ) -> Result<Vec<Vec<Class>>, VisionError> {
        let seen = self.pictures(pictures)?;
        self.judged(&seen, labels)
    }

    /// The same of the vectors of pictures.
    pub fn judged<T: AsRef<str>>(
        &mut self,
        pictures: &[Vec<f32>],
        labels: &[T],
    ) -> Result<Vec<Vec<Class>>, VisionError> {
        let want = self.texts.components();
        if let Some(got) = pictures.iter().map(Vec::len).find(|&got| got != want) {
            return Err(VisionError::Vectors { got, want });
        }
        let texts = self.texts(labels)?;
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() as f32
        };
        let row = |picture: &Vec<f32>| {
            let logits: Vec<f32> =
                texts.iter().map(|text| self.scale * dot(picture, text) + self.bias).collect();
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f32 = logits.iter().map(|v| (v - largest).exp()).sum();
            let probability = |logit: f32| match self.exclusive {
                true => (logit - largest).exp() / total,
                false => 1.0 / (1.0 + (-logit).exp()),
            };
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            let class = |&index: &usize| {
                let label = labels[index].as_ref().to_owned();
                Class { index, label, probability: probability(logits[index]) }
            };
            order.iter().map(class).collect()
        };
        Ok(pictures.iter().map(row).collect())
    }

    /// What looks at pictures, for vectors of those that are prepared already.
    pub fn vision_mut(&mut self) -> &mut Vision {
        &mut self.pictures
    }

    /// What looks at pictures.
    pub fn vision(&self) -> &Vision {
        &self.pictures
    }

    /// What cosines are multiplied with, and what is added to them, before they are probabilities.
    pub fn scale(&self) -> (f32, f32) {
        (self.scale, self.bias)
    }
}

/// What is wrong with a description, or with something else.
enum Fault {
    Described(String),
    Other(VisionError),
}

impl<E: Into<VisionError>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Other(error.into())
    }
}

impl Texts {
    fn load(place: &Path, config: &Value, clip: bool) -> Result<Texts, Fault> {
        let checkpoint = Checkpoint::open(place).map_err(VisionError::from)?;
        let shapes = |name: &str| {
            let tensor = checkpoint.contains(name).then(|| checkpoint.tensor(name).ok())??;
            Some(tensor.shape().dims().to_vec())
        };
        let of = |name: &str| shapes(&format!("text_model.{name}"));
        let none = || Fault::Described("it has no weights that read texts".into());
        let [_, width] = of(WORDS).ok_or_else(none)?[..] else { return Err(none()) };
        let stack = layers(&of, width, config, clip).ok_or_else(none)?.map_err(Fault::Described)?;
        let stack = Stack { causal: clip, ..stack };
        let (head, bias) = match clip {
            true => ("text_projection.weight", None),
            false => ("text_model.head.weight", Some("text_model.head.bias")),
        };
        let vector = shapes(head).and_then(|dims| dims.first().copied()).ok_or_else(none)?;
        let mut stored =
            Stored::new(checkpoint, "the text model").beside(WORDS).map_err(VisionError::from)?;
        let words = stored.tensor(WORDS, &[0, width]).map_err(VisionError::from)?;
        let positions = stored.tensor(POSITIONS, &[0, width]).map_err(VisionError::from)?;
        let weight = stored.beyond_prefix(head, &[vector, width]).map_err(VisionError::from)?.to_f32();
        let bias = match bias {
            Some(name) => stored.beyond_prefix(name, &[vector]).map_err(VisionError::from)?.to_f32(),
            None => vec![0.0; vector],
        };
        let path = place.join("tokenizer.json");
        let reader = TokenizerFile::open(&path).map_err(Box::new).map_err(VisionError::from)?;
        let (most, rows) = (positions.shape()[0], words.shape()[0]);
        let pad = pad(place, &reader, config, clip)?;
        if !clip && usize::try_from(pad).map_or(true, |pad| pad >= rows) {
            return Err(Fault::Described(format!(
                "texts are padded with token {pad}, and it has {rows}; name its token in tokenizer_config.json"
            )));
        }
        let reader = reader.reader(&path, most, false, false).map_err(Box::new).map_err(VisionError::from)?;
        let number = |name: &str| config[name].as_u64().and_then(|n| u32::try_from(n).ok());
        // Files from before the number was right have 2; the greatest one is meant then.
        let end = number("eos_token_id").filter(|&end| clip && end != 2);
        let (projection, programs) = ((weight, bias), Programs::new(8));
        Ok(Texts { stack, stored, words, positions, projection, reader, end, pad, programs })
    }

    fn vectors<T: AsRef<str>>(&mut self, texts: &[T], vision: &Vision) -> Result<Vec<Vec<f32>>, VisionError> {
        let rows = self.words.shape()[0];
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text.as_ref())).collect();
        let read = self.reader.read(&inputs, rows, false).map_err(unread)?;
        let tokens: Vec<Vec<u32>> = read.into_iter().map(|(_, tokens)| tokens.ids).collect();
        let mut vectors = Vec::with_capacity(texts.len());
        for part in tokens.chunks(TOGETHER) {
            vectors.extend(self.run(part, vision)?);
        }
        Ok(vectors)
    }

    fn run(&mut self, texts: &[Vec<u32>], vision: &Vision) -> Result<Vec<Vec<f32>>, VisionError> {
        let (d, most) = (self.stack.width, self.positions.shape()[0]);
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        // Behind the end of a causal text stands what it does not see; others are as long as those they were trained with.
        let length = if self.stack.causal { longest.max(1).next_multiple_of(STEP).min(most) } else { most };
        let mut states = vec![0.0f32; texts.len() * length * d];
        let mut place = vec![0.0; d];
        for (text, rows) in texts.iter().zip(states.chunks_exact_mut(length * d)) {
            for (at, row) in rows.chunks_exact_mut(d).enumerate() {
                let token = text.get(at).copied().unwrap_or(self.pad);
                let word =
                    usize::try_from(token).ok().filter(|&word| word < self.words.shape()[0]).unwrap_or(0);
                self.words.read_f32(word * d, row);
                self.positions.read_f32(at * d, &mut place);
                row.iter_mut().zip(&place).for_each(|(v, place)| *v += place);
            }
        }
        let session = self.program(texts.len(), length, vision)?;
        session.set(0, Feed::F32(&states), &[texts.len() * length, d])?;
        session.execute()?;
        session.read(0, &mut states);
        let each = texts.iter().zip(states.chunks_exact(length * d));
        Ok(each.map(|(text, states)| self.vector(text, states, length)).collect())
    }

    /// How many components its vectors have.
    fn components(&self) -> usize {
        self.projection.1.len()
    }

    /// The vector of a text by the states of its tokens.
    fn vector(&self, text: &[u32], states: &[f32], length: usize) -> Vec<f32> {
        let d = self.stack.width;
        let at = match self.stack.causal {
            true => {
                let greatest = || (0..text.len()).rev().max_by_key(|&at| text[at]);
                self.end
                    .and_then(|end| text.iter().position(|&token| token == end))
                    .or_else(greatest)
                    .unwrap_or(0)
            }
            false => length - 1,
        };
        let state = &states[at * d..][..d];
        let (weight, bias) = &self.projection;
        let dot =
            |row: &[f32]| row.iter().zip(state).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let vector: Vec<f64> =
            weight.chunks_exact(d).zip(bias).map(|(row, b)| dot(row) + f64::from(*b)).collect();
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        vector.iter().map(|v| (v / norm.max(f64::MIN_POSITIVE)) as f32).collect()
    }

    fn program(&mut self, count: usize, length: usize, vision: &Vision) -> Result<&mut Session, VisionError> {
        let Texts { stack, stored, programs, .. } = self;
        programs.get((count, length), || {
            let states = MADE_HERE.scope(|| {
                let shape = Shape::new(&[count * length, stack.width])
                    .map_err(|e| VisionError::Shape(e.to_string()))?;
                let h = stack.build(&Var::input(shape), [count, length], stored)?;
                Ok::<_, VisionError>(stack.normed(&h.states, "final_layer_norm", stored)?)
            })?;
            let of_texts =
                |key: &&str| key.starts_with(OF_TEXTS[0]) && !key.ends_with("embeddings.position_ids");
            if let Some(key) = stored.untaken().find(of_texts) {
                let (directory, network) = (vision.name.clone(), "its network for texts".into());
                return Err(VisionError::Foreign { directory, network, key: key.to_owned() });
            }
            let plan = compile(&[states], &vision.options).map_err(|error| beyond_half(stored, error))?;
            Ok(Session::new(plan, vision.device.clone())?)
        })
    }
}

/// The token that texts are padded with: that of the tokenizer, as its library has it, else that of the description.
fn pad(place: &Path, tokenizer: &TokenizerFile, config: &Value, clip: bool) -> Result<u32, VisionError> {
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let token = &described(place, file)?["pad_token"];
        let token = token.as_str().or_else(|| token["content"].as_str());
        if let Some(number) = token.and_then(|token| tokenizer.number(token)) {
            return Ok(number);
        }
    }
    let number = config["pad_token_id"].as_u64().and_then(|n| u32::try_from(n).ok());
    Ok(number.unwrap_or(if clip { 0 } else { 1 }))
}

/// What reading texts says.
fn unread(error: EncodeError) -> VisionError {
    VisionError::Texts(Box::new(error))
}
