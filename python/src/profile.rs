//! Where the time of a call goes.

use crate::error::{Error, guarded};
use crate::model::Model;
use pyo3::prelude::*;

/// What `Model.profile` is made of, which is in Python: a table, a trace as JSON and a picture.
#[pyfunction]
pub fn profile(py: Python<'_>, model: &Bound<'_, Model>, calls: usize) -> PyResult<(String, String, String)> {
    let home = model.get().home()?;
    let mut locked = home.lock(py)?;
    let session = locked.value();
    let profile = py.detach(|| guarded(|| session.profile(calls)))?.map_err(Error::Run)?;
    Ok((profile.to_string(), profile.to_trace().to_string(), profile.to_svg()))
}
