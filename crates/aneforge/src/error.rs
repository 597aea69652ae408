//! Whose fault an error is: what exit codes and Python's exception classes are chosen by.

use crate::artifact::{ArtifactError, StateError};
use crate::compile::CompileError;
use crate::device::DeviceError;
use crate::grad::GradError;
use crate::import::mil::ReadError;
use crate::ir::text::TextError;
use crate::ir::var::BuildError;
use crate::passes::PassError;
use crate::passes::legal::{Fault, LegalError};
use crate::portable::PortableError;
use crate::session::RunError;
use crate::target::UnknownTarget;
use std::fmt;

/// Who has to act on an error.
///
/// ```
/// use aneforge::{CompileOptions, Shape, Var, compile, error::Kind};
/// let x = Var::input(Shape::new(&[2, 8])?);
/// let error = compile(&[x.softmax(7)], &CompileOptions::default()).unwrap_err();
/// assert_eq!(error.kind(), Kind::Caller);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller: a wrong shape, type, number or name.
    Caller,
    /// A file: missing, damaged, unwritable, or not what it should be.
    File,
    /// The chip compiled for: it cannot run this; another target or another graph can.
    Target,
    /// The device: not there, or failed.
    Device,
    /// This project. Worth a report.
    Internal,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Caller => "caller",
            Kind::File => "file",
            Kind::Target => "target",
            Kind::Device => "device",
            Kind::Internal => "internal",
        })
    }
}

impl BuildError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::Caller
    }
}

impl GradError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::Caller
    }
}

impl UnknownTarget {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::Caller
    }
}

impl TextError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::File
    }
}

impl ArtifactError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::File
    }
}

impl PortableError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::File
    }
}

impl LegalError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self.fault {
            Fault::Graph => Kind::Caller,
            Fault::Target => Kind::Target,
        }
    }
}

impl ReadError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            ReadError::Blob(_) | ReadError::Statement { .. } => Kind::File,
            // What is built here is what the file says.
            ReadError::Build(_) | ReadError::Program(_) => Kind::File,
        }
    }
}

impl PassError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            PassError::Build(error) => error.kind(),
            PassError::Legal(error) => error.kind(),
            PassError::Stopped => Kind::Caller,
            PassError::Rewrite(_) | PassError::Verify { .. } => Kind::Internal,
        }
    }
}

impl CompileError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            CompileError::Pass(error) => error.kind(),
            CompileError::Emit(_) => Kind::Internal,
        }
    }
}

impl DeviceError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            DeviceError::Unknown(_)
            | DeviceError::Bind { .. }
            | DeviceError::Budget { .. }
            | DeviceError::Memory { .. }
            | DeviceError::Stopped => Kind::Caller,
            DeviceError::Folder { .. } => Kind::File,
            DeviceError::Unavailable { .. }
            | DeviceError::Unsupported { .. }
            | DeviceError::Refused { .. }
            | DeviceError::Prepare { .. }
            | DeviceError::Failed { .. }
            | DeviceError::Lost { .. } => Kind::Device,
        }
    }
}

impl StateError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            StateError::Write(_)
            | StateError::Read(_)
            | StateError::Changed { .. }
            | StateError::Other { .. } => Kind::File,
            StateError::Name => Kind::Caller,
            StateError::Run(error) => error.kind(),
        }
    }
}

impl RunError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            RunError::Calibrate(_)
            | RunError::Count { .. }
            | RunError::Shape { .. }
            | RunError::DType { .. }
            | RunError::Name { .. }
            | RunError::Times { .. }
            | RunError::State { .. }
            | RunError::Stopped { .. } => Kind::Caller,
            RunError::Device(error) => error.kind(),
            RunError::Compile(error) => error.kind(),
        }
    }
}
