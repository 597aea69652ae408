use crate::file::{FileError, map};
use crate::safetensors::{SafeTensors, SafeTensorsError};
use aneforge_tensor::Tensor;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory is no usable checkpoint. The directory's fault.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Neither the one file nor the index of several is there.
    #[error(
        "`{0}` holds neither {WHOLE} nor {INDEX}; save the model with `save_pretrained(..., safe_serialization=True)`"
    )]
    Missing(PathBuf),
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
    SafeTensors(#[from] SafeTensorsError),
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

/// The weights of a model: one safetensors file, or several with an index.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    directory: String,
    parts: Vec<SafeTensors>,
    /// Which part holds each tensor.
    places: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors` of a directory, or the parts that `model.safetensors.index.json` lists.
    pub fn open(directory: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        let directory = directory.as_ref();
        let (whole, index) = (directory.join(WHOLE), directory.join(INDEX));
        let name = directory.display().to_string();
        if whole.exists() {
            let part = SafeTensors::open(whole)?;
            let places = part.names().map(|n| (n.to_owned(), 0)).collect();
            return Ok(Checkpoint { directory: name, parts: vec![part], places });
        }
        if !index.exists() {
            return Err(CheckpointError::Missing(directory.to_owned()));
        }
        let parsed = Index::read(&index)?;
        let mut checkpoint = Checkpoint { directory: name, parts: Vec::new(), places: BTreeMap::new() };
        let mut opened = BTreeMap::new();
        for (tensor, part) in parsed.weight_map {
            if !plain(&part) {
                return Err(CheckpointError::Part { path: index, part });
            }
            let at = match opened.get(&part) {
                Some(&at) => at,
                None => {
                    checkpoint.parts.push(SafeTensors::open(directory.join(&part))?);
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
        directory.join(WHOLE).exists()
            || Index::read(&directory.join(INDEX))
                .is_ok_and(|index| index.weight_map.values().all(|part| directory.join(part).exists()))
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
    pub fn tensor(&self, name: &str) -> Result<Tensor, SafeTensorsError> {
        match self.places.get(name).and_then(|&at| self.parts.get(at)) {
            Some(part) => part.tensor(name),
            None => Err(SafeTensorsError::Unknown { file: self.directory.clone(), tensor: name.into() }),
        }
    }

    /// The directory, for messages.
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
