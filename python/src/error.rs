//! From this library's errors to Python's exceptions. Messages pass unchanged.

use aneforge::artifact::{ArtifactError, FileFault, StateError};
use aneforge::grad::GradError;
use aneforge::ir::op::Op;
use aneforge::passes::PassError;
use aneforge::passes::legal::{Fault, refused_by_all};
use aneforge::portable::PortableError;
use aneforge::target::UnknownTarget;
use aneforge::train::{CheckpointError, TrainError};
use aneforge::tune::TuneError;
use aneforge::{BuildError, CompileError, DType, DeviceError, RunError, TensorType, Var};
use aneforge_models::diffusion::DiffusionError;
use aneforge_models::vision::VisionError;
use aneforge_models::{EncodeError, LoadError};
use aneforge_search::SearchError;
use pyo3::exceptions::{
    PyAttributeError, PyMemoryError, PyNotImplementedError, PyOverflowError, PyRuntimeError, PyTypeError,
    PyValueError,
};
use pyo3::{PyErr, PyResult, Python};
use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;

/// Anything that this library reports.
pub enum Error {
    /// A node that could not be built.
    Build(aneforge::ir::var::BuildError, bool),
    /// A graph that could not be compiled.
    Compile(CompileError),
    /// A program that could not be written.
    Artifact(ArtifactError),
    /// A run that could not be done.
    Run(RunError),
    /// A device that is not there, or failed.
    Device(DeviceError),
    /// A chip that is not known.
    Target(UnknownTarget),
    /// A gradient that could not be taken.
    Grad(GradError),
    /// An encoder that could not be loaded.
    Load(Box<LoadError>),
    /// Texts that could not be encoded.
    Encode(Box<EncodeError>),
    /// A network for pictures that could not be loaded or run.
    Vision(Box<VisionError>),
    /// An index that could not be made or asked.
    Search(Box<SearchError>),
    /// A model that draws which could not be loaded or run.
    Diffusion(Box<DiffusionError>),
    /// Bytes that are no graph or plan.
    Portable(PortableError),
    /// Ways that could not be measured.
    Tune(TuneError),
    /// State that could not be saved or loaded.
    State(StateError),
    /// A network that could not be trained.
    Train(Box<TrainError>),
    /// A training that could not be kept, or not be gone on with.
    Checkpoint(Box<CheckpointError>),
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        Error::Load(Box::new(error))
    }
}

impl From<VisionError> for Error {
    fn from(error: VisionError) -> Error {
        Error::Vision(Box::new(error))
    }
}

impl From<SearchError> for Error {
    fn from(error: SearchError) -> Error {
        match error {
            SearchError::Load(error) => Error::Load(error),
            SearchError::Encode(error) => Error::Encode(error),
            SearchError::Vision(error) => Error::Vision(error),
            SearchError::Write(error) => Error::Artifact(error),
            error => Error::Search(Box::new(error)),
        }
    }
}

impl From<DiffusionError> for Error {
    fn from(error: DiffusionError) -> Error {
        Error::Diffusion(Box::new(error))
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::Build(e, true) => PyTypeError::new_err(e.to_string()),
            Error::Build(e, false) => PyValueError::new_err(e.to_string()),
            Error::Compile(e) => compile(&e),
            Error::Artifact(e) => artifact(&e),
            Error::Run(e) => run(&e),
            Error::Device(e) => device(&e),
            Error::Target(e) => PyValueError::new_err(e.to_string()),
            Error::Portable(PortableError::Build(e)) => Error::Build(e, false).into(),
            Error::Portable(e @ PortableError::Memory(_)) => PyMemoryError::new_err(e.to_string()),
            Error::Portable(e) => PyValueError::new_err(e.to_string()),
            Error::State(StateError::Run(e)) => run(&e),
            Error::State(e) => match e.io_kind() {
                Some(kind) => io::Error::new(kind, e.to_string()).into(),
                None => PyValueError::new_err(e.to_string()),
            },
            Error::Tune(TuneError::Run(e)) => run(&e),
            Error::Tune(TuneError::Cache(e)) => artifact(&e),
            Error::Tune(e) => PyRuntimeError::new_err(e.to_string()),
            Error::Grad(e @ GradError::NoRule { .. }) => PyNotImplementedError::new_err(e.to_string()),
            Error::Grad(e) => PyValueError::new_err(e.to_string()),
            Error::Train(e) => match *e {
                TrainError::Run(e) => run(&e),
                TrainError::Gradient(e) => Error::Grad(e).into(),
                TrainError::Diverged { .. } => PyRuntimeError::new_err(e.to_string()),
                e => PyValueError::new_err(e.to_string()),
            },
            Error::Checkpoint(e) => match *e {
                CheckpointError::File(e) => Error::State(e).into(),
                CheckpointError::Run(e) => run(&e),
                e => PyValueError::new_err(e.to_string()),
            },
            Error::Load(e) => load(&e),
            Error::Vision(e) => vision(&e),
            Error::Search(e) => match e.io_kind() {
                Some(kind) => io::Error::new(kind, e.to_string()).into(),
                None => PyValueError::new_err(e.to_string()),
            },
            Error::Diffusion(e) => diffusion(&e),
            Error::Encode(e) => match *e {
                EncodeError::Run(e) => run(&e),
                e => PyValueError::new_err(e.to_string()),
            },
        }
    }
}

