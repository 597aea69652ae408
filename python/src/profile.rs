//! Where the time of a call goes.

use crate::error::{Error, guarded};
use crate::model::Model;
use aneforge::artifact;
use pyo3::prelude::*;
use std::path::PathBuf;

/// What `Model.profile` is made of, which is in Python: a table, a trace as JSON and a picture.
#[pyfunction]
pub fn profile(py: Python<'_>, model: &Bound<'_, Model>, calls: usize) -> PyResult<(String, String, String)> {
    let home = model.get().home()?;
    let mut locked = home.lock(py)?;
    let session = locked.value();
    let profile = py.detach(|| guarded(|| session.profile(calls)))?.map_err(Error::Run)?;
    Ok((profile.to_string(), profile.to_trace().to_string(), profile.to_svg()))
}

/// Writes a text as every output is written: a regular file is replaced as a whole, links are followed.
#[pyfunction]
pub fn write_text(path: PathBuf, text: &str) -> PyResult<()> {
    Ok(artifact::replace(&path, |file| file.write_all(text.as_bytes())).map_err(Error::Artifact)?)
}
