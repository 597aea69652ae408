//! How the host computes, in Python's words.

use crate::compile::{arithmetic, chip, on};
use crate::error::Error;
use aneforge::device::host::{Isa, MAX_THREADS, Sums, instruction_sets, name_of};
use aneforge::{Device, DeviceError, HostOptions, Target, device};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// What is asked of the host, as `_env.host` gathers it; nothing means the default.
#[derive(Clone, Debug, Default, FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
pub struct HostWords {
    numerics: Option<String>,
    sums: Option<String>,
    isa: Option<String>,
    threads: Option<i64>,
}

impl HostWords {
    /// The options that these words mean for a program of this target.
    pub fn options(&self, target: Target) -> PyResult<HostOptions> {
        let numerics = self.numerics.as_deref().map(|name| arithmetic(name, target)).transpose()?;
        let isa = self.isa.as_deref().map(instruction_set).transpose()?;
        Ok(HostOptions::default()
            .numerics(numerics)
            .sums(order(self.sums.as_deref())?)
            .isa(isa)
            .threads(self.threads.map(count).transpose()?))
    }

    /// The device of this name, or the default; the host as these words say.
    pub fn device(&self, name: Option<&str>, target: Target) -> PyResult<Arc<dyn Device>> {
        on(name, &self.options(target)?)
    }

    /// The words for these options.
    pub fn of(options: &HostOptions) -> HostWords {
        let HostOptions { numerics, sums, isa, threads, .. } = *options;
        HostWords {
            numerics: numerics.map(|numerics| numerics.name().into()),
            sums: Some(if sums == Sums::Fast { "fast" } else { "defined" }.into()),
            isa: isa.map(name_of),
            threads: threads.map(|threads| threads as i64),
        }
    }
}

/// What `repr` says of options that are not the default.
pub fn told(options: &HostOptions) -> String {
    let isa = options.isa.map(|isa| format!(", {} kernels", name_of(isa)));
    let sums = (options.sums == Sums::Defined).then(|| ", defined sums".into());
    let threads =
        options.threads.map(|threads| format!(", {threads} thread{}", if threads == 1 { "" } else { "s" }));
    let numerics = options.numerics.map(|numerics| format!(", numerics {numerics}"));
    [numerics, isa, sums, threads].into_iter().flatten().collect()
}

/// A number of threads that an engine may have.
pub fn count(threads: i64) -> PyResult<usize> {
    let count = usize::try_from(threads).ok().filter(|count| (1..=MAX_THREADS).contains(count));
    let wrong = || PyValueError::new_err(format!("threads must be from 1 to {MAX_THREADS}, got {threads}"));
    count.ok_or_else(wrong)
}

fn instruction_set(name: &str) -> PyResult<Isa> {
    Isa::named(name).ok_or_else(|| {
        let there = instruction_sets().join("', '");
        PyValueError::new_err(format!(
            "isa must name an instruction set, here one of '{there}', got '{name}'"
        ))
    })
}

fn order(name: Option<&str>) -> PyResult<Sums> {
    let Some(name) = name else { return Ok(Sums::default()) };
    match name.trim().to_ascii_lowercase().as_str() {
        "defined" => Ok(Sums::Defined),
        "fast" => Ok(Sums::Fast),
        _ => Err(PyValueError::new_err(format!("sums must be 'defined' or 'fast', got '{name}'"))),
    }
}

/// An error for a word that `target`, `device`, `numerics`, `sums` or `isa` does not take.
#[pyfunction]
pub fn check_word(option: &str, word: &str) -> PyResult<()> {
    match option {
        "target" => chip(Some(word)).map(drop),
        "numerics" => arithmetic(word, Target::default()).map(drop),
        "sums" => order(Some(word)).map(drop),
        "isa" => instruction_set(word).map(drop),
        _ => match device::named(word) {
            Err(error @ DeviceError::Unknown(_)) => Err(Error::Device(error).into()),
            _ => Ok(()),
        },
    }
}
