//! What goes wrong with running.

use crate::compile::CompileError;
use crate::device::DeviceError;
use aneforge_tensor::{DType, Shape};

/// A run could not be set up or done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The wrong number of arrays. The caller's fault.
    #[error("the model takes {want} input{s}, got {got}", s = if *want == 1 { "" } else { "s" })]
    Count {
        /// How many it takes.
        want: usize,
        /// How many came.
        got: usize,
    },
    /// An array of the wrong shape. The caller's fault.
    #[error("input {index} must have shape {want}, got {got:?}")]
    Shape {
        /// Which input.
        index: usize,
        /// The shape it takes.
        want: Shape,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An array of the wrong element type. The caller's fault.
    #[error("input {index} is a {want} port and takes {takes}, got {got}", takes = takes(*want))]
    DType {
        /// Which input.
        index: usize,
        /// The port's type.
        want: DType,
        /// The type that came.
        got: DType,
    },
    /// There is no input of this name. The caller's fault.
    #[error("there is no input `{name}`; the model has {known}")]
    Name {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// An input came under its name twice, or not at all. The caller's fault.
    #[error("input `{name}` was given {times}; give each input once")]
    Times {
        /// The input's name, or else its number.
        name: String,
        /// `twice` or `not at all`.
        times: &'static str,
    },
    /// A graph cannot be calibrated so. The caller's fault.
    #[error("calibrate: {0}")]
    Calibrate(String),
    /// State cannot be bound, read or written so. The caller's fault.
    #[error("state `{name}` {why}")]
    State {
        /// The state's name, or else its number among the inputs.
        name: String,
        /// Why not.
        why: String,
    },
    /// The caller wanted no more of an input to be written.
    #[error(
        "input {index} was not written to the end, as the caller stopped it; write it again before the next run"
    )]
    Stopped {
        /// Which input.
        index: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The graph did not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

fn takes(port: DType) -> &'static str {
    match port {
        DType::U8 => "integers from 0 to 255",
        _ => "real numbers",
    }
}
