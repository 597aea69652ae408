//! Networks in training.

use crate::apply::{Returned, outputs, refused};
use crate::caller::here;
use crate::compile::{alone, chip, on};
use crate::error::{Error, guarded};
use crate::feed::Ready;
use crate::grad::{Loss, Noise};
use crate::host::HostWords;
use crate::interrupt::{Attaching, interruptible};
use crate::memory::zeros;
use crate::model::Model;
use crate::running::Running;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::ir::op::Op;
use aneforge::ir::ops::leaf::Role;
use aneforge::nn::{Noise as Source, Parameter, Scope};
use aneforge::optim::{Optimizer, Rule, Schedule, Weights};
use aneforge::train::{Checkpoint, Options, Report, Scaling, Trainer};
use aneforge::{CompileOptions, Device, Feed, Graph, HostOptions, TensorType, Var, compile_graph, f16};
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Steps that take longer are waited for on another thread, so that Ctrl-C ends them.
const SHORT: Duration = Duration::from_millis(20);

/// The value of a keyword.
fn word<'py, T: FromPyObjectOwned<'py>>(words: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>> {
    let Some(value) = words.get_item(name)?.filter(|value| !value.is_none()) else { return Ok(None) };
    value.extract().map(Some).map_err(|_| PyTypeError::new_err(format!("{name} has the wrong type: {value}")))
}

/// The optimizer that words describe.
fn optimizer(words: &Bound<'_, PyDict>) -> PyResult<Optimizer> {
    let name = word::<String>(words, "optimizer")?.unwrap_or_else(|| "sgd".into());
    let betas = word::<(f64, f64)>(words, "betas")?;
    let eps = word(words, "eps")?.unwrap_or(1e-8);
    let momentum = word(words, "momentum")?;
    let moving = matches!(name.as_str(), "sgd" | "momentum" | "nesterov");
    for (what, given, takes) in
        [("momentum", momentum.is_some(), moving), ("betas", betas.is_some(), !moving)]
    {
        if given && !takes {
            return Err(refused("Trainer", &format!("{name} takes no {what}; leave it out")));
        }
    }
    let adam = |(beta1, beta2)| Rule::Adam { beta1, beta2, eps };
    let (rule, coupled) = match name.as_str() {
        "sgd" => (Rule::Sgd { momentum: momentum.unwrap_or(0.0), nesterov: false }, true),
        "momentum" => (Rule::Sgd { momentum: momentum.unwrap_or(0.9), nesterov: false }, true),
        "nesterov" => (Rule::Sgd { momentum: momentum.unwrap_or(0.9), nesterov: true }, true),
        "adam" => (adam(betas.unwrap_or((0.9, 0.999))), true),
        "adamw" => (adam(betas.unwrap_or((0.9, 0.999))), false),
        "lion" => {
            let (beta1, beta2) = betas.unwrap_or((0.9, 0.99));
            (Rule::Lion { beta1, beta2 }, false)
        }
        other => {
            return Err(refused(
                "Trainer",
                &format!("optimizer must be sgd, momentum, nesterov, adam, adamw or lion, got {other}"),
            ));
        }
    };
    let default = if matches!(name.as_str(), "adamw" | "lion") { 0.01 } else { 0.0 };
    Ok(Optimizer { rule, weight_decay: word(words, "weight_decay")?.unwrap_or(default), coupled })
}

/// `(kind, warmup or every, total, least or factor)`.
fn schedule(words: &Bound<'_, PyDict>) -> PyResult<Schedule> {
    let Some((kind, steps, total, part)) = word::<(String, u64, u64, f64)>(words, "schedule")? else {
        return Ok(Schedule::Constant);
    };
    match kind.as_str() {
        "steps" => Ok(Schedule::Steps { every: steps, factor: part }),
        "linear" => Ok(Schedule::Linear { warmup: steps, total, least: part }),
        "cosine" => Ok(Schedule::Cosine { warmup: steps, total, least: part }),
        other => Err(refused("Trainer", &format!("schedule must be of af.train, got {other}"))),
    }
}

fn options(words: &Bound<'_, PyDict>, compile: CompileOptions) -> PyResult<Options> {
    let kept = word::<String>(words, "weights")?.unwrap_or_else(|| "paired".into());
    let Some((_, weights)) = Weights::NAMES.iter().find(|(name, _)| *name == kept) else {
        return Err(refused("Trainer", &format!("weights must be half, paired or masters, got {kept}")));
    };
    let scale = word(words, "loss_scale")?;
    let scaling = match word::<u32>(words, "patience")? {
        Some(patience) => Scaling::Dynamic { initial: scale.unwrap_or(1024.0), patience },
        None => Scaling::Fixed(scale.unwrap_or(1.0)),
    };
    Ok(Options {
        schedule: schedule(words)?,
        scaling,
        clip: word(words, "clip")?,
        weights: *weights,
        average: word(words, "average")?,
        accumulate: word(words, "accumulate")?.unwrap_or(1),
        split: word(words, "split")?.unwrap_or(false),
        compile,
        ..Options::new(optimizer(words)?, word(words, "lr")?.unwrap_or(1e-3))
    })
}

/// A network in training on a device: what `af.Trainer` and `af.Training` are made of.
#[pyclass(frozen, module = "aneforge._native")]
pub struct Training {
    trainer: Arc<Mutex<Trainer>>,
    device: Arc<dyn Device>,
    host: HostOptions,
    compile: CompileOptions,
    /// What the last step took, in nanoseconds; at first, long.
    last: AtomicU64,
}

impl Training {
    fn locked(&self) -> MutexGuard<'_, Trainer> {
        self.trainer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was given for an input, copied.
struct Given {
    var: Var,
    values: aneforge::Tensor,
}

/// A tensor that was copied from an array, as a session takes it.
fn whole(values: &aneforge::Tensor) -> Feed<'_> {
    let found = None
        .or_else(|| values.as_slice().map(Feed::F32))
        .or_else(|| values.as_slice().map(Feed::F16))
        .or_else(|| values.as_slice().map(Feed::F64))
        .or_else(|| values.as_slice().map(Feed::U8));
    found.expect("invariant: arrays are copied in these types")
}

/// Arrays by their leaves, as a step takes them: where they lie, or copied for another thread.
fn ready<'py>(batch: &[(Bound<'py, Tensor>, Bound<'py, PyAny>)]) -> PyResult<Vec<(Var, Ready<'py>)>> {
    let one = |(at, (leaf, array)): (usize, &(Bound<'py, Tensor>, Bound<'py, PyAny>))| {
        let var = leaf.get().var.clone();
        let ready = Ready::new(at, var.ty(), array)?;
        if ready.shape() != var.shape().dims() {
            let (want, got) = (var.shape(), ready.shape().to_vec());
            return Err(PyValueError::new_err(format!(
                "the batch: an input of shape {want} got an array of shape {got:?}; programs have fixed shapes, so fill the \
                 last batch, or leave it out"
            )));
        }
        Ok((var, ready))
    };
    batch.iter().enumerate().map(one).collect()
}