fn artifact(error: &ArtifactError) -> PyErr {
    match error {
        ArtifactError::Program { fault, .. } if matches!(**fault, FileFault::Memory(_)) => {
            return PyMemoryError::new_err(error.to_string());
        }
        ArtifactError::Program { .. } | ArtifactError::NoPlan(_) => {
            return PyValueError::new_err(error.to_string());
        }
        _ => {}
    }
    io::Error::new(error.io_kind(), error.to_string()).into()
}

fn run(error: &RunError) -> PyErr {
    let message = error.to_string();
    match error {
        RunError::Compile(e) => compile(e),
        RunError::Device(e) => device(e),
        RunError::DType { .. } => PyTypeError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

fn load(error: &LoadError) -> PyErr {
    let message = error.to_string();
    match error {
        LoadError::Device(e) => device(e),
        LoadError::Target(_) => PyNotImplementedError::new_err(message),
        _ => match error.io_kind() {
            Some(kind) => io::Error::new(kind, message).into(),
            None => PyValueError::new_err(message),
        },
    }
}

fn vision(error: &VisionError) -> PyErr {
    let message = error.to_string();
    match error {
        VisionError::Load(e) => load(e),
        VisionError::Run(e) => run(e),
        VisionError::Target(_) => PyNotImplementedError::new_err(message),
        _ => match error.io_kind() {
            Some(kind) => io::Error::new(kind, message).into(),
            None => PyValueError::new_err(message),
        },
    }
}

fn diffusion(error: &DiffusionError) -> PyErr {
    let message = error.to_string();
    match error {
        DiffusionError::Tokenizer(e) => load(e),
        DiffusionError::Run(e) => run(e),
        DiffusionError::Target(_) => PyNotImplementedError::new_err(message),
        _ => match error.io_kind() {
            Some(kind) => io::Error::new(kind, message).into(),
            None => PyValueError::new_err(message),
        },
    }
}

fn compile(error: &CompileError) -> PyErr {
    let message = error.to_string();
    match error {
        CompileError::Pass(PassError::Build(_)) => PyValueError::new_err(message),
        CompileError::Pass(PassError::Legal(e)) => match e.fault {
            Fault::Graph => PyValueError::new_err(message),
            Fault::Target => PyNotImplementedError::new_err(message),
        },
        _ => PyRuntimeError::new_err(message),
    }
}

fn device(error: &DeviceError) -> PyErr {
    let message = error.to_string();
    match error {
        DeviceError::Unknown(_) => PyValueError::new_err(message),
        DeviceError::Memory { .. } => PyMemoryError::new_err(message),
        _ => PyRuntimeError::new_err(message),
    }
}

/// The exception for memory that is not there.
pub fn memory(bytes: usize) -> PyErr {
    PyMemoryError::new_err(format!("a copy of this takes {bytes} bytes of memory, which are not left"))
}

/// A better exception where `error` is about a value; what else was raised, as by a signal, passes.
pub fn instead(py: Python<'_>, error: PyErr, better: impl FnOnce() -> PyErr) -> PyErr {
    let about_a_value = error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py)
        || error.is_instance_of::<PyAttributeError>(py);
    if about_a_value { better() } else { error }
}

/// The exception for a panic, which is a bug of ours.
pub fn internal(panic: &(dyn Any + Send)) -> PyErr {
    let said = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    PyRuntimeError::new_err(format!(
        "internal error: {}; please report it, with what leads to it, at {}/issues",
        said.unwrap_or("a panic without a message"),
        env!("CARGO_PKG_REPOSITORY")
    ))
}

/// Runs `work`; a panic becomes an exception that asks for a report.
pub fn guarded<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| internal(&*panic))
}

/// A value, or the mistake in it. What no target takes is one, too.
pub fn checked(var: Var) -> Result<Var, Error> {
    let types: Option<Vec<TensorType>> = var.inputs().iter().map(|v| v.check().ok()).collect();
    if let Some(why) = types.and_then(|types| refused_by_all(var.op(), &types)) {
        let error = BuildError { op: var.op().name().into(), why, at: var.caller() };
        return Err(Error::Build(error, false));
    }
    match var.check() {
        Ok(_) => Ok(var),
        Err(e) => {
            let types: Vec<TensorType> = var.inputs().iter().filter_map(|v| v.check().ok()).collect();
            Err(Error::Build(e, is_dtype_mistake(var.op(), &types)))
        }
    }
}

/// A mistake is one of element types when the same shapes with other element types would have passed.
fn is_dtype_mistake(op: &Op, types: &[TensorType]) -> bool {
    [DType::F16, DType::Bool].into_iter().any(|first| {
        let retyped = |(i, ty): (usize, &TensorType)| TensorType {
            dtype: if i == 0 { first } else { DType::F16 },
            shape: ty.shape,
        };
        let retyped: Vec<TensorType> = types.iter().enumerate().map(retyped).collect();
        !retyped.is_empty() && op.infer(&retyped).is_ok()
    })
}
