//! `Model`: a compiled program on a device, called with arrays.

use crate::apply::Returned;
use crate::caller::warn;
use crate::error::{Error, guarded};
use crate::feed::Ready;
use crate::home::Home;
use crate::host::{HostWords, told};
use crate::interrupt::{Watch, interruptible};
use crate::memory::{view, zeros};
use crate::pickle::model_to_bytes;
use crate::running::Running;
use crate::state;
use aneforge::device::Overflow;
use aneforge::ir::graph::InputInfo;
use aneforge::ir::types::counted;
use aneforge::passes::WeightReport;
use aneforge::plan::Source;
use aneforge::session::Unheld;
use aneforge::{Buffer, Plan, Session, TensorType, artifact, f16};
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls that take longer are waited for on another thread, so that Ctrl-C ends them.
const SHORT: Duration = Duration::from_millis(20);

/// A compiled graph, ready to be called.
///
/// Call it with one array per input, in the order in which the inputs were made; it returns float32 arrays.
/// Calls from several threads take turns, and other Python threads run meanwhile.
#[pyclass(frozen, weakref, subclass, module = "aneforge")]
pub struct Model {
    home: Mutex<Option<Arc<Home<Session>>>>,
    running: Running,
    returned: Returned,
    /// What the last call took, in nanoseconds; at first, long.
    last: AtomicU64,
    /// Whether an overflow was told of.
    warned: AtomicBool,
    /// Inputs whose values beyond half precision were told of.
    told: Mutex<Vec<usize>>,
}

impl Model {
    /// A model around a session, segmented if its plan is.
    pub fn new(
        py: Python<'_>,
        running: Running,
        home: Home<Session>,
        returned: Returned,
    ) -> PyResult<Py<Model>> {
        let cut = running.plan.n_native() > 0;
        let home = Mutex::new(Some(Arc::new(home)));
        let (last, warned) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        let model = Model { home, running, returned, last, warned, told: Mutex::default() };
        if !cut {
            return Py::new(py, model);
        }
        let segmented = PyClassInitializer::from(model).add_subclass(SegmentedModel {});
        Ok(Bound::new(py, segmented)?.into_super().unbind())
    }

    pub fn home(&self) -> PyResult<Arc<Home<Session>>> {
        let home = self.home.lock().unwrap_or_else(PoisonError::into_inner).clone();
        home.ok_or_else(|| PyRuntimeError::new_err("the model was released; compile it again"))
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    pub fn plan(&self) -> &Plan {
        &self.running.plan
    }

    /// Fills the ports, runs, and reads what came out.
    fn call(
        &self,
        py: Python<'_>,
        fill: impl FnOnce(&mut Session) -> PyResult<()>,
        read: impl FnOnce(&mut Session) -> PyResult<()>,
    ) -> PyResult<()> {
        let home = self.home()?;
        let mut locked = home.lock(py)?;
        fill(locked.value())?;
        let start = Instant::now();
        let ran = if Duration::from_nanos(self.last.load(Ordering::Relaxed)) < SHORT {
            let session = locked.value();
            py.detach(|| guarded(|| session.execute()))?
        } else {
            home.apart(py, &mut locked, Session::execute_until)?
        };
        ran.map_err(Error::Run)?;
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanoseconds, Ordering::Relaxed);
        read(locked.value())?;
        let (unheld, overflow) = (self.untold_inputs(locked.value()), self.untold(locked.value()));
        drop(locked);
        let unheld = unheld.iter().map(|unheld| format!("{unheld}; {}", Unheld::REMEDY));
        unheld.chain(overflow).try_for_each(|message| warn(py, message))
    }
}

