//! Tensors and models as bytes, for `pickle` and `copy`.

use crate::apply::Returned;
use crate::compile::on;
use crate::error::{Error, memory};
use crate::host::HostWords;
use crate::interrupt::interruptible;
use crate::model::Model;
use crate::running::Running;
use crate::state;
use crate::tensor::Tensor;
use aneforge::ir::op::Op;
use aneforge::ir::var::WeakVar;
use aneforge::portable::{PortableError, pack_plan, pack_values, unpack_plan, unpack_values};
use aneforge::{Plan, Var};
use aneforge_tensor::{AlignedBytes, Bytes};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

/// Inputs that were read from bytes, by the process that wrote them and their number there: what several tensors and
/// models of one process share, their copies share too.
static LEAVES: Mutex<Option<HashMap<(String, u64), WeakVar>>> = Mutex::new(None);

/// When this process, or the one that it was forked from, wrote first.
static START: LazyLock<u128> =
    LazyLock::new(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos()));

fn this_process() -> String {
    format!("{}-{}", std::process::id(), *START)
}

/// Which input stands for one of the process called `origin`.
fn leaf(origin: &str, number: u64, fresh: Var) -> Var {
    let mut leaves = LEAVES.lock().unwrap_or_else(PoisonError::into_inner);
    let leaves = leaves.get_or_insert_default();
    let key = (origin.to_owned(), number);
    if let Some(known) = leaves.get(&key).and_then(WeakVar::upgrade) {
        return known;
    }
    if leaves.len() == leaves.capacity() {
        leaves.retain(|_, leaf| leaf.upgrade().is_some());
    }
    leaves.insert(key, fresh.downgrade());
    fresh
}

/// Remembers the inputs that a tensor of this process is made from.
fn remember(origin: &str, root: &Var) {
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![root.clone()];
    while let Some(var) = pending.pop() {
        if !seen.insert(var.id()) {
            continue;
        }
        if let Op::Input(input) = var.op() {
            leaf(origin, input.id, var.clone());
        }
        pending.extend(var.inputs().iter().cloned());
    }
}

fn aligned(bytes: &[u8]) -> PyResult<Bytes> {
    let mut copy = AlignedBytes::try_zeroed(bytes.len()).ok_or_else(|| memory(bytes.len()))?;
    copy.copy_from_slice(bytes);
    Ok(Bytes::new(copy))
}

/// What `pack` makes, packed on another thread as large graphs take a while, and the name of this process.
fn packed<'py>(
    py: Python<'py>,
    pack: impl FnOnce(&str) -> Result<Vec<u8>, PortableError> + Send + 'static,
) -> PyResult<(Bound<'py, PyBytes>, String)> {
    let origin = this_process();
    let name = origin.clone();
    let bytes = interruptible(py, move |_| pack(&name))?.map_err(Error::Portable)?;
    let kept = PyBytes::new_with(py, bytes.len(), |copy| {
        copy.copy_from_slice(&bytes);
        Ok(())
    })?;
    Ok((kept, origin))
}

/// What makes a tensor again.
pub fn tensor_to_bytes<'py>(py: Python<'py>, var: &Var) -> PyResult<(Bound<'py, PyBytes>, String)> {
    let var = var.clone();
    packed(py, move |origin| {
        remember(origin, &var);
        pack_values(std::slice::from_ref(&var))
    })
}

/// The tensor that pickle keeps so.
#[pyfunction]
#[pyo3(name = "_tensor_from_bytes")]
pub fn tensor_from_bytes(py: Python<'_>, bytes: &[u8], origin: String) -> PyResult<Tensor> {
    let bytes = aligned(bytes)?;
    let read = move |_: &_| unpack_values(bytes, &mut |number, fresh| leaf(&origin, number, fresh));
    let mut vars = interruptible(py, read)?.map_err(Error::Portable)?;
    Ok(Tensor { var: vars.swap_remove(0) })
}

/// What makes a model's plan again.
pub fn model_to_bytes<'py>(py: Python<'py>, plan: Arc<Plan>) -> PyResult<(Bound<'py, PyBytes>, String)> {
    packed(py, move |_| pack_plan(&plan))
}

/// The model that pickle keeps so.
#[expect(clippy::too_many_arguments, reason = "they are what pickle keeps")]
#[pyfunction]
#[pyo3(name = "_model_from_bytes")]
pub fn model_from_bytes(
    py: Python<'_>,
    bytes: &[u8],
    origin: String,
    device: &str,
    host: HostWords,
    single: bool,
    names: Option<Vec<String>>,
    state: &Bound<'_, PyDict>,
) -> PyResult<Py<Model>> {
    let bytes = aligned(bytes)?;
    let read = move |_: &_| unpack_plan(bytes, &mut |number, fresh| leaf(&origin, number, fresh));
    let plan = interruptible(py, read)?.map_err(Error::Portable)?;
    let host = host.options(plan.target)?;
    let states = Vec::new();
    let running =
        Running { plan: Arc::new(plan), device: on(Some(device), &host)?, host, states, written: None };
    let (running, home) = py.detach(|| running.load())?;
    let values = state::given(state)?;
    home.with(py, move |session| session.restore(&values))?.map_err(Error::Run)?;
    let returned = match names {
        Some(names) => Returned::Named(names),
        None if single => Returned::One,
        None => Returned::Tuple,
    };
    Model::new(py, running, home, returned)
}
