//! `Vision`: a pretrained network that looks at pictures.

use crate::compile::{chip, form, on};
use crate::error::Error;
use crate::home::Home;
use crate::host::HostWords;
use crate::loaded::{Sums, lasting, loaded, matrix, sums_of};
use crate::memory::zeros;
use crate::text::Text;
use aneforge::artifact::replace;
use aneforge::{DType, HostOptions};
use aneforge_kernels::threads::stoppable;
use aneforge_models::encoder::Files;
use aneforge_models::resolve::HubOptions;
use aneforge_models::vision::{Looks, Picture, Vision as Loaded, VisionError, VisionOptions};
use numpy::{Element, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::path::PathBuf;
use std::sync::Arc;

/// A pretrained network that looks at pictures.
///
/// Programs are compiled per number of pictures, when they are first needed. Calls from several threads take turns, and other
/// Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Vision {
    home: Arc<Home<Loaded>>,
    /// How it was loaded.
    recipe: Recipe,
    /// What it was loaded from.
    files: Files,
    described: String,
    network: String,
    labels: Vec<String>,
    /// Columns and rows of prepared pictures.
    size: (usize, usize),
    target: &'static str,
    device: &'static str,
}

/// What `load_vision` or `load_clip` was given, for a copy.
#[derive(Clone)]
pub struct Recipe {
    pub name: String,
    target: String,
    device: String,
    host: HostWords,
    offline: bool,
    compress: Form<String>,
}

/// A form of weights as Python gives it: its name, the largest relative error, and the length of blocks.
pub type Form<T> = Option<(T, f64, usize)>;
/// A recipe as pickle keeps it, with what the files hold.
type Kept = (String, String, String, HostWords, bool, Form<String>, Sums);

impl Recipe {
    pub fn new(
        name: &str,
        target: Option<&str>,
        device: Option<&str>,
        host: Option<HostWords>,
        offline: bool,
        compress: Form<Text>,
    ) -> PyResult<Recipe> {
        Ok(Recipe {
            name: lasting(name),
            target: chip(target)?.name().to_owned(),
            device: on(device, &HostOptions::default())?.name().to_owned(),
            host: host.unwrap_or_default(),
            offline,
            compress: compress.map(|(name, atol, block)| (name.to_owned(), atol, block)),
        })
    }

    /// How `function` loads a network by it.
    pub fn options(&self, function: &str) -> PyResult<VisionOptions> {
        let target = chip(Some(&self.target))?;
        let compression = self.compress.clone().map(|(name, atol, block)| form(function, &name, atol, block));
        Ok(VisionOptions {
            target,
            device: Some(self.host.device(Some(&self.device), target)?),
            compression: compression.transpose()?,
            hub: HubOptions { offline: self.offline, ..HubOptions::default() },
            ..VisionOptions::default()
        })
    }

    /// What pickle keeps: where it was loaded from, how, and what the files hold, by length and checksum.
    pub fn kept(&self, py: Python<'_>, files: &Files) -> PyResult<Kept> {
        let Recipe { name, target, device, host, offline, compress } = self.clone();
        Ok((name, target, device, host, offline, compress, sums_of(py, files)?))
    }

    /// The network, whose files must hold what these sums say.
    fn load(self, py: Python<'_>, sums: Option<Sums>) -> PyResult<Vision> {
        let options = self.options("load_vision")?;
        let name = self.name.clone();
        let home = loaded(py, sums, move || Loaded::load(&name, options.clone()), Loaded::files)?;
        let with = home.clone();
        with.with(py, |loaded| Vision {
            home,
            recipe: self,
            files: loaded.files().clone(),
            described: format!("{loaded:?}"),
            network: loaded.network().name(),
            labels: loaded.labels().to_vec(),
            size: loaded.size(),
            target: loaded.target().name(),
            device: loaded.device().title(),
        })
    }
}

/// Loads a network by a file of weights, a directory or a hub id.
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (name, target = None, device = None, host = None, offline = false, compress = None, sums = None))]
pub fn load_vision(
    py: Python<'_>,
    name: Text,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    offline: bool,
    compress: Form<Text>,
    sums: Option<Sums>,
) -> PyResult<Vision> {
    let recipe = Recipe::new(&name, target.as_deref(), device.as_deref(), host, offline, compress)?;
    recipe.load(py, sums)
}

/// A picture as Python gives it: the path of a file, its bytes, or red, green and blue of `[H, W, 3]`.
#[derive(FromPyObject)]
enum Given<'py> {
    Pixels(PyReadonlyArrayDyn<'py, u8>),
    File(Bound<'py, PyBytes>),
    Path(PathBuf),
}

impl Given<'_> {
    fn picture(&self) -> Result<Picture, VisionError> {
        Ok(match self {
            Given::Path(path) => Picture::open(path)?,
            Given::File(bytes) => Picture::decode("<bytes>", bytes.as_bytes())?,
            Given::Pixels(array) => {
                let array = array.as_array();
                let extents = array.shape();
                let (height, width) =
                    (extents.first().copied().unwrap_or(0), extents.get(1).copied().unwrap_or(0));
                let whole = extents.len() == 3 && extents[2] == 3;
                let rgb = if whole { array.iter().copied().collect() } else { Vec::new() };
                Picture::new(width, height, rgb)?
            }
        })
    }
}