#[pymethods]
impl Model {
    /// What `__call__` does, which is in Python so that it has a page: arrays in order, then those by tensor, number or
    /// name.
    #[pyo3(name = "_call")]
    fn called<'py>(
        &self,
        py: Python<'py>,
        arrays: &Bound<'py, PyTuple>,
        named: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ready = |(index, array): (usize, Bound<'py, PyAny>)| {
            Ok((index, Ready::new(index, self.plan().feeds[index].ty, &array)?))
        };
        let arrays = self.in_order(arrays, named)?;
        let feeds = arrays.into_iter().map(ready).collect::<PyResult<Vec<(usize, Ready<'py>)>>>()?;
        let zeros = |(ty, _): &(TensorType, Source)| zeros::<f32>(py, ty.shape.dims());
        let results = self.plan().returned().iter().map(zeros).collect::<PyResult<Vec<_>>>()?;
        let fill = |session: &mut Session| {
            for (index, ready) in &feeds {
                let feed = ready.feed().expect("invariant: ready arrays are contiguous");
                let mut watch = Watch::new(py);
                let set = session.set_while(*index, feed, ready.shape(), &mut || watch.go_on());
                watch.raised()?;
                set.map_err(Error::Run)?;
            }
            Ok(())
        };
        self.call(py, fill, |session| {
            for (index, result) in results.iter().enumerate() {
                let mut result = result.readwrite();
                let result = result.as_slice_mut().expect("invariant: new arrays are contiguous");
                let mut watch = Watch::new(py);
                session.read_while(index, result, &mut || watch.go_on());
                watch.raised()?;
            }
            Ok(())
        })?;
        Ok(match &self.returned {
            Returned::One => results[0].clone().into_any(),
            Returned::Tuple => PyTuple::new(py, results)?.into_any(),
            Returned::Named(names) => {
                let dict = PyDict::new(py);
                names.iter().zip(results).try_for_each(|(name, result)| dict.set_item(name, result))?;
                dict.into_any()
            }
        })
    }

