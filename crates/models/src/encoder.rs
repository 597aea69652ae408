//! Sentence encoders of the BERT family: texts to vectors.

mod bert;
mod compress;
mod config;
mod error;
mod files;
mod pooling;

pub use error::{EncodeError, LoadError};
pub use files::{FileSum, Files};
pub use pooling::{Pooling, PoolingError};

use crate::programs::Programs;
use crate::resolve::{HubOptions, resolve};
use crate::{MOST_TEXT, guard};
use aneforge::Feed;
use aneforge::compile::compile;
use aneforge::device::{self, Device};
use aneforge::passes::{CompileOptions, Compression, Form, Norms, WeightReport};
use aneforge::session::{RunError, Session};
use aneforge::target::Target;
use aneforge_formats::{Checkpoint, read};
use aneforge_kernels::threads::stopped;
use aneforge_tensor::f16;
use bert::{Bert, HIDDEN};
use config::{BertConfig, Layout};
use serde_json::Value;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

/// How an encoder is loaded.
#[derive(Clone)]
pub struct EncoderOptions {
    /// How token states become one vector; by default what the model's own files say, and else the mean.
    pub pooling: Option<Pooling>,
    /// The most tokens of a text, the rest being cut off; by default what `sentence_bert_config.json` says,
    /// else `tokenizer_config.json`, else the tokenizer file. Never more than the model has positions.
    pub max_seq_length: Option<usize>,
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine, as [`device::default`] gives it.
    pub device: Option<Arc<dyn Device>>,
    /// Whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
    pub int8: bool,
    /// In which form the weights of the layers are stored, if not as `int8` says.
    pub compression: Option<Compression>,
    /// Texts like those that are to be encoded, by which weights in fewer bytes are chosen; may be none.
    pub calibrate: Vec<String>,
    /// How many compiled programs are kept, one per length; the one unused for longest goes first.
    pub programs: usize,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

impl Default for EncoderOptions {
    fn default() -> EncoderOptions {
        EncoderOptions {
            pooling: None,
            max_seq_length: None,
            target: Target::default(),
            device: None,
            int8: false,
            compression: None,
            calibrate: Vec::new(),
            programs: 8,
            hub: HubOptions::default(),
        }
    }
}

/// How texts are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether vectors are scaled to unit length.
    pub normalize: bool,
}

impl Default for EncodeOptions {
    fn default() -> EncodeOptions {
        EncodeOptions { normalize: true }
    }
}

/// A pretrained sentence encoder.
///
/// Words, positions and types are looked up and normalised on the host; the layers are one program per
/// length, compiled when a text first needs it. Texts are padded to [`bucket`]s of lengths, and padding is
/// hidden by the mask, so it takes no part in the result.
///
/// ```no_run
/// use aneforge_models::{Encoder, EncoderOptions};
///
/// let mut encoder = Encoder::load("sentence-transformers/all-MiniLM-L6-v2", EncoderOptions::default())?;
/// let vectors = encoder.encode(&["a cat on a mat", "stock prices fell"])?;
/// assert_eq!(vectors[0].len(), encoder.dim());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Encoder {
    bert: Bert,
    tokenizer: Tokenizer,
    settings: Settings,
    device: Arc<dyn Device>,
    programs: Programs<usize>,
    files: Files,
    weights: Vec<WeightReport>,
}

/// What was decided when the encoder was loaded.
struct Settings {
    name: String,
    pooling: Pooling,
    max_seq_length: usize,
    lowercase: bool,
    normalizes: bool,
    pad: u32,
    target: Target,
    /// How the weights of the layers are stored, in words.
    stored: String,
    /// How norms are written: robustly where weights are tables of few values, with which values arise that plain norms overflow on.
    norms: Norms,
}

/// The length that a text of `tokens` tokens is padded to: multiples of 16 up to 128, of 32 up to 256, of
/// 64 beyond, and at most `max`.
pub fn bucket(tokens: usize, max: usize) -> usize {
    let step = match tokens {
        0..=128 => 16,
        129..=256 => 32,
        _ => 64,
    };
    tokens.max(1).next_multiple_of(step).min(max).max(tokens)
}

