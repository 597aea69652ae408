//! Sessions and encoders: what Python threads take turns with, and forked processes get their own of.

use crate::error::Error;
use crate::interrupt::interruptible;
use aneforge_kernels::process::PerProcess;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// A value that one thread uses at a time, made again where it is missing.
pub struct Home<T> {
    make: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
    /// Empty while a call that was interrupted has the value, and in a forked process whose parent was in a call.
    cell: PerProcess<Mutex<Option<T>>>,
    /// Values that were made again before such a call gave them back: arrays may look at their memory.
    replaced: Mutex<Vec<T>>,
}

impl<T: Send + 'static> Home<T> {
    /// A home of a value that is made now, and whenever it is missing.
    pub fn new(make: impl Fn() -> Result<T, Error> + Send + Sync + 'static) -> Result<Home<T>, Error> {
        let cell = PerProcess::new(Mutex::new(Some(make()?)));
        Ok(Home { make: Box::new(make), cell, replaced: Mutex::default() })
    }

    /// Waits for the value without keeping other Python threads from running.
    pub fn lock(&self, py: Python<'_>) -> PyResult<Locked<'_, T>> {
        let mut guard = match self.cell.first().try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody has it, who may have been left behind in another process.
            Err(TryLockError::WouldBlock) => {
                self.here().lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
            }
        };
        if guard.is_none() {
            *guard = Some((self.make)()?);
        }
        Ok(Locked(guard))
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
        let mut value = locked.0.take().expect("invariant: a locked value is there");
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
        locked.0.replace(value);
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
pub struct Locked<'a, T>(MutexGuard<'a, Option<T>>);

impl<T> Locked<'_, T> {
    /// The value.
    pub fn value(&mut self) -> &mut T {
        self.0.as_mut().expect("invariant: a locked value is there")
    }
}
