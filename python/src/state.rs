//! State: tensors whose values a device keeps from run to run.

use crate::apply::{refused, shape_of};
use crate::caller::attributed;
use crate::compile::on;
use crate::error::{Error, checked};
use crate::feed::Ready;
use crate::host::HostWords;
use crate::memory::{view, zeros};
use crate::node::attrs;
use crate::pickle::{tensor_from_bytes, tensor_to_bytes};
use crate::running::Running;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::ir::graph::InputInfo;
use aneforge::ir::op::Op;
use aneforge::ir::ops::leaf::{Input, Role};
use aneforge::{Buffer, Device, Session, Shape, Target, TensorType, Var, f16};
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::HashSet;
use std::sync::Arc;

/// Under which attribute a leaf keeps its memory.
const KEPT: &str = "state";

/// The memory of a state, kept beside its leaf so that it lives as long as a graph that reads it.
#[pyclass(frozen, module = "aneforge._native")]
pub struct Kept {
    buffer: Buffer,
    device: &'static str,
}

#[pymethods]
impl Kept {
    fn __repr__(&self) -> String {
        format!("<{} in the memory of {}>", self.buffer.ty(), self.device)
    }
}

/// A tensor whose value a device keeps from run to run.
///
/// Graphs read it like any tensor; `compile(out, carry={state: next})` makes a run change it. Every model that reads or
/// changes it shares its memory. It is made by `af.state`.
#[pyclass(frozen, extends = Tensor, module = "aneforge")]
pub struct State {
    buffer: Buffer,
    device: &'static str,
}

/// A state of zeros on a device.
#[pyfunction]
#[pyo3(signature = (shape, name = None, device = None, host = None))]
pub fn state(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    name: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
) -> PyResult<Py<State>> {
    let shape = shape_of(py, "state", shape)?;
    if name.as_deref() == Some("") {
        return Err(refused("state", "a name has at least one letter; leave it out for none"));
    }
    let device = on(device.as_deref(), &host.unwrap_or_default().options(Target::default())?)?;
    let name = name.as_deref().unwrap_or_default();
    let var =
        attributed(py, || Var::described_leaf(TensorType::f16(shape), Role::State, f64::INFINITY, name))?;
    let var = checked(var)?;
    kept_on(py, &device, var)
}

/// The state of a leaf on a device, of zeros.
fn kept_on(py: Python<'_>, device: &Arc<dyn Device>, var: Var) -> PyResult<Py<State>> {
    let state = aneforge::State::of(device, &var).map_err(Error::Run)?;
    let (buffer, device) = (state.buffer().clone(), device.title());
    let notes = attrs(py, &var)?.cast_into::<PyDict>()?;
    notes.set_item(KEPT, Bound::new(py, Kept { buffer: buffer.clone(), device })?)?;
    made(py, var, buffer, device)
}

fn made(py: Python<'_>, var: Var, buffer: Buffer, device: &'static str) -> PyResult<Py<State>> {
    Py::new(py, PyClassInitializer::from(Tensor { var }).add_subclass(State { buffer, device }))
}

#[pymethods]
impl State {
    /// The device that keeps it.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// Its name; empty where it has none.
    #[getter]
    fn name(slf: PyRef<'_, Self>) -> String {
        match slf.as_super().var.op() {
            Op::Input(leaf) => leaf.name.clone(),
            _ => String::new(),
        }
    }

    /// What it holds, as a float32 array.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        values(py, &self.buffer)
    }

    /// Gives it other values, an array of its shape.
    fn _set(&self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        fill(&self.buffer, values)
    }

    /// A writable float16 array over its own memory. From then on its memory stays where it is, and runs that change it
    /// copy what becomes of it there.
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
        view(py, self.buffer.clone(), self.buffer.ty())
    }

    /// What pickle keeps: the leaf and what it holds. Copies share the leaf with copies of tensors that read it.
    fn __reduce__<'py>(slf: PyRef<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let (bytes, origin) = tensor_to_bytes(py, &slf.as_super().var)?;
        let arguments = (bytes, origin, values(py, &slf.buffer)?, slf.device).into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("_state_from_bytes")?, arguments))
    }

    fn __repr__(slf: PyRef<'_, Self>) -> String {
        let (ty, device) = (slf.buffer.ty(), slf.device);
        let name = State::name(slf);
        let named = if name.is_empty() { String::new() } else { format!("{name:?}, ") };
        format!("State({named}{ty}, device {device})")
    }
}

