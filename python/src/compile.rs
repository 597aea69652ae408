//! Compiling graphs, and naming devices.

use crate::apply::{Returned, outputs};
use crate::caller::{here, level};
use crate::engine;
use crate::error::Error;
use crate::feed::Ready;
use crate::host::{HostWords, count};
use crate::interrupt::interruptible;
use crate::model::Model;
use crate::running::Running;
use crate::state;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::artifact::{ArtifactError, Cache, Cached};
use aneforge::device::host;
use aneforge::ir::ops::leaf::Role;
use aneforge::passes::{Compression, Form, PassError, Scalars};
use aneforge::target::{System, numerics_named};
use aneforge::{
    CompileError, CompileOptions, Device, Graph, HostOptions, Norms, Numerics, Plan, Routes, RunError,
    Target, Var, artifact, compile_calibrated, compile_graph, device,
};
use aneforge_kernels::process::PerProcess;
use aneforge_kernels::threads::stoppable;
use aneforge_models::resolve;
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Compiles run one at a time in a process, and so do measurements.
static COMPILING: LazyLock<PerProcess<Mutex<()>>> = LazyLock::new(PerProcess::default);

/// Does something while nothing else in this process compiles or measures.
pub fn alone<T>(work: impl FnOnce() -> T) -> T {
    let _one = COMPILING.get(|_| Mutex::default()).lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Compiles what one tensor, or several, need (layers stay `native` where there is a choice, unless the cost model is to `choose`), writes it to a folder if one is given, and loads it into a
/// device.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (out, *, native = false, target = None, device = None, host = None, norms = None, compress = None, fold_scalars = false, system = None, most_bytes = None, choose = false, carry = None, build_dir = None, cache = None, return_dict = None, calibrate = None))]
pub fn compile(
    py: Python<'_>,
    out: &Bound<'_, PyAny>,
    native: bool,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    norms: Option<Text>,
    compress: Option<(Text, f64, usize)>,
    fold_scalars: bool,
    system: Option<Text>,
    most_bytes: Option<u64>,
    choose: bool,
    carry: Option<Vec<[Bound<'_, Tensor>; 2]>>,
    build_dir: Option<PathBuf>,
    cache: Option<(PathBuf, u64)>,
    return_dict: Option<bool>,
    calibrate: Option<Vec<Vec<Bound<'_, PyAny>>>>,
) -> PyResult<Py<Model>> {
    let carry = carried(&carry.unwrap_or_default());
    let (outputs, returned) = outputs(out, !carry.is_empty())?;
    let returned = as_asked(returned, return_dict)?;
    let options = CompileOptions::target(chip(target.as_deref())?)
        .routes(if native { Routes::Native } else { Routes::WrittenOut })
        .norms(self::norms("compile", norms.as_deref())?)
        .compression(compress.map(compression).transpose()?)
        .scalars(if fold_scalars { Scalars::Folded } else { Scalars::AsWritten })
        .system(self::system(system.as_deref())?)
        .most_bytes(most_bytes);
    let host = host.unwrap_or_default().options(options.target)?;
    let device = on(device.as_deref(), &host)?;
    let at = here(py)?;
    let roots: Vec<Var> = outputs.iter().chain(carry.iter().flatten()).cloned().collect();
    let states = state::kept(py, &roots, device.title())?;
    let sets = calibrate.map(|sets| sets_of(&roots, &sets)).transpose()?;
    let (cache, results) =
        (cache.map(|(folder, limit)| Cache::new(&folder).limit(limit)), returned.results());
    let (running, home, kept) = interruptible(py, move |stop| {
        alone(|| {
            let pairs: Vec<(&Var, &Var)> = carry.iter().map(|[state, next]| (state, next)).collect();
            let graph =
                Graph::carrying(&outputs, &pairs).map_err(|e| Error::Compile(PassError::from(e).into()))?;
            let options = chosen(&graph, options, choose)?;
            let made = || at.scope(|| made(&graph, &options, sets.as_deref(), cache.as_ref()));
            let (mut plan, kept) = stoppable(stop, made)?;
            plan.results = results;
            if let Some(folder) = build_dir {
                artifact::write(&plan, &folder).map_err(Error::Artifact)?;
            }
            // Compiled again, a calibrated one would be stored otherwise.
            let written = sets.is_none().then(|| Arc::new((graph, options)));
            let (running, home) = Running { plan: Arc::new(plan), device, host, states, written }.load()?;
            Ok::<_, Error>((running, home, kept))
        })
    })??;
    kept.or_else(|error| not_kept(py, &error))?;
    Model::new(py, running, home, returned)
}

/// State, and what becomes of it.
fn carried(carry: &[[Bound<'_, Tensor>; 2]]) -> Vec<[Var; 2]> {
    carry.iter().map(|pair| [0, 1].map(|at: usize| pair[at].get().var.clone())).collect()
}

/// Warns that the cache could not take a program.
fn not_kept(py: Python<'_>, error: &ArtifactError) -> PyResult<()> {
    let message = format!("compile: the program is not kept in the cache: {error}");
    let message = CString::new(message).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, level(py)?)
}

/// Sets of inputs as tensors, of the types that the leaves take.
fn sets_of(roots: &[Var], sets: &[Vec<Bound<'_, PyAny>>]) -> PyResult<Vec<Vec<aneforge::Tensor>>> {
    let graph = Graph::freeze(roots).map_err(|e| Error::Compile(PassError::from(e).into()))?;
    let feeds: Vec<_> = graph.feed_types().into_iter().filter(|feed| feed.role == Role::Feed).collect();
    let set = |(at, set): (usize, &Vec<Bound<'_, PyAny>>)| {
        if set.len() != feeds.len() {
            let (want, got) = (feeds.len(), set.len());
            return Err(PyValueError::new_err(format!(
                "compile: item {at} of calibrate has {got} arrays and the graph {want} inputs; give a tuple with one for each"
            )));
        }
        let arrays = set.iter().zip(&feeds).enumerate();
        arrays
            .map(|(index, (array, feed))| Ready::new(index, feed.ty, array)?.tensor(index, feed.ty))
            .collect()
    };
    sets.iter().enumerate().map(set).collect()
}

/// A plan whose weights were chosen by what these inputs make of them. Sums are the same on every machine.
fn calibrated(
    graph: &Graph,
    options: &CompileOptions,
    sets: &[Vec<aneforge::Tensor>],
) -> Result<Plan, RunError> {
    let host = host::shared_with(&HostOptions::default().sums(host::Sums::Defined))?;
    let calibration = aneforge::calibrate(&host, graph, options, sets)?;
    Ok(compile_calibrated(graph, options, &calibration)?)
}

/// Results as a dictionary or not, where that was said.
fn as_asked(returned: Returned, return_dict: Option<bool>) -> PyResult<Returned> {
    match (returned, return_dict) {
        (Returned::Named(_), Some(false)) => Ok(Returned::Tuple),
        (Returned::One | Returned::Tuple, Some(true)) => Err(PyValueError::new_err(
            "compile: return_dict needs names for the results; compile {\"name\": tensor, ...}",
        )),
        (returned, _) => Ok(returned),
    }
}

/// A plan, calibrated or from the cache where that is asked for, and whether a new one could be kept.
fn made(
    graph: &Graph,
    options: &CompileOptions,
    sets: Option<&[Vec<aneforge::Tensor>]>,
    cache: Option<&Cache>,
) -> Result<(Plan, Result<(), ArtifactError>), Error> {
    match sets {
        Some(sets) => Ok((calibrated(graph, options, sets).map_err(Error::Run)?, Ok(()))),
        None => compiled(graph, options, cache).map_err(Error::Compile),
    }
}

/// A plan, from the cache if there is one that has it, and whether a new one could be kept.
fn compiled(
    graph: &Graph,
    options: &CompileOptions,
    cache: Option<&Cache>,
) -> Result<(Plan, Result<(), ArtifactError>), CompileError> {
    let Some(cache) = cache else { return Ok((compile_graph(graph, options)?, Ok(()))) };
    let Cached { plan, kept, .. } = cache.get_or_compile(graph, options)?;
    Ok((plan, kept))
}

/// The form of weights of this name, the largest error and the block.
fn compression((name, tolerance, block): (Text, f64, usize)) -> PyResult<Compression> {
    form("compile", &name, tolerance, block)
}

/// The same for what is called `of`.
pub fn form(of: &str, name: &str, tolerance: f64, block: usize) -> PyResult<Compression> {
    let form = Form::named(name).ok_or_else(|| {
        let names = Form::NAMED.map(|(name, _)| name).join("', '");
        PyValueError::new_err(format!("{of}: compress must be one of '{names}', got '{name}'"))
    })?;
    Ok(Compression::new(form).tolerance(tolerance).block(block))
}

/// The system of this name, or the default.
fn system(name: Option<&str>) -> PyResult<System> {
    let Some(name) = name else { return Ok(System::default()) };
    System::named(name).ok_or_else(|| {
        let names = System::ALL.map(System::name).join("', '");
        PyValueError::new_err(format!("compile: system must be one of '{names}', got '{name}'"))
    })
}

/// The options, or those that the cost model chooses.
fn chosen(graph: &Graph, options: CompileOptions, choose: bool) -> Result<CompileOptions, Error> {
    if choose { aneforge::tune::choose(graph, &options).map_err(Error::Compile) } else { Ok(options) }
}

/// How norms of this name, or by default, are written; `of` is the function that is asked.
pub fn norms(of: &str, name: Option<&str>) -> PyResult<Norms> {
    let Some(name) = name else { return Ok(Norms::Auto) };
    match name.trim().to_ascii_lowercase().as_str() {
        "auto" => Ok(Norms::Auto),
        "plain" => Ok(Norms::Plain),
        "robust" => Ok(Norms::Robust),
        _ => Err(PyValueError::new_err(format!(
            "{of}: norms must be 'auto', 'plain' or 'robust', got '{name}'"
        ))),
    }
}

/// The target of this name, or the default.
pub fn chip(name: Option<&str>) -> PyResult<Target> {
    Ok(name.map_or_else(|| Ok(Target::default()), |name| Target::named(name).map_err(Error::Target))?)
}

/// The device of this name, or the default; the host with these options.
pub fn on(name: Option<&str>, host: &HostOptions) -> PyResult<Arc<dyn Device>> {
    Ok(device::open(name, host, &engine::options()).map_err(Error::Device)?)
}

/// The numerics of this name.
pub fn arithmetic(name: &str, target: Target) -> PyResult<Numerics> {
    numerics_named(name, target).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// Each device's name, whether it is here, and what it is or why not; the host as these words say.
#[pyfunction]
pub fn devices(py: Python<'_>, host: HostWords) -> Vec<(&'static str, bool, String)> {
    let options =
        |name| if name == "host" { host.options(Target::default()) } else { Ok(HostOptions::default()) };
    let row = |name: &'static str| match options(name).and_then(|options| on(Some(name), &options)) {
        Ok(device) => (name, true, device.describe()),
        Err(error) => (name, false, error.value(py).to_string()),
    };
    ["ane", "host"].map(row).to_vec()
}

/// Whether a variable says yes or no, as the command line reads it.
#[pyfunction]
pub fn truth(text: &str) -> PyResult<bool> {
    resolve::truth(text).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// The most threads that a model may run on.
#[pyfunction]
pub fn max_threads() -> usize {
    host::MAX_THREADS
}

/// Sets the number of threads that the host device runs on. Only before the first program is loaded.
#[pyfunction]
pub fn set_threads(threads: i64) -> PyResult<()> {
    Ok(host::set_threads(count(threads)?).map_err(Error::Device)?)
}