impl Encoder {
    /// Loads a model by its directory, in the layout of `transformers` or `sentence-transformers`, or by its
    /// hub id. Nothing is compiled yet, and no weight is read.
    pub fn load(name_or_path: &str, options: EncoderOptions) -> Result<Encoder, LoadError> {
        options.target.runs_programs()?;
        let directory = resolve(name_or_path, &options.hub)?;
        let files = Files::of(&directory)?;
        let layout = Layout::read(&directory, options.pooling, options.max_seq_length)?;
        let root = &layout.transformer;
        let config = BertConfig::read(&root.join("config.json"))?;
        let mut tokenizer = tokenizer(&root.join("tokenizer.json"))?;
        // Bytes that nothing is known for are made as weights are read.
        let known = options.compression.is_some() || !options.calibrate.is_empty();
        let bert = Bert::new(Checkpoint::open(root)?, config, options.int8 && !known)?;
        let truncated = tokenizer.get_truncation().map(|t| t.max_length);
        let asked = layout.max_seq_length.or(truncated);
        let max_seq_length = asked.unwrap_or(config.positions).min(config.positions);
        let pad = tokenizer.get_padding().map_or(config.pad, |p| p.pad_id);
        truncate(&mut tokenizer, &root.join("tokenizer.json"), max_seq_length)?;
        let settings = Settings {
            name: name_or_path.into(),
            pooling: layout.pooling,
            max_seq_length,
            lowercase: layout.lowercase,
            normalizes: layout.normalizes,
            pad,
            target: options.target,
            stored: if options.int8 { "int8 weights".into() } else { String::new() },
            norms: Norms::Auto,
        };
        let device = options.device.map_or_else(device::default, Ok)?;
        let programs = Programs::new(options.programs);
        let mut encoder = Encoder { bert, tokenizer, settings, device, programs, files, weights: Vec::new() };
        let bytes = options.int8.then(|| Compression::new(Form::Int8));
        match options.compression.or(bytes) {
            Some(compression) if known => {
                encoder.compress(compression, &options.calibrate).map_err(Box::new)?;
            }
            None if known => return Err(LoadError::Uncompressed),
            _ => {}
        }
        Ok(encoder)
    }

    /// One unit vector per text, in the order of the texts.
    pub fn encode<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.encode_with(texts, EncodeOptions::default(), &mut |_, _| ControlFlow::Continue(()))
    }

    /// One vector per text. `progress` is told how many texts of how many are done, before the first and
    /// after each, and may stop. So does [stopping](aneforge_kernels::threads::stoppable) the thread's work.
    pub fn encode_with<T: AsRef<str>>(
        &mut self,
        texts: &[T],
        options: EncodeOptions,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let mut tokens = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            if stopped() {
                return Err(EncodeError::Stopped { done: 0, total: texts.len() });
            }
            tokens.push(self.tokenize(index, text.as_ref())?);
        }
        // Texts of one length follow each other, so that no program is compiled twice in a call.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| tokens[i].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for (done, &index) in order.iter().enumerate() {
            report(progress, done, texts.len())?;
            let mut vector = self.encode_tokens(&tokens[index])?;
            if options.normalize {
                pooling::normalize(&mut vector);
            }
            vectors[index] = vector;
        }
        report(progress, texts.len(), texts.len())?;
        Ok(vectors)
    }

    /// The tokens of a text, cut to the greatest length.
    fn tokenize(&self, index: usize, text: &str) -> Result<Vec<u32>, EncodeError> {
        let lowered;
        let text = match self.settings.lowercase {
            true => {
                lowered = text.to_lowercase();
                &lowered
            }
            false => text,
        };
        let encoding = guard::call(|| self.tokenizer.encode_fast(text, true))
            .map_err(|why| EncodeError::Tokenizer { index, why })?;
        let tokens = encoding.get_ids().to_vec();
        let rows = self.bert.vocabulary();
        match tokens.iter().find(|&&token| self.row(token).is_none()) {
            Some(&token) => Err(EncodeError::Token { index, token, rows }),
            None => Ok(tokens),
        }
    }

    /// The place of a token's embedding, if it has one.
    fn row(&self, token: u32) -> Option<usize> {
        usize::try_from(token).ok().filter(|&row| row < self.bert.vocabulary())
    }

    /// The pooled states of a text.
    fn encode_tokens(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EncodeError> {
        let (n, d) = (tokens.len(), self.dim());
        let s = bucket(n, self.settings.max_seq_length);
        let mut h = vec![0.0f32; s * d];
        for (position, row) in h.chunks_exact_mut(d).enumerate() {
            let token = tokens.get(position).copied().unwrap_or(self.settings.pad);
            self.bert.embed(self.row(token).unwrap_or(0), position, row);
        }
        if h[..n * d].iter().any(|v| !v.is_finite())
            && let Some(error) = self.bert.bad_weight()
        {
            return Err(error);
        }
        let session = self.program(s)?;
        session.set(0, Feed::F32(&h), &[s, d])?;
        if let Some(mut mask) = session.input_mut(1) {
            for row in mask.chunks_exact_mut(s) {
                row[..n].fill(f16::ZERO);
                row[n..].fill(f16::from_f32(HIDDEN));
            }
        }
        session.execute()?;
        session.read(0, &mut h);
        Ok(self.settings.pooling.pool(&h[..n * d], d))
    }

    /// The program for texts of up to `tokens` tokens, compiled and loaded if it is not yet.
    pub fn program(&mut self, tokens: usize) -> Result<&mut Session, EncodeError> {
        let max = self.settings.max_seq_length;
        let s = bucket(tokens.min(max), max);
        let Encoder { bert, settings, device, programs, .. } = self;
        programs.get(s, || {
            let options = CompileOptions::target(settings.target).norms(settings.norms);
            // The compiler knows constants by number; whoever wrote the file knows them by name.
            let plan = compile(&[bert.graph(s)], &options)
                .map_err(|e| bert.bad_weight().unwrap_or(RunError::from(e).into()))?;
            Ok(Session::new(plan, device)?)
        })
    }

    /// How each weight of the layers is stored; of those that were chosen as they were loaded.
    pub fn weights(&self) -> &[WeightReport] {
        &self.weights
    }

    /// The length of the vectors.
    pub fn dim(&self) -> usize {
        self.bert.config.hidden
    }

    /// The most tokens of a text, special ones included; the rest is cut off.
    pub fn max_seq_length(&self) -> usize {
        self.settings.max_seq_length
    }

    /// How token states become one vector.
    pub fn pooling(&self) -> Pooling {
        self.settings.pooling
    }

    /// Whether the model's own files end in a normalisation.
    pub fn normalizes(&self) -> bool {
        self.settings.normalizes
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        self.settings.target
    }

    /// The files that it was loaded from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }
}

