//! What a step says, and what goes wrong with training.

use crate::device::Overflow;
use crate::grad::GradError;
use crate::ir::var::BuildError;
use crate::{CompileError, RunError};

/// A network cannot be trained so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The options contradict themselves. The caller's fault.
    #[error("training: {0}")]
    Options(String),
    /// There is no gradient. The caller's fault, or a rule this project lacks.
    #[error(transparent)]
    Gradient(#[from] GradError),
    /// The graph is mistaken. The caller's fault.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A batch is not as the network takes it. The caller's fault.
    #[error("the batch: {0}")]
    Batch(String),
    /// Many steps in a row were void.
    #[error(
        "training diverged: {steps} steps in a row were void, the last as {why}; lower the learning rate, or look into the loss \
         with a diagnosis"
    )]
    Diverged {
        /// How many.
        steps: u64,
        /// What made the last one void.
        why: String,
    },
    /// It did not compile, or did not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<CompileError> for TrainError {
    fn from(error: CompileError) -> TrainError {
        TrainError::Run(error.into())
    }
}

/// What one step says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many updates there have been, this one included.
    pub updates: u64,
    /// The loss of the batch, before the update.
    pub loss: f32,
    /// Whether weights were updated: not by the first batches of several, and not by a step that is skipped.
    pub updated: bool,
    /// Parameters whose gradients were not finite. The step changed nothing but the scale.
    pub overflowed: Vec<String>,
    /// Parameters that would have left half precision, or what the rule keeps of them, as where the learning rate is far too
    /// large. The step changed nothing but the scale.
    pub beyond: Vec<String>,
    /// Void steps in a row, this one included.
    pub skipped: u64,
    /// Nodes that made infinities or NaN out of finite values, where the device can tell.
    pub nodes: Vec<Overflow>,
    /// How long all gradients together were, where that is limited.
    pub length: Option<f32>,
    /// What gradients were multiplied with.
    pub scale: f64,
    /// The learning rate.
    pub lr: f64,
}

impl Report {
    /// Why the step was void, if it was.
    ///
    /// ```
    /// use aneforge::train::Report;
    /// let report = Report { beyond: vec!["w".into()], ..Report::default() };
    /// assert_eq!(report.void().as_deref(), Some("`w` would leave half precision, which ends at 65504"));
    /// ```
    pub fn void(&self) -> Option<String> {
        let named = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        match (&self.overflowed[..], &self.beyond[..]) {
            ([], []) => None,
            ([], beyond) => {
                Some(format!("{} would leave half precision, which ends at 65504", named(beyond)))
            }
            (overflowed, _) => Some(format!("the gradients of {} are not finite", named(overflowed))),
        }
    }
}
