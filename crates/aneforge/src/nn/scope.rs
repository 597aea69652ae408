//! Parameters with names, and how they begin.

use crate::ir::ops::leaf::Role;
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::random::{normal, uniform, word};
use aneforge_tensor::{Shape, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element this value.
    Fill(f64),
    /// Normally distributed, with this standard deviation.
    Normal(f64),
    /// Normally distributed with deviation `sqrt(2 / fan_in)`, for layers before a rectifier (He et al., ICCV 2015).
    He {
        /// How many inputs an output sums.
        fan_in: usize,
    },
    /// Uniform with deviation `sqrt(2 / (fan_in + fan_out))` (Glorot and Bengio, AISTATS 2010).
    Glorot {
        /// How many inputs an output sums.
        fan_in: usize,
        /// How many outputs an input goes to.
        fan_out: usize,
    },
}

impl Init {
    /// `count` values of the stream `seed`.
    pub fn draw(&self, seed: u64, count: usize) -> Vec<f32> {
        let each = |value: &dyn Fn(u64) -> f64| (0..count as u64).map(|i| value(i) as f32).collect();
        match *self {
            Init::Fill(value) => vec![value as f32; count],
            Init::Normal(deviation) => each(&|i| f64::from(normal(seed, i)) * deviation),
            Init::He { fan_in } => {
                let deviation = (2.0 / fan_in.max(1) as f64).sqrt();
                each(&|i| f64::from(normal(seed, i)) * deviation)
            }
            Init::Glorot { fan_in, fan_out } => {
                let reach = (6.0 / (fan_in + fan_out).max(1) as f64).sqrt();
                each(&|i| (2.0 * f64::from(uniform(seed, i)) - 1.0) * reach)
            }
        }
    }
}

/// A weight that an optimizer may change.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name: those of the scopes it is in and its own, with dots between them.
    pub name: String,
    /// The leaf that graphs read.
    pub var: Var,
    /// What it begins with, in single precision.
    pub value: Tensor,
    /// Whether it is to be trained.
    pub trained: bool,
}

#[derive(Debug, Default)]
struct Inner {
    parameters: Vec<Parameter>,
    places: HashMap<String, usize>,
}

/// Where layers make their parameters. Clones, and scopes [inside](Scope::at) one, add to the same list.
///
/// What a parameter begins with depends on the seed and its name alone, and not on the order in which layers are made.
///
/// ```
/// use aneforge::Shape;
/// use aneforge::nn::{Init, Scope};
/// let scope = Scope::new(7);
/// let weight = scope.at("encoder").at("fc").parameter("weight", Shape::new(&[4, 8])?, Init::Normal(0.1));
/// assert_eq!(weight.shape().dims(), [4, 8]);
/// assert_eq!(scope.parameters()[0].name, "encoder.fc.weight");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scope {
    inner: Arc<Mutex<Inner>>,
    prefix: String,
    seed: u64,
    trained: bool,
}

impl Scope {
    /// An empty one.
    pub fn new(seed: u64) -> Scope {
        Scope { inner: Arc::default(), prefix: String::new(), seed, trained: true }
    }

    /// One with these parameters, whose names differ: of leaves that were made otherwise.
    ///
    /// # Panics
    /// If two are called the same.
    pub fn of(parameters: Vec<Parameter>) -> Scope {
        let places = parameters.iter().enumerate().map(|(place, p)| (p.name.clone(), place));
        let places: HashMap<String, usize> = places.collect();
        assert_eq!(places.len(), parameters.len(), "parameters have names of their own");
        Scope { inner: Arc::new(Mutex::new(Inner { parameters, places })), ..Scope::new(0) }
    }

    /// The scope called `name` inside this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Scope {
        Scope { prefix: self.full(&name.to_string()), ..self.clone() }
    }

    /// This scope, whose parameters are made untrained: of a network that another part is trained beside.
    pub fn frozen(&self) -> Scope {
        Scope { trained: false, ..self.clone() }
    }

    /// A parameter, or a mistake that two are called the same.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: Shape, init: Init) -> Var {
        let full = self.full(name);
        let values = init.draw(self.stream(&full), shape.count());
        self.add(full, shape, &values)
    }

    /// A parameter that begins with these values.
    #[track_caller]
    pub fn given(&self, name: &str, value: &Tensor) -> Var {
        match value.dtype().is_float() {
            true => self.add(self.full(name), value.shape(), &value.to_f32()),
            false => Var::poisoned("parameter", format!("must be floating point, got {}", value.dtype())),
        }
    }

    #[track_caller]
    fn add(&self, name: String, shape: Shape, values: &[f32]) -> Var {
        if name.is_empty() {
            return Var::poisoned("parameter", "has no name; parameters are saved by their names");
        }
        let var = Var::described_leaf(TensorType::f16(shape), Role::Parameter, f64::INFINITY, &name);
        if var.check().is_err() {
            return var;
        }
        let mut inner = self.lock();
        let place = inner.parameters.len();
        if inner.places.insert(name.clone(), place).is_some() {
            return Var::poisoned(
                "parameter",
                format!("two are called `{name}`; give each a scope of its own"),
            );
        }
        let value = Tensor::from_slice(shape, values).expect("invariant: one value per element");
        inner.parameters.push(Parameter { name, var: var.clone(), value, trained: self.trained });
        var
    }

    /// All parameters made so far, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.lock().parameters.clone()
    }

    /// Gives parameters other values to begin with: all of those that are named.
    pub fn load(&self, values: &[(String, Tensor)]) -> Result<(), String> {
        let mut inner = self.lock();
        for (name, value) in values {
            let Some(&place) = inner.places.get(name) else {
                return Err(format!("there is no parameter `{name}`"));
            };
            let (want, got) = (inner.parameters[place].value.shape(), value.shape());
            if want != got || !value.dtype().is_float() {
                return Err(format!("parameter `{name}` is {want}, got {}{got}", value.dtype()));
            }
        }
        for (name, value) in values {
            let place = inner.places[name];
            let value = Tensor::from_slice(value.shape(), &value.to_f32());
            inner.parameters[place].value = value.expect("invariant: one value per element");
        }
        Ok(())
    }

    fn full(&self, name: &str) -> String {
        match (self.prefix.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (_, true) => self.prefix.clone(),
            _ => format!("{}.{name}", self.prefix),
        }
    }

    /// The seed of a parameter's values.
    fn stream(&self, name: &str) -> u64 {
        name.bytes().fold(self.seed, |seed, byte| word(seed, u64::from(byte)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