/// The state that pickle keeps so.
#[pyfunction]
#[pyo3(name = "_state_from_bytes")]
pub fn state_from_bytes(
    py: Python<'_>,
    bytes: &[u8],
    origin: String,
    values: &Bound<'_, PyAny>,
    device: &str,
) -> PyResult<Py<State>> {
    let var = tensor_from_bytes(py, bytes, origin)?.var;
    let known = attrs(py, &var)?.cast_into::<PyDict>()?.get_item(KEPT)?;
    if let Some(known) = known {
        let Kept { buffer, device } = known.cast::<Kept>()?.get();
        return made(py, var, buffer.clone(), device);
    }
    let device = on(Some(device), &HostWords::default().options(Target::default())?)?;
    let state = kept_on(py, &device, var)?;
    fill(&state.get().buffer, values)?;
    Ok(state)
}

/// What a buffer holds, in single precision.
fn values<'py>(py: Python<'py>, buffer: &Buffer) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let array = zeros::<f32>(py, buffer.ty().shape.dims())?;
    buffer.read(array.readwrite().as_slice_mut().expect("invariant: new arrays are contiguous"));
    Ok(array)
}

/// Fills a buffer with an array of its shape.
fn fill(buffer: &Buffer, values: &Bound<'_, PyAny>) -> PyResult<()> {
    let ty = buffer.ty();
    let ready = Ready::new(0, ty, values)?;
    if ready.shape() != ty.shape.dims() {
        let got = ready.shape().to_vec();
        return Err(refused("state", &format!("takes an array of shape {}, got {got:?}", ty.shape)));
    }
    let feed = ready.feed().expect("invariant: ready arrays are contiguous");
    if let Some(why) = buffer.refuses(feed) {
        return Err(refused("state", &why));
    }
    buffer.write(feed).map(drop).map_err(|e| refused("state", &e.to_string()))
}

/// The memory of every state that values are made from and that `af.state` made, with the numbers of their leaves.
pub fn kept(py: Python<'_>, outputs: &[Var], device: &str) -> PyResult<Vec<(u64, Buffer)>> {
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    let mut pending: Vec<Var> = outputs.to_vec();
    while let Some(var) = pending.pop() {
        if !seen.insert(var.id()) {
            continue;
        }
        pending.extend(var.inputs().iter().cloned());
        let Op::Input(Input { role: Role::State, id, name, .. }) = var.op() else { continue };
        let notes = attrs(py, &var)?.cast_into::<PyDict>()?;
        let Some(kept) = notes.get_item(KEPT)? else { continue };
        let kept = kept.cast::<Kept>()?.get();
        if kept.device != device {
            return Err(refused(
                "compile",
                &format!("the state `{name}` lies on {} and the model is to run on {device}", kept.device),
            ));
        }
        found.push((*id, kept.buffer.clone()));
    }
    Ok(found)
}

/// Binds a session's state to these buffers, and says which buffers all its state lies in.
pub fn bind(session: &mut Session, states: &[(u64, Buffer)]) -> Result<Vec<(u64, Buffer)>, Error> {
    for (leaf, buffer) in states {
        if let Some(feed) = session.plan().feeds.iter().position(|feed| feed.leaf == *leaf) {
            session.bind_input(feed, buffer).map_err(Error::Run)?;
        }
    }
    let given = |leaf: u64| states.iter().any(|(other, _)| *other == leaf);
    let kept = |feed: &InputInfo| feed.role == Role::State || given(feed.leaf);
    let feeds = session.plan().feeds.iter().enumerate().filter(|(_, feed)| kept(feed));
    Ok(feeds.filter_map(|(at, feed)| Some((feed.leaf, session.input_buffer(at)?.clone()))).collect())
}

/// Which feeds arrays are given for, in order: inputs, and parameters that nothing keeps.
pub fn fed(running: &Running) -> Vec<usize> {
    let plan = &running.plan;
    let kept = |at: usize, leaf: u64| {
        plan.carries.contains(&at) || running.states.iter().any(|(other, _)| *other == leaf)
    };
    let given = |(at, feed): (usize, &InputInfo)| match feed.role {
        Role::Feed => true,
        Role::Parameter => !kept(at, feed.leaf),
        Role::State | Role::Cut => false,
    };
    plan.feeds.iter().enumerate().filter(|feed| given(*feed)).map(|(at, _)| at).collect()
}

/// What the state of a session holds, by name.
pub fn of_session<'py>(py: Python<'py>, states: &[(String, Buffer)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    states.iter().try_for_each(|(name, buffer)| dict.set_item(name, values(py, buffer)?))?;
    Ok(dict)
}

/// Arrays as what a session restores its state from.
pub fn given(values: &Bound<'_, PyDict>) -> PyResult<Vec<(String, aneforge::Tensor)>> {
    let one = |(name, array): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let any = TensorType::f16(Shape::SCALAR);
        Ok((name.extract::<Text>()?.to_string(), Ready::new(0, any, &array)?.tensor(0, any)?))
    };
    values.iter().map(one).collect()
}
