use super::pooling::PoolingError;
use crate::resolve::ResolveError;
use crate::weights::WeightError;
use aneforge::Kind;
use aneforge::device::DeviceError;
use aneforge::session::RunError;
use aneforge::target::TooOld;
use aneforge_formats::{CheckpointError, FileError};
use std::io;
use std::path::PathBuf;

/// A model could not be loaded. The files' fault, or the caller's where the name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no directory for the name.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A file of the model could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A JSON file is not what it should be.
    #[error("`{path}` is not valid: {why}; download it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// The tokenizer is not there.
    #[error(
        "`{0}` does not exist; save the tokenizer there with `AutoTokenizer.from_pretrained(...).save_pretrained(...)`, which writes it"
    )]
    NoTokenizer(PathBuf),
    /// The tokenizer cannot be used.
    #[error("`{path}` is not a tokenizer that can be used: {why}; download it again")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Texts are cut to so few tokens that nothing of them is left.
    #[error(
        "max_seq_length {max} leaves no room, as the tokenizer adds {added} tokens to each text; raise it"
    )]
    TooShort {
        /// The most tokens.
        max: usize,
        /// Special ones.
        added: usize,
    },
    /// The configuration describes no model that can be built.
    #[error("`{path}`: {why}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The pooling module is one that cannot be computed.
    #[error(transparent)]
    Pooling(#[from] PoolingError),
    /// The weights are those of no reranker.
    #[error(
        "the weights in `{0}` have no head that scores pairs (pooler.dense, classifier.dense, pre_classifier or head.dense, with a classifier); load the model as an encoder, or name a reranker"
    )]
    NoHead(PathBuf),
    /// The weights could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight is not there, or not what the configuration asks for.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The files are not those that an encoder was loaded from, of which this is to be a copy.
    #[error(
        "`{path}` is not what the encoder was loaded from: {how}; load the encoder anew by its name, or put the file back"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        how: String,
    },
    /// Texts to calibrate with could not be encoded, or weights not be stored in fewer bytes.
    #[error("load: {0}")]
    Compress(#[from] Box<EncodeError>),
    /// Texts to calibrate with came without a form to store weights in.
    #[error("load: calibrate chooses weights in fewer bytes; say which, with int8 or compress")]
    Uncompressed,
    /// There is no device to run on.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The target runs no programs.
    #[error(transparent)]
    Target(#[from] TooOld),
}

/// Texts could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The tokenizer failed on a text.
    #[error("text {index} cannot be tokenized: {why}")]
    Tokenizer {
        /// Which text.
        index: usize,
        /// What the tokenizer says.
        why: String,
    },
    /// The tokenizer gave a number for which there is no embedding. The files' fault.
    #[error(
        "text {index} has token {token}, the model has {rows} word embeddings; tokenizer.json belongs to another model"
    )]
    Token {
        /// Which text.
        index: usize,
        /// The token.
        token: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// A weight is not a number, or too large. The files' fault.
    #[error(
        "weight `{key}` in `{directory}` has {value:?} at element {at}, which half precision cannot hold; fix or rescale the weights"
    )]
    Weight {
        /// Where.
        directory: String,
        /// The weight's name.
        key: String,
        /// The value.
        value: f32,
        /// Its place.
        at: usize,
    },
    /// The progress function asked to stop.
    #[error("stopped after {done} of {total} texts")]
    Stopped {
        /// Texts encoded.
        done: usize,
        /// Texts given.
        total: usize,
    },
    /// A program could not be compiled or run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl LoadError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            LoadError::Resolve(error) => error.kind(),
            LoadError::Pooling(error) => error.kind(),
            LoadError::Device(error) => error.kind(),
            LoadError::File(_) | LoadError::Json { .. } | LoadError::Config { .. } => Kind::File,
            // Too few tokens were asked for.
            LoadError::TooShort { .. } | LoadError::Uncompressed => Kind::Caller,
            LoadError::Compress(error) => error.kind(),
            LoadError::NoTokenizer(_) | LoadError::Tokenizer { .. } => Kind::File,
            LoadError::NoHead(_) | LoadError::Checkpoint(_) | LoadError::Changed { .. } => Kind::File,
            LoadError::Weight(error) => error.kind(),
            LoadError::Target(_) => Kind::Target,
        }
    }

    /// What the system said, where a file is missing or cannot be read.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            LoadError::File(error) | LoadError::Checkpoint(CheckpointError::File(error)) => {
                Some(error.io_kind())
            }
            LoadError::Checkpoint(CheckpointError::Read(error))
            | LoadError::Weight(WeightError::Read(error)) => error.file().map(FileError::io_kind),
            LoadError::Resolve(_) | LoadError::NoTokenizer(_) => Some(io::ErrorKind::NotFound),
            LoadError::Checkpoint(CheckpointError::Missing(_)) => Some(io::ErrorKind::NotFound),
            _ => None,
        }
    }
}

impl EncodeError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            EncodeError::Stopped { .. } => Kind::Caller,
            EncodeError::Tokenizer { .. } | EncodeError::Token { .. } | EncodeError::Weight { .. } => {
                Kind::File
            }
            EncodeError::Run(error) => error.kind(),
        }
    }
}
