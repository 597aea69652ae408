//! `Diffusion`: a pretrained model that draws.

use crate::compile::{chip, form, norms};
use crate::error::Error;
use crate::home::Home;
use crate::host::HostWords;
use crate::interrupt::{Attaching, interruptible};
use crate::loaded::texts_of;
use crate::memory::zeros;
use crate::text::Text;
use aneforge::CompileOptions;
use aneforge_kernels::threads::{stoppable, stopped};
use aneforge_models::diffusion::{DiffusionError, DiffusionOptions, Draw, Pipeline, Sampler, Step};
use numpy::{Element, PyArray3, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// A pretrained model that draws.
///
/// Calls from several threads take turns, and other Python threads run meanwhile.
#[pyclass(frozen, weakref, module = "aneforge")]
pub struct Diffusion {
    home: Arc<Home<Pipeline>>,
    described: String,
    /// Channels of latents, and rows and columns that the model is trained with.
    latents: (usize, usize, usize),
    /// Rows and columns of the picture for each of the latents.
    factor: usize,
    target: &'static str,
    device: &'static str,
}

/// Loads a pipeline by its directory.
#[pyfunction]
#[pyo3(signature = (path, target = None, device = None, host = None, compress = None, norms = None))]
pub fn load_diffusion(
    py: Python<'_>,
    path: PathBuf,
    target: Option<Text>,
    device: Option<Text>,
    host: Option<HostWords>,
    compress: Option<(Text, f64, usize)>,
    norms: Option<Text>,
) -> PyResult<Diffusion> {
    let target = chip(target.as_deref())?;
    let compression = compress.map(|(name, atol, block)| form("load_diffusion", &name, atol, block));
    let compile = CompileOptions::target(target)
        .compression(compression.transpose()?)
        .norms(self::norms("load_diffusion", norms.as_deref())?);
    let options = DiffusionOptions {
        compile,
        device: Some(host.unwrap_or_default().device(device.as_deref(), target)?),
    };
    // That stays the same one when it is loaded again after a change of directory.
    let path = std::path::absolute(&path).unwrap_or(path);
    let make = move || Pipeline::load(&path, options.clone()).map_err(Error::from);
    let home = Arc::new(interruptible(py, move |_| Home::new(make))??);
    let with = home.clone();
    with.with(py, |loaded| {
        let (unet, factor) = (loaded.unet.config(), loaded.vae.config().factor());
        Diffusion {
            home,
            described: format!("{loaded:?}"),
            latents: (unet.channels, unet.sample, unet.sample),
            factor,
            target: loaded.target().name(),
            device: loaded.device().title(),
        }
    })
}

/// What `draw` is asked for.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    prompt: String,
    negative: String,
    steps: usize,
    guidance: f64,
    seed: u32,
    size: Option<(usize, usize)>,
    sampler: Option<String>,
    eta: f64,
}

impl Asked {
    fn draw(self) -> PyResult<Draw> {
        let Asked { prompt, negative, steps, guidance, seed, size, sampler, eta } = self;
        let named = |name: String| {
            Sampler::named(&name).ok_or_else(|| {
                let known = Sampler::ALL.map(Sampler::name).join("', '");
                PyValueError::new_err(format!("draw: sampler must be one of '{known}', got '{name}'"))
            })
        };
        let sampler = sampler.map(named).transpose()?;
        Ok(Draw { prompt, negative, steps, guidance, seed: seed.into(), size, sampler, eta })
    }
}

impl Diffusion {
    /// Calls the model without keeping other Python threads from running.
    fn apart<R: Send + 'static>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Pipeline) -> Result<R, DiffusionError> + Send + 'static,
    ) -> PyResult<R> {
        let mut locked = self.home.lock(py)?;
        let made = self.home.apart(py, &mut locked, move |loaded, stop| stoppable(stop, || call(loaded)))?;
        Ok(made.map_err(Error::from)?)
    }
}

/// The extents of an array of four axes; anything else has too few.
fn four(dims: &[usize]) -> [usize; 4] {
    std::array::from_fn(|axis| if dims.len() == 4 { dims[axis] } else { 0 })
}

fn array<'py, T: Element + Copy>(
    py: Python<'py>,
    values: &[T],
    dims: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = zeros::<T>(py, dims)?;
    let mut flat = array.readwrite();
    flat.as_slice_mut().expect("invariant: new arrays are contiguous").copy_from_slice(values);
    drop(flat);
    Ok(array)
}

#[pymethods]
impl Diffusion {
    /// What the U-Net makes of latents `[N, C, H, W]` at a time with states of texts `[N, tokens, D]`.
    fn _unet<'py>(
        &self,
        py: Python<'py>,
        latents: PyReadonlyArrayDyn<'py, f32>,
        time: f64,
        states: PyReadonlyArrayDyn<'py, f32>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let dims = four(latents.as_array().shape());
        let latents: Vec<f32> = latents.as_array().iter().copied().collect();
        let states: Vec<f32> = states.as_array().iter().copied().collect();
        let made = self.apart(py, move |loaded| {
            loaded.unet.run(&Step { latents: &latents, dims, time, states: &states })
        })?;
        array(py, &made, &dims)
    }

    /// Pictures `[N, 3, H, W]`, from -1 to 1, of latents `[N, C, h, w]`.
    fn _vae<'py>(
        &self,
        py: Python<'py>,
        latents: PyReadonlyArrayDyn<'py, f32>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let dims = four(latents.as_array().shape());
        let latents: Vec<f32> = latents.as_array().iter().copied().collect();
        let made = self.apart(py, move |loaded| loaded.vae.run(&latents, dims))?;
        array(py, &made, &[dims[0], 3, dims[2] * self.factor, dims[3] * self.factor])
    }

    /// States of texts, `[N, tokens, D]`.
    fn _text<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let texts = texts_of(texts)?;
        let (states, dims) = self.apart(py, move |loaded| {
            let config = loaded.text.config();
            let dims = [texts.len(), config.positions, config.width];
            Ok((loaded.text.run(&texts)?, dims))
        })?;
        array(py, &states, &dims)
    }

    /// A picture `[H, W, 3]`. `progress` is called with how many steps of how many are done.
    fn _draw<'py>(
        &self,
        py: Python<'py>,
        asked: Asked,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let draw = asked.draw()?;
        let attaching = progress.is_some().then(Attaching::new);
        let drawn = self.apart(py, move |loaded| {
            let _attaching = attaching;
            let mut raised = None;
            let drawn = loaded.draw(&draw, &mut |done, total| {
                let told = progress.as_ref().map_or(Ok(()), |progress| {
                    Python::attach(|py| progress.call1(py, (done, total)).map(drop))
                });
                raised = told.err();
                if stopped() || raised.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            Ok(match raised {
                Some(error) => Err(error),
                None => Ok(drawn?.picture),
            })
        })?;
        let picture = drawn?;
        let made = array(py, picture.rgb(), &[picture.height(), picture.width(), 3])?;
        made.cast_into().map_err(PyErr::from)
    }

    /// Channels of latents, and rows and columns that the model is trained with.
    #[getter]
    fn latents(&self) -> (usize, usize, usize) {
        self.latents
    }

    /// Rows and columns of the picture for each of the latents.
    #[getter]
    fn factor(&self) -> usize {
        self.factor
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

    fn __repr__(&self) -> &str {
        &self.described
    }
}
