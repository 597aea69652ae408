//! How the engine is reached, which the environment says, for all of this process.

use aneforge::device::ane::{AneOptions, Isolation};
use aneforge::pacing::Backoff;
use aneforge_ane::Libraries;
use aneforge_ane::worker::serve_standard;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
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
#[pyo3(signature = (*, library, folder, worker, isolation, backoff))]
pub fn engine(
    library: Option<PathBuf>,
    folder: PathBuf,
    worker: Option<Vec<String>>,
    isolation: &str,
    backoff: f64,
) -> PyResult<()> {
    let isolation = match isolation.trim().to_ascii_lowercase().as_str() {
        "process" => Isolation::Process,
        "worker" => Isolation::Worker,
        _ => return Err(PyValueError::new_err(format!("must be 'process' or 'worker', got {isolation:?}"))),
    };
    let options = AneOptions {
        libraries: library.map_or_else(Libraries::system, Libraries::all),
        folder: Some(folder),
        worker: worker.map(|words| words.into_iter().map(Into::into).collect()),
        isolation,
        // Python waits before a compile, and says so; this is for the trials within one.
        backoff: Backoff {
            pause: Duration::try_from_secs_f64(backoff.clamp(0.0, 3600.0)).unwrap_or_default(),
            strict: false,
        },
        ..AneOptions::default()
    };
    *OPTIONS.lock().unwrap_or_else(PoisonError::into_inner) = Some(options);
    Ok(())
}

/// Runs programs on the engine for the process that has started this one.
#[pyfunction]
pub fn worker(py: Python<'_>) -> PyResult<()> {
    let served = py.detach(serve_standard);
    served.map_err(|error| PyOSError::new_err(format!("aneforge._worker: no request of aneforge: {error}")))
}
