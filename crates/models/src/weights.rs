//! Where the weights of a model come from.

use aneforge::{Kind, Var};
use aneforge_formats::{Checkpoint, ReadError};
use aneforge_tensor::{DType, Shape, Tensor, random};
use std::collections::BTreeMap;

/// A weight is not there, or not what the model needs. The files' fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// It is not there.
    #[error(
        "the weights in `{directory}` lack `{key}`; they are not those of the model that {described_by} describes"
    )]
    Absent {
        /// Where.
        directory: String,
        /// The weight's name.
        key: String,
        /// What says that there is one.
        described_by: String,
    },
    /// It has another shape than the model.
    #[error(
        "weight `{key}` in `{directory}` has shape {got:?}, {described_by} asks for {want:?}; the two belong to different models"
    )]
    Shape {
        /// Where.
        directory: String,
        /// The weight's name.
        key: String,
        /// What says which shape it has.
        described_by: String,
        /// The shape it should have; an extent of 0 stands for any.
        want: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A normalisation makes of a convolution what half precision cannot hold.
    #[error(
        "normalisation `{norm}` in `{directory}` makes {value} of a weight before it, which half precision does not hold; look at its running_var, which \
         must be above 0, and its other weights"
    )]
    Normalised {
        /// Where.
        directory: String,
        /// What its weights' names begin with.
        norm: String,
        /// The value.
        value: f32,
    },
    /// It is not floating point.
    #[error("weight `{key}` in `{directory}` is {got}; convert the checkpoint to floating point")]
    Type {
        /// Where.
        directory: String,
        /// The weight's name.
        key: String,
        /// Its element type.
        got: DType,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl WeightError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::File
    }
}

/// A source of weights. Functions are one, as are [`Stored`] weights and [`random_weights`].
pub trait Weights {
    /// The weight called `name`, of this shape, such as `layer2.0.conv1.bias`.
    fn get(&mut self, name: &str, shape: Shape) -> Result<Var, WeightError>;
}

impl<F: FnMut(&str, Shape) -> Var> Weights for F {
    #[track_caller]
    fn get(&mut self, name: &str, shape: Shape) -> Result<Var, WeightError> {
        Ok(self(name, shape))
    }
}

/// The weights of a checkpoint, which are read when a program is compiled.
///
/// Every weight that is asked for is checked and remembered, so that a bad value can be told by its name.
///
/// ```no_run
/// use aneforge::{Shape, Var};
/// use aneforge_formats::Checkpoint;
/// use aneforge_models::resnet::{Depth, resnet};
/// use aneforge_models::weights::Stored;
///
/// let mut weights = Stored::new(Checkpoint::open("resnet18")?, "ResNet-18");
/// let image = Var::input(Shape::new(&[1, 3, 224, 224])?);
/// let logits = resnet(Depth::D18, &image, 1000, &mut weights)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stored {
    checkpoint: Checkpoint,
    /// What the messages say that the names and shapes are from.
    described_by: String,
    /// What precedes all names.
    prefix: String,
    taken: BTreeMap<String, Tensor>,
}

/// A value that half precision cannot hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Beyond {
    /// The directory of the checkpoint.
    pub directory: String,
    /// The weight's name.
    pub key: String,
    /// The value.
    pub value: f32,
    /// Its place.
    pub at: usize,
}

impl Stored {
    /// The weights of `checkpoint`, whose names and shapes are those of the model that `described_by` describes.
    pub fn new(checkpoint: Checkpoint, described_by: &str) -> Stored {
        let described_by = described_by.to_owned();
        Stored { checkpoint, described_by, prefix: String::new(), taken: BTreeMap::new() }
    }

    /// The same where whatever precedes `name` precedes all names: `bert.` of a model with a head.
    pub fn beside(self, name: &str) -> Result<Stored, WeightError> {
        let prefixes = self.checkpoint.names().filter_map(|key| key.strip_suffix(name));
        let prefix = prefixes.filter(|p| p.is_empty() || p.ends_with('.')).min_by_key(|p| p.len());
        let prefix = prefix.ok_or_else(|| self.absent(name))?.to_owned();
        Ok(Stored { prefix, ..self })
    }

