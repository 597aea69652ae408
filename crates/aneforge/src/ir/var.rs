//! Values being built: what users hold, and what gradients, decompositions and rewrites are written in.

use crate::ir::attr::Real;
use crate::ir::form::Facts;
use crate::ir::op::Op;
use crate::ir::ops::leaf::{Constant, Input, Role};
use crate::ir::ops::scalar::{Adds, Muls};
use crate::ir::types::{Caller, TensorType};
use aneforge_tensor::{DType, Shape, Tensor, Weight};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// A node could not be built. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {why} (at {at})")]
pub struct BuildError {
    /// The op.
    pub op: String,
    /// What is wrong, with the numbers, and what to do.
    pub why: String,
    /// The line that built it.
    pub at: Caller,
}

/// One value of a lazy graph: an immutable node that any number of other nodes may share.
///
/// There is no graph to belong to: any two values can meet in an op. Building never fails outright; the
/// first mistake is kept in the value, passes through everything built on it, and comes out of
/// [`Graph::freeze`](crate::ir::graph::Graph::freeze) with the line that made it. [`Var::check`] and
/// [`Var::try_apply`] report it at once.
///
/// ```
/// use aneforge::{Shape, Var};
/// let x = Var::input(Shape::new(&[2, 8])?);
/// let y = (x.relu() * 0.5).softmax(-1);
/// assert_eq!(y.check()?.shape, Shape::new(&[2, 8])?);
/// assert!(x.softmax(7).check().unwrap_err().to_string().starts_with("softmax: axis 7 is out of range"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Var(Arc<Node>);

struct Node {
    id: u64,
    op: Op,
    inputs: Vec<Var>,
    ty: Result<TensorType, Arc<BuildError>>,
    at: Caller,
    data: Option<Weight>,
    note: OnceLock<Box<dyn Any + Send + Sync>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);
static NEXT_LEAF: AtomicU64 = AtomicU64::new(0);

/// A value that is not kept alive.
#[derive(Clone)]
pub struct WeakVar(Weak<Node>);

impl WeakVar {
    /// The value, while something keeps it alive.
    pub fn upgrade(&self) -> Option<Var> {
        self.0.upgrade().map(Var)
    }
}

impl Var {
    /// This value, not kept alive.
    pub fn downgrade(&self) -> WeakVar {
        WeakVar(Arc::downgrade(&self.0))
    }

    fn new(op: Op, inputs: Vec<Var>, ty: Result<TensorType, Arc<BuildError>>, at: Caller) -> Var {
        Var::node(op, inputs, ty, at, None)
    }

    fn node(
        op: Op,
        inputs: Vec<Var>,
        ty: Result<TensorType, Arc<BuildError>>,
        at: Caller,
        data: Option<Weight>,
    ) -> Var {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Var(Arc::new(Node { id, op, inputs, ty, at, data, note: OnceLock::new() }))
    }

    /// A half-precision value that is fed at run time. Feeds go in the order in which inputs were made.
    #[track_caller]
    pub fn input(shape: Shape) -> Var {
        Var::leaf(TensorType::f16(shape), Role::Feed)
    }

    /// A feed of this type: half precision, or unsigned bytes for images.
    #[track_caller]
    pub fn input_of(ty: TensorType) -> Var {
        Var::leaf(ty, Role::Feed)
    }

    /// A leaf with an identity of its own that no pass merges with another.
    #[track_caller]
    pub fn leaf(ty: TensorType, role: Role) -> Var {
        Var::bounded_leaf(ty, role, f64::INFINITY)
    }

    /// A leaf whose magnitudes do not exceed `max_abs`: a promise that the compiler may use, and does not check.
    #[track_caller]
    pub fn bounded_leaf(ty: TensorType, role: Role, max_abs: f64) -> Var {
        Var::described_leaf(ty, role, max_abs, "")
    }

    /// A feed with a name, by which [`Plan::feed`](crate::Plan::feed) finds it.
    #[track_caller]
    pub fn named_input(ty: TensorType, name: &str) -> Var {
        Var::described_leaf(ty, Role::Feed, f64::INFINITY, name)
    }

    /// A leaf with everything that is known of it: a bound, infinite if there is none, and a name, which may be empty.
    #[track_caller]
    pub fn described_leaf(ty: TensorType, role: Role, max_abs: f64, name: &str) -> Var {
        let id = NEXT_LEAF.fetch_add(1, Ordering::Relaxed);
        let (max_abs, name) = (Real(max_abs), name.to_owned());
        Var::apply(Input { id, dtype: ty.dtype, shape: dims(ty.shape), role, max_abs, name }, &[])
    }

    /// A value baked into the program: a tensor, or a weight in an encoding that the engine decodes. A tensor keeps its
    /// element type until it is written; in the graph it is half precision.
    #[track_caller]
    pub fn constant(value: impl Into<Weight>) -> Var {
        let (weight, at) = (value.into(), Caller::here());
        let fail = |why: String| Err(Arc::new(BuildError { op: "const_array".into(), why, at }));
        let ty = match weight.dtype() {
            d if d.is_float() => Ok(TensorType::f16(weight.shape())),
            d => fail(format!("constants are floating point, got {d}; convert the array first")),
        };
        Var::node(Constant { index: 0 }.into(), Vec::new(), ty, at, Some(weight))
    }

    /// A half-precision constant with every element `value`, which half precision must hold.
    #[track_caller]
    pub fn full(shape: Shape, value: f64) -> Var {
        if let Err(why) = Real(value).check() {
            return Var::poisoned("constant", why);
        }
        let value = aneforge_tensor::round_f16(value);
        let tensor = Tensor::from_slice(shape, &vec![value; shape.count()]);
        Var::constant(tensor.expect("invariant: one value per element"))
    }

