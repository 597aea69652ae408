//! What goes wrong between this process and the engine.

use crate::limits;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A call into the system's libraries that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The function, or the method, that was called.
    pub call: &'static str,
    /// Its status; 0 where it succeeded and gave nothing.
    pub code: i32,
    /// What the library says about it; empty where it says nothing.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { call, code, text } = self;
        match code {
            0 => write!(f, "{call} succeeded and gave nothing")?,
            _ => write!(f, "{call} answered {code} ({})", limits::meaning(*code))?,
        }
        if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
    }
}

/// The engine could not be reached, or did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AneError {
    /// A library of the system is not there. The machine's fault.
    #[error("the library {path} cannot be opened: {why}")]
    Library {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A library has not what is needed of it: this system is older or newer than those that are known. The machine's fault.
    #[error("the library {path} has no `{symbol}`, without which {without}")]
    Symbol {
        /// The library.
        path: PathBuf,
        /// What is missing.
        symbol: &'static str,
        /// What cannot be done.
        without: &'static str,
    },
    /// A call failed. The device's fault, or that of the program it was given.
    #[error("{0}")]
    Call(Failure),
    /// The compiler refused a program.
    #[error("{failure}{}", printed(.output))]
    Compile {
        /// The call that failed.
        failure: Failure,
        /// What the libraries printed meanwhile.
        output: String,
    },
    /// All places for programs are taken. The caller's fault.
    #[error(
        "this process has {loaded} programs loaded, and the engine takes {limit}; drop models, or release them, before loading more"
    )]
    Budget {
        /// How many there are.
        loaded: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A program was compiled by another process, or a place for programs was not free in any process. It is to be compiled in this
    /// process. The device's fault.
    #[error("the engine has no such program any more ({0})")]
    Recompile(Failure),
    /// There is no such port. The caller's fault.
    #[error("there is no {what} {index}; the program has {count}")]
    Port {
        /// `input` or `output`.
        what: &'static str,
        /// The one that was named.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A buffer is too small for a port, which the engine would not notice before it writes past its end. The caller's fault.
    #[error("port `{port}` takes {want} bytes and the buffer has {got}")]
    Small {
        /// The port.
        port: String,
        /// What it takes.
        want: usize,
        /// What there is.
        got: usize,
    },
    /// A port was said to have fewer bytes than its elements take, so that the engine would write past its end. The caller's fault.
    #[error(
        "port `{port}` has {elements} elements in the program, of two bytes each (one, of bytes), and {bytes} bytes were said"
    )]
    Extents {
        /// The port.
        port: String,
        /// How many elements the library says that it has.
        elements: usize,
        /// The bytes that were said.
        bytes: usize,
    },
    /// So much memory cannot be had. The caller's fault.
    #[error("{bytes} bytes of memory cannot be had{}", of_machine(.have))]
    Memory {
        /// What was asked for.
        bytes: usize,
        /// What the machine has, where that is known.
        have: Option<u64>,
    },
    /// Values of another count than a port takes. The caller's fault.
    #[error("port `{port}` takes {want} bytes, got {got}")]
    Values {
        /// The port.
        port: String,
        /// What it takes.
        want: usize,
        /// What came.
        got: usize,
    },
    /// A port has no buffer yet. The caller's fault.
    #[error("port `{0}` has no buffer; bind one before running")]
    Unbound(String),
    /// A port's buffer was not handed over for a run, so that somebody could read it while the engine writes. The caller's fault.
    #[error("the buffer of port `{0}` was not handed over; a run takes every buffer that ports are bound to")]
    NotHeld(String),
    /// A call took so long that it is given up: the program is to be loaded again. The device's fault.
    #[error("a call has not come back within {} s, so that the program is given up", .0.as_secs_f64())]
    Hung(Duration),
    /// Two programs run asynchronously at once, of which the second would never end (guide, measured on M1). The caller's fault.
    #[error(
        "another program runs asynchronously, and the engine never ends a second one; wait for the first"
    )]
    InFlight,
    /// This process was forked off the one that loaded the libraries, which do not survive that. The caller's fault.
    #[error("the engine was opened before this process was forked; start processes with `spawn`, not `fork`")]
    Forked,
    /// A process that runs programs apart has ended, or could not be started. The device's fault, or that of the program.
    #[error("the process that {stage} {why}{}", printed(.output))]
    Worker {
        /// How far it had come.
        stage: Stage,
        /// How it ended.
        why: String,
        /// What it printed.
        output: String,
    },
    /// A name or a path with a character that the interface cannot take. The caller's fault.
    #[error("{0:?} has a zero byte, which the engine's interface cannot take")]
    Text(String),
    /// A model says of itself what cannot be so. The device's fault.
    #[error("the engine describes its program in a way that is not understood: {0}")]
    Description(String),
    /// A file could not be written or read.
    #[error("cannot {action} {path}: {why}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

/// How far a process that runs programs apart had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It could not be started, or ended by itself before it did anything.
    Start,
    /// It compiled.
    Compile,
    /// It loaded what was compiled.
    Load,
    /// It ran.
    Run,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Start | Stage::Run => "runs programs apart",
            Stage::Compile => "compiles a program apart",
            Stage::Load => "loads a program apart",
        })
    }
}

impl From<Failure> for AneError {
    fn from(failure: Failure) -> AneError {
        AneError::Call(failure)
    }
}

fn of_machine(have: &Option<u64>) -> String {
    have.map_or_else(String::new, |have| format!(", this machine has {have}"))
}

fn printed(output: &str) -> String {
    match output.trim() {
        "" => String::new(),
        output => format!("; the system printed:\n{output}"),
    }
}
