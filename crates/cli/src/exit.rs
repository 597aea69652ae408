//! From errors to messages and exit codes.

use aneforge::artifact::{ArtifactError, StateError};
use aneforge::import::mil::ReadError;
use aneforge::ir::text::TextError;
use aneforge::ir::var::BuildError;
use aneforge::target::{UnknownNumerics, UnknownTarget};
use aneforge::train::{CheckpointError, TrainError};
use aneforge::{CompileError, DeviceError, Kind, RunError};
use aneforge_formats::{FileError, SafeTensorsError};
use aneforge_mil::BlobError;
use aneforge_models::diffusion::DiffusionError;
use aneforge_models::vision::{PictureError, VisionError};
use aneforge_models::{EncodeError, LoadError};
use aneforge_search::SearchError;
use aneforge_tensor::npy::NpyError;
use serde_json::json;
use std::error::Error;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// An error that this crate finds itself.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    kind: Kind,
    text: String,
}

/// The caller's mistake.
pub fn caller(text: impl Into<String>) -> anyhow::Error {
    Problem { kind: Kind::Caller, text: text.into() }.into()
}

/// A file's fault.
pub fn file(text: impl Into<String>) -> anyhow::Error {
    Problem { kind: Kind::File, text: text.into() }.into()
}

/// The device's fault.
pub fn device(text: impl Into<String>) -> anyhow::Error {
    Problem { kind: Kind::Device, text: text.into() }.into()
}

/// A command line that is wrong in a way that only the command sees.
pub fn misuse(text: impl std::fmt::Display) -> anyhow::Error {
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format!("{text}\n")).into()
}

/// What the last panic said, and where.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs a command; a panic becomes an error that asks for a report, and prints nothing.
pub fn guarded(run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string().replace('\n', " ");
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    drop(panic::take_hook());
    result.unwrap_or_else(|_| {
        let what = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        let text =
            format!("internal error: {what}; this is a bug in aneforge, please report it with its input");
        Err(Problem { kind: Kind::Internal, text }.into())
    })
}

/// Reports a command line that cannot be read, or prints the help it asks for.
pub fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !json || !error.use_stderr() {
        error.exit();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    say(&failure("usage", 2, text));
    ExitCode::from(2)
}

/// Reports an error, if there is one, and gives the process its exit code.
pub fn finish(result: anyhow::Result<()>, json: bool) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        return usage(error, json);
    }
    let io = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    // Whoever read the output has seen enough.
    if io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let (kind, message) = (kind(&error), message(&error));
    match json {
        true => say(&failure(&kind.to_string(), code(kind), &message)),
        false => say(&format!("error: {message}")),
    }
    ExitCode::from(code(kind))
}

/// An error for machines, on one line.
fn failure(kind: &str, code: u8, message: &str) -> String {
    json!({ "error": { "kind": kind, "code": code, "message": message } }).to_string()
}

/// Prints to standard error, if anyone listens.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The exit code of a kind of error.
fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Internal => 1,
        Kind::Caller | Kind::File => 3,
        Kind::Target => 4,
        Kind::Device => 5,
    }
}

/// The error and its causes; a cause that the text before it repeats is left out.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.ends_with(&cause) || said.contains(&format!("{cause};")) => text,
        said => format!("{said}: {cause}"),
    })
}

fn kind(error: &anyhow::Error) -> Kind {
    error.chain().find_map(known).unwrap_or(Kind::Internal)
}

fn known(error: &(dyn Error + 'static)) -> Option<Kind> {
    fn of<T: Error + 'static>(error: &(dyn Error + 'static), kind: impl Fn(&T) -> Kind) -> Option<Kind> {
        error.downcast_ref::<T>().map(kind)
    }
    of(error, |e: &Problem| e.kind)
        .or_else(|| of(error, BuildError::kind))
        .or_else(|| of(error, UnknownTarget::kind))
        .or_else(|| of(error, |_: &UnknownNumerics| Kind::Caller))
        .or_else(|| of(error, TextError::kind))
        .or_else(|| of(error, ReadError::kind))
        .or_else(|| of(error, ArtifactError::kind))
        .or_else(|| of(error, StateError::kind))
        .or_else(|| of(error, CompileError::kind))
        .or_else(|| of(error, DeviceError::kind))
        .or_else(|| of(error, RunError::kind))
        .or_else(|| of(error, of_training))
        .or_else(|| of(error, |_: &CheckpointError| Kind::File))
        .or_else(|| of(error, LoadError::kind))
        .or_else(|| of(error, EncodeError::kind))
        .or_else(|| of(error, VisionError::kind))
        .or_else(|| of(error, SearchError::kind))
        .or_else(|| of(error, DiffusionError::kind))
        .or_else(|| of(error, |_: &PictureError| Kind::File))
        .or_else(|| of_serving(error))
        .or_else(|| of(error, |_: &BlobError| Kind::File))
        .or_else(|| of(error, |_: &NpyError| Kind::File))
        .or_else(|| of(error, |_: &FileError| Kind::File))
        .or_else(|| of(error, |_: &SafeTensorsError| Kind::File))
        .or_else(|| of(error, |_: &io::Error| Kind::File))
}

#[cfg(feature = "serve")]
fn of_serving(error: &(dyn Error + 'static)) -> Option<Kind> {
    error.downcast_ref().map(aneforge_serve::ServeError::kind)
}

/// Nothing serves in this build.
#[cfg(not(feature = "serve"))]
fn of_serving(_: &(dyn Error + 'static)) -> Option<Kind> {
    None
}

/// Whose fault an error of a training is.
fn of_training(error: &TrainError) -> Kind {
    match error {
        TrainError::Build(error) => error.kind(),
        TrainError::Run(error) => error.kind(),
        _ => Kind::Caller,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn every_kind_has_its_code() {
        let of = |error: anyhow::Error| code(kind(&error));
        assert_eq!(of(caller("no")), 3);
        assert_eq!(of(file("no")), 3);
        assert_eq!(of(anyhow::Error::new(DeviceError::Unknown("x".into())).context("around")), 3);
        let why = String::new();
        assert_eq!(of(RunError::Device(DeviceError::Unavailable { device: "ane", why }).into()), 5);
        assert_eq!(of(CompileError::Emit("x".into()).into()), 1);
        assert_eq!(of(anyhow::anyhow!("nobody said")), 1);
    }

    #[test]
    fn a_panic_is_an_internal_error() {
        let error = guarded(|| panic!("index\n7")).unwrap_err();
        let text = message(&error);
        assert!(text.starts_with("internal error: panicked at crates/cli/src/exit.rs:"), "{text}");
        assert!(
            text.ends_with("index 7; this is a bug in aneforge, please report it with its input"),
            "{text}"
        );
        assert_eq!(code(kind(&error)), 1);
    }

    #[test]
    fn causes_are_said_once() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let inner = ArtifactError::Io { action: "write", path: "x".into(), source };
        let error = Err::<(), _>(inner).context("while saving").unwrap_err();
        assert_eq!(message(&error), "while saving: cannot write x: entity not found");
    }
}
