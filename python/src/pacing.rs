//! Pacing of compiles on the engine.

use aneforge::pacing::{self, Backoff};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Whether the engine's compiler failed just now, by the times that it is given.
#[pyclass(frozen, module = "aneforge._native")]
#[derive(Default)]
pub struct Breaker(Mutex<pacing::Breaker>);

/// Seconds as a time; none are negative, and more than there can be are the most.
fn time(seconds: f64) -> Duration {
    let least = if seconds > 0.0 { Duration::MAX } else { Duration::ZERO };
    Duration::try_from_secs_f64(seconds).unwrap_or(least)
}

impl Breaker {
    fn with<T>(&self, work: impl FnOnce(&mut pacing::Breaker) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Breaker {
    #[new]
    fn new() -> Breaker {
        Breaker::default()
    }

    /// What is wrong with a compile `now`, and how many seconds are left of a pause of `seconds`.
    fn check(&self, now: f64, seconds: f64) -> Option<(String, f64)> {
        let backoff = Backoff { pause: time(seconds), ..Backoff::default() };
        let early = self.with(|breaker| breaker.check(time(now), backoff)).err()?;
        Some((early.to_string(), early.left.as_secs_f64()))
    }

    /// A compile failed `now`.
    fn failed(&self, now: f64) {
        self.with(|breaker| breaker.failed(time(now)));
    }

    /// No compile failed of late.
    fn reset(&self) {
        self.with(pacing::Breaker::reset);
    }
}
