//! `CrossEncoder`: a pretrained reranker.

use crate::compile::{chip, on};
use crate::error::Error;
use crate::home::Home;
use crate::host::HostWords;
use crate::loaded::{Sums, lasting, loaded, matrix, sums_of, texts_of};
use crate::text::Text;
use aneforge::HostOptions;
use aneforge_kernels::threads::stoppable;
use aneforge_models::encoder::Files;
use aneforge_models::resolve::HubOptions;
use aneforge_models::{CrossEncoder as Loaded, CrossEncoderOptions};
use numpy::PyArray2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A pretrained reranker: pairs of texts in, scores out.
///
/// Programs are compiled per length and number of pairs, when pairs first need one. Calls from several threads take turns,
/// and other Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Reranker {
    home: Arc<Home<Loaded>>,
    /// How it was loaded.
    recipe: Recipe,
    /// What it was loaded from.
    files: Files,
    described: String,
    labels: usize,
    max_length: usize,
    target: &'static str,
    device: &'static str,
}

/// What `load_reranker` was given, for a copy.
#[derive(Clone)]
struct Recipe {
    name: String,
    int8: bool,
    max_length: Option<usize>,
    target: String,
    device: String,
    host: HostWords,
    offline: bool,
}

impl Recipe {
    /// The reranker, whose files must hold what these sums say.
    fn load(self, py: Python<'_>, sums: Option<Sums>) -> PyResult<Reranker> {
        let target = chip(Some(&self.target))?;
        let options = CrossEncoderOptions {
            max_length: self.max_length,
            target,
            device: Some(self.host.device(Some(&self.device), target)?),
            int8: self.int8,
            hub: HubOptions { offline: self.offline, ..HubOptions::default() },
            ..CrossEncoderOptions::default()
        };
        let name = self.name.clone();
        let home = loaded(py, sums, move || Loaded::load(&name, options.clone()), Loaded::files)?;
        let with = home.clone();
        with.with(py, |loaded| Reranker {
            home,
            recipe: self,
            files: loaded.files().clone(),
            described: format!("{loaded:?}"),
            labels: loaded.labels(),
            max_length: loaded.max_length(),
            target: loaded.target().name(),
            device: loaded.device().title(),
        })
    }
}

/// Loads a reranker by its directory or hub id.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (name, int8, max_length = None, target = None, device = None, host = None, offline = false, sums = None))]
pub fn load_reranker(
    py: Python<'_>,
    name: Text,
    int8: bool,
    max_length: Option<usize>,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
    sums: Option<Sums>,
) -> PyResult<Reranker> {
    Recipe {
        name: lasting(&name),
        int8,
        max_length,
        target: chip(target.as_deref())?.name().to_owned(),
        device: on(device.as_deref(), &HostOptions::default())?.name().to_owned(),
        host: host.unwrap_or_default(),
        offline,
    }
    .load(py, sums)
}

#[pymethods]
impl Reranker {
    /// The scores of each pair, a row of them with one for each label.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        first: &Bound<'py, PyAny>,
        second: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (first, second) = (texts_of(first)?, texts_of(second)?);
        let (count, others) = (first.len(), second.len());
        if count != others {
            return Err(PyValueError::new_err(format!(
                "{count} first texts of pairs, but {others} second ones"
            )));
        }
        let pairs: Vec<(String, String)> = first.into_iter().zip(second).collect();
        let mut locked = self.home.lock(py)?;
        let scores = self.home.apart(py, &mut locked, move |reranker, stop| {
            let flow = || {
                if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            stoppable(stop, || reranker.predict_with(&pairs, &mut |_, _| flow()))
        })?;
        drop(locked);
        matrix(py, &scores.map_err(|e| Error::Encode(Box::new(e)))?, [count, self.labels])
    }

    /// How many scores a pair gets.
    #[getter]
    fn labels(&self) -> usize {
        self.labels
    }

    /// The most tokens of a pair, special ones included.
    #[getter]
    fn max_length(&self) -> usize {
        self.max_length
    }

    /// The device it runs on: `host`, `ane` or `ane (stand-in)`.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// The chip it is compiled for.
    #[getter]
    fn target(&self) -> &'static str {
        self.target
    }

    /// A reranker of its own, loaded from the same files.
    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Reranker> {
        self.files.unchanged().map_err(|e| Error::Load(Box::new(e)))?;
        self.recipe.clone().load(py, None)
    }

    /// What pickle keeps: where it was loaded from, how, and what the files hold, by length and checksum.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let Recipe { name, int8, max_length, target, device, host, offline } = self.recipe.clone();
        let sums = sums_of(py, &self.files)?;
        let arguments = (name, int8, max_length, target, device, host, offline, sums).into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("load_reranker")?, arguments))
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}
