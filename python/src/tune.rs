//! Measured choices: how a graph is compiled, how its sums are written, into how many parts attention is cut.

use crate::compile::{alone, chip};
use crate::error::Error;
use crate::feed::Ready;
use crate::host::HostWords;
use crate::interrupt::{Attaching, interruptible};
use crate::judge::{judged, risk_report};
use crate::tensor::Tensor;
use aneforge::passes::Scalars;
use aneforge::tune::{AttentionShape, Bench, Chosen, Goal, Search, TuneError, Way};
use aneforge::{CompileOptions, Routes, RunError};
use aneforge_kernels::threads::stoppable;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where and how ways are measured.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Place {
    target: Option<String>,
    device: Option<String>,
    host: HostWords,
    reps: usize,
    cache: Option<PathBuf>,
}

impl Place {
    fn bench(self, feeds: Option<Vec<aneforge::Tensor>>) -> PyResult<Bench> {
        let compile = CompileOptions::target(chip(self.target.as_deref())?);
        let device = self.host.device(self.device.as_deref(), compile.target)?;
        Ok(Bench { device, compile, feeds, reps: self.reps, cache: self.cache })
    }
}

/// Measures on another thread, while nothing else compiles, until Ctrl-C.
fn measure<T: Send + 'static>(
    py: Python<'_>,
    each: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(&Way)) -> Result<T, TuneError> + Send + 'static,
) -> PyResult<T> {
    let attaching = Attaching::new();
    interruptible(py, move |stop| {
        let _attaching = attaching;
        let mut told = Ok(());
        let mut tell = |way: &Way| {
            if told.is_ok() {
                told = each.as_ref().map_or(Ok(()), |each| line(each, way, stop));
            }
        };
        let done = stoppable(stop, || alone(|| work(&mut tell)));
        told?;
        Ok(done.map_err(Error::Tune)?)
    })?
}

/// Tells Python of a way that was measured.
fn line(each: &Py<PyAny>, way: &Way, stop: &AtomicBool) -> PyResult<()> {
    if stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    Python::attach(|py| each.call1(py, (way.to_string(),)).map(drop))
}

/// What was given for the inputs of a graph.
fn arrays(
    out: &Bound<'_, Tensor>,
    given: Option<Vec<Bound<'_, PyAny>>>,
) -> PyResult<Option<Vec<aneforge::Tensor>>> {
    let Some(given) = given else { return Ok(None) };
    let ports = judged(out, |graph| Ok(graph.feed_types()))?;
    if ports.len() != given.len() {
        return Err(Error::Run(RunError::Count { want: ports.len(), got: given.len() }).into());
    }
    let tensor = |((index, port), array): ((usize, &aneforge::ir::graph::InputInfo), &Bound<'_, PyAny>)| {
        Ready::new(index, port.ty, array)?.tensor(index, port.ty)
    };
    ports.iter().enumerate().zip(&given).map(tensor).collect::<PyResult<_>>().map(Some)
}

/// Whether native layers are best kept, weights in bytes, and chains of scalars folded; `each` is called with a line about every way that is measured.
#[pyfunction]
pub fn tune(
    out: &Bound<'_, Tensor>,
    inputs: Option<Vec<Bound<'_, PyAny>>>,
    place: Place,
    search: (usize, f64, f64, f64),
    each: Option<Py<PyAny>>,
) -> PyResult<(bool, bool, bool)> {
    let (budget, tolerance, prune_factor, min_lossy_speedup) = search;
    let search = Search { budget, tolerance, prune_factor, min_lossy_speedup };
    let bench = place.bench(arrays(out, inputs)?)?;
    let var = out.get().var.clone();
    let options = measure(out.py(), each, move |each| aneforge::tune::tune(&var, &bench, &search, each))?;
    let folded = options.scalars == Scalars::Folded;
    Ok((options.routes == Routes::Native, options.compression.is_some(), folded))
}

/// The graph whose sums are written best, and a report of all that were measured.
#[pyfunction]
pub fn tune_precision<'py>(
    py: Python<'py>,
    out: &Bound<'py, Tensor>,
    inputs: Option<Vec<Bound<'py, PyAny>>>,
    place: Place,
    error: Option<f64>,
    time: Option<f64>,
    each: Option<Py<PyAny>>,
) -> PyResult<(Tensor, Bound<'py, PyDict>)> {
    let goal = error.map(Goal::Error).or(time.map(Goal::Time)).unwrap_or(Goal::Precise);
    let bench = place.bench(arrays(out, inputs)?)?;
    let var = out.get().var.clone();
    let chosen = measure(py, each, move |each| aneforge::tune::tune_precision(&var, &bench, goal, each))?;
    Ok((Tensor { var: chosen.out.clone() }, report(py, &chosen)?))
}

fn report<'py>(py: Python<'py>, chosen: &Chosen) -> PyResult<Bound<'py, PyDict>> {
    let row = |way: &Way| {
        let row = PyDict::new(py);
        row.set_item("name", way.name)?;
        row.set_item("est_us", way.estimate)?;
        row.set_item("us", way.time)?;
        row.set_item("relerr", way.error)?;
        Ok(row)
    };
    let rows = chosen.ways.iter().map(row).collect::<PyResult<Vec<_>>>()?;
    let report = PyDict::new(py);
    report.set_item("rows", PyList::new(py, rows)?)?;
    report.set_item("risk", risk_report(py, &chosen.findings)?)?;
    report.set_item("chosen", chosen.ways[chosen.chosen].name)?;
    report.set_item("reason", &chosen.reason)?;
    report.set_item("ref_available", true)?;
    report.set_item("ref_kind", "fp64")?;
    Ok(report)
}

/// Queries, keys, heads, and the size of a head.
type Extents = (usize, usize, usize, usize);

fn shape((queries, keys, heads, size): Extents) -> AttentionShape {
    AttentionShape { queries, keys, heads, size }
}

/// The number of parts that was measured for attention of this shape and kept in `folder`.
#[pyfunction]
pub fn known_attention(extents: Extents, folder: PathBuf) -> Option<usize> {
    shape(extents).known(&folder)
}

/// Keeps a number of parts in `folder`.
#[pyfunction]
pub fn keep_attention(extents: Extents, parts: usize, folder: PathBuf) -> PyResult<()> {
    Ok(shape(extents).keep(parts, &folder).map_err(Error::Tune)?)
}

/// The candidate with the least median time.
#[pyfunction]
pub fn tune_attention(
    py: Python<'_>,
    extents: Extents,
    candidates: Vec<usize>,
    place: Place,
) -> PyResult<usize> {
    let bench = place.bench(None)?;
    measure(py, None, move |_| aneforge::tune::tune_attention(&shape(extents), &candidates, &bench))
}