fn report(
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    done: usize,
    total: usize,
) -> Result<(), EncodeError> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EncodeError::Stopped { done, total }),
    }
}

fn tokenizer(path: &Path) -> Result<Tokenizer, LoadError> {
    if !path.exists() {
        return Err(LoadError::NoTokenizer(path.to_owned()));
    }
    let bytes = read(path, MOST_TEXT)?;
    guard::call(|| Tokenizer::from_bytes(bytes)).map_err(unusable(path))
}

fn unusable(path: &Path) -> impl Fn(String) -> LoadError {
    |why| LoadError::Tokenizer { path: path.to_owned(), why }
}

/// Says which token a template names that the file does not define: the library only says that there is one.
fn undefined_token(path: &Path) -> Option<String> {
    let file: Value = serde_json::from_slice(&read(path, MOST_TEXT).ok()?).ok()?;
    let processor = &file["post_processor"];
    let parts = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let undefined = |part: &Value| {
        let pieces = ["single", "pair"].into_iter().filter_map(|way| part[way].as_array()).flatten();
        let mut named = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
        named.find(|name| part["special_tokens"].get(name).is_none()).map(str::to_owned)
    };
    let token = parts.iter().find_map(undefined)?;
    Some(format!("its template names the token `{token}`, which it does not define"))
}

/// Makes the tokenizer cut texts to `max` tokens, and pad none.
fn truncate(tokenizer: &mut Tokenizer, path: &Path, max: usize) -> Result<(), LoadError> {
    let added = guard::call(|| {
        // What makes a template fail on every text is found with an empty one.
        tokenizer.encode_fast("", true)?;
        Ok::<_, tokenizers::Error>(tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false)))
    });
    let added = added.map_err(|why| unusable(path)(undefined_token(path).unwrap_or(why)))?;
    if max <= added {
        return Err(LoadError::TooShort { max, added });
    }
    let direction = tokenizer.get_truncation().map(|t| t.direction).unwrap_or_default();
    let params = TruncationParams { max_length: max, direction, stride: 0, ..TruncationParams::default() };
    guard::call(|| tokenizer.with_truncation(Some(params)).map(drop)).map_err(unusable(path))?;
    tokenizer.with_padding(None);
    Ok(())
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { name, target, max_seq_length, pooling, stored, .. } = &self.settings;
        let weights = if stored.is_empty() { String::new() } else { format!(", {stored}") };
        let (dim, pooling, device) = (self.dim(), pooling.name(), self.device.title());
        write!(f, "Encoder({name}, {dim} components, {pooling} of up to {max_seq_length} tokens, ")?;
        write!(f, "target {target}, device {device}{weights})")
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_hold_their_texts_and_grow() {
        assert_eq!(
            [0, 1, 16, 17, 128, 129, 256, 257, 500].map(|n| bucket(n, 512)),
            [16, 16, 16, 32, 128, 160, 256, 320, 512]
        );
        assert_eq!([3, 90, 100].map(|n| bucket(n, 100)), [16, 96, 100]);
        for n in 1..=512 {
            assert!(bucket(n, 512) >= n && bucket(n, 512) >= bucket(n - 1, 512));
        }
    }
}
