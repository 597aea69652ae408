//! Graphs in files, as the text that the command line reads too, and compiled models, each in one file.

use crate::apply::{Returned, outputs};
use crate::compile::on;
use crate::error;
use crate::host::HostWords;
use crate::interrupt::interruptible;
use crate::model::Model;
use crate::running::Running;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::artifact::{Cache, size_named};
use aneforge::ir::text;
use aneforge::{Graph, Plan, artifact};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

/// Writes the graph behind `out`, with its constants in full.
#[pyfunction]
pub fn save_graph(out: &Bound<'_, PyAny>, path: PathBuf) -> PyResult<()> {
    let (outputs, _) = outputs(out, false)?;
    interruptible(out.py(), move |_| {
        let graph = Graph::freeze(&outputs).map_err(|e| error::Error::Build(e, false))?;
        let written = artifact::replace(&path, |file| file.write_all(text::print(&graph).as_bytes()));
        written.map_err(error::Error::Artifact)
    })??;
    Ok(())
}

/// The model that `Model.save` or a compile into a folder wrote.
#[pyfunction]
pub fn load_model(
    py: Python<'_>,
    path: PathBuf,
    device: Option<Text>,
    host: HostWords,
) -> PyResult<Py<Model>> {
    let plan = interruptible(py, move |_| Plan::load(&path))?.map_err(error::Error::Artifact)?;
    let host = host.options(plan.target)?;
    let returned = Returned::of(&plan.results);
    let (device, states) = (on(device.as_deref(), &host)?, Vec::new());
    let running = Running { plan: Arc::new(plan), device, host, states, written: None };
    let (running, home) = interruptible(py, move |_| running.load())??;
    Model::new(py, running, home, returned)
}

/// The most bytes that programs in the cache may take, of a text such as `4G`, or by default.
#[pyfunction]
pub fn cache_limit(text: Option<&str>) -> PyResult<u64> {
    let size = text.map_or(Ok(Cache::LIMIT), size_named);
    size.map_err(|e| PyValueError::new_err(e.to_string()))
}

/// The results of a graph that was written so.
#[pyfunction]
pub fn load_graph(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Tensor>> {
    interruptible(py, move |_| {
        let content = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            ErrorKind::InvalidData => PyValueError::new_err(format!(
                "{}: this is no graph text, which is UTF-8; name a file that save_graph wrote",
                path.display()
            )),
            kind => Error::new(kind, format!("cannot read {}: {e}", path.display())).into(),
        })?;
        let name = path.display().to_string();
        let graph =
            text::parse_named(&content, &name).map_err(|e| PyValueError::new_err(format!("{name}: {e}")))?;
        Ok(graph.thaw().into_iter().map(|var| Tensor { var }).collect())
    })?
}
