//! Rest for the engine's compiler service: after a failed compile it needs some, or it fails again.

use std::fmt;
use std::time::{Duration, Instant};

/// Where the time comes from.
pub trait Clock {
    /// The time since any moment that stays the same.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The system's clock, which never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Default for Monotonic {
    fn default() -> Monotonic {
        Monotonic { start: Instant::now() }
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// How long the service rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// From a failed compile to the next one; zero switches pacing off.
    pub pause: Duration,
    /// Whether a compile that comes too soon is an error, and not one that waits.
    pub strict: bool,
}

impl Default for Backoff {
    /// Fifteen seconds, which are waited for.
    fn default() -> Backoff {
        Backoff { pause: Duration::from_secs(15), strict: false }
    }
}

/// A compile comes too soon after one that the engine's compiler failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TooSoon {
    /// The time since it failed.
    pub since: Duration,
    /// The rest of its pause.
    pub left: Duration,
}

impl fmt::Display for TooSoon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (since, left) = (self.since.as_secs_f64(), self.left.as_secs_f64());
        write!(f, "compile: the engine's compiler failed {since:.1} s ago; it needs {left:.1} s more")
    }
}

/// Paces compiles on the real engine: whoever compiles asks before, and says how it went.
///
/// ```
/// use aneforge::pacing::{Backoff, Breaker};
/// use std::time::Duration;
///
/// let mut breaker = Breaker::default();
/// breaker.failed(Duration::from_secs(100));
/// let early = breaker.check(Duration::from_secs(104), Backoff::default()).unwrap_err();
/// assert_eq!(early.to_string(), "compile: the engine's compiler failed 4.0 s ago; it needs 11.0 s more");
/// breaker.reset();
/// assert!(breaker.check(Duration::from_secs(104), Backoff::default()).is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failed: Option<Duration>,
}

impl Breaker {
    /// Whether a compile may start `now`.
    pub fn check(&self, now: Duration, backoff: Backoff) -> Result<(), TooSoon> {
        let Some(failed) = self.failed else { return Ok(()) };
        let since = now.saturating_sub(failed);
        let left = backoff.pause.saturating_sub(since);
        if left.is_zero() { Ok(()) } else { Err(TooSoon { since, left }) }
    }

    /// Waits until a compile may start, with a warning in the log, or refuses it.
    pub fn before(&self, clock: &dyn Clock, backoff: Backoff) -> Result<(), TooSoon> {
        match self.check(clock.now(), backoff) {
            Err(early) if !backoff.strict => {
                tracing::warn!("{early}, waiting");
                clock.sleep(early.left);
                Ok(())
            }
            checked => checked,
        }
    }

    /// A compile failed `now`.
    pub fn failed(&mut self, now: Duration) {
        self.failed = Some(now);
    }

    /// One succeeded, or the failure is to be forgotten.
    pub fn reset(&mut self) {
        self.failed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Hand(Cell<Duration>);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            self.0.get()
        }
        fn sleep(&self, time: Duration) {
            self.0.set(self.0.get() + time);
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_next_compile_waits_for_what_is_left() {
        let (clock, mut breaker) = (Hand(Cell::new(s(100))), Breaker::default());
        breaker.before(&clock, Backoff::default()).unwrap();
        breaker.failed(clock.now());
        clock.sleep(s(4));
        breaker.before(&clock, Backoff::default()).unwrap();
        assert_eq!(clock.now(), s(115));
        breaker.before(&clock, Backoff::default()).unwrap();
        assert_eq!(clock.now(), s(115));
    }

    #[test]
    fn strict_refuses_and_zero_switches_off() {
        let (clock, mut breaker) = (Hand(Cell::new(s(100))), Breaker::default());
        breaker.failed(clock.now());
        let strict = Backoff { strict: true, ..Backoff::default() };
        assert_eq!(breaker.before(&clock, strict), Err(TooSoon { since: s(0), left: s(15) }));
        breaker.before(&clock, Backoff { pause: s(0), strict: true }).unwrap();
        breaker.reset();
        breaker.before(&clock, strict).unwrap();
        assert_eq!(clock.now(), s(100));
    }
}
