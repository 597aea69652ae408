//! Where plans run. A device allocates buffers and loads segments, whose ports are bound to buffers; it knows nothing of
//! single ops' meaning to users.

pub mod ane;
mod bound;
mod buffer;
pub mod host;
mod memory;

pub use buffer::{Beyond, Buffer, Clean, Feed, FeedError, Values, ValuesMut};
pub use memory::Memory;

use crate::ir::numerics::Numerics;
use crate::ir::types::{Caller, TensorType, counted};
use crate::plan::Segment;
use crate::target::Target;
use ane::{Ane, AneOptions};
use aneforge_kernels::process::PerProcess;
use host::HostOptions;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

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
    /// The device does not accept the program. Ours, or the target's: a program that compiles for a chip should load there.
    #[error("the device refused the program: {why}; compile it for the chip that it is to run on")]
    Refused {
        /// What the device said.
        why: String,
    },
    /// Something before the first run did not end as it should. The device's fault.
    #[error("{stage} failed on the device: {why}; nothing has run")]
    Prepare {
        /// What was done, such as `loading`.
        stage: &'static str,
        /// What the device said.
        why: String,
    },
    /// A folder or a file of compiled programs cannot be used. The file system's fault.
    #[error("{why}; the folder is `engine` in that of ANEFORGE_CACHE_DIR, or AneOptions::folder")]
    Folder {
        /// What was tried, where, and what the system says.
        why: String,
    },
    /// A call did not end as it should. The device's fault.
    #[error("the call failed on the device: {why}; what the outputs hold means nothing, try again")]
    Failed {
        /// What the device said.
        why: String,
    },
    /// The device has the program no longer. The device's fault.
    #[error("the device lost the program: {why}; load it again")]
    Lost {
        /// What is known.
        why: String,
    },
    /// All places for programs are taken. The caller's fault.
    #[error(
        "{loaded} programs are loaded, and the engine takes {limit} of a process; drop models, or release them, before loading more"
    )]
    Budget {
        /// How many there are.
        loaded: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A buffer cannot be bound to a port, or a port has none. The caller's fault.
    #[error("{port}: {why}")]
    Bind {
        /// The port.
        port: Port,
        /// Why not, and what to do.
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
    pub const REMEDY: &'static str = "a diagnosis on the same inputs (model.diagnose, aneforge diagnose) says why and what \
        to do: mostly, scale the values down before it; norms survive when they are compiled to be robust; declared bounds \
        (max_abs) find it beforehand";
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overflow { op, at, values, calls } = self;
        let values = counted(*values, "value");
        let calls = counted(usize::try_from(*calls).unwrap_or(usize::MAX), "call");
        write!(f, "{op} made an infinity or NaN of finite operands: {values}, in {calls} (at {at})")
    }
}

/// A step of a program, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The ops that it computes, joined by `+`.
    pub name: String,
    /// The type of its result.
    pub ty: TensorType,
    /// Multiplications and additions.
    pub flops: f64,
    /// Of its operands and weights, as they are stored, and of its result.
    pub bytes: usize,
    /// In one run.
    pub time: Duration,
}

/// What a device can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roof {
    /// Multiplications and additions per second, in registers.
    pub flops: f64,
    /// Bytes per second that it reads from memory.
    pub bytes: f64,
}

impl Roof {
    /// The least time that so much arithmetic and so many bytes take, in seconds, which may be less than a nanosecond.
    pub fn least(&self, flops: f64, bytes: usize) -> f64 {
        (flops / self.flops).max(bytes as f64 / self.bytes)
    }
}

/// Where a segment runs, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The device.
    pub device: String,
    /// What shows it, one sentence each.
    pub how: Vec<String>,
}

/// A port of a segment, numbered as in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// A feed.
    Input(usize),
    /// A result.
    Output(usize),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Input(at) => write!(f, "input {at}"),
            Port::Output(at) => write!(f, "output {at}"),
        }
    }
}

/// The title of what stands in for the engine.
pub(crate) const STANDS_IN: &str = "ane (stand-in)";

