//! `Model`: a compiled program on a device, called with arrays.

use crate::error::Error;
use crate::feed::Ready;
use crate::tensor::Tensor;
use aneforge::ir::op::Op;
use aneforge::ir::ops::leaf::Input;
use aneforge::plan::{Code, Segment, Source};
use aneforge::{Plan, RunError, Session, TensorType, f16};
use numpy::ndarray::{ArrayView, IxDyn};
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyTuple;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A session that a model and the views of its ports share. One thread runs it at a time.
struct Shared(Mutex<Session>);

impl Shared {
    /// Waits for the session without keeping other Python threads from running.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Session> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

/// What keeps a port's memory while NumPy looks at it.
#[pyclass(frozen, module = "aneforge._native")]
struct Port {
    _shared: Arc<Shared>,
}

/// A compiled graph, ready to be called.
///
/// Call it with one array per input, in the order in which the inputs were made; it returns float32 arrays.
/// Calls from several threads take turns, and other Python threads run meanwhile.
#[pyclass(frozen, weakref, subclass, module = "aneforge")]
pub struct Model {
    shared: Mutex<Option<Arc<Shared>>>,
    plan: Arc<Plan>,
    device: String,
    single: bool,
}

impl Model {
    /// A model around a session, segmented if its plan is; `single` when its result is one array and not a
    /// tuple.
    pub fn new(py: Python<'_>, session: Session, single: bool) -> PyResult<Py<Model>> {
        let (plan, device) = (session.plan().clone(), session.device().to_owned());
        let shared = Arc::new(Shared(Mutex::new(session)));
        let cut = plan.n_native() > 0;
        let model = Model { shared: Mutex::new(Some(shared)), plan, device, single };
        if !cut {
            return Py::new(py, model);
        }
        let segmented = PyClassInitializer::from(model).add_subclass(SegmentedModel {});
        Ok(Bound::new(py, segmented)?.into_super().unbind())
    }

    fn shared(&self) -> PyResult<Arc<Shared>> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shared.ok_or_else(|| PyRuntimeError::new_err("the model was released; compile it again"))
    }

    fn port(&self, name: &Bound<'_, PyAny>) -> PyResult<usize> {
        let count = self.plan.feeds.len();
        let found = if name.is_none() {
            (count == 1).then_some(0)
        } else if let Ok(tensor) = name.cast::<Tensor>() {
            match tensor.get().var.op() {
                Op::Input(Input { id, .. }) => self.plan.feeds.iter().position(|feed| feed.leaf == *id),
                _ => None,
            }
        } else if let Ok(name) = name.extract::<String>() {
            self.names().iter().position(|known| *known == name)
        } else {
            name.extract::<usize>().ok().filter(|&index| index < count)
        };
        found.ok_or_else(|| {
            let names = self.names().join(", ");
            let given = if name.is_none() { String::new() } else { format!("; got {name}") };
            PyValueError::new_err(format!(
                "name one of the model's {count} inputs: its tensor, its number, or its name of {names}{given}"
            ))
        })
    }

    /// Names of the inputs in the program that reads them first, empty for those that none reads.
    fn names(&self) -> Vec<String> {
        let name = |segment: &Segment, port: usize| match &segment.code {
            Code::Mil { program, .. } => program.functions[0].params[port].name.clone(),
            Code::Native(netplist) => netplist.layer.feeds[port].1.name.to_owned(),
        };
        let read = |feed: usize| {
            self.plan.segments.iter().find_map(|segment| {
                let port = segment.inputs.iter().position(|&source| source == Source::Feed(feed))?;
                Some(name(segment, port))
            })
        };
        (0..self.plan.feeds.len()).map(|feed| read(feed).unwrap_or_default()).collect()
    }
}

#[pymethods]
impl Model {
    #[pyo3(signature = (*arrays))]
    fn __call__<'py>(&self, py: Python<'py>, arrays: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared()?;
        let want = self.plan.feeds.len();
        if arrays.len() != want {
            return Err(Error::Run(RunError::Count { want, got: arrays.len() }).into());
        }
        let ready =
            |(index, array): (usize, Bound<'py, PyAny>)| Ready::new(index, self.plan.feeds[index].ty, &array);
        // Nothing below runs Python code while the session is locked, so no call can wait for itself.
        let feeds = arrays.iter().enumerate().map(ready).collect::<PyResult<Vec<Ready<'py>>>>()?;
        let zeros = |(ty, _): &(TensorType, Source)| PyArrayDyn::<f32>::zeros(py, ty.shape.dims(), false);
        let results: Vec<Bound<'py, PyArrayDyn<f32>>> = self.plan.outputs.iter().map(zeros).collect();
        {
            let mut session = shared.lock(py);
            for (index, ready) in feeds.iter().enumerate() {
                let feed = ready.feed().expect("invariant: ready arrays are contiguous");
                session.set(index, feed, ready.shape()).map_err(Error::Run)?;
            }
            let session = &mut *session;
            py.detach(|| session.execute()).map_err(Error::Run)?;
            for (index, result) in results.iter().enumerate() {
                let mut result = result.readwrite();
                session.read(index, result.as_slice_mut().expect("invariant: new arrays are contiguous"));
            }
        }
        match &results[..] {
            [one] if self.single => Ok(one.clone().into_any()),
            _ => Ok(PyTuple::new(py, results)?.into_any()),
        }
    }

