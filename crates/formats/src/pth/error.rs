use crate::file::FileError;
use aneforge_tensor::ShapeError;

/// A file of `torch.save` is unusable. The file's fault, but for `Unknown`, which is the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// It could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// It asks for something to be called or made that is no tensor. Nothing of it was run.
    #[error(
        "`{file}` asks for `{name}`, which is none of what tensors are made of; nothing of it was run. Save the weights alone \
         (`torch.save(model.state_dict(), ...)`) or as safetensors, and do not trust a file that you did not expect this of"
    )]
    Refused {
        /// The file.
        file: String,
        /// What it asks for, as module and name.
        name: String,
    },
    /// It is not what `torch.save` writes.
    #[error("`{file}` is no file of torch.save, or damaged: {why}; download or save it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// It holds no tensors by name, or several sets of them.
    #[error("`{file}`: {why}; save one state dict, `torch.save(model.state_dict(), ...)`")]
    NoState {
        /// The file.
        file: String,
        /// What it holds.
        why: String,
    },
    /// There is no such tensor.
    #[error("`{file}` has no tensor `{tensor}`; it is a checkpoint of another model")]
    Unknown {
        /// The file.
        file: String,
        /// The tensor asked for.
        tensor: String,
    },
    /// A tensor's element type has no counterpart here.
    #[error("tensor `{tensor}` of `{file}` is of a {kind}; convert it to floating point")]
    DType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The storage, as the file spells it.
        kind: String,
    },
    /// A tensor has more than eight axes, or none of its elements.
    #[error("tensor `{tensor}` of `{file}`: {why}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The limit, and what to do.
        why: Box<ShapeError>,
    },
    /// A tensor has elements that its storage has not.
    #[error(
        "tensor `{tensor}` of `{file}` has elements beyond its storage; the file is cut off or damaged, download it again"
    )]
    Outside {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
}

/// What is wrong with a file whose name is not known here.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(String),
    Damaged(String),
    NoState(String),
}

impl Fault {
    pub(super) fn of(self, file: &str) -> PthError {
        let file = file.to_owned();
        match self {
            Fault::Refused(name) => PthError::Refused { file, name },
            Fault::Damaged(why) => PthError::Damaged { file, why },
            Fault::NoState(why) => PthError::NoState { file, why },
        }
    }
}