    /// Whether there is a weight of this name.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.key(name))
    }

    /// Where the weights are from, for messages.
    pub(crate) fn directory(&self) -> &str {
        self.checkpoint.directory()
    }

    /// A name with what precedes it.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What precedes all names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether there is a weight of this name, with whatever precedes it.
    pub fn contains(&self, full: &str) -> bool {
        self.checkpoint.contains(full)
    }

    /// The weights beside those that were asked for, of the ones that the prefix precedes.
    pub fn untaken(&self) -> impl Iterator<Item = &str> {
        let ours = self.checkpoint.names().filter(|name| name.starts_with(&self.prefix));
        ours.filter(|name| !self.taken.contains_key(*name))
    }

    /// A weight by its name with whatever precedes it, of any shape.
    pub fn raw(&self, full: &str) -> Result<Tensor, WeightError> {
        Ok(self.checkpoint.tensor(full)?)
    }

    /// A weight by its name with whatever precedes it, such as one of a head.
    pub fn beyond_prefix(&mut self, full: &str, want: &[usize]) -> Result<Tensor, WeightError> {
        let prefix = std::mem::take(&mut self.prefix);
        let tensor = self.tensor(full, want);
        self.prefix = prefix;
        tensor
    }

    /// A weight of this shape; an extent of 0 stands for any.
    pub fn tensor(&mut self, name: &str, want: &[usize]) -> Result<Tensor, WeightError> {
        let key = self.key(name);
        if !self.checkpoint.contains(&key) {
            return Err(self.absent(&key));
        }
        let tensor = self.checkpoint.tensor(&key)?;
        let (directory, described_by) = (self.checkpoint.directory().to_owned(), self.described_by.clone());
        let got = tensor.shape();
        if got.rank() != want.len() || got.dims().iter().zip(want).any(|(g, w)| *w != 0 && g != w) {
            let (want, got) = (want.to_vec(), got.dims().to_vec());
            return Err(WeightError::Shape { directory, key, described_by, want, got });
        }
        if !tensor.dtype().is_float() {
            return Err(WeightError::Type { directory, key, got: tensor.dtype() });
        }
        self.taken.insert(key, tensor.clone());
        Ok(tensor)
    }

    fn absent(&self, key: &str) -> WeightError {
        let (directory, key) = (self.checkpoint.directory().to_owned(), key.to_owned());
        WeightError::Absent { directory, key, described_by: self.described_by.clone() }
    }

    /// The full name. Checkpoints converted from TensorFlow call the parts of a norm gamma and beta.
    fn key(&self, name: &str) -> String {
        let key = format!("{}{name}", self.prefix);
        let older = match name.rsplit_once("LayerNorm.") {
            Some((stem, "weight")) => format!("{}{stem}LayerNorm.gamma", self.prefix),
            Some((stem, "bias")) => format!("{}{stem}LayerNorm.beta", self.prefix),
            _ => return key,
        };
        if !self.checkpoint.contains(&key) && self.checkpoint.contains(&older) { older } else { key }
    }

    /// The first value that half precision cannot hold, of the weights that were asked for.
    pub fn beyond_half(&self) -> Option<Beyond> {
        self.taken.iter().find_map(|(key, tensor)| {
            let at = tensor.first_beyond_half()?;
            let mut value = [0.0];
            tensor.read_f32(at, &mut value);
            let directory = self.checkpoint.directory().to_owned();
            Some(Beyond { directory, key: key.clone(), value: value[0], at })
        })
    }
}

impl Weights for Stored {
    #[track_caller]
    fn get(&mut self, name: &str, shape: Shape) -> Result<Var, WeightError> {
        Ok(Var::constant(self.tensor(name, shape.dims())?))
    }
}

/// Weights from the fixture generator, scaled so that activations stay near one: He's rule for weights,
/// small biases. The seed of each is `seed` plus the order in which it is asked for.
pub fn random_weights(seed: u64) -> impl FnMut(&str, Shape) -> Var {
    let mut next = seed;
    move |_, shape| {
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let scale = if shape.rank() == 1 { 0.05 } else { (1.0 / fan_in as f32).sqrt() };
        let tensor: Tensor = random::normal_tensor(next, shape, scale);
        next += 1;
        Var::constant(tensor)
    }
}