    /// Runs once with what the ports hold; see `input_view` and `output_view`.
    fn execute(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.shared()?;
        let mut session = shared.lock(py);
        let session = &mut *session;
        Ok(py.detach(|| session.execute()).map_err(Error::Run)?)
    }

    /// A writable float16 array over an input's own memory, to be filled before `execute`.
    ///
    /// `name` is the input's tensor, its number or its name in the program; with one input it may be left
    /// out. Do not write while the model runs in another thread.
    #[pyo3(signature = (name = None))]
    fn input_view<'py>(
        &self,
        py: Python<'py>,
        name: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
        let none = py.None().into_bound(py);
        let index = self.port(name.unwrap_or(&none))?;
        let shared = self.shared()?;
        let mut session = shared.lock(py);
        let ty = self.plan.feeds[index].ty;
        let Some(memory) = session.input_mut(index) else {
            return Err(PyTypeError::new_err(format!(
                "input {index} has no half-precision memory: it is a {} port{}; call the model with arrays",
                ty.dtype,
                if ty.dtype == aneforge::DType::F16 { " that no op reads" } else { "" }
            )));
        };
        let memory: *const [f16] = memory;
        drop(session);
        view(py, memory, ty, &shared)
    }

    /// A read-only float16 array over an output's own memory: what the last run left there.
    #[pyo3(signature = (index = 0))]
    fn output_view<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
        let shared = self.shared()?;
        let session = shared.lock(py);
        let Some(ty) = session.output_type(index) else {
            let count = self.plan.outputs.len();
            return Err(PyIndexError::new_err(format!("output {index} of a model with {count}")));
        };
        let memory: *const [f16] = session.output(index);
        drop(session);
        let view = view(py, memory, ty, &shared)?;
        view.readwrite().make_nonwriteable();
        Ok(view)
    }

    /// Frees the program and its memory, but for ports that views still look at.
    fn release(&self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The number of ops as written; inputs and weights do not count.
    #[getter]
    fn n_ops(&self) -> usize {
        self.plan.n_ops
    }

    /// The device it runs on: `host` or `ane`.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// The chip it is compiled for.
    #[getter]
    fn target(&self) -> &'static str {
        self.plan.target.name()
    }

    /// Which arithmetic the host computes with.
    #[getter]
    fn numerics(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared()?.lock(py).numerics().to_string())
    }

    /// Shapes of the inputs, in the order of arguments.
    #[getter]
    fn input_shapes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.plan.feeds.iter().map(|feed| PyTuple::new(py, feed.ty.shape.dims())).collect()
    }

    /// Shapes of the results.
    #[getter]
    fn output_shapes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.plan.outputs.iter().map(|(ty, _)| PyTuple::new(py, ty.shape.dims())).collect()
    }

    /// The plan, and the steps and memory it runs with, as text.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let steps = self.shared()?.lock(py).describe();
        Ok(format!("{}{steps}", self.plan))
    }

    fn __repr__(&self) -> String {
        let released = self.shared.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let native = match self.plan.n_native() {
            0 => String::new(),
            1 => " and 1 native layer".into(),
            n => format!(" and {n} native layers"),
        };
        format!(
            "{}({} op{}{native}, target {}, device {}{})",
            if native.is_empty() { "Model" } else { "SegmentedModel" },
            self.plan.n_ops,
            if self.plan.n_ops == 1 { "" } else { "s" },
            self.plan.target,
            self.device,
            if released { ", released" } else { "" }
        )
    }
}

/// A model whose graph is cut at native layers, which are programs of their own.
///
/// It is called like any model; values pass between the parts in half precision.
#[pyclass(frozen, extends = Model, module = "aneforge")]
pub struct SegmentedModel {}

#[pymethods]
impl SegmentedModel {
    /// The number of native layers.
    #[getter]
    fn n_netplist(slf: PyRef<'_, Self>) -> usize {
        slf.as_super().plan.n_native()
    }

    /// The number of native layers, under the name it had when attention was the only one.
    #[getter]
    fn n_sdpa(slf: PyRef<'_, Self>) -> usize {
        slf.as_super().plan.n_native()
    }
}

/// An array over a port's memory.
fn view<'py>(
    py: Python<'py>,
    memory: *const [f16],
    ty: TensorType,
    shared: &Arc<Shared>,
) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
    let port = Bound::new(py, Port { _shared: shared.clone() })?.into_any();
    #[expect(unsafe_code, reason = "zero-copy arrays over a port's memory")]
    // SAFETY: a session allocates its ports when it is loaded and neither moves nor frees them before it is
    // dropped, which the array's base object `port` prevents. The shape has as many elements as the port.
    // Writing through the array while a run is under way in another thread is a race between the caller's
    // own threads, as with any array that NumPy shares; the documentation forbids it.
    unsafe {
        let elements = ArrayView::from_shape_ptr(IxDyn(ty.shape.dims()), memory.cast::<f16>());
        Ok(PyArrayDyn::borrow_from_array(&elements, port))
    }
}
