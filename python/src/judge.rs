//! What is said of a graph without running it: what it may cost, and where it may lose precision.

use crate::apply::outputs;
use crate::compile::chip;
use crate::error::Error;
use aneforge::target::cost;
use aneforge::{Graph, risk};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

fn frozen(out: &Bound<'_, PyAny>) -> PyResult<Graph> {
    Ok(Graph::freeze(&outputs(out)?.0).map_err(|e| Error::Build(e, false))?)
}

/// Microseconds that a graph may take, on the chip of the measured model or on a named one.
#[pyfunction]
#[pyo3(signature = (out, int8 = false, target = None))]
pub fn estimate(out: &Bound<'_, PyAny>, int8: bool, target: Option<&str>) -> PyResult<f64> {
    let graph = frozen(out)?;
    match target {
        None => Ok(cost::estimate(&graph, int8)),
        Some(_) => {
            cost::estimate_on(&graph, chip(target)?, int8).map_err(|e| PyValueError::new_err(e.to_string()))
        }
    }
}

/// A chip's ceiling.
#[pyfunction]
pub fn project_peak<'py>(py: Python<'py>, arch: &str) -> PyResult<Bound<'py, PyDict>> {
    let peak = cost::peak(chip(Some(arch))?).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let dict = PyDict::new(py);
    dict.set_item("tflops", peak.tflops)?;
    dict.set_item("rel_m1", peak.rel_m1)?;
    dict.set_item("cores", peak.cores)?;
    dict.set_item("ghz", peak.ghz)?;
    Ok(dict)
}

/// Where a chip's estimate comes from.
#[pyfunction]
pub fn estimate_provenance<'py>(py: Python<'py>, target: &str) -> PyResult<Bound<'py, PyDict>> {
    let target = chip(Some(target))?;
    let (anchor, measured) = cost::provenance(target);
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
    let findings = risk::findings(&frozen(out)?);
    let (nodes, hotspots) = (PyList::empty(py), PyList::empty(py));
    for finding in &findings {
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
    dict.set_item("graph_error", risk::error(&findings))?;
    dict.set_item("nodes", nodes)?;
    dict.set_item("hotspots", hotspots)?;
    Ok(dict)
}
