//! The line of Python that is building a node.

use crate::error::guarded;
use aneforge::ir::types::Caller;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CString;
use std::path::Path;

static GET_FRAME: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static PACKAGE: PyOnceLock<String> = PyOnceLock::new();

/// Runs `build` with every node it makes attributed to the innermost Python line outside this package.
pub fn attributed<T>(py: Python<'_>, build: impl FnOnce() -> T) -> PyResult<T> {
    let here = here(py)?;
    guarded(|| here.scope(build))
}

/// The innermost Python line outside this package.
pub fn here(py: Python<'_>) -> PyResult<Caller> {
    Ok(outside(py)?.0)
}

/// How many frames out that line is, as warnings count them.
pub fn level(py: Python<'_>) -> PyResult<i32> {
    Ok(outside(py)?.1)
}

fn outside(py: Python<'_>) -> PyResult<(Caller, i32)> {
    let get_frame =
        GET_FRAME.get_or_try_init(py, || py.import("sys")?.getattr("_getframe").map(Bound::unbind))?.bind(py);
    let package = PACKAGE.get_or_try_init(py, || package(py))?;
    let mut frame = get_frame.call0()?;
    for level in 1.. {
        let code = frame.getattr(intern!(py, "f_code"))?;
        let file = code.getattr(intern!(py, "co_filename"))?;
        let file = file.cast::<pyo3::types::PyString>()?.to_cow()?;
        let outer = frame.getattr(intern!(py, "f_back"))?;
        if !file.starts_with(package.as_str()) || outer.is_none() {
            let line = frame.getattr(intern!(py, "f_lineno"))?.extract().unwrap_or(0);
            return Ok((Caller::named(&file, line), level));
        }
        frame = outer;
    }
    unreachable!("the outermost frame is outside")
}

/// The folder that this extension lies in, with a separator at its end.
fn package(py: Python<'_>) -> PyResult<String> {
    let file: String = py.import("aneforge._native")?.getattr("__file__")?.extract()?;
    let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
    Ok(format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR))
}

/// Warns of the line that calls.
pub fn warn(py: Python<'_>, message: String) -> PyResult<()> {
    let category = py.import("aneforge")?.getattr("PrecisionWarning")?;
    PyErr::warn(py, &category, &CString::new(message).unwrap_or_default(), level(py)?)
}
