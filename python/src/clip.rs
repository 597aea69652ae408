//! `Clip`: pictures and texts as vectors of one space.

use crate::error::Error;
use crate::home::Home;
use crate::host::HostWords;
use crate::loaded::{Sums, loaded, matrix, texts_of};
use crate::text::Text;
use crate::vision::{Form, Recipe, drawn, looks, picture, pictures};
use aneforge::DType;
use aneforge_kernels::threads::stoppable;
use aneforge_models::encoder::Files;
use aneforge_models::vision::{Clip as Loaded, VisionError};
use numpy::{PyArray2, PyArray3, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::path::PathBuf;
use std::sync::Arc;

/// A pretrained model that compares pictures with texts.
///
/// Calls from several threads take turns, and other Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Clip {
    home: Arc<Home<Loaded>>,
    /// How it was loaded.
    recipe: Recipe,
    /// What it was loaded from.
    files: Files,
    network: String,
    scale: (f32, f32),
    /// Columns and rows of prepared pictures.
    size: (usize, usize),
    target: &'static str,
    device: &'static str,
}

/// Loads a model by a directory or a hub id; its files must hold what these sums say.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (name, target = None, device = None, host = None, offline = false, compress = None, sums = None))]
pub fn load_clip(
    py: Python<'_>,
    name: Text,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
    compress: Form<Text>,
    sums: Option<Sums>,
) -> PyResult<Clip> {
    let recipe = Recipe::new(&name, target.as_deref(), device.as_deref(), host, offline, compress)?;
    load(py, recipe, sums)
}

fn load(py: Python<'_>, recipe: Recipe, sums: Option<Sums>) -> PyResult<Clip> {
    let (name, options) = (recipe.name.clone(), recipe.options("load_clip")?);
    let home = loaded(py, sums, move || Loaded::load(&name, options.clone()), |clip| clip.vision().files())?;
    let with = home.clone();
    with.with(py, |loaded| Clip {
        home,
        recipe,
        files: loaded.vision().files().clone(),
        network: loaded.vision().network().name(),
        scale: loaded.scale(),
        size: loaded.vision().size(),
        target: loaded.vision().target().name(),
        device: loaded.vision().device().title(),
    })
}

impl Clip {
    /// Calls the model without keeping other Python threads from running.
    fn apart<R: Send + 'static>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Loaded) -> Result<R, VisionError> + Send + 'static,
    ) -> PyResult<R> {
        let mut locked = self.home.lock(py)?;
        let made = self.home.apart(py, &mut locked, move |clip, stop| stoppable(stop, || call(clip)))?;
        Ok(made.map_err(Error::from)?)
    }

    fn vectors<'py>(
        &self,
        py: Python<'py>,
        call: impl FnOnce(&mut Loaded) -> Result<Vec<Vec<f32>>, VisionError> + Send + 'static,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let rows = self.apart(py, call)?;
        let extents = [rows.len(), rows.first().map_or(0, Vec::len)];
        matrix(py, &rows, extents)
    }
}

/// Classes with their names and probabilities.
type Rows = Vec<Vec<(String, f32)>>;

#[pymethods]
impl Clip {
    /// A vector for each picture.
    fn _pictures<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let pictures = pictures(given)?;
        self.vectors(py, move |clip| clip.pictures(&pictures))
    }

    /// A vector for each picture of `[N, 3, H, W]`, which are normalised already.
    fn _run<'py>(
        &self,
        py: Python<'py>,
        values: PyReadonlyArrayDyn<'py, f32>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let count = values.as_array().shape().first().copied().unwrap_or(0);
        let values: Vec<f32> = values.as_array().iter().copied().collect();
        self.vectors(py, move |clip| clip.vision_mut().run_normalized(count, &values))
    }

    /// A vector for each text.
    fn _texts<'py>(&self, py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let texts = texts_of(given)?;
        self.vectors(py, move |clip| clip.texts(&texts))
    }

    /// How well each label goes with each vector of a picture, the best first.
    fn _judge(
        &self,
        py: Python<'_>,
        vectors: PyReadonlyArrayDyn<'_, f32>,
        labels: &Bound<'_, PyAny>,
    ) -> PyResult<Rows> {
        let labels = texts_of(labels)?;
        let rows: Vec<Vec<f32>> =
            vectors.as_array().rows().into_iter().map(|row| row.iter().copied().collect()).collect();
        let judged = self.apart(py, move |clip| clip.judged(&rows, &labels))?;
        let row = |classes: Vec<aneforge_models::vision::Class>| {
            classes.into_iter().map(|class| (class.label, class.probability)).collect()
        };
        Ok(judged.into_iter().map(row).collect())
    }

    /// How much each head looks at each part of a picture, `[heads, rows, columns]`.
    fn _looks<'py>(&self, py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let given = picture(given)?;
        looks(py, &self.apart(py, move |clip| clip.vision_mut().looks(&given))?)
    }

    /// The same in colours on the picture `[H, W, 3]`, which is also written to a file if one is named.
    fn _heat_map<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
        path: Option<PathBuf>,
    ) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let given = picture(given)?;
        drawn(py, &self.apart(py, move |clip| clip.vision_mut().heat_map(&given))?, path)
    }

    /// How many nodes the program for one picture has.
    #[getter]
    fn n_ops(&self, py: Python<'_>) -> PyResult<usize> {
        self.apart(py, |clip| Ok(clip.vision_mut().program(1, DType::U8)?.plan().n_ops))
    }

    /// Which model it is, such as `CLIP-12x768/32`.
    #[getter]
    fn network(&self) -> &str {
        &self.network
    }

    /// What cosines are multiplied with, and what is added to them.
    #[getter]
    fn scale(&self) -> (f32, f32) {
        self.scale
    }

    /// The shape of what it takes for one picture, `(3, H, W)`.
    #[getter]
    fn input_shape(&self) -> (usize, usize, usize) {
        (3, self.size.1, self.size.0)
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

    /// A model of its own, loaded from the same files.
    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Clip> {
        self.files.unchanged().map_err(Error::from)?;
        load(py, self.recipe.clone(), None)
    }

    /// What pickle keeps.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let arguments = self.recipe.kept(py, &self.files)?.into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("load_clip")?, arguments))
    }
}
