//! How the learning rate changes in the course of a training.

use std::f64::consts::PI;
use std::fmt;

/// A factor of the learning rate, by the step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// From 0 to 1 in the first `warmup` steps, then along half a cosine to `least` in step `total`, and `least` from there on
    /// (Loshchilov and Hutter, ICLR 2017, without restarts).
    Cosine {
        /// Steps of the way up.
        warmup: u64,
        /// Steps of all.
        total: u64,
        /// What it ends with.
        least: f64,
    },
    /// From 0 to 1 in the first `warmup` steps, then straight to `least` in step `total`.
    Linear {
        /// Steps of the way up.
        warmup: u64,
        /// Steps of all.
        total: u64,
        /// What it ends with.
        least: f64,
    },
    /// Times `factor` after every `every` steps.
    Steps {
        /// Steps between two changes.
        every: u64,
        /// What each multiplies with.
        factor: f64,
    },
}

impl Schedule {
    /// Why it cannot be, if it cannot.
    pub fn check(&self) -> Result<(), String> {
        match *self {
            Schedule::Constant => Ok(()),
            Schedule::Cosine { warmup, total, least } | Schedule::Linear { warmup, total, least } => {
                if warmup >= total {
                    return Err(format!(
                        "a schedule warms up in {warmup} steps of {total}; it must be fewer"
                    ));
                }
                match (0.0..=1.0).contains(&least) {
                    true => Ok(()),
                    false => Err(format!("a schedule ends with a part from 0 to 1, got {least}")),
                }
            }
            Schedule::Steps { every: 0, .. } => Err("a schedule changes after at least 1 step, got 0".into()),
            Schedule::Steps { factor, .. } => match factor > 0.0 && factor <= 10.0 {
                true => Ok(()),
                false => Err(format!("a schedule's factor must be more than 0 and at most 10, got {factor}")),
            },
        }
    }

    /// The factor of step `t`, the first being 1.
    ///
    /// ```
    /// use aneforge::optim::Schedule;
    /// let cosine = Schedule::Cosine { warmup: 10, total: 110, least: 0.0 };
    /// assert_eq!([5, 10, 60, 110, 500].map(|t| (cosine.at(t) * 1e6).round() / 1e6), [0.5, 1.0, 0.5, 0.0, 0.0]);
    /// ```
    pub fn at(&self, t: u64) -> f64 {
        let ramp = |warmup: u64, total: u64, least: f64, fall: fn(f64) -> f64| {
            if t < warmup {
                return t as f64 / warmup as f64;
            }
            let length = total.saturating_sub(warmup).max(1) as f64;
            let done = ((t - warmup) as f64 / length).min(1.0);
            least + (1.0 - least) * fall(done)
        };
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Cosine { warmup, total, least } => {
                ramp(warmup, total, least, |done| (1.0 + (PI * done).cos()) / 2.0)
            }
            Schedule::Linear { warmup, total, least } => ramp(warmup, total, least, |done| 1.0 - done),
            Schedule::Steps { every, factor } => factor.powf((t.saturating_sub(1) / every.max(1)) as f64),
        }
    }
}

/// As messages call it; two that differ are called differently.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Schedule::Constant => write!(f, "constant"),
            Schedule::Cosine { warmup, total, least } => {
                write!(f, "a cosine to {least} in {total} steps, {warmup} of them on the way up")
            }
            Schedule::Linear { warmup, total, least } => {
                write!(f, "a line to {least} in {total} steps, {warmup} of them on the way up")
            }
            Schedule::Steps { every, factor } => write!(f, "times {factor} after every {every} steps"),
        }
    }
}
