//! `Encoder`: a pretrained sentence encoder.

use crate::compile::{chip, form, on};
use crate::error::{Error, instead};
use crate::home::Home;
use crate::host::HostWords;
use crate::interrupt::interruptible;
use crate::memory::zeros;
use crate::model::reported;
use crate::text::Text;
use aneforge::HostOptions;
use aneforge::passes::WeightReport;
use aneforge_kernels::threads::stoppable;
use aneforge_models::encoder::{FileSum, Files};
use aneforge_models::resolve::HubOptions;
use aneforge_models::{EncodeOptions, Encoder as Loaded, EncoderOptions, LoadError, Pooling};
use numpy::{PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

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
}

/// Names, lengths and checksums of the files that an encoder was loaded from.
type Sums = Vec<(String, u64, u32)>;

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
            hub: HubOptions { offline: self.offline, ..HubOptions::default() },
            ..EncoderOptions::default()
        };
        let name = self.name.clone();
        let sum = |(name, length, sum)| FileSum { name, length, sum };
        let sums: Option<Vec<FileSum>> = sums.map(|sums| sums.into_iter().map(sum).collect());
        let first = OnceLock::new();
        // Where it is loaded again, as in a forked process, it is from the same files.
        let make = move || {
            let loaded = Loaded::load(&name, options.clone())?;
            match first.get() {
                Some(first) => loaded.files().same_as(first)?,
                None => sums.as_deref().map_or(Ok(()), |sums| loaded.files().hold(sums))?,
            }
            first.get_or_init(|| loaded.files().clone());
            Ok::<_, LoadError>(loaded)
        };
        let make = move || make().map_err(|e| Error::Load(Box::new(e)));
        let home = Arc::new(interruptible(py, move |_| Home::new(make))??);
        let with = home.clone();
        with.with(py, |loaded| Encoder {
            home,
            recipe: self,
            files: loaded.files().clone(),
            described: format!("{loaded:?}"),
            dim: loaded.dim(),
            max_seq_length: loaded.max_seq_length(),
            pooling: loaded.pooling(),
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
#[pyo3(signature = (name, int8, pooling, target = None, device = None, host = None, offline = false, sums = None, compress = None, calibrate = None))]
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
) -> PyResult<Encoder> {
    // A folder stays the same one when a copy is loaded after a change of directory.
    let place = Path::new(&*name).exists().then(|| std::path::absolute(&*name).ok()).flatten();
    let name = place.as_ref().and_then(|place| place.to_str()).unwrap_or(&name);
    Recipe {
        name: name.to_owned(),
        pooling: pooling.as_deref().map(str::to_owned),
        target: chip(target.as_deref())?.name().to_owned(),
        device: on(device.as_deref(), &HostOptions::default())?.name().to_owned(),
        host: host.unwrap_or_default(),
        offline,
        int8,
        compress: compress.map(|(name, atol, block)| (name.to_owned(), atol, block)),
        calibrate: calibrate.map(texts).transpose()?.unwrap_or_default(),
    }
    .load(py, sums)
}

fn texts(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(one) = given.cast::<PyString>() {
        return Ok(vec![characters(0, one)?]);
    }
    let refuse = |what: &Bound<'_, PyAny>| match what.get_type().name().and_then(|n| n.extract::<String>()) {
        Ok(kind) => PyTypeError::new_err(format!("texts must be a str or a sequence of str, got {kind}")),
        Err(e) => e,
    };
    let each = |(index, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        let item = item?;
        characters(index, item.cast::<PyString>().map_err(|_| refuse(&item))?)
    };
    given.try_iter().map_err(|e| instead(given.py(), e, || refuse(given)))?.enumerate().map(each).collect()
}

/// A text that has characters only.
fn characters(index: usize, text: &Bound<'_, PyString>) -> PyResult<String> {
    let lone = || {
        PyValueError::new_err(format!(
            "text {index} has a lone surrogate, which is no character; replace it, as \
             text.encode(errors=\"replace\").decode() does"
        ))
    };
    text.to_str().map(str::to_owned).map_err(|e| instead(text.py(), e, lone))
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
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let texts = self::texts(texts)?;
        let count = texts.len();
        let mut locked = self.home.lock(py)?;
        let vectors = self.home.apart(py, &mut locked, move |encoder, stop| {
            let flow = || {
                if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            stoppable(stop, || encoder.encode_with(&texts, EncodeOptions { normalize }, &mut |_, _| flow()))
        })?;
        drop(locked);
        let vectors = vectors.map_err(|e| Error::Encode(Box::new(e)))?;
        let rows = zeros::<f32>(py, &[count, self.dim])?;
        let mut flat = rows.readwrite();
        let flat = flat.as_slice_mut().expect("invariant: new arrays are contiguous");
        flat.chunks_exact_mut(self.dim).zip(&vectors).for_each(|(row, vector)| row.copy_from_slice(vector));
        rows.cast_into().map_err(PyErr::from)
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
        let Recipe { name, pooling, target, device, host, offline, int8, compress, calibrate } =
            self.recipe.clone();
        let files = self.files.clone();
        let sums = interruptible(py, move |_| files.sums())?.map_err(|e| Error::Load(Box::new(e)))?;
        let sums: Sums = sums.into_iter().map(|file| (file.name, file.length, file.sum)).collect();
        let given = (name, int8, pooling, target, device, host, offline, sums, compress, calibrate);
        let arguments = given.into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("load")?, arguments))
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}
