//! `SearchIndex`: folders of texts or pictures, looked through by meaning.

use crate::compile::{chip, on};
use crate::error::Error;
use crate::host::HostWords;
use crate::interrupt::interruptible;
use crate::memory::zeros;
use crate::text::Text;
use crate::vision::picture;
use aneforge::HostOptions;
use aneforge_kernels::threads::{stoppable, stopped};
use aneforge_models::resolve::HubOptions;
use aneforge_models::vision::Picture;
use aneforge_search::{Hit, Index, Kind, Model, ModelOptions, SearchError, Wanted, build};
use numpy::{PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// An index, and what makes vectors of what is looked for.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct SearchIndex {
    index: Arc<Index>,
    /// Loaded when something is first looked for, and again in a process that was forked from this one.
    model: Arc<Mutex<Option<(u32, Model)>>>,
    how: How,
    name: String,
}

/// How its model is loaded.
#[derive(Clone)]
struct How {
    target: String,
    device: String,
    host: HostWords,
    offline: bool,
}

impl How {
    fn options(&self) -> PyResult<ModelOptions> {
        let target = chip(Some(&self.target))?;
        Ok(ModelOptions {
            target,
            device: Some(self.host.device(Some(&self.device), target)?),
            hub: HubOptions { offline: self.offline, ..HubOptions::default() },
        })
    }
}

/// What was found: score, path, line and words.
type Found = (f32, PathBuf, u64, String);
/// Files, rows, new files, changed ones, those that are gone, and what was left out with why.
type Told = (usize, usize, usize, usize, usize, Vec<(PathBuf, String)>);

/// Opens an index.
#[pyfunction]
#[pyo3(signature = (path, model = None, target = None, device = None, host = None, offline = false))]
pub fn open_index(
    py: Python<'_>,
    path: PathBuf,
    model: Option<Text>,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
) -> PyResult<SearchIndex> {
    let how = how(target, device, host, offline)?;
    let index = interruptible(py, move |_| Index::open(&path))?.map_err(Error::from)?;
    let name = model.as_deref().map_or_else(|| index.about().model.clone(), str::to_owned);
    Ok(SearchIndex { index: Arc::new(index), model: Arc::new(Mutex::new(None)), how, name })
}

/// Makes an index, or brings one up to date.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (path, model, pictures, roots, endings, passage, update, target = None, device = None, host = None,
                    offline = false))]
pub fn build_index(
    py: Python<'_>,
    path: PathBuf,
    model: Text,
    pictures: bool,
    roots: Vec<PathBuf>,
    endings: Vec<String>,
    passage: usize,
    update: bool,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
) -> PyResult<Told> {
    let options = how(target, device, host, offline)?.options()?;
    let kind = if pictures { Kind::Pictures } else { Kind::Texts };
    let wanted = Wanted { model: model.to_owned(), kind, roots, endings, passage };
    let work = move || {
        let before = if update { Some(Index::open(&path)?) } else { None };
        let mut model = Model::open(&wanted.model, kind, options)?;
        let mut go_on = |_| match stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        build(&path, &mut model, &wanted, before.as_ref(), &mut go_on)
    };
    let report = interruptible(py, move |stop| stoppable(stop, work))?.map_err(Error::from)?;
    Ok((report.files, report.rows, report.added, report.changed, report.removed, report.skipped))
}

fn how(target: Option<Text>, device: Option<Text>, host: Option<HostWords>, offline: bool) -> PyResult<How> {
    Ok(How {
        target: chip(target.as_deref())?.name().to_owned(),
        device: on(device.as_deref(), &HostOptions::default())?.name().to_owned(),
        host: host.unwrap_or_default(),
        offline,
    })
}

/// What is looked for.
enum Question {
    Text(String),
    Picture(Picture),
}

#[pymethods]
impl SearchIndex {
    /// What is nearest to a text or to a picture.
    #[pyo3(signature = (text, given, top, quantized))]
    fn _search(
        &self,
        py: Python<'_>,
        text: Option<String>,
        given: Option<&Bound<'_, PyAny>>,
        top: usize,
        quantized: bool,
    ) -> PyResult<Vec<Found>> {
        let question = match given {
            Some(given) => Question::Picture(picture(given)?),
            None => Question::Text(text.unwrap_or_default()),
        };
        let (index, model, name) = (Arc::clone(&self.index), Arc::clone(&self.model), self.name.clone());
        let options = self.how.options()?;
        let hits = interruptible(py, move |_| {
            let (mut model, process) =
                (model.lock().unwrap_or_else(PoisonError::into_inner), std::process::id());
            let (_, model) = match &mut *model {
                Some(loaded) if loaded.0 == process => loaded,
                other => {
                    let opened = Model::open(&name, index.about().kind, options)?;
                    index.about().is_of(&opened)?;
                    // Threads that the model of another process had are not here, so it is not let go of.
                    if let Some(foreign) = other.replace((process, opened)) {
                        std::mem::forget(foreign);
                    }
                    other.as_mut().expect("invariant: just put there")
                }
            };
            let query = match &question {
                Question::Text(text) => model.text(text)?,
                Question::Picture(picture) => model.picture(picture)?,
            };
            let hits = if quantized { index.nearly(&query, top) } else { index.nearest(&query, top) }?;
            let found = |hit: Hit| {
                let words = index.words(&hit).unwrap_or_default();
                (hit.score, hit.path, hit.line, words)
            };
            Ok::<_, SearchError>(hits.into_iter().map(found).collect())
        })?;
        Ok(hits.map_err(Error::from)?)
    }

    /// The vectors, a row for each passage or picture.
    fn _vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let array = zeros::<f32>(py, &[self.index.rows(), self.index.dim()])?;
        let mut flat = array.readwrite();
        let flat = flat.as_slice_mut().expect("invariant: new arrays are contiguous");
        flat.iter_mut().zip(self.index.vectors()).for_each(|(to, from)| *to = from.to_f32());
        array.cast_into().map_err(PyErr::from)
    }

    /// The file.
    #[getter]
    fn path(&self) -> PathBuf {
        self.index.path().to_owned()
    }

    /// `texts` or `pictures`.
    #[getter]
    fn kind(&self) -> String {
        self.index.about().kind.to_string()
    }

    /// The directory or hub id of its model.
    #[getter]
    fn model(&self) -> &str {
        &self.name
    }

    /// Folders and files that were looked through.
    #[getter]
    fn roots(&self) -> Vec<PathBuf> {
        self.index.about().roots.clone()
    }

    /// Endings of the files that are taken from folders.
    #[getter]
    fn endings(&self) -> Vec<String> {
        self.index.about().endings.clone()
    }

    /// The most bytes of a passage.
    #[getter]
    fn passage(&self) -> usize {
        self.index.about().passage
    }

    /// How many files it has.
    #[getter]
    fn files(&self) -> usize {
        self.index.files().len()
    }

    /// What pickle keeps: where it is, and how its model is loaded.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let How { target, device, host, offline } = self.how.clone();
        let path = std::path::absolute(self.index.path())?;
        let arguments = (path, self.name.clone(), target, device, host, offline).into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("open_index")?, arguments))
    }

    fn __len__(&self) -> usize {
        self.index.rows()
    }
}