/// A report as Python has it.
fn told<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("updates", report.updates)?;
    dict.set_item("loss", report.loss)?;
    dict.set_item("updated", report.updated)?;
    dict.set_item("overflowed", &report.overflowed)?;
    dict.set_item("beyond", &report.beyond)?;
    dict.set_item("void", report.void())?;
    dict.set_item("skipped", report.skipped)?;
    let nodes: Vec<String> = report.nodes.iter().map(ToString::to_string).collect();
    dict.set_item("nodes", nodes)?;
    dict.set_item("length", report.length)?;
    dict.set_item("scale", report.scale)?;
    dict.set_item("lr", report.lr)?;
    Ok(dict)
}

#[pymethods]
impl Training {
    /// Compiles the step of `loss`, and loads it. `parameters` are leaves with their names, first values, and whether they are
    /// trained.
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    #[new]
    #[pyo3(signature = (loss, parameters, rules, noise = None, target = None, device = None, host = None, **words))]
    fn new(
        py: Python<'_>,
        loss: &Bound<'_, Loss>,
        parameters: Vec<(Bound<'_, Tensor>, Text, Bound<'_, PyAny>, bool)>,
        rules: &Bound<'_, PyDict>,
        noise: Option<&Bound<'_, Noise>>,
        target: Option<Text>,
        device: Option<Text>,
        host: Option<HostWords>,
        words: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Training> {
        let compile = CompileOptions::target(chip(target.as_deref())?);
        let host = host.unwrap_or_default().options(compile.target)?;
        let device = on(device.as_deref(), &host)?;
        let none = PyDict::new(py);
        let options = options(words.unwrap_or(&none), compile)?;
        let mut all: Vec<Parameter> = Vec::new();
        for (at, (leaf, name, value, trained)) in parameters.iter().enumerate() {
            let (var, name) = (leaf.get().var.clone(), name.to_string());
            if !matches!(var.op(), Op::Input(leaf) if leaf.role == Role::Parameter) {
                return Err(refused(
                    "Trainer",
                    &format!("parameter {at} is none; make it with af.parameter"),
                ));
            }
            if all.iter().any(|other| other.name == name) {
                return Err(refused("Trainer", &format!("two parameters are called {name}")));
            }
            let value = Ready::new(at, var.ty(), value)?.tensor(at, var.ty())?;
            if value.shape() != var.shape() {
                let (want, got) = (var.shape(), value.shape());
                return Err(refused("Trainer", &format!("parameter {name} is {want}, and its value {got}")));
            }
            all.push(Parameter { name, var, value, trained: *trained });
        }
        let (loss, on_it, at) = (loss.get().0.clone(), Arc::clone(&device), here(py)?);
        let noise = noise.map_or_else(Source::off, |noise| noise.get().0.clone());
        let rules = rules.clone().unbind();
        let (made, raised) = interruptible(py, move |stop| {
            let _attaching = Attaching::new();
            let mut raised = None;
            let mut by_rules = |node: &Var, dy: &Var| {
                let asked = |py: Python<'_>| crate::grad::by_rule(py, rules.bind(py), node, dy);
                Python::attach(asked).unwrap_or_else(|error| {
                    raised.get_or_insert(error);
                    None
                })
            };
            let scope = Scope::of(all);
            let make = || Trainer::by_rules(on_it, loss, &scope, &noise, options, &mut by_rules);
            let made = aneforge_kernels::threads::stoppable(stop, || at.scope(|| alone(make)));
            (made, raised)
        })?;
        if let Some(error) = raised {
            return Err(error);
        }
        let trainer = Arc::new(Mutex::new(made.map_err(|e| Error::Train(Box::new(e)))?));
        Ok(Training { trainer, device, host, compile, last: AtomicU64::new(u64::MAX) })
    }

    /// Runs one batch, arrays by their leaves, and says what came of it.
    fn step<'py>(
        &self,
        py: Python<'py>,
        batch: Vec<(Bound<'py, Tensor>, Bound<'py, PyAny>)>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let ready = ready(&batch)?;
        let start = Instant::now();
        let report = if Duration::from_nanos(self.last.load(Ordering::Relaxed)) < SHORT {
            let feeds: Vec<(&Var, Feed<'_>)> = ready
                .iter()
                .map(|(var, ready)| (var, ready.feed().expect("invariant: ready arrays are contiguous")))
                .collect();
            py.detach(|| guarded(|| self.locked().step(&feeds)))?
        } else {
            let copy = |(at, (var, ready)): (usize, &(Var, Ready<'py>))| {
                Ok(Given { var: var.clone(), values: ready.tensor(at, var.ty())? })
            };
            let given: Vec<Given> = ready.iter().enumerate().map(copy).collect::<PyResult<_>>()?;
            let trainer = Arc::clone(&self.trainer);
            interruptible(py, move |stop| {
                let mut trainer = trainer.lock().unwrap_or_else(PoisonError::into_inner);
                let feeds: Vec<(&Var, Feed<'_>)> =
                    given.iter().map(|given| (&given.var, whole(&given.values))).collect();
                trainer.step_until(&feeds, stop)
            })?
        };
        self.last.store(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        told(py, &report.map_err(|e| Error::Train(Box::new(e)))?)
    }

    /// The loss and the gradients of one batch, times the scale: in half precision, or in single where the host keeps weights.
    fn gradients<'py>(
        &self,
        py: Python<'py>,
        batch: Vec<(Bound<'py, Tensor>, Bound<'py, PyAny>)>,
    ) -> PyResult<(f32, Vec<Bound<'py, PyAny>>)> {
        let ready = ready(&batch)?;
        let feeds: Vec<(&Var, Feed<'_>)> = ready
            .iter()
            .map(|(var, ready)| (var, ready.feed().expect("invariant: ready arrays are contiguous")))
            .collect();
        let found = py.detach(|| guarded(|| self.locked().gradients(&feeds)))?;
        let (loss, gradients) = found.map_err(|e| Error::Train(Box::new(e)))?;
        Ok((loss, gradients.iter().map(|gradient| array(py, gradient)).collect::<PyResult<_>>()?))
    }

    /// Makes a step along averaged gradients.
    fn apply<'py>(&self, py: Python<'py>, gradients: Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyDict>> {
        let given = tensors(&gradients)?;
        let report = py.detach(|| guarded(|| self.locked().apply(&given)))?;
        told(py, &report.map_err(|e| Error::Train(Box::new(e)))?)
    }

    /// Goes on with dropout as if so many batches had been taken.
    fn pass_(&self, batches: u64) -> PyResult<()> {
        Ok(self.locked().pass(batches).map_err(|e| Error::Train(Box::new(e)))?)
    }

    /// What `Trainer.profile` is made of: a table, a trace as JSON and a picture.
    fn profile(&self, py: Python<'_>, calls: usize) -> PyResult<(String, String, String)> {
        let found = py.detach(|| guarded(|| self.locked().profile(calls)))?;
        let profile = found.map_err(|e| Error::Train(Box::new(e)))?;
        Ok((profile.to_string(), profile.to_trace().to_string(), profile.to_svg()))
    }

    /// All weights, by name, with all their digits.
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = self.locked().weights().map_err(|e| Error::Train(Box::new(e)))?;
        let dict = PyDict::new(py);
        for (name, tensor) in all {
            dict.set_item(name, singles(py, &tensor)?)?;
        }
        Ok(dict)
    }

    /// Gives a parameter another value.
    fn set_weight(&self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let any = TensorType::f16(aneforge::Shape::SCALAR);
        let value = Ready::new(0, any, value)?.tensor(0, any)?;
        Ok(self.locked().set_weight(name, &value).map_err(|e| Error::Train(Box::new(e)))?)
    }

    /// A model of `out` on the weights as they are, and as they become.
    #[pyo3(signature = (out, averaged = false))]
    fn evaluator(&self, py: Python<'_>, out: &Bound<'_, PyAny>, averaged: bool) -> PyResult<Py<Model>> {
        let (outs, returned): (Vec<Var>, Returned) = outputs(out, false)?;
        let buffers = self.locked().buffers(averaged).map_err(|e| Error::Train(Box::new(e)))?;
        let leaf = |var: &Var| match var.op() {
            Op::Input(leaf) => leaf.id,
            _ => unreachable!("parameters are leaves"),
        };
        let states = buffers.iter().map(|(var, buffer)| (leaf(var), buffer.clone())).collect();
        let (options, device, host) = (self.compile, Arc::clone(&self.device), self.host);
        let at = here(py)?;
        let (running, home) = interruptible(py, move |stop| {
            alone(|| {
                let graph = Graph::freeze(&outs)
                    .map_err(|e| Error::Compile(aneforge::passes::PassError::from(e).into()))?;
                let make = || at.scope(|| compile_graph(&graph, &options));
                let plan = aneforge_kernels::threads::stoppable(stop, make).map_err(Error::Compile)?;
                let written = Some(Arc::new((graph, options)));
                Running { plan: Arc::new(plan), device, host, states, written }.load()
            })
        })??;
        Model::new(py, running, home, returned)
    }

    /// Writes all that is kept, with notes, to a file.
    fn save(&self, py: Python<'_>, path: PathBuf, notes: BTreeMap<String, String>) -> PyResult<()> {
        let saved = py.detach(|| guarded(|| Checkpoint::save(&self.locked(), &notes, &path)))?;
        Ok(saved.map_err(|e| Error::Checkpoint(Box::new(e)))?)
    }

    /// Goes on from a file, if notes of it are these where both have them, and returns the notes of those names. `anew` says that
    /// another course is meant.
    #[pyo3(signature = (path, names, notes, anew = false))]
    fn load<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        names: Vec<String>,
        notes: BTreeMap<String, String>,
        anew: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let fails = |e| Error::Checkpoint(Box::new(e));
        let checkpoint = Checkpoint::open(&path).map_err(fails)?;
        let trainer = &mut self.locked();
        checkpoint.check(trainer).map_err(fails)?;
        let restored = match anew {
            true => checkpoint.restore_anyway(trainer),
            false => {
                let mut same = notes.iter().map(|(name, note)| checkpoint.same(name, note));
                same.find_map(Result::err).map_or_else(|| checkpoint.restore(trainer), Err)
            }
        };
        restored.map_err(fails)?;
        let dict = PyDict::new(py);
        for name in names {
            if let Some(note) = checkpoint.note(&name) {
                dict.set_item(name, note)?;
            }
        }
        Ok(dict)
    }

    /// The inputs of the loss, by `attrs["idx"]` of their tensors.
    fn inputs(&self) -> Vec<u64> {
        self.locked().inputs().collect()
    }

    /// The learning rate of the options.
    #[getter]
    fn lr(&self) -> f64 {
        self.locked().options().lr
    }

    /// Another learning rate from the next step on.
    fn set_lr(&self, lr: f64) -> PyResult<()> {
        Ok(self.locked().set_lr(lr).map_err(|e| Error::Train(Box::new(e)))?)
    }

    /// How many updates there have been.
    #[getter]
    fn updates(&self) -> u64 {
        self.locked().updates()
    }

    /// Numbers of which every batch that is taken changes one.
    #[getter]
    fn place(&self) -> [u64; 3] {
        self.locked().place()
    }

    /// What the next gradients are multiplied with.
    #[getter]
    fn scale(&self) -> f64 {
        self.locked().scale()
    }

    /// Parameters that the loss does not depend on.
    #[getter]
    fn unreached<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.locked().unreached())
    }