    /// A scalar constant, which is rounded to half precision when the program is written; until then it is what it is, so that a
    /// diagnosis sees what rounding does to it.
    #[track_caller]
    pub fn scalar(value: f64) -> Var {
        if let Err(why) = Real(value).check() {
            return Var::poisoned("constant", why);
        }
        Var::constant(Tensor::scalar(value))
    }

    /// Builds a node; a mistake stays in the result.
    #[track_caller]
    pub fn apply(op: impl Into<Op>, inputs: &[&Var]) -> Var {
        let (op, at) = (op.into(), Caller::here());
        let ty = infer(&op, inputs, at);
        Var::new(op, inputs.iter().map(|v| (*v).clone()).collect(), ty, at)
    }

    /// Builds a node, or says at once why it cannot be.
    #[track_caller]
    pub fn try_apply(op: impl Into<Op>, inputs: &[&Var]) -> Result<Var, BuildError> {
        let var = Var::apply(op, inputs);
        var.check()?;
        Ok(var)
    }

    /// A value that only carries a mistake, for functions that find one before they can build.
    #[track_caller]
    pub fn poisoned(op: &str, why: impl Into<String>) -> Var {
        let at = Caller::here();
        let error = Arc::new(BuildError { op: op.into(), why: why.into(), at });
        Var::new(Constant { index: 0 }.into(), Vec::new(), Err(error), at)
    }

    /// The type, or the first mistake made on the way here.
    pub fn check(&self) -> Result<TensorType, BuildError> {
        self.0.ty.as_ref().copied().map_err(|e| (**e).clone())
    }

    /// The shape; that of a scalar if a mistake was made on the way here.
    pub fn shape(&self) -> Shape {
        self.0.ty.as_ref().map_or(Shape::SCALAR, |ty| ty.shape)
    }

    /// The type of a value known to be well built.
    ///
    /// # Panics
    /// If a mistake was made on the way here.
    pub fn ty(&self) -> TensorType {
        self.check().expect("invariant: this value was checked when it was built")
    }

    /// The op that makes this value.
    pub fn op(&self) -> &Op {
        &self.0.op
    }

    /// The values it is made from.
    pub fn inputs(&self) -> &[Var] {
        &self.0.inputs
    }

    /// What is known of the op's results.
    pub fn facts(&self) -> Facts {
        let types: Vec<TensorType> = self.inputs().iter().map(Var::ty).collect();
        self.op().facts(&types, &self.ty())
    }

    /// The line that built it.
    pub fn caller(&self) -> Caller {
        self.0.at
    }

    /// A constant's contents.
    pub fn data(&self) -> Option<&Weight> {
        self.0.data.as_ref()
    }

    /// What a binding to another language keeps beside this node, made when it is first asked for. It lives
    /// as long as the node and takes part in nothing.
    ///
    /// # Panics
    /// If it was made with another type.
    pub fn note<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        let note = self.0.note.get_or_init(|| Box::new(make()));
        note.downcast_ref().expect("invariant: a binding uses one type for its notes")
    }

    /// A number that no other node has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// `self * k` with a scalar, as one op.
    #[track_caller]
    pub fn muls(&self, k: f64) -> Var {
        Var::apply(Muls { k: Real(k) }, &[self])
    }

    /// `self + k` with a scalar, as one op.
    #[track_caller]
    pub fn adds(&self, k: f64) -> Var {
        Var::apply(Adds { k: Real(k) }, &[self])
    }

    pub(crate) fn rebuilt(op: Op, inputs: Vec<Var>, ty: TensorType, at: Caller) -> Var {
        Var::new(op, inputs, Ok(ty), at)
    }

    pub(crate) fn rebuilt_constant(value: impl Into<Weight>, at: Caller) -> Var {
        let weight = value.into();
        let ty = Ok(TensorType::f16(weight.shape()));
        Var::node(Constant { index: 0 }.into(), Vec::new(), ty, at, Some(weight))
    }
}

pub(crate) fn dims(shape: Shape) -> Vec<i64> {
    shape.dims().iter().map(|&d| d as i64).collect()
}

fn infer(op: &Op, inputs: &[&Var], at: Caller) -> Result<TensorType, Arc<BuildError>> {
    let types: Result<Vec<TensorType>, _> = inputs.iter().map(|v| v.0.ty.clone()).collect();
    op.infer(&types?).map_err(|why| Arc::new(BuildError { op: op.name().into(), why, at }))
}

/// Long chains are freed in a loop: dropping a deep graph must not use the stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut self.inputs);
        while let Some(Var(node)) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                pending.append(&mut node.inputs);
            }
        }
    }
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.ty {
            Ok(ty) => write!(f, "Var({}, {ty})", self.0.op.name()),
            Err(e) => write!(f, "Var(error: {e})"),
        }
    }
}

impl From<f32> for Var {
    #[track_caller]
    fn from(value: f32) -> Var {
        Var::scalar(f64::from(value))
    }
}

impl TensorType {
    /// The type of the feed that `dtype` and `shape` describe, or why there is none.
    pub(crate) fn port(dtype: DType, shape: Shape) -> Result<TensorType, String> {
        match dtype {
            DType::F16 | DType::U8 => Ok(TensorType { dtype, shape }),
            other => Err(format!("inputs are fp16 or uint8, got {other}; feed fp16 and convert on the host")),
        }
    }
}
