//! What is said of a graph without running it: what it may cost, and where it may lose precision.

use crate::apply::outputs;
use crate::compile::{arithmetic, chip};
use crate::error::Error;
use crate::interrupt::interruptible;
use aneforge::ir::graph::{GraphNode, InputInfo};
use aneforge::ir::op::Mil;
use aneforge::ir::precision::{Array, Precision};
use aneforge::target::cost;
use aneforge::target::layers::written_out;
use aneforge::{Graph, RunError, passes, risk};
use numpy::ndarray::ArrayD;
use numpy::{PyArrayDyn, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// What is said of the nodes that ANEForge would have built for `out`, found on another thread as large graphs take a while.
fn judged<T: Send + 'static>(
    out: &Bound<'_, PyAny>,
    judge: impl FnOnce(Graph) -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let (outputs, _) = outputs(out)?;
    interruptible(out.py(), move |_| {
        let graph = Graph::freeze(&outputs).map_err(|e| Error::Build(e, false))?;
        judge(written_out(&graph))
    })?
}

/// Microseconds that a graph may take, on the chip of the measured model or on a named one.
#[pyfunction]
#[pyo3(signature = (out, int8 = false, target = None))]
pub fn estimate(out: &Bound<'_, PyAny>, int8: bool, target: Option<&str>) -> PyResult<f64> {
    let target = target.map(|name| chip(Some(name))).transpose()?;
    judged(out, move |graph| match target {
        None => Ok(cost::estimate(&graph, int8)),
        Some(target) => {
            cost::estimate_on(&graph, target, int8).map_err(|e| PyValueError::new_err(e.to_string()))
        }
    })
}

/// Microseconds that a graph may take with its native layers kept, or written out where that can be.
#[pyfunction]
pub fn estimate_route(out: &Bound<'_, PyAny>, native: bool) -> PyResult<f64> {
    judged(out, move |graph| Ok(cost::estimate(&routed(graph, native)?, false)))
}

/// Whether a graph has a native layer that can also be written with fused ops.
#[pyfunction]
pub fn has_routes(out: &Bound<'_, PyAny>) -> PyResult<bool> {
    let layers = |graph: Graph| graph.nodes().filter(|(_, n)| matches!(n.op.mil(), Mil::Native(_))).count();
    judged(out, move |graph| Ok(layers(routed(graph.clone(), true)?) != layers(routed(graph, false)?)))
}

fn routed(graph: Graph, native: bool) -> PyResult<Graph> {
    if native {
        return Ok(graph);
    }
    let rewritten = aneforge::rewrite::run(&graph, passes::ROUTE, &mut Vec::new());
    rewritten.map_err(|e| Error::Compile(passes::PassError::from(e).into()).into())
}

/// What a graph is made of, without the contents of its constants: equal for graphs that take as long.
#[pyfunction]
pub fn structure(out: &Bound<'_, PyAny>) -> PyResult<String> {
    let line = |(_, node): (_, &GraphNode)| {
        let attrs = node.op.attrs().into_iter().filter(|(name, _)| !matches!(*name, "id" | "index"));
        let attrs: Vec<String> = attrs.map(|(name, attr)| format!("{name}={attr}")).collect();
        format!("{}({:?}) {} {}\n", node.op.name(), node.inputs, attrs.join(" "), node.ty)
    };
    judged(out, move |graph| Ok(graph.nodes().map(line).collect()))
}

/// Shapes and element types of a graph's inputs, in feed order.
#[pyfunction]
pub fn feeds(out: &Bound<'_, PyAny>) -> PyResult<Vec<(Vec<usize>, &'static str)>> {
    let describe = |feed: &InputInfo| (feed.ty.shape.dims().to_vec(), feed.ty.dtype.name());
    judged(out, move |graph| Ok(graph.feed_types().iter().map(describe).collect()))
}

/// A graph's result in double precision, by the scalar definition of every op.
#[pyfunction]
pub fn exact<'py>(
    py: Python<'py>,
    out: &Bound<'py, PyAny>,
    arrays: Vec<PyReadonlyArrayDyn<'py, f64>>,
) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
    let graph = judged(out, Ok)?;
    let wanted = graph.feed_types();
    let count = RunError::Count { want: wanted.len(), got: arrays.len() };
    let mut values = Vec::new();
    for (index, (feed, array)) in wanted.iter().zip(&arrays).enumerate() {
        let (want, shape) = (feed.ty.shape, array.as_array());
        if shape.shape() != want.dims() {
            return Err(Error::Run(RunError::Shape { index, want, got: shape.shape().to_vec() }).into());
        }
        values.push(Array { shape: want, data: shape.iter().copied().collect() });
    }
    if wanted.len() != arrays.len() {
        return Err(Error::Run(count).into());
    }
    let result = interruptible(py, move |_| {
        let mut results = graph.eval(&values, Precision::F64);
        results.swap_remove(graph.outputs()[0].index())
    })?;
    let array = ArrayD::from_shape_vec(result.shape.dims(), result.data);
    Ok(PyArrayDyn::from_owned_array(py, array.expect("invariant: one value per element")))
}

/// Results of a graph without inputs, by the scalar definition of every op in half precision.
#[pyfunction]
#[pyo3(signature = (out, target, numerics))]
pub fn constant_values<'py>(
    py: Python<'py>,
    out: &Bound<'py, PyAny>,
    target: Option<&str>,
    numerics: Option<&str>,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
    let precision = Precision::F16(arithmetic(numerics.unwrap_or("ane"), chip(target)?)?);
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
    let findings = judged(out, |graph| Ok(risk::findings(&graph)))?;
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
