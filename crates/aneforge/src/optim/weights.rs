//! Where weights are kept, and how a small change reaches them.

use crate::ir::types::Caller;
use crate::ir::var::Var;

/// How weights are kept between steps.
///
/// A weight of about 1 moves in steps of `2^-10` in half precision, and what is less than half of that is lost. The other two
/// keep it, at a price that [docs/training.md](https://github.com/aneforge/aneforge/blob/main/docs/training.md) has measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// In half precision, as the engine reads them.
    Half,
    /// As a sum of two halves, of which the network reads the first: 22 bits, and all of the step stays on the device.
    #[default]
    Paired,
    /// In single precision on the host, which makes the step; the network reads them rounded. Gradients cross to the host, and
    /// weights back, in every step.
    Masters,
}

impl Weights {
    /// All of them, by name.
    pub const NAMES: [(&'static str, Weights); 3] =
        [("half", Weights::Half), ("paired", Weights::Paired), ("masters", Weights::Masters)];
}

/// The pair `hi + lo` after a small number was added: Knuth's sum, whose error becomes the new `lo`.
#[track_caller]
pub fn added(hi: &Var, lo: &Var, change: &Var) -> [Var; 2] {
    Caller::here().scope(|| {
        let change = lo + change;
        let sum = hi + &change;
        let part = &sum - hi;
        let lost = (hi - (&sum - &part)) + (change - part);
        [sum, lost]
    })
}

/// The pair `hi + lo` moved towards `x` by this share of the way, a value of one element: an exponential moving average, whose small steps a single
/// half would lose.
#[track_caller]
pub fn blended(hi: &Var, lo: &Var, x: &Var, share: &Var) -> [Var; 2] {
    Caller::here().scope(|| added(hi, lo, &(((x - hi) - lo) * share)))
}