/// Each picture of a list.
pub fn pictures(given: &Bound<'_, PyAny>) -> PyResult<Vec<Picture>> {
    let each = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        let given: Given<'_> = item.extract().map_err(|_: PyErr| {
            PyTypeError::new_err(
                "a picture must be a path, the bytes of a file, or an array of uint8 [H, W, 3]",
            )
        })?;
        given.picture().map_err(|e| PyErr::from(Error::from(e)))
    };
    given.try_iter()?.map(each).collect()
}

/// One picture.
pub fn picture(given: &Bound<'_, PyAny>) -> PyResult<Picture> {
    Ok(pictures(PyTuple::new(given.py(), [given])?.as_any())?.swap_remove(0))
}

/// An array of three axes.
fn volume<'py, T: Element + Copy>(
    py: Python<'py>,
    values: &[T],
    extents: [usize; 3],
) -> PyResult<Bound<'py, PyArray3<T>>> {
    let array = zeros::<T>(py, &extents)?;
    let mut flat = array.readwrite();
    flat.as_slice_mut().expect("invariant: new arrays are contiguous").copy_from_slice(values);
    drop(flat);
    array.cast_into().map_err(PyErr::from)
}

/// Where a network looks, as an array.
pub fn looks<'py>(py: Python<'py>, looks: &Looks) -> PyResult<Bound<'py, PyArray3<f32>>> {
    volume(py, looks.values(), [looks.heads(), looks.rows(), looks.columns()])
}

/// A picture as an array, written to a file as well if one is named.
pub fn drawn<'py>(
    py: Python<'py>,
    picture: &Picture,
    path: Option<PathBuf>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    if let Some(path) = path {
        replace(&path, |out| out.write_all(&picture.png())).map_err(Error::Artifact)?;
    }
    volume(py, picture.rgb(), [picture.height(), picture.width(), 3])
}

impl Vision {
    /// Calls the network without keeping other Python threads from running.
    fn apart<R: Send + 'static>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Loaded) -> Result<R, VisionError> + Send + 'static,
    ) -> PyResult<R> {
        let mut locked = self.home.lock(py)?;
        let made =
            self.home.apart(py, &mut locked, move |network, stop| stoppable(stop, || call(network)))?;
        Ok(made.map_err(Error::from)?)
    }
}

#[pymethods]
impl Vision {
    /// A row of logits for each picture of `[N, 3, H, W]`, which are normalised already; of features where it has no classes.
    fn _run<'py>(
        &self,
        py: Python<'py>,
        values: PyReadonlyArrayDyn<'py, f32>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let count = values.as_array().shape().first().copied().unwrap_or(0);
        let values: Vec<f32> = values.as_array().iter().copied().collect();
        let rows = self.apart(py, move |network| network.run_normalized(count, &values))?;
        let length = rows.first().map_or(0, Vec::len);
        matrix(py, &rows, [count, length])
    }

    /// The likeliest classes of each picture: number, name and probability.
    fn _classify(
        &self,
        py: Python<'_>,
        given: &Bound<'_, PyAny>,
        most: usize,
    ) -> PyResult<Vec<Vec<(usize, String, f32)>>> {
        let pictures = pictures(given)?;
        let ranked = self.apart(py, move |network| network.classify(&pictures, most))?;
        let row = |classes: Vec<aneforge_models::vision::Class>| {
            classes.into_iter().map(|class| (class.index, class.label, class.probability)).collect()
        };
        Ok(ranked.into_iter().map(row).collect())
    }

    /// A row of logits for each picture.
    fn _logits<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let pictures = pictures(given)?;
        let rows = self.apart(py, move |network| network.logits(&pictures))?;
        let extents = [rows.len(), rows.first().map_or(0, Vec::len)];
        matrix(py, &rows, extents)
    }

    /// A row of features for each picture.
    fn _features<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let pictures = pictures(given)?;
        let rows = self.apart(py, move |network| network.features(&pictures))?;
        let extents = [rows.len(), rows.first().map_or(0, Vec::len)];
        matrix(py, &rows, extents)
    }

    /// A picture as the network takes it, `[3, H, W]` in bytes, before it is normalised.
    fn _prepare<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let given = picture(given)?;
        let prepared = self.apart(py, move |network| Ok(given.prepared(network.processor())))?;
        volume(py, &prepared.planes(), [3, prepared.height(), prepared.width()])
    }

    /// How much each head looks at each part of a picture, `[heads, rows, columns]`.
    fn _looks<'py>(&self, py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let given = picture(given)?;
        looks(py, &self.apart(py, move |network| network.looks(&given))?)
    }

    /// The same in colours on the picture `[H, W, 3]`, which is also written to a file if one is named.
    fn _heat_map<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
        path: Option<PathBuf>,
    ) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let given = picture(given)?;
        drawn(py, &self.apart(py, move |network| network.heat_map(&given))?, path)
    }

    /// How many nodes the program for one picture has.
    #[getter]
    fn n_ops(&self, py: Python<'_>) -> PyResult<usize> {
        self.apart(py, |network| Ok(network.program(1, DType::U8)?.plan().n_ops))
    }

    /// Which network it is, such as `ResNet-18`.
    #[getter]
    fn network(&self) -> &str {
        &self.network
    }

    /// What the classes are called; empty where that is not known.
    #[getter]
    fn labels(&self) -> Vec<String> {
        self.labels.clone()
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

    /// A network of its own, loaded from the same files.
    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Vision> {
        self.files.unchanged().map_err(Error::from)?;
        self.recipe.clone().load(py, None)
    }

    /// What pickle keeps.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let arguments = self.recipe.kept(py, &self.files)?.into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("load_vision")?, arguments))
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}