    /// Runs once with what the ports hold; see `input_view` and `output_view`.
    fn execute(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |_| Ok(()), |_| Ok(()))
    }

    /// Nodes that have made infinities or NaN out of finite numbers so far, with `op`, `at` (the line that built the
    /// node), `values` (how many, in the first call in which it did) and `calls`.
    ///
    /// The op is that of the compiled program. Where something infinite was fed, only elementwise ops are looked into.
    fn overflows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let found: Vec<Overflow> = self.home()?.with(py, |session| session.overflows().cloned().collect())?;
        let rows = found.into_iter().map(|overflow| {
            let row = PyDict::new(py);
            row.set_item("op", overflow.op)?;
            row.set_item("at", overflow.at.to_string())?;
            row.set_item("values", overflow.values)?;
            row.set_item("calls", overflow.calls)?;
            Ok(row)
        });
        PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
    }

    /// How each weight is stored that may be encoded, where `compile` was asked to `compress`: `op` and the line `at`
    /// which it was built, `shape`, `encoding`, whether scales of its rows stand behind the op (`scaled`), `bytes` and
    /// `dense_bytes` (in half precision), the relative `error`, the `calibrated` error of what the op computes (None where
    /// nothing was calibrated), and `why` it is not in the form that was asked for ("" if it is).
    fn weight_report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reported(py, &self.plan().weights)
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
        let home = self.home()?;
        let ty = self.plan().feeds[index].ty;
        let found = home.with(py, |session| session.input_buffer(index).cloned())?;
        let Some(buffer) = found.filter(|buffer| buffer.ty().dtype == aneforge::DType::F16) else {
            return Err(PyTypeError::new_err(format!(
                "input {index} has no half-precision memory: it is a {} port{}; call the model with arrays",
                ty.dtype,
                if ty.dtype == aneforge::DType::F16 { " that no op reads" } else { "" }
            )));
        };
        view(py, buffer, ty)
    }

    /// A read-only float16 array over an output's own memory: what the last run left there.
    ///
    /// `index` is the output's number, or its name where results have names; by default the first.
    #[pyo3(signature = (index = None))]
    fn output_view<'py>(
        &self,
        py: Python<'py>,
        index: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
        let home = self.home()?;
        let index = index.map_or(Ok(0), |index| self.output(index))?;
        let (ty, _) = self.plan().outputs[index];
        let buffer = home.with(py, |session| session.output_buffer(index).cloned())?;
        let view = view(py, buffer.expect("invariant: the plan has this output"), ty)?;
        view.readwrite().make_nonwriteable();
        Ok(view)
    }

    /// What the state holds that the model reads or changes, as float32 arrays by name, or by its number where it has none.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        state::of_session(py, &self.states())
    }

    /// Gives all state these values, as `state` returns them.
    #[pyo3(name = "_restore")]
    fn restore(&self, py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<()> {
        let values = state::given(values)?;
        let restored = self.home()?.with(py, move |session| session.restore(&values))?;
        Ok(restored.map_err(Error::Run)?)
    }

    /// Writes all state to a safetensors file.
    #[pyo3(name = "_save_state")]
    fn save_state(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let saved = self.home()?.with(py, move |session| artifact::save_state(session, &path))?;
        Ok(saved.map_err(Error::State)?)
    }

    /// Gives all state what such a file holds.
    #[pyo3(name = "_load_state")]
    fn load_state(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let loaded = self.home()?.with(py, move |session| artifact::load_state(session, &path))?;
        Ok(loaded.map_err(Error::State)?)
    }

    /// Reads input `input` from where output `output` is written.
    #[pyo3(name = "_share")]
    fn share(&self, py: Python<'_>, output: usize, input: usize) -> PyResult<()> {
        let shared = self.home()?.with(py, move |session| match session.input_buffer(input).cloned() {
            Some(buffer) => session.bind_output(output, &buffer),
            None => Ok(()),
        })?;
        Ok(shared.map_err(Error::Run)?)
    }

    /// Writes one input.
    #[pyo3(name = "_set_input")]
    fn set_input(&self, py: Python<'_>, index: usize, array: &Bound<'_, PyAny>) -> PyResult<()> {
        let ready = Ready::new(index, self.plan().feeds[index].ty, array)?;
        let home = self.home()?;
        let mut locked = home.lock(py)?;
        let feed = ready.feed().expect("invariant: ready arrays are contiguous");
        Ok(locked.value().set(index, feed, ready.shape()).map_err(Error::Run)?)
    }

    /// Copies one result.
    #[pyo3(name = "_read_output")]
    fn read_output<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let array = zeros::<f32>(py, self.plan().outputs[index].0.shape.dims())?;
        let home = self.home()?;
        let mut locked = home.lock(py)?;
        locked.value().read(index, array.readwrite().as_slice_mut().expect("invariant: it is contiguous"));
        Ok(array)
    }

    /// Names of the ports of the results in the program, of which there is one.
    #[pyo3(name = "_output_ports")]
    fn output_ports(&self) -> Vec<String> {
        let program = self.plan().segments[0].mil().map(|(program, _)| program);
        program.map_or_else(Vec::new, |program| program.functions[0].returns.clone())
    }

    /// Bytes that runs have copied so far, beside what ops compute: none for state, unless an array looks at its memory.
    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        self.home()?.with(py, |session| session.copied())
    }

    /// What `placement` is made of.
    #[pyo3(name = "_placement")]
    fn placement(&self, py: Python<'_>) -> PyResult<Vec<(String, Vec<String>)>> {
        let receipts = self.home()?.with(py, |session| session.placement())?;
        Ok(receipts.into_iter().map(|receipt| (receipt.device, receipt.how)).collect())
    }

    /// Frees the program and its memory, but for ports that views still look at.
    fn release(&self) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The number of ops as written; inputs and weights do not count.
    #[getter]
    fn n_ops(&self) -> usize {
        self.plan().n_ops
    }

    /// The device it runs on: `host`, `ane` or `ane (stand-in)`.
    #[getter]
    fn device(&self) -> &'static str {
        self.running.device.title()
    }

    /// The chip it is compiled for.
    #[getter]
    fn target(&self) -> &'static str {
        self.plan().target.name()
    }

    /// Which arithmetic the host computes with.
    #[getter]
    fn numerics(&self, py: Python<'_>) -> PyResult<String> {
        self.home()?.with(py, |session| session.numerics().to_string())
    }

    /// Names of the inputs, in the order of arguments: their own, or those in the program.
    #[getter]
    fn input_names(&self) -> Vec<String> {
        let mut names = self.names();
        state::fed(self.running()).into_iter().map(|at| std::mem::take(&mut names[at])).collect()
    }

    /// Names of the results, if they were compiled under names.
    #[getter]
    pub fn output_names(&self) -> Vec<String> {
        match &self.returned {
            Returned::Named(names) => names.clone(),
            Returned::One | Returned::Tuple => Vec::new(),
        }
    }

    /// Shapes of the inputs, in the order of arguments.
    #[getter]
    fn input_shapes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let shape = |at: usize| PyTuple::new(py, self.plan().feeds[at].ty.shape.dims());
        state::fed(self.running()).into_iter().map(shape).collect()
    }

    /// Shapes of the results.
    #[getter]
    fn output_shapes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.plan().returned().iter().map(|(ty, _)| PyTuple::new(py, ty.shape.dims())).collect()
    }

    /// The plan, and the steps and memory it runs with, as text.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let steps = self.home()?.with(py, |session| session.describe())?;
        Ok(format!("{}{steps}", self.plan()))
    }

    /// What `save` does, which is in Python so that it has a page.
    #[pyo3(name = "_save")]
    fn saved(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let plan = Arc::clone(&self.running.plan);
        Ok(interruptible(py, move |_| plan.save(&path))?.map_err(Error::Artifact)?)
    }

    /// A model with the same program and memory of its own; weights are shared.
    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Py<Model>> {
        let running = Running { states: Vec::new(), ..self.running.clone() };
        let (running, home) = py.detach(|| running.load())?;
        let held = self.home()?.with(py, |session| session.snapshot())?.map_err(Error::Run)?;
        home.with(py, move |session| session.restore(&held))?.map_err(Error::Run)?;
        Model::new(py, running, home, self.returned.clone())
    }

    /// What pickle keeps: the compiled program with its weights, and how it runs.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (bytes, origin) = model_to_bytes(py, Arc::clone(&self.running.plan))?;
        let single = matches!(self.returned, Returned::One);
        let names = match &self.returned {
            Returned::Named(names) => Some(names.clone()),
            Returned::One | Returned::Tuple => None,
        };
        let host = HostWords::of(&self.running.host);
        let state = self.state(py)?;
        let arguments = (bytes, origin, self.device(), host, single, names, state).into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("_model_from_bytes")?, arguments))
    }

    fn __repr__(&self) -> String {
        let released = self.home.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let native = match self.plan().n_native() {
            0 => String::new(),
            1 => " and 1 native layer".into(),
            n => format!(" and {n} native layers"),
        };
        format!(
            "{}({} op{}{native}, target {}, device {}{}{})",
            if native.is_empty() { "Model" } else { "SegmentedModel" },
            self.plan().n_ops,
            if self.plan().n_ops == 1 { "" } else { "s" },
            self.plan().target,
            self.running.device.title(),
            told(&self.running.host),
            if released { ", released" } else { "" }
        )
    }
}

