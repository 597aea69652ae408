//! Sessions and encoders: what Python threads take turns with, and forked processes get their own of.

use crate::error::Error;
use crate::interrupt::{PERIOD, interruptible};
use aneforge_kernels::process::PerProcess;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;

/// A value that one thread uses at a time, made again where it is missing.
pub struct Home<T> {
    make: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
    /// Empty while a call that was interrupted has the value, and in a forked process whose parent was in a call.
    cell: PerProcess<Mutex<Option<T>>>,
    gate: PerProcess<Gate>,
    /// Values that were made again before such a call gave them back: arrays may look at their memory.
    replaced: Mutex<Vec<T>>,
}

/// Where threads wait for a value.
#[derive(Default)]
struct Gate {
    /// The thread that has it. Whoever sets this has the value locked.
    owner: Mutex<Option<ThreadId>>,
    freed: Condvar,
}

impl Gate {
    fn owner(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock on a value, if nobody has it.
fn tried<T>(cell: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match cell.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl<T: Send + 'static> Home<T> {
    /// A home of a value that is made now, and whenever it is missing.
    pub fn new(make: impl Fn() -> Result<T, Error> + Send + Sync + 'static) -> Result<Home<T>, Error> {
        let cell = PerProcess::new(Mutex::new(Some(make()?)));
        Ok(Home { make: Box::new(make), cell, gate: PerProcess::default(), replaced: Mutex::default() })
    }

    /// Waits for the value, until Ctrl-C, without keeping other Python threads from running.
    pub fn lock(&self, py: Python<'_>) -> PyResult<Locked<'_, T>> {
        let gate = self.gate.get(|_| Gate::default());
        // Somebody who has it may have been left behind in another process.
        let guard = match tried(self.cell.first()) {
            Some(guard) => guard,
            None => self.wait(py, gate)?,
        };
        *gate.owner() = Some(std::thread::current().id());
        let mut locked = Locked { guard: Some(guard), gate };
        if locked.slot().is_none() {
            *locked.slot() = Some((self.make)()?);
        }
        Ok(locked)
    }

    fn wait(&self, py: Python<'_>, gate: &Gate) -> PyResult<MutexGuard<'_, Option<T>>> {
        let cell = self.here();
        loop {
            // Asked for under the gate's lock, so that whoever frees it afterwards wakes this thread.
            let owner = gate.owner();
            if let Some(guard) = tried(cell) {
                return Ok(guard);
            }
            if *owner == Some(std::thread::current().id()) {
                return Err(PyRuntimeError::new_err(
                    "this thread is in a call of the same object already; a signal handler cannot call it again",
                ));
            }
            drop(owner);
            py.detach(|| {
                let owner = gate.owner();
                let waited = owner.is_some().then(|| gate.freed.wait_timeout(owner, PERIOD));
                drop(waited);
            });
            py.check_signals()?;
        }
    }

    /// Does something with the value. It must not run Python code, which could wait for the value itself.
    pub fn with<R>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R) -> PyResult<R> {
        Ok(work(self.lock(py)?.value()))
    }

    /// Does something that may take long on another thread, until Ctrl-C. Work that looks at its flag may end early when
    /// it is set; nobody asks for its result then.
    pub fn apart<R: Send + 'static>(
        self: &Arc<Home<T>>,
        py: Python<'_>,
        locked: &mut Locked<'_, T>,
        work: impl FnOnce(&mut T, &Arc<AtomicBool>) -> R + Send + 'static,
    ) -> PyResult<R> {
        let mut value = locked.slot().take().expect("invariant: a locked value is there");
        let home = Arc::clone(self);
        let (value, result) = interruptible(py, move |stop| {
            let result = work(&mut value, stop);
            if stop.load(Ordering::Relaxed) {
                home.give_back(value);
                return None;
            }
            Some((value, result))
        })?
        .expect("invariant: a call is stopped only by an exception");
        locked.slot().replace(value);
        Ok(result)
    }

    fn here(&self) -> &Mutex<Option<T>> {
        self.cell.get(|_| Mutex::new(None))
    }

    fn give_back(&self, value: T) {
        let mut guard = self.here().lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *guard {
            empty @ None => *empty = Some(value),
            Some(_) => self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(value),
        }
    }
}

/// A value in use.
pub struct Locked<'a, T> {
    /// There until it is dropped.
    guard: Option<MutexGuard<'a, Option<T>>>,
    gate: &'a Gate,
}

impl<T> Locked<'_, T> {
    /// The value.
    pub fn value(&mut self) -> &mut T {
        self.slot().as_mut().expect("invariant: a locked value is there")
    }

    fn slot(&mut self) -> &mut Option<T> {
        self.guard.as_mut().expect("invariant: the guard goes last")
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        let mut owner = self.gate.owner();
        *owner = None;
        self.guard.take();
        self.gate.freed.notify_one();
    }
}
