//! How weights follow gradients: the update rules as graph, written for half precision, and the same rules in single
//! precision for weights that a program of the host keeps.
//!
//! Half precision is narrow: a gradient of `1e-8` is no number in it, `1e-3` squared hardly one, and its ulp at 1 is `2^-10`. So
//! gradients come multiplied with a [`Scale`], and everything that is made of them is kept multiplied too; Adam keeps the
//! root of its second moment, which has the range of the gradient where the moment has the square of it; and its quotient is
//! guarded, as an `eps` of `1e-8` is 0 in half precision and zero gradients are common.

mod clip;
mod masters;
mod rules;
mod schedule;
mod weights;

pub use clip::clip_by_norm;
pub(crate) use clip::joined;
pub use masters::{Masters, Settings};
pub use rules::{Optimizer, Outcome, Rates, Rule, Step, adam_step};
pub use schedule::Schedule;
pub use weights::{Weights, added, blended};

use crate::ir::types::Caller;
use crate::ir::var::Var;

/// The largest finite half-precision number.
pub(crate) const LARGEST: f64 = 65504.0;

/// The smallest half-precision number above 0, by which quotients are guarded. Engines keep such numbers between elementwise ops
/// (`docs/silicon.md`, subnormals).
pub(crate) const LEAST: f64 = 5.960_464_477_539_063e-8;

/// What gradients are multiplied with, so that small ones are numbers in half precision: a power of two.
#[derive(Clone, Debug)]
pub enum Scale {
    /// The same in every step.
    Fixed(f64),
    /// A value of the graph, of one element.
    Value(Var),
}

impl Scale {
    /// `x` without the scale.
    #[track_caller]
    pub fn unscaled(&self, x: &Var) -> Var {
        Caller::here().scope(|| match self {
            Scale::Fixed(scale) if *scale == 1.0 => x.clone(),
            Scale::Fixed(scale) => x.muls(1.0 / scale),
            Scale::Value(scale) => x / scale,
        })
    }

    /// `x` with the scale.
    #[track_caller]
    pub fn scaled(&self, x: &Var) -> Var {
        Caller::here().scope(|| match self {
            Scale::Fixed(scale) if *scale == 1.0 => x.clone(),
            Scale::Fixed(scale) => x.muls(*scale),
            Scale::Value(scale) => x * scale,
        })
    }

    /// `k` times the scale, and never 0.
    fn times(&self, k: f64) -> Var {
        match self {
            Scale::Fixed(scale) => Var::scalar((k * scale).clamp(LEAST, LARGEST)),
            // In two factors, as the one may be no number in half precision.
            Scale::Value(scale) => {
                (scale * (1.0 / 1024.0)).muls((k * 1024.0).min(LARGEST)).maximum(&Var::scalar(LEAST))
            }
        }
    }
}
