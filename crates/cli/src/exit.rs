//! From errors to messages and exit codes.

use aneforge::artifact::ArtifactError;
use aneforge::import::mil::ReadError;
use aneforge::ir::text::TextError;
use aneforge::ir::var::BuildError;
use aneforge::target::UnknownTarget;
use aneforge::{CompileError, DeviceError, EncodeError, Kind, LoadError, RunError};
use aneforge_formats::{FileError, SafeTensorsError};
use aneforge_mil::BlobError;
use aneforge_tensor::npy::NpyError;
use std::error::Error;
use std::io;
use std::process::ExitCode;

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

/// Reports an error, if there is one, and gives the process its exit code.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let io = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    // Whoever read the output has seen enough.
    if io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", message(&error));
    ExitCode::from(code(kind(&error)))
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
        .or_else(|| of(error, TextError::kind))
        .or_else(|| of(error, ReadError::kind))
        .or_else(|| of(error, ArtifactError::kind))
        .or_else(|| of(error, CompileError::kind))
        .or_else(|| of(error, DeviceError::kind))
        .or_else(|| of(error, RunError::kind))
        .or_else(|| of(error, LoadError::kind))
        .or_else(|| of(error, EncodeError::kind))
        .or_else(|| of(error, |_: &BlobError| Kind::File))
        .or_else(|| of(error, |_: &NpyError| Kind::File))
        .or_else(|| of(error, |_: &FileError| Kind::File))
        .or_else(|| of(error, |_: &SafeTensorsError| Kind::File))
        .or_else(|| of(error, |_: &io::Error| Kind::File))
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
    fn causes_are_said_once() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let inner = ArtifactError { action: "write", path: "x".into(), source };
        let error = Err::<(), _>(inner).context("while saving").unwrap_err();
        assert_eq!(message(&error), "while saving: cannot write x: entity not found");
    }
}
