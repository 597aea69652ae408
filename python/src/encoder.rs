//! `Encoder`: a pretrained sentence encoder.

use crate::compile::{chip, form, on};
use crate::error::Error;
use crate::home::Home;
use crate::host::HostWords;
use crate::loaded::{Sums, lasting, loaded, matrix, sums_of, texts_of};
use crate::model::reported;
use crate::text::Text;
use aneforge::HostOptions;
use aneforge::passes::WeightReport;
use aneforge_kernels::threads::stoppable;
use aneforge_models::encoder::{Files, Long, Prompts};
use aneforge_models::resolve::HubOptions;
use aneforge_models::{EncodeOptions, Encoder as Loaded, EncoderOptions, Pooling};
use numpy::PyArray2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A pretrained sentence encoder: texts in, vectors out.
///
/// Programs are compiled per length, when a text first needs one. Calls from several threads take turns,
/// and other Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Encoder {
    home: Arc<Home<Loaded>>,
    /// How it was loaded.
    recipe: Recipe,
    /// What it was loaded from.
    files: Files,
    described: String,
    dim: usize,
    max_seq_length: usize,
    pooling: Pooling,
    prompts: Prompts,
    normalizes: bool,
    target: &'static str,
    device: &'static str,
    weights: Vec<WeightReport>,
}

/// What `load` was given, for a copy of the encoder.
#[derive(Clone)]
struct Recipe {
    name: String,
    pooling: Option<String>,
    target: String,
    device: String,
    host: HostWords,
    offline: bool,
    int8: bool,
    compress: Option<(String, f64, usize)>,
    calibrate: Vec<String>,
    max_seq_length: Option<usize>,
}

impl Recipe {
    /// The encoder, whose files must hold what these sums say.
    fn load(self, py: Python<'_>, sums: Option<Sums>) -> PyResult<Encoder> {
        let target = chip(Some(&self.target))?;
        let options = EncoderOptions {
            pooling: self.pooling.as_deref().map(self::pooling).transpose()?,
            target,
            device: Some(self.host.device(Some(&self.device), target)?),
            int8: self.int8,
            compression: self
                .compress
                .clone()
                .map(|(name, atol, block)| form("load", &name, atol, block))
                .transpose()?,
            calibrate: self.calibrate.clone(),
            max_seq_length: self.max_seq_length,
            hub: HubOptions { offline: self.offline, ..HubOptions::default() },
            ..EncoderOptions::default()
        };
        let name = self.name.clone();
        let load = move || Loaded::load(&name, options.clone());
        let home = loaded(py, sums, load, Loaded::files)?;
        let with = home.clone();
        with.with(py, |loaded| Encoder {
            home,
            recipe: self,
            files: loaded.files().clone(),
            described: format!("{loaded:?}"),
            dim: loaded.dim(),
            max_seq_length: loaded.max_seq_length(),
            pooling: loaded.pooling(),
            prompts: loaded.prompts().clone(),
            normalizes: loaded.normalizes(),
            target: loaded.target().name(),
            device: loaded.device().title(),
            weights: loaded.weights().to_vec(),
        })
    }
}

fn pooling(name: &str) -> PyResult<Pooling> {
    match name.trim().to_ascii_lowercase().as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "max" => Ok(Pooling::Max),
        _ => {
            Err(PyValueError::new_err(format!("load: pooling must be 'mean', 'cls' or 'max', got '{name}'")))
        }
    }
}

/// Loads a sentence encoder by its directory or hub id.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (name, int8, pooling, target = None, device = None, host = None, offline = false, sums = None, compress = None, calibrate = None, max_seq_length = None))]
pub fn load(
    py: Python<'_>,
    name: Text,
    int8: bool,
    pooling: Option<Text>,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
    sums: Option<Sums>,
    compress: Option<(Text, f64, usize)>,
    calibrate: Option<&Bound<'_, PyAny>>,
    max_seq_length: Option<usize>,
) -> PyResult<Encoder> {
    Recipe {
        name: lasting(&name),
        pooling: pooling.as_deref().map(str::to_owned),
        target: chip(target.as_deref())?.name().to_owned(),
        device: on(device.as_deref(), &HostOptions::default())?.name().to_owned(),
        host: host.unwrap_or_default(),
        offline,
        int8,
        compress: compress.map(|(name, atol, block)| (name.to_owned(), atol, block)),
        calibrate: calibrate.map(texts_of).transpose()?.unwrap_or_default(),
        max_seq_length,
    }
    .load(py, sums)
}

