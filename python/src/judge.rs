//! What is said of a graph without running it: what it may cost, and where it may lose precision.

use crate::apply::outputs;
use crate::compile::{arithmetic, chip};
use crate::error::Error;
use crate::interrupt::interruptible;
use crate::text::Text;
use aneforge::Graph;
use aneforge::ir::graph::InputInfo;
use aneforge::ir::precision::{Array, Precision};
use aneforge::risk::{self, Finding};
use aneforge::target::cost::{NoCurve, measured, package};
use aneforge::target::layers::written_out;
use numpy::PyArrayDyn;
use numpy::ndarray::ArrayD;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// What is said of the nodes that ANEForge would have built for `out`, found on another thread as large graphs take a while.
pub fn judged<T: Send + 'static>(
    out: &Bound<'_, PyAny>,
    judge: impl FnOnce(Graph) -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let (outputs, _) = outputs(out, false)?;
    interruptible(out.py(), move |_| {
        let graph = Graph::freeze(&outputs).map_err(|e| Error::Build(e, false))?;
        judge(written_out(&graph))
    })?
}

/// Microseconds that a graph may take by ANEForge's formulas, on an M5 Pro or on a named chip.
#[pyfunction]
#[pyo3(signature = (out, int8 = false, target = None))]
pub fn estimate(out: &Bound<'_, PyAny>, int8: bool, target: Option<Text>) -> PyResult<f64> {
    let target = target.map(|name| chip(Some(&name))).transpose()?;
    judged(out, move |graph| match target {
        None => Ok(package::estimate(&graph, int8)),
        Some(target) => package::estimate_on(&graph, target, int8).map_err(no_curve),
    })
}

/// What a call of a graph may cost, as JSON, by what was measured of chips.
#[pyfunction]
#[pyo3(signature = (out, int8 = false, target = None))]
pub fn estimate_report(out: &Bound<'_, PyAny>, int8: bool, target: Option<Text>) -> PyResult<String> {
    let target = chip(target.as_deref())?;
    judged(out, move |graph| Ok(measured(&graph, target, int8).map_err(no_curve)?.to_json().to_string()))
}

fn no_curve(error: NoCurve) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Shapes and element types of a graph's inputs, in feed order.
#[pyfunction]
pub fn feeds(out: &Bound<'_, PyAny>) -> PyResult<Vec<(Vec<usize>, &'static str)>> {
    let describe = |feed: &InputInfo| (feed.ty.shape.dims().to_vec(), feed.ty.dtype.name());
    judged(out, move |graph| Ok(graph.feed_types().iter().map(describe).collect()))
}

/// Results of a graph without inputs, by the scalar definition of every op in half precision.
#[pyfunction]
#[pyo3(signature = (out, target, numerics))]
pub fn constant_values<'py>(
    py: Python<'py>,
    out: &Bound<'py, PyAny>,
    target: Option<Text>,
    numerics: Option<&str>,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
    let precision = Precision::F16(arithmetic(numerics.unwrap_or("ane"), chip(target.as_deref())?)?);
    let results = judged(out, move |graph| {
        let values = graph.eval(&[], precision);
        Ok(graph.outputs().iter().map(|o| values[o.index()].clone()).collect::<Vec<Array>>())
    })?;
    let array = |result: Array| {
        let data = result.data.iter().map(|&v| v as f32).collect();
        let array = ArrayD::from_shape_vec(result.shape.dims(), data);
        PyArrayDyn::from_owned_array(py, array.expect("invariant: one value per element"))
    };
    Ok(results.into_iter().map(array).collect())
}

/// A chip's ceiling.
#[pyfunction]
pub fn project_peak<'py>(py: Python<'py>, arch: Text) -> PyResult<Bound<'py, PyDict>> {
    let peak = package::peak(chip(Some(&arch))?).map_err(no_curve)?;
    let dict = PyDict::new(py);
    dict.set_item("tflops", peak.tflops)?;
    dict.set_item("rel_m1", peak.rel_m1)?;
    dict.set_item("cores", peak.cores)?;
    dict.set_item("ghz", peak.ghz)?;
    Ok(dict)
}

/// Where a chip's estimate comes from.
#[pyfunction]
pub fn estimate_provenance<'py>(py: Python<'py>, target: Text) -> PyResult<Bound<'py, PyDict>> {
    let target = chip(Some(&target))?;
    let (anchor, measured) = package::provenance(target);
    let dict = PyDict::new(py);
    dict.set_item("target", target.name())?;
    dict.set_item("anchor", anchor)?;
    dict.set_item("measured", measured)?;
    dict.set_item("basis", if measured { "silicon".into() } else { format!("extrapolated-from-{anchor}") })?;
    Ok(dict)
}

/// Where a graph may lose precision.
#[pyfunction]
pub fn precision_risk<'py>(py: Python<'py>, out: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    risk_report(py, &judged(out, |graph| Ok(risk::findings(&graph)))?)
}

/// What stands out in a graph, as Python sees it.
pub fn risk_report<'py>(py: Python<'py>, findings: &[Finding]) -> PyResult<Bound<'py, PyDict>> {
    let (nodes, hotspots) = (PyList::empty(py), PyList::empty(py));
    for finding in findings {
        let record = PyDict::new(py);
        record.set_item("idx", finding.index)?;
        record.set_item("op", finding.op)?;
        record.set_item("kind", finding.kind.name())?;
        record.set_item("est_error", finding.error)?;
        record.set_item("fixable", finding.kind.remedy())?;
        record.set_item("reason", format!("{} (at {})", finding.reason, finding.at))?;
        nodes.append(&record)?;
        if finding.is_hotspot() {
            hotspots.append(&record)?;
        }
    }
    let dict = PyDict::new(py);
    dict.set_item("graph_error", risk::error(findings))?;
    dict.set_item("nodes", nodes)?;
    dict.set_item("hotspots", hotspots)?;
    Ok(dict)
}
