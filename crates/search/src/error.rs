use crate::model::Kind;
use aneforge::Kind as Fault;
use aneforge::artifact::ArtifactError;
use aneforge_formats::{FileError, SafeTensorsError};
use aneforge_models::vision::VisionError;
use aneforge_models::{EncodeError, LoadError};
use std::path::PathBuf;

/// An index could not be made or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index could not be written.
    #[error(transparent)]
    Write(#[from] ArtifactError),
    /// The index is no safetensors file.
    #[error(transparent)]
    Format(#[from] SafeTensorsError),
    /// It is one, but no index, or a damaged one.
    #[error("`{path}` is no index: {why}; build it again")]
    NoIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Nothing was found to put into it.
    #[error(
        "nothing to index below {roots}: {kind} end in {endings}; name other folders, or files themselves"
    )]
    Empty {
        /// Where was looked.
        roots: String,
        /// What was looked for.
        kind: Kind,
        /// The endings of what was looked for.
        endings: String,
    },
    /// Something was found, and nothing of it can be put into an index.
    #[error("none of the {files} files can be indexed: {why}")]
    Unreadable {
        /// How many there are.
        files: usize,
        /// What is wrong with the first.
        why: String,
    },
    /// A folder could not be read.
    #[error("`{path}` cannot be read: {why}; check its permissions")]
    Walk {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        why: String,
        /// The kind of that.
        kind: std::io::ErrorKind,
    },
    /// A path has no characters.
    #[error("`{0}` is a path that is no text in UTF-8; rename it")]
    Path(PathBuf),
    /// The model is another one than the index was made with.
    #[error(
        "the index was made with {made}, and this model is {given}: {why}; name that model, or build the index again"
    )]
    Model {
        /// The model of the index.
        made: String,
        /// The model that was given.
        given: String,
        /// What tells them apart.
        why: String,
    },
    /// A file is not what it was when it was indexed.
    #[error("`{path}` {why}; bring the index up to date")]
    Stale {
        /// The file.
        path: PathBuf,
        /// What is with it.
        why: String,
    },
    /// A vector has another length.
    #[error("a vector of {got} components was asked for in an index of {want}; take the model of the index")]
    Components {
        /// Components of the question.
        got: usize,
        /// Components of the index.
        want: usize,
    },
    /// The model reads no texts, or sees no pictures.
    #[error("{model} makes no vectors of {what}; ask with {other}")]
    Blind {
        /// The model.
        model: String,
        /// What it was asked with.
        what: &'static str,
        /// What it can be asked with.
        other: &'static str,
    },
    /// A model that could not be loaded.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// Texts that could not be encoded.
    #[error(transparent)]
    Encode(Box<EncodeError>),
    /// A network for pictures that could not be loaded or run.
    #[error(transparent)]
    Vision(Box<VisionError>),
    /// Whoever asked wanted it no more; what was done is in the index.
    #[error("stopped; what was done is kept, and updating the index goes on with the rest")]
    Stopped,
}

impl From<LoadError> for SearchError {
    fn from(error: LoadError) -> SearchError {
        SearchError::Load(Box::new(error))
    }
}

impl From<EncodeError> for SearchError {
    fn from(error: EncodeError) -> SearchError {
        SearchError::Encode(Box::new(error))
    }
}

impl From<VisionError> for SearchError {
    fn from(error: VisionError) -> SearchError {
        SearchError::Vision(Box::new(error))
    }
}

impl SearchError {
    /// Whose fault it is.
    pub fn kind(&self) -> Fault {
        match self {
            SearchError::Write(error) => error.kind(),
            SearchError::Load(error) => error.kind(),
            SearchError::Encode(error) => error.kind(),
            SearchError::Vision(error) => error.kind(),
            SearchError::File(_)
            | SearchError::Format(_)
            | SearchError::NoIndex { .. }
            | SearchError::Stale { .. }
            | SearchError::Walk { .. } => Fault::File,
            _ => Fault::Caller,
        }
    }

    /// What the system said, where a file is missing or cannot be read.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        match self {
            SearchError::File(error) | SearchError::Format(SafeTensorsError::File(error)) => {
                Some(error.io_kind())
            }
            SearchError::Walk { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}