impl Model {
    /// The memory of its state by name, or number; also after it was released.
    fn states(&self) -> Vec<(String, Buffer)> {
        let named = |(at, feed): (usize, &InputInfo)| {
            let (_, buffer) = self.running.states.iter().find(|(leaf, _)| *leaf == feed.leaf)?;
            let name = if feed.name.is_empty() { at.to_string() } else { feed.name.clone() };
            Some((name, buffer.clone()))
        };
        self.plan().feeds.iter().enumerate().filter_map(named).collect()
    }

    /// The first overflow and how many there are, in words, once.
    fn untold(&self, session: &Session) -> Option<String> {
        let first = session.overflows().next()?;
        if self.warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        let more = match session.overflows().count() - 1 {
            0 => String::new(),
            more => format!(", and {} more", counted(more, "node")),
        };
        Some(format!("{first}{more}; model.overflows() lists them: {}", Overflow::REMEDY))
    }

    /// Inputs that were fed what half precision cannot hold, each once.
    fn untold_inputs(&self, session: &Session) -> Vec<Unheld> {
        if session.unheld().is_empty() {
            return Vec::new();
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<Unheld> =
            session.unheld().iter().filter(|unheld| !told.contains(&unheld.input)).cloned().collect();
        told.extend(new.iter().map(|unheld| unheld.input));
        new
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
        slf.as_super().plan().n_native()
    }

    /// The number of native layers, under the name it had when attention was the only one.
    #[getter]
    fn n_sdpa(slf: PyRef<'_, Self>) -> usize {
        slf.as_super().plan().n_native()
    }
}

/// How weights are stored, as dictionaries.
pub fn reported<'py>(py: Python<'py>, weights: &[WeightReport]) -> PyResult<Bound<'py, PyList>> {
    let rows = weights.iter().map(|weight| {
        let row = PyDict::new(py);
        row.set_item("op", &weight.op)?;
        row.set_item("at", weight.at.to_string())?;
        row.set_item("shape", PyTuple::new(py, weight.shape.dims())?)?;
        row.set_item("encoding", weight.encoding.name())?;
        row.set_item("scaled", weight.scaled)?;
        row.set_item("bytes", weight.bytes)?;
        row.set_item("dense_bytes", weight.dense_bytes)?;
        row.set_item("error", weight.error)?;
        row.set_item("calibrated", weight.calibrated)?;
        row.set_item("why", &weight.why)?;
        Ok(row)
    });
    PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
}
