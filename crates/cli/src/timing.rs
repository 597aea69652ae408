//! Time per call.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long calls took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How many were timed.
    pub calls: usize,
    /// Half took longer.
    pub median: Duration,
    /// Nine in ten took longer.
    pub p10: Duration,
}

impl Timing {
    /// As the keys `calls`, `median_us` and `p10_us`.
    pub fn json(&self) -> Value {
        json!({ "calls": self.calls, "median_us": micros(self.median), "p10_us": micros(self.p10) })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// Times `calls` calls after a few that are not counted.
pub fn measure<E>(calls: usize, mut call: impl FnMut() -> Result<(), E>) -> Result<Timing, E> {
    let calls = calls.max(1);
    for _ in 0..calls.div_ceil(10).min(20) {
        call()?;
    }
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(Timing { calls, median: times[calls / 2], p10: times[calls / 10] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_calls_are_not_counted() {
        let mut called = 0;
        let timing = measure(100, || {
            called += 1;
            Ok::<(), ()>(())
        });
        let timing = timing.unwrap();
        assert_eq!((called, timing.calls), (110, 100));
        assert!(timing.p10 <= timing.median);
    }

    #[test]
    fn a_failure_ends_it() {
        assert_eq!(measure(5, || Err("no")), Err("no"));
    }
}
