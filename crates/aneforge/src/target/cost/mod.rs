//! What a graph may cost on the engine, from its shapes and the form of its weights alone.
//!
//! [`measured()`] is the estimate that users see: a model of six terms with constants of the chips that were measured, and how far
//! it may be off. [`place`] says whether a processor or a GPU is the better place. [`package`] has the two formulas of ANEForge
//! 0.4.0, kept so that its numbers can be had, and by which [`tune`](crate::tune) orders ways to write a program.
//! None of them replaces a measurement.

mod measured;
pub mod package;
mod place;
mod rates;

pub use measured::{Estimate, Terms, measured};
pub use place::{Place, Processor, place};
pub use rates::{BAND_ELSEWHERE, COLD_FIRST_CALL_US, Constants, Figure, MEASURED, Rates, Tag};

use super::Target;

/// A target's clocks or cores are not known. The target's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target {0} has no recorded clock and cores; estimates need h11, or one of h13 to h18")]
pub struct NoCurve(pub Target);
