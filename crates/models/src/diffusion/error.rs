use crate::encoder::{EncodeError, LoadError};
use crate::weights::{Beyond, WeightError};
use aneforge::device::DeviceError;
use aneforge::target::TooOld;
use aneforge::{Kind, RunError};
use aneforge_formats::{CheckpointError, FileError};
use std::io;
use std::path::PathBuf;

/// A pipeline could not be loaded, or a picture not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffusionError {
    /// It is no directory of a pipeline.
    #[error("`{path}`: {why}")]
    Directory {
        /// What was named.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not the JSON it should be.
    #[error("`{path}` is not valid JSON: {why}; download it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// What a file says cannot be followed.
    #[error("`{path}`: {why}")]
    Described {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] Box<LoadError>),
    /// The weights could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight is absent or not what the network needs.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A weight has a value that half precision has not.
    #[error("weight `{}` in `{}` has {} at element {}, which half precision does not hold; rescale it", .0.key, .0.directory, .0.value, .0.at)]
    Beyond(Box<Beyond>),
    /// There are weights that the network does not read, so that it is another one.
    #[error(
        "the weights in `{directory}` have `{key}`, which the network that {file} describes has not; the two belong to different networks"
    )]
    Foreign {
        /// Where.
        directory: String,
        /// The weight.
        key: String,
        /// What describes the network.
        file: &'static str,
    },
    /// A text could not be read.
    #[error(transparent)]
    Text(Box<EncodeError>),
    /// What was asked for cannot be drawn.
    #[error("{0}")]
    Asked(String),
    /// Values are not what a network takes.
    #[error("{name} must have {want} values, {shape}, got {got}")]
    Values {
        /// Which ones.
        name: &'static str,
        /// Their shape.
        shape: String,
        /// How many they must be.
        want: usize,
        /// How many there are.
        got: usize,
    },
    /// A network made infinities or NaN, of which nothing can be drawn.
    #[error(
        "{network} made values that are not finite{at}: something overflows in half precision; write norms so that every \
         row survives (norms = robust), and see with `diagnose` where it happens"
    )]
    Overflow {
        /// Which network.
        network: &'static str,
        /// When.
        at: String,
    },
    /// Drawing was stopped on request.
    #[error("drawing was stopped after {done} of {total} steps")]
    Stopped {
        /// Steps that were done.
        done: usize,
        /// All of them.
        total: usize,
    },
    /// The chip runs no programs.
    #[error(transparent)]
    Target(#[from] TooOld),
    /// It did not compile, or not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<DeviceError> for DiffusionError {
    fn from(error: DeviceError) -> DiffusionError {
        DiffusionError::Run(error.into())
    }
}

impl DiffusionError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            DiffusionError::Run(error) => error.kind(),
            DiffusionError::Tokenizer(error) => error.kind(),
            DiffusionError::Text(error) => error.kind(),
            DiffusionError::Target(_) => Kind::Target,
            DiffusionError::Asked(_) | DiffusionError::Values { .. } | DiffusionError::Stopped { .. } => {
                Kind::Caller
            }
            _ => Kind::File,
        }
    }

    /// What the system said, where a file is missing or cannot be read.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            DiffusionError::File(error) | DiffusionError::Checkpoint(CheckpointError::File(error)) => {
                Some(error.io_kind())
            }
            DiffusionError::Checkpoint(CheckpointError::Read(error))
            | DiffusionError::Weight(WeightError::Read(error)) => error.file().map(FileError::io_kind),
            DiffusionError::Tokenizer(error) => error.io_kind(),
            DiffusionError::Directory { .. } | DiffusionError::Checkpoint(CheckpointError::Empty { .. }) => {
                Some(io::ErrorKind::NotFound)
            }
            _ => None,
        }
    }
}
