use crate::file::{FileError, map};
use crate::pth::{Pth, PthError};
use crate::safetensors::{SafeTensors, SafeTensorsError};
use aneforge_tensor::Tensor;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a checkpoint is called in a directory: the one file, or the index of several. The first that is there is taken.
const NAMES: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// What the networks of a `diffusers` pipeline call theirs, the precise ones first.
const DIFFUSERS: [(&str, &str); 4] = [
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
    ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.bin.index.json"),
    ("diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin.index.fp16.json"),
];

/// What the text encoder of such a pipeline calls its own.
const ENCODER: [(&str, &str); 4] = [
    NAMES[0],
    ("model.fp16.safetensors", "model.safetensors.index.fp16.json"),
    NAMES[1],
    ("pytorch_model.fp16.bin", "pytorch_model.bin.index.fp16.json"),
];

/// A directory is no usable checkpoint. The directory's fault.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Neither the one file nor the index of several is there.
    #[error(
        "`{0}` holds neither model.safetensors nor model.safetensors.index.json, and no pytorch_model.bin; save the model with `save_pretrained(..., safe_serialization=True)`"
    )]
    Missing(PathBuf),
    /// None of the files that a part of a pipeline may have is there.
    #[error(
        "`{directory}` holds no weights, such as {usual}; download it again, or save it with `save_pretrained`"
    )]
    Empty {
        /// The directory.
        directory: PathBuf,
        /// What they are usually called.
        usual: &'static str,
    },
    /// The index could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index is not the JSON it should be.
    #[error("`{path}` is not valid: {why}; download it again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What the JSON parser says.
        why: String,
    },
    /// The index names a file outside the directory.
    #[error("`{path}` names the part `{part}`, which is no plain file name; do not trust this checkpoint")]
    Part {
        /// The index.
        path: PathBuf,
        /// What it names.
        part: String,
    },
    /// One of the files is unusable.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A file of weights is unusable, or a tensor of it.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A safetensors file.
    #[error(transparent)]
    SafeTensors(#[from] SafeTensorsError),
    /// A file of `torch.save`.
    #[error(transparent)]
    Pth(#[from] PthError),
}

impl ReadError {
    /// The error of a file that could not be opened, if it is that.
    pub fn file(&self) -> Option<&FileError> {
        match self {
            ReadError::SafeTensors(SafeTensorsError::File(error)) | ReadError::Pth(PthError::File(error)) => {
                Some(error)
            }
            _ => None,
        }
    }
}

/// One file of weights.
#[derive(Clone, Debug)]
enum Part {
    SafeTensors(SafeTensors),
    Pth(Pth),
}

impl Part {
    /// Opens a file by what it holds: files of torch.save begin as no header of safetensors can.
    fn open(path: &Path) -> Result<Part, ReadError> {
        let bytes = map(path).map_err(SafeTensorsError::from)?;
        Ok(match Pth::begins(&bytes) {
            true => Part::Pth(Pth::open(path)?),
            false => Part::SafeTensors(SafeTensors::open(path)?),
        })
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Part::SafeTensors(part) => part.names().collect(),
            Part::Pth(part) => part.names().collect(),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor, ReadError> {
        Ok(match self {
            Part::SafeTensors(part) => part.tensor(name)?,
            Part::Pth(part) => part.tensor(name)?,
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Index, CheckpointError> {
        serde_json::from_slice(&map(path)?)
            .map_err(|e| CheckpointError::Index { path: path.to_owned(), why: e.to_string() })
    }
}

/// The weights of a model: one file, or several with an index.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    directory: String,
    parts: Vec<Part>,
    /// Which part holds each tensor.
    places: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors` of a directory, or the parts that `model.safetensors.index.json` lists; where there are neither,
    /// `pytorch_model.bin` or its parts; or one file of weights that is named itself, whatever it is called.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        let path = path.as_ref();
        if path.is_file() {
            return Checkpoint::of_one(path, path.display().to_string());
        }
        Checkpoint::first(path, &NAMES)?.ok_or_else(|| CheckpointError::Missing(path.to_owned()))
    }

    /// Opens the weights of a network in a folder of a `diffusers` pipeline, such as `unet`: safetensors or files of `torch.save`, one or
    /// several with an index, in single precision where both are there and in half precision (`fp16`) else.
    pub fn open_network(directory: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::part_of_pipeline(directory.as_ref(), &DIFFUSERS)
    }

    /// The same of its text encoder, whose files are called as those of `transformers`.
    pub fn open_encoder(directory: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::part_of_pipeline(directory.as_ref(), &ENCODER)
    }

    fn part_of_pipeline(
        directory: &Path,
        names: &[(&'static str, &'static str)],
    ) -> Result<Checkpoint, CheckpointError> {
        let empty = || CheckpointError::Empty { directory: directory.to_owned(), usual: names[0].0 };
        Checkpoint::first(directory, names)?.ok_or_else(empty)
    }

    /// The first of these that is there.
    fn first(directory: &Path, names: &[(&str, &str)]) -> Result<Option<Checkpoint>, CheckpointError> {
        for (whole, index) in
            names.iter().map(|(whole, index)| (directory.join(whole), directory.join(index)))
        {
            if whole.exists() {
                return Checkpoint::of_one(&whole, directory.display().to_string()).map(Some);
            }
            if index.exists() {
                return Checkpoint::of_parts(directory, index).map(Some);
            }
        }
        Ok(None)
    }

    fn of_one(file: &Path, directory: String) -> Result<Checkpoint, CheckpointError> {
        let part = Part::open(file)?;
        let places = part.names().into_iter().map(|name| (name.to_owned(), 0)).collect();
        Ok(Checkpoint { directory, parts: vec![part], places })
    }

    fn of_parts(directory: &Path, index: PathBuf) -> Result<Checkpoint, CheckpointError> {
        let parsed = Index::read(&index)?;
        let name = directory.display().to_string();
        let mut checkpoint = Checkpoint { directory: name, parts: Vec::new(), places: BTreeMap::new() };
        let mut opened = BTreeMap::new();
        for (tensor, part) in parsed.weight_map {
            if !plain(&part) {
                return Err(CheckpointError::Part { path: index, part });
            }
            let at = match opened.get(&part) {
                Some(&at) => at,
                None => {
                    checkpoint.parts.push(Part::open(&directory.join(&part))?);
                    let at = checkpoint.parts.len() - 1;
                    opened.insert(part, at);
                    at
                }
            };
            checkpoint.places.insert(tensor, at);
        }
        Ok(checkpoint)
    }

    /// Whether a directory has every file that [`Checkpoint::open`] would open, whatever is in them.
    pub fn is_complete(directory: impl AsRef<Path>) -> bool {
        let directory = directory.as_ref();
        NAMES.iter().any(|(whole, index)| {
            directory.join(whole).exists()
                || Index::read(&directory.join(index))
                    .is_ok_and(|index| index.weight_map.values().all(|part| directory.join(part).exists()))
        })
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The tensor of this name, sharing its file's bytes.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ReadError> {
        match self.places.get(name).and_then(|&at| self.parts.get(at)) {
            Some(part) => part.tensor(name),
            None => {
                let (file, tensor) = (self.directory.clone(), name.into());
                Err(SafeTensorsError::Unknown { file, tensor }.into())
            }
        }
    }

    /// The directory, or the file that was named, for messages.
    pub fn directory(&self) -> &str {
        &self.directory
    }
}

/// Whether a name is that of a file in the same directory.
fn plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(only)), None) if only == name)
        && !name.contains('\\')
}
