//! Training: loss, gradients and optimizer of a network as programs of the device, whose state stays there.
//!
//! A [`Trainer`] compiles one program for a step. Everything that is kept, weights, moments, the scale of gradients, the clock of
//! dropout, is [state](crate::State) of the device; a step feeds a batch and reads the loss, and nothing is compiled or
//! allocated after the first. Evaluation is another program on the same weights.
//!
//! ```
//! use aneforge::nn::{Linear, Noise, Scope, mse};
//! use aneforge::optim::Optimizer;
//! use aneforge::train::{Options, Trainer};
//! use aneforge::{Feed, Shape, Var, device};
//!
//! let scope = Scope::new(1);
//! let (x, target) = (Var::input(Shape::new(&[4, 2])?), Var::input(Shape::new(&[4, 1])?));
//! let y = Linear::new(&scope.at("fc"), 2, 1).forward(&x);
//! let options = Options::new(Optimizer::adam(), 0.05);
//! let host = device::named("host")?;
//! let mut trainer = Trainer::new(host, &mse(&y, &target), &scope, &Noise::off(), options)?;
//!
//! // The sum of two numbers.
//! let (xs, sums) = ([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.5, -1.0], [1.0, 1.0, 2.0, -0.5]);
//! let batch = [(&x, Feed::F32(&xs)), (&target, Feed::F32(&sums))];
//! let first = trainer.step(&batch)?.loss;
//! for _ in 0..300 {
//!     trainer.step(&batch)?;
//! }
//! assert!(trainer.step(&batch)?.loss < first / 100.0);
//!
//! let mut evaluate = trainer.evaluator(&[y], false)?;
//! # let _ = evaluate.execute();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod data;
mod events;
mod kept;
mod lend;
mod options;
mod program;
mod report;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use data::Batches;
pub use events::Events;
pub use lend::average;
pub use options::{Options, Scaling};
pub use report::{Report, TrainError};
pub use trainer::Trainer;
