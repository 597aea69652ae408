//! Graphs in files, as the text that the command line reads too.

use crate::apply::outputs;
use crate::error::Error;
use crate::interrupt::interruptible;
use crate::tensor::Tensor;
use aneforge::ir::text;
use aneforge::{Graph, artifact};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;

/// Writes the graph behind `out`, with its constants in full.
#[pyfunction]
pub fn save_graph(out: &Bound<'_, PyAny>, path: PathBuf) -> PyResult<()> {
    let (outputs, _) = outputs(out)?;
    interruptible(out.py(), move |_| {
        let graph = Graph::freeze(&outputs).map_err(|e| Error::Build(e, false))?;
        let written = artifact::replace(&path, |file| file.write_all(text::print(&graph).as_bytes()));
        written.map_err(Error::Artifact)
    })??;
    Ok(())
}

/// The results of a graph that was written so.
#[pyfunction]
pub fn load_graph(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Tensor>> {
    interruptible(py, move |_| {
        let content = std::fs::read_to_string(&path)
            .map_err(|e| std::io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))?;
        let name = path.display().to_string();
        let graph =
            text::parse_named(&content, &name).map_err(|e| PyValueError::new_err(format!("{name}: {e}")))?;
        Ok(graph.thaw().into_iter().map(|var| Tensor { var }).collect())
    })?
}
