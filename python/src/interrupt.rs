//! Long work that Ctrl-C ends.

use crate::error::internal;
use aneforge_kernels::process::PerProcess;
use aneforge_kernels::threads::stopped;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// How long a signal waits at most until it is looked at.
pub const PERIOD: Duration = Duration::from_millis(50);

/// Threads that hold, or will ask for, the interpreter.
static ATTACHING: LazyLock<PerProcess<(Mutex<usize>, Condvar)>> = LazyLock::new(PerProcess::default);

/// Says that the work it is moved into attaches to the interpreter: that waits for such work when it ends, as a thread which
/// asks for an interpreter that is going away takes the process with it.
pub struct Attaching(&'static (Mutex<usize>, Condvar));

impl Attaching {
    pub fn new() -> Attaching {
        let counted = ATTACHING.get(|_| Default::default());
        *counted.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Attaching(counted)
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}

/// Waits for interrupted work that attaches to the interpreter; called before the interpreter ends.
#[pyfunction]
pub fn finish(py: Python<'_>) {
    py.detach(|| {
        let (count, ended) = ATTACHING.get(|_| Default::default());
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(ended.wait_while(count, |count| *count > 0));
    });
}

/// Between two pieces of work that need the interpreter: lets other Python threads run, and looks at signals. On other threads
/// than the main one there are none, but the interrupted work that they do ends here.
pub fn breathe(py: Python<'_>) -> PyResult<()> {
    py.detach(|| ());
    if stopped() {
        return Err(PyKeyboardInterrupt::new_err("stopped"));
    }
    py.check_signals()
}

/// Looks at signals for work that only wants to know whether to go on.
pub struct Watch<'py>(Python<'py>, PyResult<()>);

impl<'py> Watch<'py> {
    pub fn new(py: Python<'py>) -> Watch<'py> {
        Watch(py, Ok(()))
    }

    pub fn go_on(&mut self) -> bool {
        self.1 = breathe(self.0);
        self.1.is_ok()
    }

    /// What a signal raised, if one did.
    pub fn raised(self) -> PyResult<()> {
        self.1
    }
}

/// Runs `work` on a thread of its own, without keeping other Python threads from running, while this one looks at
/// signals. When one raises, the flag is set, and the exception is raised at once: work that does not look at the flag
/// goes on to its end, and its result is dropped.
pub fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send + 'static,
) -> PyResult<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (done, result) = sync_channel(1);
    let flag = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("aneforge-call".into()).spawn(move || {
        // Nobody waits for the result of work that was interrupted.
        let _ = done.send(work(&flag));
    })?;
    let result = Mutex::new(result);
    let wait = || result.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PERIOD);
    loop {
        match py.detach(wait) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(thread
                    .join()
                    .map_or_else(|panic| internal(&*panic), |()| internal(&"no result")));
            }
        }
        py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
    }
}
