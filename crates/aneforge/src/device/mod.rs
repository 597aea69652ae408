//! Where plans run. A device loads segments; it knows nothing of single ops' meaning to users.

pub mod host;

use crate::ir::numerics::Numerics;
use crate::ir::types::{Caller, counted};
use crate::plan::Segment;
use aneforge_tensor::f16;
use std::fmt;
use std::sync::Arc;

/// A device failed, or is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no such device here. The environment's fault.
    #[error("device `{device}` is not available: {why}")]
    Unavailable {
        /// The device asked for.
        device: &'static str,
        /// Why not, and what to do.
        why: String,
    },
    /// There is no device of this name. The caller's fault.
    #[error("unknown device `{0}`; known are `host` and `ane`")]
    Unknown(String),
    /// A segment cannot run here. The message names the op.
    #[error("{op}: {why}")]
    Unsupported {
        /// The op.
        op: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// There is not enough memory. The caller's fault, mostly.
    #[error(
        "the program needs {need} bytes of memory for its values and this machine has no such room; make its inputs smaller, or split it"
    )]
    Memory {
        /// The bytes.
        need: usize,
    },
    /// The call was stopped on request; what the outputs hold means nothing.
    #[error("the call was stopped before it was done")]
    Stopped,
}

/// A node that made infinities or NaN out of finite operands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Its op, as compiled.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// How many of its values, in the first call in which it did.
    pub values: usize,
    /// In how many calls.
    pub calls: u64,
}

impl Overflow {
    /// What to do about one.
    pub const REMEDY: &'static str = "scale the values down before it, or declare their bounds (max_abs) so that it \
        can be found beforehand; norms survive when they are compiled to be robust";
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overflow { op, at, values, calls } = self;
        let values = counted(*values, "value");
        let calls = counted(usize::try_from(*calls).unwrap_or(usize::MAX), "call");
        write!(f, "{op} made an infinity or NaN of finite operands: {values}, in {calls} (at {at})")
    }
}

/// Something that runs segments.
pub trait Device: Send + Sync {
    /// `host` or `ane`.
    fn name(&self) -> &'static str;
    /// One line about what it is: processor, instruction set, threads.
    fn describe(&self) -> String;
    /// Prepares a segment to run with these numerics.
    fn load(&self, segment: &Segment, numerics: Numerics) -> Result<Box<dyn Kernel>, DeviceError>;
}

/// A loaded segment with its ports. Feeds and outputs are numbered as in the segment's graph.
pub trait Kernel: Send {
    /// The bytes of a feed's port, to be written before [`Kernel::execute`].
    fn feed(&mut self, index: usize) -> &mut [u8];
    /// The contents of an output's port, valid until the next [`Kernel::execute`].
    fn output(&self, index: usize) -> &[f16];
    /// Runs once.
    fn execute(&mut self) -> Result<(), DeviceError>;
    /// Nodes that have made infinities or NaN out of finite operands so far, where the device can tell.
    fn overflows(&self) -> &[Overflow];
    /// How it runs, in lines: steps, and the slots of memory they use.
    fn describe(&self) -> String;
}

/// The engine of this machine, or why there is none. Never anything else in its place.
///
/// The device path has not landed: on Apple silicon this says so, elsewhere that there is no engine.
pub fn ane() -> Result<Arc<dyn Device>, DeviceError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let why = if os == "macos" && arch == "aarch64" {
        "this version compiles for the engine but cannot load programs into it yet; run on `host`".into()
    } else {
        format!("the Neural Engine is part of Apple silicon and this is {arch} {os}; run on `host`")
    };
    Err(DeviceError::Unavailable { device: "ane", why })
}

/// The device of this name, in any case, with blanks around it ignored.
pub fn named(name: &str) -> Result<Arc<dyn Device>, DeviceError> {
    match name.trim().to_ascii_lowercase().as_str() {
        "host" => Ok(host::shared()),
        "ane" => ane(),
        _ => Err(DeviceError::Unknown(name.into())),
    }
}

/// The device that is used when none is asked for: the engine on Apple silicon, where a failure is an
/// error, and the host elsewhere.
pub fn default() -> Result<Arc<dyn Device>, DeviceError> {
    if std::env::consts::OS == "macos" && std::env::consts::ARCH == "aarch64" {
        ane()
    } else {
        Ok(host::shared())
    }
}
