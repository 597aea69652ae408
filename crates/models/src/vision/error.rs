use super::picture::PictureError;
use super::processor::ProcessorError;
use crate::encoder::{EncodeError, LoadError};
use crate::resolve::ResolveError;
use crate::weights::WeightError;
use aneforge::device::DeviceError;
use aneforge::target::TooOld;
use aneforge::{Kind, RunError};
use aneforge_formats::{CheckpointError, FileError};
use std::io;
use std::path::PathBuf;

/// A network could not be loaded, or not run on a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisionError {
    /// No directory was found for its name.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is no longer what it was.
    #[error(transparent)]
    Load(#[from] Box<LoadError>),
    /// A file is not the JSON it should be.
    #[error("`{path}` is not valid JSON: {why}; download it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// What is said of preparing pictures cannot be followed.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// Pictures come out in sizes of their own.
    #[error("`{0}`: its pictures are not brought to one size; give a processor that does")]
    Size(PathBuf),
    /// The weights could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight is absent or not what the network needs.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A weight has a value that half precision has not.
    #[error(
        "weight `{key}` in `{directory}` has {value} at element {at}, which half precision does not hold; rescale it"
    )]
    Beyond {
        /// Where.
        directory: String,
        /// The weight's name.
        key: String,
        /// The value.
        value: f32,
        /// Its place.
        at: usize,
    },
    /// The weights are those of no network that is known.
    #[error(
        "the weights in `{0}` are those of no network that this version knows; ResNet 18 to 101, EfficientNet-lite, MobileNetV3, ViT, DeiT, DINOv2, ConvNeXt, CLIP and SigLIP are known"
    )]
    Unknown(PathBuf),
    /// What is said of the network or of its pictures cannot be followed.
    #[error("`{place}`: {why}")]
    Described {
        /// Where.
        place: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// There are weights beside those of the network, so that it is another one.
    #[error(
        "the weights in `{directory}` have `{key}`, which {network} has not; they are of a network that is not known here"
    )]
    Foreign {
        /// Where.
        directory: String,
        /// The network that they are like.
        network: String,
        /// The weight.
        key: String,
    },
    /// It does not classify.
    #[error("{0} has no classes; ask for features")]
    Unclassified(String),
    /// It has no attention.
    #[error("{0} has no attention that could be shown; ViT, DeiT, DINOv2, CLIP and SigLIP have")]
    Blind(String),
    /// The pictures are too large.
    #[error("pictures of this size: {0}")]
    Shape(String),
    /// Values are not those of so many pictures.
    #[error(
        "{count} pictures of [3, {height}, {width}] were announced, and {got} values given; prepare them for this network"
    )]
    Values {
        /// How many pictures.
        count: usize,
        /// The values.
        got: usize,
        /// Rows that the network wants.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A vector is not one that this model makes.
    #[error("a picture's vector has {got} components, and this model's have {want}; take those that it made")]
    Vectors {
        /// Components that were given.
        got: usize,
        /// Components of its own vectors.
        want: usize,
    },
    /// A file is no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Texts could not be read.
    #[error(transparent)]
    Texts(Box<EncodeError>),
    /// The chip runs no programs.
    #[error(transparent)]
    Target(#[from] TooOld),
    /// It did not compile, or not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<DeviceError> for VisionError {
    fn from(error: DeviceError) -> VisionError {
        VisionError::Run(error.into())
    }
}

impl VisionError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            VisionError::Resolve(error) => error.kind(),
            VisionError::Weight(error) => error.kind(),
            VisionError::Run(error) => error.kind(),
            VisionError::Load(error) => error.kind(),
            VisionError::Texts(error) => error.kind(),
            VisionError::Target(_) => Kind::Target,
            VisionError::Unclassified(_)
            | VisionError::Blind(_)
            | VisionError::Values { .. }
            | VisionError::Vectors { .. }
            | VisionError::Shape(_) => Kind::Caller,
            _ => Kind::File,
        }
    }

    /// What the system said, where a file is missing or cannot be read.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            VisionError::File(error)
            | VisionError::Checkpoint(CheckpointError::File(error))
            | VisionError::Picture(PictureError::File(error))
            | VisionError::Processor(ProcessorError::File(error)) => Some(error.io_kind()),
            VisionError::Checkpoint(CheckpointError::Read(error))
            | VisionError::Weight(WeightError::Read(error)) => error.file().map(FileError::io_kind),
            VisionError::Load(error) => error.io_kind(),
            VisionError::Resolve(_) | VisionError::Checkpoint(CheckpointError::Missing(_)) => {
                Some(io::ErrorKind::NotFound)
            }
            _ => None,
        }
    }
}
