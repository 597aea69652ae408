//! How a network is trained.

use crate::CompileOptions;
use crate::optim::{Optimizer, Schedule, Weights};

/// What gradients are multiplied with on their way, so that small ones stay numbers in half precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// The same in every step; a power of two rounds nothing.
    Fixed(f64),
    /// Half as much after a step whose gradients were not finite, which changes no weight, and twice as much after `patience` steps
    /// that were; from 1 to 32,768.
    Dynamic {
        /// What it begins with: a power of two.
        initial: f64,
        /// Steps after which it grows: up to 2,048, which is how far half precision counts.
        patience: u32,
    },
}

/// How a network is trained.
///
/// ```
/// use aneforge::optim::{Optimizer, Schedule};
/// use aneforge::train::Options;
/// let options = Options {
///     schedule: Schedule::Cosine { warmup: 100, total: 2000, least: 0.01 },
///     clip: Some(1.0),
///     ..Options::new(Optimizer::adamw(0.01), 3e-4)
/// };
/// assert!(options.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// The rule by which weights follow gradients.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub lr: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// What gradients are multiplied with.
    pub scaling: Scaling,
    /// How long all gradients together may be.
    pub clip: Option<f64>,
    /// Where weights are kept.
    pub weights: Weights,
    /// How much of an average of weights over steps is kept in each; none is kept where this is `None`.
    pub average: Option<f64>,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// Whether gradients and update are programs of their own even where a step has one batch, so that
    /// [gradients](super::Trainer::gradients) of several workers can be [applied](super::Trainer::apply).
    pub split: bool,
    /// How the programs are compiled.
    pub compile: CompileOptions,
}

impl Options {
    /// With this rule and rate: dynamic scaling from 1024 on, weights as pairs, nothing else.
    pub fn new(optimizer: Optimizer, lr: f64) -> Options {
        Options {
            optimizer,
            lr,
            schedule: Schedule::Constant,
            scaling: Scaling::Dynamic { initial: 1024.0, patience: 500 },
            clip: None,
            weights: Weights::Paired,
            average: None,
            accumulate: 1,
            split: false,
            compile: CompileOptions::default(),
        }
    }

    /// Whether gradients are summed in a program of their own.
    pub(super) fn in_parts(&self) -> bool {
        self.weights != Weights::Masters && (self.split || self.accumulate > 1)
    }

    /// Why they cannot be, if they cannot.
    pub fn check(&self) -> Result<(), String> {
        self.optimizer.check()?;
        let scale = match self.scaling {
            Scaling::Fixed(scale) => scale,
            Scaling::Dynamic { initial, patience } => {
                if !(1..=2048).contains(&patience) {
                    return Err(format!("patience must be from 1 to 2048, got {patience}"));
                }
                initial
            }
        };
        let dynamic = matches!(self.scaling, Scaling::Dynamic { .. });
        if dynamic && (!(1.0..=32768.0).contains(&scale) || scale.log2().fract() != 0.0) {
            return Err(format!("a scale that changes must be a power of two from 1 to 32768, got {scale}"));
        }
        if !(scale > 0.0 && scale <= 1e6) {
            return Err(format!("the scale must be more than 0 and at most 1000000, got {scale}"));
        }
        self.schedule.check()?;
        if !(self.lr >= 0.0 && self.lr <= 1e4) {
            return Err(format!("lr must be from 0 to 10000, got {}", self.lr));
        }
        if let Some(most) = self.clip.filter(|most| !(*most > 0.0 && *most <= 65504.0)) {
            return Err(format!("clip must be more than 0 and at most 65504, got {most}"));
        }
        if let Some(keep) = self.average.filter(|keep| !(0.0..1.0).contains(keep)) {
            return Err(format!("average must be at least 0 and less than 1, got {keep}"));
        }
        if self.split && self.accumulate != 1 {
            return Err(format!(
                "with split, workers share the batches of a step; accumulate must be 1, got {}",
                self.accumulate
            ));
        }
        match self.accumulate {
            0 => Err("accumulate must be at least 1, got 0".into()),
            1..=4096 => Ok(()),
            more => Err(format!("accumulate must be at most 4096, got {more}")),
        }
    }
}
