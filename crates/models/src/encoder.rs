//! Sentence encoders: texts to vectors.

mod compress;
mod error;
mod files;
mod layout;
mod pooling;

pub use error::{EncodeError, LoadError};
pub use files::{FileSum, Files};
pub use pooling::{Pooling, PoolingError};

pub use crate::transformer::batches::{Batch, Batches, bucket};
pub use crate::transformer::tokens::{Reader, Tokens};
pub use layout::Prompts;

use crate::resolve::{HubOptions, Reads, resolve};
use crate::transformer::run::{Runner, RunnerOptions};
use crate::transformer::tokens::Input;
use aneforge::device::Device;
use aneforge::passes::{Compression, Form, WeightReport};
use aneforge::session::Session;
use aneforge::target::Target;
use layout::Layout;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How an encoder is loaded.
#[derive(Clone, Default)]
pub struct EncoderOptions {
    /// How token states become one vector; by default what the model's own files say, and else the mean.
    pub pooling: Option<Pooling>,
    /// The most tokens of a text, the rest being cut off; by default what `sentence_bert_config.json` says,
    /// else `tokenizer_config.json`, else the tokenizer file. Never more than the model has positions.
    pub max_seq_length: Option<usize>,
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine, as [`default`](aneforge::device::default) gives it.
    pub device: Option<Arc<dyn Device>>,
    /// Whether the weights of the layers are stored as bytes with a scale per row, in half the memory.
    pub int8: bool,
    /// In which form the weights of the layers are stored, if not as `int8` says.
    pub compression: Option<Compression>,
    /// Texts like those that are to be encoded, by which weights in fewer bytes are chosen; may be none.
    pub calibrate: Vec<String>,
    /// How many programs are kept loaded, one per length and number of texts; the one unused for longest goes first. By default 8
    /// on the host and 32 elsewhere.
    pub programs: Option<usize>,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

/// How texts are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether vectors are scaled to unit length.
    pub normalize: bool,
    /// What becomes of texts that are too long.
    pub long: Long,
}

/// What becomes of a text of more tokens than an encoder takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Long {
    /// What is too much is cut off.
    #[default]
    Cut,
    /// It is encoded in parts of the greatest length, one after the other, and its vector is the mean of theirs, weighted by
    /// their tokens (with pooling by the greatest, the greatest). With mean pooling that is the mean over all tokens, of
    /// which each has seen those of its part.
    Windows,
}

impl Default for EncodeOptions {
    fn default() -> EncodeOptions {
        EncodeOptions { normalize: true, long: Long::Cut }
    }
}

/// A pretrained sentence encoder.
///
/// Words, positions and types are looked up and normalised on the host; the layers are one program per
/// length and number of texts, compiled when texts first need it. Texts are put together by length ([`Batches`]) and
/// padded to [`bucket`]s, and padding is hidden by the mask, so it takes no part in the result.
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
    runner: Runner,
    name: String,
    pooling: Pooling,
    normalizes: bool,
    prompts: Prompts,
    /// How the weights of the layers are stored, in words.
    stored: String,
    files: Files,
    weights: Vec<WeightReport>,
}

