//! Leaves: values that are fed, and values baked into the program.

use crate::ir::attr::{Attr, AttrValue, Real};
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Grad, Mil, Operator};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{DType, Shape};

/// Who provides a leaf's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The caller, at every run.
    Feed,
    /// A trained weight, which an optimizer updates.
    Parameter,
    /// What the last step left there: state that a device keeps between steps.
    State,
    /// Another segment of the same plan, where a graph is cut.
    Cut,
}

impl Role {
    /// Whether a device keeps the value from run to run, so that a run may change it.
    pub fn is_kept(self) -> bool {
        matches!(self, Role::Parameter | Role::State)
    }
}

impl AttrValue for Role {
    const TYPE: &'static str = "role";
    fn to_attr(&self) -> Attr {
        let name = match self {
            Role::Feed => "feed",
            Role::Parameter => "parameter",
            Role::State => "state",
            Role::Cut => "cut",
        };
        Attr::Str(name.into())
    }
    fn from_attr(attr: &Attr) -> Option<Role> {
        let Attr::Str(name) = attr else { return None };
        [Role::Feed, Role::Parameter, Role::State, Role::Cut]
            .into_iter()
            .find(|r| r.to_attr() == Attr::Str(name.clone()))
    }
}

op! {
    /// A value that is fed at run time.
    ///
    /// Feeds are passed in the order in which inputs were made. Half-precision ports take any real
    /// array and round it; `uint8` ports take integers only, and are meant for images.
    pub struct Input = "input"() {
        /// The leaf's identity; no two inputs share one.
        id: u64,
        /// `fp16` or `uint8`.
        dtype: DType = DType::F16,
        /// Extents.
        shape: Vec<i64>,
        /// Who provides the value: `feed`, `parameter`, `state` or `cut`.
        role: Role = Role::Feed,
        /// What magnitudes do not exceed: a promise, which is not checked. Infinite where nothing is promised.
        max_abs: Real = Real(f64::INFINITY),
        /// What callers may feed it by, once in a graph: letters, digits and `_.-/:`. Empty where it has no name.
        name: String = String::new(),
    }
}

impl Operator for Input {
    fn infer(&self, _: &[TensorType]) -> Result<TensorType, String> {
        let dims: Result<Vec<usize>, _> = self.shape.iter().map(|&d| usize::try_from(d)).collect();
        let dims = dims.map_err(|_| format!("shape {:?} has a negative size", self.shape))?;
        if self.max_abs.0.is_nan() || self.max_abs.0 < 0.0 {
            return Err(format!("max_abs must be at least 0, got {}", self.max_abs.0));
        }
        if let Some(odd) = self.name.chars().find(|c| !c.is_alphanumeric() && !"_.-/:".contains(*c)) {
            return Err(format!("names are of letters, digits and _.-/:, got {odd:?} in {:?}", self.name));
        }
        TensorType::port(self.dtype, Shape::new(&dims).map_err(|e| e.to_string())?)
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Leaf
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, _: &[&Array], _: &TensorType, _: Precision) -> Array {
        unreachable!("leaves are fed")
    }
    fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
        Vec::new()
    }
    fn mil() -> Mil {
        Mil::Leaf
    }
    fn cases() -> Vec<Case> {
        Vec::new()
    }
}

op! {
    /// A value baked into the program, read from the weight file.
    ///
    /// It keeps its element type until it is encoded; in the graph it is half precision.
    pub struct Constant = "const_array"() {
        /// Its place in the graph's table of constants.
        index: u64,
    }
}

impl Operator for Constant {
    fn infer(&self, _: &[TensorType]) -> Result<TensorType, String> {
        Err("a constant's type is that of its data; use Var::constant".into())
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Leaf
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, _: &[&Array], _: &TensorType, _: Precision) -> Array {
        unreachable!("constants are in the graph's table")
    }
    fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
        Vec::new()
    }
    fn mil() -> Mil {
        Mil::Leaf
    }
    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
