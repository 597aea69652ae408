//! Graphs in files, as the text that the command line reads too.

use crate::apply::outputs;
use crate::error;
use crate::interrupt::interruptible;
use crate::tensor::Tensor;
use aneforge::ir::text;
use aneforge::{Graph, artifact};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

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