impl Encoder {
    /// Loads a model by its directory, in the layout of `transformers` or `sentence-transformers`, or by its
    /// hub id. Nothing is compiled yet, and no weight is read.
    pub fn load(name_or_path: &str, options: EncoderOptions) -> Result<Encoder, LoadError> {
        options.target.runs_programs()?;
        let directory = resolve(name_or_path, Reads::Texts, &options.hub)?;
        let files = Files::of(&directory)?;
        let layout = Layout::read(&directory, options.pooling, options.max_seq_length)?;
        // Bytes that nothing is known for are made as weights are read.
        let known = options.compression.is_some() || !options.calibrate.is_empty();
        let opened = RunnerOptions {
            max_seq_length: layout.max_seq_length,
            lowercase: layout.lowercase,
            pairs: false,
            int8: options.int8 && !known,
            target: options.target,
            device: options.device,
            programs: options.programs,
        };
        let (runner, _) = Runner::open(&layout.transformer, opened)?;
        let (name, Layout { pooling, normalizes, prompts, .. }) = (name_or_path.to_owned(), layout);
        let stored = if options.int8 { "int8 weights".into() } else { String::new() };
        let mut encoder =
            Encoder { runner, name, pooling, normalizes, prompts, stored, files, weights: Vec::new() };
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

    /// One vector per text. `progress` is told how many parts of how many are done, before the first and after each batch,
    /// and may stop; a text is one part, or as many as it has windows. So does
    /// [stopping](aneforge_kernels::threads::stoppable) the thread's work.
    pub fn encode_with<T: AsRef<str>>(
        &mut self,
        texts: &[T],
        options: EncodeOptions,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let parts = self.tokens(texts, options.long)?;
        let mut of_text = vec![Vec::new(); texts.len()];
        for (part, (text, tokens)) in parts.iter().enumerate() {
            of_text[*text].push((part, tokens.ids.len()));
        }
        let (d, pooling) = (self.dim(), self.pooling);
        let mut pooled = vec![Vec::new(); parts.len()];
        let tokens: Vec<&Tokens> = parts.iter().map(|(_, tokens)| tokens).collect();
        self.runner.states(&tokens, progress, &mut |part, states| pooled[part] = pooling.pool(states, d))?;
        let vector = |parts: Vec<(usize, usize)>| {
            let mut vector = match &parts[..] {
                [(only, _)] => std::mem::take(&mut pooled[*only]),
                parts => {
                    let parts: Vec<_> = parts.iter().map(|&(at, tokens)| (&pooled[at][..], tokens)).collect();
                    pooling.join(&parts, d)
                }
            };
            if options.normalize {
                pooling::normalize(&mut vector);
            }
            vector
        };
        Ok(of_text.into_iter().map(vector).collect())
    }

    /// What makes tokens of texts, for other threads than that which encodes them with [`encode_tokens`](Encoder::encode_tokens).
    pub fn reader(&self) -> Reader {
        self.runner.reader()
    }

    /// One unit vector for each text of which these are the tokens: the same bits as those of [`encode`](Encoder::encode).
    pub fn encode_tokens(&mut self, texts: &[&Tokens]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let (d, pooling) = (self.dim(), self.pooling);
        let mut vectors = vec![Vec::new(); texts.len()];
        self.runner.states(texts, &mut |_, _| ControlFlow::Continue(()), &mut |text, states| {
            vectors[text] = pooling.pool(states, d);
            pooling::normalize(&mut vectors[text]);
        })?;
        Ok(vectors)
    }

    /// How these texts are divided into batches; printing it says which there are, and why.
    ///
    /// ```no_run
    /// # use aneforge_models::{Encoder, EncoderOptions};
    /// let encoder = Encoder::load("all-MiniLM-L6-v2", EncoderOptions::default())?;
    /// println!("{}", encoder.batches(&["a cat on a mat", "stock prices fell"])?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batches<T: AsRef<str>>(&self, texts: &[T]) -> Result<Batches, EncodeError> {
        let parts = self.tokens(texts, Long::Cut)?;
        let lengths: Vec<usize> = parts.iter().map(|(_, tokens)| tokens.ids.len()).collect();
        Ok(Batches::of(&lengths, self.max_seq_length()))
    }

    /// The numbers of each text's tokens, as the first layer is given them: with special ones, and cut to the greatest length.
    pub fn token_ids<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, EncodeError> {
        Ok(self.tokens(texts, Long::Cut)?.into_iter().map(|(_, tokens)| tokens.ids).collect())
    }

    fn tokens<T: AsRef<str>>(&self, texts: &[T], long: Long) -> Result<Vec<(usize, Tokens)>, EncodeError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text.as_ref())).collect();
        self.runner.reader.read(&inputs, self.runner.model.vocabulary(), long == Long::Windows)
    }

    /// The program for one text of up to `tokens` tokens, compiled and loaded if it is not yet.
    pub fn program(&mut self, tokens: usize) -> Result<&mut Session, EncodeError> {
        self.runner.program(tokens)
    }

    /// How each weight of the layers is stored; of those that were chosen as they were loaded.
    pub fn weights(&self) -> &[WeightReport] {
        &self.weights
    }

    /// The length of the vectors.
    pub fn dim(&self) -> usize {
        self.runner.dim()
    }

    /// The most tokens of a text, special ones included; the rest is cut off.
    pub fn max_seq_length(&self) -> usize {
        self.runner.reader.most
    }

    /// How token states become one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether the model's own files end in a normalisation.
    pub fn normalizes(&self) -> bool {
        self.normalizes
    }

    /// What the model's own files say of how texts are to be given, and vectors compared.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        self.runner.target
    }

    /// The files that it was loaded from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        &*self.runner.device
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, target, max_seq_length) = (&self.name, self.target(), self.max_seq_length());
        let stored = &self.stored;
        let weights = if stored.is_empty() { String::new() } else { format!(", {stored}") };
        let (dim, pooling, device) = (self.dim(), self.pooling.name(), self.device().title());
        write!(f, "Encoder({name}, {dim} components, {pooling} of up to {max_seq_length} tokens, ")?;
        write!(f, "target {target}, device {device}{weights})")
    }
}
