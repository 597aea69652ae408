//! Calls that do not come back: one thread looks at all programs, so that a call itself costs two stores.

use crate::rules::Calls;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The calls of one program, as the watchdog sees them.
#[derive(Debug)]
pub(crate) struct Flight {
    calls: Calls,
    limit: Duration,
}

impl Flight {
    /// Calls that hang when they take longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Arc<Flight> {
        let flight = Arc::new(Flight { calls: Calls::new(), limit });
        watch(&flight);
        flight
    }

    #[inline]
    pub(crate) fn begin(&self) {
        self.calls.begin();
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.calls.end();
    }

    /// Whether a call has hung, after which the program is not used again.
    #[inline]
    pub(crate) fn hung(&self) -> bool {
        self.calls.given_up()
    }

    pub(crate) fn give_up(&self) {
        self.calls.give_up();
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }
}

/// A program that is looked at, with the call that ran last time and since when.
struct Watched {
    flight: Weak<Flight>,
    seen: Option<(u64, Instant)>,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
/// The process whose thread looks at them; a forked one has none.
static WATCHER: AtomicU64 = AtomicU64::new(0);

fn watch(flight: &Arc<Flight>) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.push(Watched { flight: Arc::downgrade(flight), seen: None });
    let here = u64::from(std::process::id());
    if WATCHER.swap(here, Ordering::AcqRel) != here {
        let started = std::thread::Builder::new().name("aneforge-watchdog".into()).spawn(look);
        if let Err(error) = started {
            tracing::warn!("calls that hang will not be noticed: no thread could be started: {error}");
        }
    }
}

fn look() {
    loop {
        let shortest = {
            let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain_mut(Watched::look);
            if watched.is_empty() {
                WATCHER.store(0, Ordering::Release);
                return;
            }
            let limits = watched.iter().filter_map(|w| Some(w.flight.upgrade()?.limit));
            limits.min().unwrap_or(Duration::from_secs(1))
        };
        std::thread::sleep((shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(500)));
    }
}

impl Watched {
    /// Looks at it; whether it is still there.
    fn look(&mut self) -> bool {
        let Some(flight) = self.flight.upgrade() else { return false };
        let Some(call) = flight.calls.running() else {
            self.seen = None;
            return true;
        };
        match self.seen {
            Some((seen, since)) if seen == call => {
                if since.elapsed() >= flight.limit && !flight.hung() {
                    tracing::error!(
                        "a call on the engine has not come back within {} s; its program is given up",
                        flight.limit.as_secs_f64()
                    );
                    flight.give_up();
                }
            }
            _ => self.seen = Some((call, Instant::now())),
        }
        true
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn until(mut is: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !is() {
            if start.elapsed() > Duration::from_secs(20) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    #[test]
    fn a_call_that_stays_is_given_up_and_short_ones_are_not() {
        let (slow, fast) = (Flight::new(Duration::from_millis(40)), Flight::new(Duration::from_millis(40)));
        slow.begin();
        let given_up = until(|| {
            fast.begin();
            fast.end();
            slow.hung()
        });
        assert!(given_up && !fast.hung());
        slow.end();
        assert!(slow.hung(), "what was given up stays so");
    }

    #[test]
    fn the_thread_ends_with_the_last_program_and_another_begins_with_the_next() {
        for _ in 0..2 {
            let flight = Flight::new(Duration::from_millis(20));
            flight.begin();
            assert!(until(|| flight.hung()));
        }
    }
}
