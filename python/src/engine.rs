//! How the engine is reached, which the environment says, for all of this process.

use aneforge::device::ane::{AneOptions, Isolation};
use aneforge::pacing::Backoff;
use aneforge_ane::Libraries;
use aneforge_ane::worker::serve;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::io::{BufReader, BufWriter, stdin, stdout};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

static OPTIONS: Mutex<Option<AneOptions>> = Mutex::new(None);

/// What [`engine`] was told last.
pub fn options() -> AneOptions {
    OPTIONS.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

/// Says through which library the engine is reached, where programs are written for it, how another process is started, and what
/// runs there.
#[pyfunction]
#[pyo3(signature = (*, library, folder, worker, isolation))]
pub fn engine(
    library: Option<PathBuf>,
    folder: PathBuf,
    worker: Vec<String>,
    isolation: &str,
) -> PyResult<()> {
    let isolation = match isolation.trim().to_ascii_lowercase().as_str() {
        "process" => Isolation::Process,
        "worker" => Isolation::Worker,
        _ => return Err(PyValueError::new_err(format!("must be 'process' or 'worker', got {isolation:?}"))),
    };
    let options = AneOptions {
        libraries: library.map_or_else(Libraries::system, Libraries::all),
        folder: Some(folder),
        worker: Some(worker.into_iter().map(Into::into).collect()),
        isolation,
        // Python's own pacing says when it waits.
        backoff: Backoff { pause: Duration::ZERO, strict: false },
        ..AneOptions::default()
    };
    *OPTIONS.lock().unwrap_or_else(PoisonError::into_inner) = Some(options);
    Ok(())
}

/// Runs programs on the engine for the process that has started this one.
#[pyfunction]
pub fn worker(py: Python<'_>) -> PyResult<()> {
    let served = py.detach(|| serve(BufReader::new(stdin()), BufWriter::new(stdout())));
    served.map_err(|error| PyOSError::new_err(format!("aneforge._worker: no request of aneforge: {error}")))
}