/// Something that runs segments.
pub trait Device: Send + Sync {
    /// `host` or `ane`.
    fn name(&self) -> &'static str;
    /// The same, and whether something stands in for it.
    fn title(&self) -> &'static str;
    /// One line about what it is: processor, instruction set, threads.
    fn describe(&self) -> String;
    /// Its arithmetic for programs that are compiled for `target`.
    fn numerics(&self, target: Target) -> Numerics;
    /// Zeroed memory for a value of this type, laid out as the device wants it.
    fn allocate(&self, ty: TensorType) -> Result<Buffer, DeviceError>;
    /// Prepares a segment, compiled for `target`, to run.
    fn load(&self, segment: &Segment, target: Target) -> Result<Box<dyn Loaded>, DeviceError>;
}

impl AsRef<dyn Device> for dyn Device {
    fn as_ref(&self) -> &(dyn Device + 'static) {
        self
    }
}

/// A segment in a device. Its ports have no memory of their own: each is bound to a buffer, which other ports may share.
/// An input and an output that name one buffer are state: a run reads what the last one left there.
pub trait Loaded: Send {
    /// Makes `buffer` what the port reads or writes from the next run on.
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError>;
    /// Runs once.
    fn execute(&mut self) -> Result<(), DeviceError>;
    /// Runs once and measures each step, where the device can tell; none where it cannot.
    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError>;
    /// What the device can do at most, measured now, where that is known.
    fn roof(&self) -> Option<Roof>;
    /// Nodes that have made infinities or NaN out of finite operands so far, where the device can tell.
    fn overflows(&self) -> &[Overflow];
    /// How many bytes its runs have copied so far, beside what its ops compute, where the device can tell.
    fn copied(&self) -> u64;
    /// How it runs, in lines: steps, and the slots of memory they use.
    fn describe(&self) -> String;
    /// Where it runs, and how that is known.
    fn receipt(&self) -> Receipt;
}

/// The engine of this machine, or why there is none. Never anything else in its place.
pub fn ane() -> Result<Arc<dyn Device>, DeviceError> {
    ane_with(&AneOptions::default())
}

/// The engine, reached in this way: for equal options the same one, so that what is compiled once serves all sessions.
pub fn ane_with(options: &AneOptions) -> Result<Arc<dyn Device>, DeviceError> {
    type Opened = Vec<(AneOptions, Arc<Ane>)>;
    static OPENED: LazyLock<PerProcess<Mutex<Opened>>> = LazyLock::new(PerProcess::default);
    let mut opened = OPENED.get(|_| Mutex::default()).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ane)) = opened.iter().find(|(known, _)| known == options) {
        return Ok(Arc::clone(ane) as Arc<dyn Device>);
    }
    let ane = Arc::new(Ane::open(options)?);
    opened.push((options.clone(), Arc::clone(&ane)));
    Ok(ane)
}

/// The device of this name or title, in any case, with blanks around it ignored.
pub fn named(name: &str) -> Result<Arc<dyn Device>, DeviceError> {
    open(Some(name), &HostOptions::default(), &AneOptions::default())
}

/// The device that is used when none is asked for: the engine on Apple silicon, where a failure is an
/// error, and the host elsewhere.
pub fn default() -> Result<Arc<dyn Device>, DeviceError> {
    open(None, &HostOptions::default(), &AneOptions::default())
}

/// [`named`] or, without a name, [`default`]; each device with these options of its own.
pub fn open(
    name: Option<&str>,
    host: &HostOptions,
    ane: &AneOptions,
) -> Result<Arc<dyn Device>, DeviceError> {
    let apple = std::env::consts::OS == "macos" && std::env::consts::ARCH == "aarch64";
    let name = name.unwrap_or(if apple { "ane" } else { "host" });
    let on_engine = || match host.numerics.map(|n| n.to_string()).or(host.faithful.then(|| "faithful".into()))
    {
        None => ane_with(ane),
        Some(asked) => {
            let why = format!(
                "numerics are the host's, and {asked} was asked for: the engine computes as it does; leave them out, or run on `host`"
            );
            Err(DeviceError::Unsupported { op: "ane", why })
        }
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "host" => Ok(host::shared_with(host)?),
        "ane" => on_engine(),
        // By its title, as models say it.
        STANDS_IN => on_engine().and_then(|device| match device.title() {
            STANDS_IN => Ok(device),
            _ => Err(DeviceError::Unavailable {
                device: STANDS_IN,
                why: "nothing stands in for the engine; name `ane`".into(),
            }),
        }),
        _ => Err(DeviceError::Unknown(name.into())),
    }
}
