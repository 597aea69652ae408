//! `Encoder`: a pretrained sentence encoder.

use crate::compile::{arithmetic, chip, on};
use crate::error::Error;
use aneforge::models::encoder::{EncodeError, EncodeOptions, Encoder as Loaded, EncoderOptions, Pooling};
use aneforge::models::resolve::HubOptions;
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2};
use pyo3::exceptions::{PyNotImplementedError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyString;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// A pretrained sentence encoder: texts in, vectors out.
///
/// Programs are compiled per length, when a text first needs one. Calls from several threads take turns,
/// and other Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Encoder {
    loaded: Mutex<Loaded>,
    described: String,
    dim: usize,
    max_seq_length: usize,
    pooling: Pooling,
    target: &'static str,
    device: &'static str,
}

fn pooling(name: &str) -> PyResult<Pooling> {
    match name {
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
#[pyo3(signature = (name, int8, pooling, *, target = None, device = None, numerics = None, offline = false))]
pub fn load(
    py: Python<'_>,
    name: &str,
    int8: bool,
    pooling: Option<&str>,
    target: Option<&str>,
    device: Option<&str>,
    numerics: Option<&str>,
    offline: bool,
) -> PyResult<Encoder> {
    if int8 {
        return Err(PyNotImplementedError::new_err("load: int8 is not implemented yet; leave it out"));
    }
    let target = chip(target)?;
    let options = EncoderOptions {
        pooling: pooling.map(self::pooling).transpose()?,
        target,
        device: Some(on(device)?),
        numerics: numerics.map(|name| arithmetic(name, target)).transpose()?,
        hub: HubOptions { offline, ..HubOptions::default() },
        ..EncoderOptions::default()
    };
    let loaded = py.detach(|| Loaded::load(name, options)).map_err(|e| Error::Load(Box::new(e)))?;
    Ok(Encoder {
        described: format!("{loaded:?}"),
        dim: loaded.dim(),
        max_seq_length: loaded.max_seq_length(),
        pooling: loaded.pooling(),
        target: loaded.target().name(),
        device: loaded.device().name(),
        loaded: Mutex::new(loaded),
    })
}

fn texts(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(one) = given.cast::<PyString>() {
        return Ok(vec![one.extract()?]);
    }
    let refuse = |what: &Bound<'_, PyAny>| {
        let kind = what.get_type().name().map_or_else(|_| "something else".into(), |n| n.to_string());
        PyTypeError::new_err(format!("texts must be a str or a sequence of str, got {kind}"))
    };
    let each = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        item.cast::<PyString>().map_err(|_| refuse(&item))?.extract()
    };
    given.try_iter().map_err(|_| refuse(given))?.map(each).collect()
}

#[pymethods]
impl Encoder {
    #[pyo3(signature = (texts, normalize = true))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        normalize: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let texts = self::texts(texts)?;
        let mut guard = self.loaded.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let encoder = &mut *guard;
        let mut interrupted = None;
        let vectors = py.detach(|| {
            let mut signals = |_, _| match Python::attach(|py| py.check_signals()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    interrupted = Some(error);
                    ControlFlow::Break(())
                }
            };
            encoder.encode_with(&texts, EncodeOptions { normalize }, &mut signals)
        });
        drop(guard);
        let vectors = match (vectors, interrupted) {
            (Err(EncodeError::Stopped { .. }), Some(error)) => return Err(error),
            (vectors, _) => vectors.map_err(|e| Error::Encode(Box::new(e)))?,
        };
        let flat: Vec<f32> = vectors.concat();
        let rows = Array2::from_shape_vec((texts.len(), self.dim), flat);
        Ok(rows.expect("invariant: one vector per text").into_pyarray(py))
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
        match self.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Max => "max",
        }
    }

    /// The device it runs on: `host` or `ane`.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// The chip it is compiled for.
    #[getter]
    fn target(&self) -> &'static str {
        self.target
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}