    /// Where it runs, and with which numerics.
    fn __repr__(&self) -> String {
        format!("{:?}", self.locked())
    }
}

/// Arrays of half or single precision as tensors.
fn tensors(arrays: &[Bound<'_, PyAny>]) -> PyResult<Vec<aneforge::Tensor>> {
    let any = TensorType::f16(aneforge::Shape::SCALAR);
    let one = |(at, array): (usize, &Bound<'_, PyAny>)| Ready::new(at, any, array)?.tensor(at, any);
    arrays.iter().enumerate().map(one).collect()
}

/// A file of metrics for TensorBoard.
#[pyclass(module = "aneforge._native")]
pub struct Events(aneforge::train::Events);

#[pymethods]
impl Events {
    /// Begins a new file in a folder.
    #[new]
    fn new(folder: PathBuf) -> PyResult<Events> {
        let said =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot write to {}: {e}", folder.display()));
        Ok(Events(aneforge::train::Events::create(&folder).map_err(said)?))
    }

    /// Adds a number to the curve `tag`.
    fn add_scalar(&mut self, tag: &str, scalar_value: f64, global_step: u64) -> PyResult<()> {
        Ok(self.0.scalar(tag, scalar_value, global_step)?)
    }

    fn __repr__(&self) -> String {
        format!("Events({})", self.0.path().display())
    }
}

/// What `af.train.average` is made of: the mean of several workers' gradients.
#[pyfunction]
pub fn average<'py>(
    py: Python<'py>,
    workers: Vec<Vec<Bound<'py, PyAny>>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let given = workers.iter().map(|worker| tensors(worker)).collect::<PyResult<Vec<_>>>()?;
    let mean = py.detach(|| guarded(|| aneforge::train::average(&given)))?;
    let mean = mean.map_err(|e| Error::Train(Box::new(e)))?;
    mean.iter().map(|tensor| array(py, tensor)).collect()
}

/// A tensor as an array of its own type, of half or single precision.
fn array<'py>(py: Python<'py>, tensor: &aneforge::Tensor) -> PyResult<Bound<'py, PyAny>> {
    let Some(values) = tensor.as_slice::<f16>() else { return Ok(singles(py, tensor)?.into_any()) };
    let array = zeros::<f16>(py, tensor.shape().dims())?;
    array.readwrite().as_slice_mut().expect("invariant: new arrays are contiguous").copy_from_slice(values);
    Ok(array.into_any())
}

/// A tensor as an array of single precision.
fn singles<'py>(py: Python<'py>, tensor: &aneforge::Tensor) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let array = zeros::<f32>(py, tensor.shape().dims())?;
    let values = tensor.to_f32();
    array.readwrite().as_slice_mut().expect("invariant: new arrays are contiguous").copy_from_slice(&values);
    Ok(array)
}