#[pymethods]
impl Encoder {
    /// What `__call__` does, which is in Python so that it has a page.
    #[pyo3(name = "_call")]
    fn called<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        normalize: bool,
        windows: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let texts = texts_of(texts)?;
        let long = if windows { Long::Windows } else { Long::Cut };
        let count = texts.len();
        let mut locked = self.home.lock(py)?;
        let vectors = self.home.apart(py, &mut locked, move |encoder, stop| {
            let flow = || {
                if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            stoppable(stop, || {
                encoder.encode_with(&texts, EncodeOptions { normalize, long }, &mut |_, _| flow())
            })
        })?;
        drop(locked);
        let vectors = vectors.map_err(|e| Error::Encode(Box::new(e)))?;
        matrix(py, &vectors, [count, self.dim])
    }

    /// Which texts would run together through which program, in words.
    fn _batches(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<String> {
        let texts = texts_of(texts)?;
        let mut locked = self.home.lock(py)?;
        let batches = self.home.apart(py, &mut locked, move |encoder, stop| {
            stoppable(stop, || encoder.batches(&texts).map(|batches| batches.to_string()))
        })?;
        batches.map_err(|e| Error::Encode(Box::new(e)).into())
    }

    /// The numbers of each text's tokens, with special ones, cut to `max_seq_length`.
    fn tokens(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u32>>> {
        let texts = texts_of(texts)?;
        let mut locked = self.home.lock(py)?;
        let tokens = self
            .home
            .apart(py, &mut locked, move |encoder, stop| stoppable(stop, || encoder.token_ids(&texts)))?;
        tokens.map_err(|e| Error::Encode(Box::new(e)).into())
    }

    /// What the model's files say of texts: what precedes those of each kind, the usual kind, how vectors are compared, and
    /// whether they end in a normalisation.
    fn _conventions(&self) -> (BTreeMap<String, String>, Option<String>, Option<String>, bool) {
        let Prompts { prompts, default, similarity } = self.prompts.clone();
        (prompts, default, similarity, self.normalizes)
    }

    /// The length of the vectors.
    #[getter]
    fn dim(&self) -> usize {
        self.dim
    }

    /// The most tokens of a text, special ones included; the rest is cut off.
    #[getter]
    fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// How token states become one vector: `mean`, `cls` or `max`.
    #[getter]
    fn pooling(&self) -> &'static str {
        self.pooling.name()
    }

    /// The device it runs on: `host`, `ane` or `ane (stand-in)`.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// How each weight of the layers is stored, as `Model.weight_report` says it; of those that `load` was told to
    /// `compress` or `calibrate`.
    fn weight_report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reported(py, &self.weights)
    }

    /// The chip it is compiled for.
    #[getter]
    fn target(&self) -> &'static str {
        self.target
    }

    /// An encoder of its own, loaded from the same files.
    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Encoder> {
        self.files.unchanged().map_err(|e| Error::Load(Box::new(e)))?;
        self.recipe.clone().load(py, None)
    }

    /// What pickle keeps: where it was loaded from, how, and what the files hold, by length and checksum.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let Recipe { name, pooling, target, device, host, offline, int8, .. } = self.recipe.clone();
        let Recipe { compress, calibrate, max_seq_length, .. } = self.recipe.clone();
        let sums = sums_of(py, &self.files)?;
        let given = (name, int8, pooling, target, device, host, offline, sums, compress, calibrate);
        let arguments = given.into_pyobject(py)?.add((max_seq_length,))?.cast_into::<PyTuple>()?;
        Ok((py.import("aneforge._native")?.getattr("load")?, arguments))
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}
