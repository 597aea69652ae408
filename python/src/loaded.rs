//! What encoders and rerankers share: loading again from the same files, and texts.

use crate::error::{Error, instead};
use crate::home::Home;
use crate::interrupt::interruptible;
use crate::memory::zeros;
use aneforge_models::encoder::{FileSum, Files};
use numpy::{PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Names, lengths and checksums of the files that a model was loaded from.
pub type Sums = Vec<(String, u64, u32)>;

/// A model, loaded now and again where it is missing, as in a forked process: always from the same files, which must hold
/// what these sums say.
pub fn loaded<T: Send + 'static, E: Into<Error>>(
    py: Python<'_>,
    sums: Option<Sums>,
    load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    files: fn(&T) -> &Files,
) -> PyResult<Arc<Home<T>>> {
    let sum = |(name, length, sum)| FileSum { name, length, sum };
    let sums: Option<Vec<FileSum>> = sums.map(|sums| sums.into_iter().map(sum).collect());
    let first = OnceLock::new();
    let make = move || {
        let loaded = load().map_err(Into::into)?;
        match first.get() {
            Some(first) => files(&loaded).same_as(first)?,
            None => sums.as_deref().map_or(Ok(()), |sums| files(&loaded).hold(sums))?,
        }
        first.get_or_init(|| files(&loaded).clone());
        Ok::<_, Error>(loaded)
    };
    Ok(Arc::new(interruptible(py, move |_| Home::new(make))??))
}

/// What pickle keeps of files.
pub fn sums_of(py: Python<'_>, files: &Files) -> PyResult<Sums> {
    let files = files.clone();
    let sums = interruptible(py, move |_| files.sums())?.map_err(|e| Error::Load(Box::new(e)))?;
    Ok(sums.into_iter().map(|file| (file.name, file.length, file.sum)).collect())
}

/// The name of a model, from the root where it is a folder's: that stays the same one when a copy is loaded after a change
/// of directory.
pub fn lasting(name: &str) -> String {
    let place = Path::new(name).exists().then(|| std::path::absolute(name).ok()).flatten();
    place.as_ref().and_then(|place| place.to_str()).unwrap_or(name).to_owned()
}

/// An array of a row for each vector.
pub fn matrix<'py>(
    py: Python<'py>,
    vectors: &[Vec<f32>],
    extents: [usize; 2],
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let rows = zeros::<f32>(py, &extents)?;
    let mut flat = rows.readwrite();
    let flat = flat.as_slice_mut().expect("invariant: new arrays are contiguous");
    flat.chunks_exact_mut(extents[1].max(1))
        .zip(vectors)
        .for_each(|(row, vector)| row.copy_from_slice(vector));
    rows.cast_into().map_err(PyErr::from)
}

/// The texts of a sequence, or the one that is given.
pub fn texts_of(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
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
