//! How many threads run programs at the same time, so that pools do not help where every core has a program of its own.

use crate::process::PerProcess;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the threads that run a program.
///
/// A [`Pool`](crate::threads::Pool) that shares them helps a caller with as many threads as cores have no program, so that
/// pools start no more work than the machine can do at once. Nobody waits: with more programs than cores, each runs on its
/// caller's thread alone, and the system divides the cores among them.
#[derive(Debug)]
pub struct Callers {
    cores: usize,
    running: PerProcess<AtomicUsize>,
}

/// A program that is running.
#[derive(Debug)]
pub struct Caller<'a>(&'a AtomicUsize);

impl Callers {
    /// On so many cores, at least one.
    #[must_use]
    pub fn new(cores: usize) -> Arc<Callers> {
        Arc::new(Callers { cores: cores.max(1), running: PerProcess::default() })
    }

    /// Counts the calling thread until what is returned is dropped.
    #[must_use]
    pub fn enter(&self) -> Caller<'_> {
        let running = self.running();
        running.fetch_add(1, Ordering::Relaxed);
        Caller(running)
    }

    /// How many of `helpers` threads may help a caller: all while nobody else runs a program, then as many as cores have none.
    #[must_use]
    pub fn helpers(&self, helpers: usize) -> usize {
        match self.running().load(Ordering::Relaxed) {
            0 | 1 => helpers,
            running => helpers.min(self.cores.saturating_sub(running)),
        }
    }

    /// Of this process: what a forked one inherits may have been running when it was forked.
    fn running(&self) -> &AtomicUsize {
        self.running.get(|_| AtomicUsize::default())
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
