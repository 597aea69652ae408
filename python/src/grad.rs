//! Gradients, losses, and what networks are trained with.

use crate::apply::refused;
use crate::caller::attributed;
use crate::error::{Error, checked};
use crate::node::sources;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::grad::{Grad, gradients_by};
use aneforge::ir::ops::leaf::Role;
use aneforge::nn::{self, Noise as Source};
use aneforge::{Shape, TensorType, Var, optim};
use pyo3::exceptions::{PyNotImplementedError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The cotangents of tensors, given that of `y`, on a walk that goes no further than `stop`; and which of them `y` does not
/// depend on. `rules` are functions of a node and its cotangent, by the names of ops.
#[pyfunction]
pub fn gradients<'py>(
    py: Python<'py>,
    y: &Bound<'py, Tensor>,
    dy: &Bound<'py, Tensor>,
    wrt: Vec<Bound<'py, Tensor>>,
    stop: Vec<Bound<'py, Tensor>>,
    rules: &Bound<'py, PyDict>,
) -> PyResult<(Vec<Tensor>, Vec<usize>)> {
    let vars =
        |tensors: &[Bound<'py, Tensor>]| tensors.iter().map(|t| t.get().var.clone()).collect::<Vec<_>>();
    let (wrt, stop) = (vars(&wrt), vars(&stop));
    let mut raised = None;
    let found = attributed(py, || {
        gradients_by(&y.get().var, &dy.get().var, &wrt, &stop, &mut |node, dy| {
            by_rule(py, rules, node, dy).unwrap_or_else(|error| {
                raised.get_or_insert(error);
                None
            })
        })
    })?;
    if let Some(error) = raised {
        return Err(error);
    }
    let found = found.map_err(Error::Grad)?;
    let tensors = found.values.into_iter().map(|var| Ok(Tensor { var: checked(var)? }));
    Ok((tensors.collect::<PyResult<_>>()?, found.unreached))
}

/// What a rule of the caller's makes of a node's cotangent, if there is one.
pub fn by_rule(
    py: Python<'_>,
    rules: &Bound<'_, PyDict>,
    node: &Var,
    dy: &Var,
) -> PyResult<Option<Vec<Grad>>> {
    if rules.is_empty() {
        return Ok(None);
    }
    let name = node.op().name();
    let Some(rule) = rules.get_item(name)? else { return Ok(None) };
    let tensor = |var: &Var| Bound::new(py, Tensor { var: var.clone() });
    let given = rule.call1((tensor(node)?, tensor(dy)?))?;
    let given: Vec<Option<Bound<'_, Tensor>>> = given
        .try_iter()?
        .map(|one| {
            let one = one?;
            Ok(if one.is_none() { None } else { Some(one.cast_into::<Tensor>()?) })
        })
        .collect::<PyResult<_>>()?;
    let own: Vec<u64> = sources(node).map(Var::id).collect();
    if given.len() != own.len() {
        let (want, got) = (own.len(), given.len());
        let why = format!(
            "the rule for {name} gave {got} gradients for {want} sources; give one for each, or None"
        );
        return Err(refused("vjp", &why));
    }
    let mut given = given.into_iter();
    let mut grads = Vec::new();
    for input in node.inputs() {
        let is_source = own.contains(&input.id());
        grads.push(match is_source.then(|| given.next().flatten()).flatten() {
            None => Grad::Zero("the caller's rule says so"),
            Some(grad) if grad.get().var.shape() == input.shape() => Grad::To(grad.get().var.clone()),
            Some(grad) => {
                let (want, got) = (input.shape(), grad.get().var.shape());
                return Err(refused(
                    "vjp",
                    &format!("the rule for {name} gave {got} for a source of {want}"),
                ));
            }
        });
    }
    Ok(Some(grads))
}

/// What an op's own rule gives its sources; `None` where there is no gradient.
#[pyfunction]
pub fn vjp(
    py: Python<'_>,
    node: &Bound<'_, Tensor>,
    dy: &Bound<'_, Tensor>,
) -> PyResult<Vec<Option<Tensor>>> {
    let var = &node.get().var;
    let grads = attributed(py, || var.op().vjp(var.inputs(), var, &dy.get().var))?;
    let own: Vec<u64> = sources(var).map(Var::id).collect();
    let mut all = Vec::new();
    for (input, grad) in var.inputs().iter().zip(grads) {
        if !own.contains(&input.id()) {
            continue;
        }
        all.push(match grad {
            Grad::To(grad) => Some(Tensor { var: checked(grad)? }),
            Grad::Zero(_) => None,
            Grad::Missing(why) => {
                let name = var.op().name();
                return Err(PyNotImplementedError::new_err(format!(
                    "autograd: no vjp for op '{name}': {why}"
                )));
            }
        });
    }
    Ok(all)
}

/// A leaf that is trained.
#[pyfunction]
#[pyo3(signature = (shape, name = None))]
pub fn parameter(py: Python<'_>, shape: Vec<usize>, name: Option<Text>) -> PyResult<Tensor> {
    let shape = Shape::new(&shape).map_err(|e| refused("parameter", &e.to_string()))?;
    let name = name.as_deref().unwrap_or_default();
    let var =
        attributed(py, || Var::described_leaf(TensorType::f16(shape), Role::Parameter, f64::INFINITY, name))?;
    Ok(Tensor { var: checked(var)? })
}

/// What a network is trained to make small: a tensor of one element, or a cross entropy.
#[pyclass(frozen, module = "aneforge._native")]
pub struct Loss(pub nn::Loss);

#[pymethods]
impl Loss {
    /// A tensor alone, or logits and targets.
    #[new]
    #[pyo3(signature = (y, target = None))]
    fn new(py: Python<'_>, y: &Bound<'_, Tensor>, target: Option<&Bound<'_, Tensor>>) -> PyResult<Loss> {
        let loss = attributed(py, || match target {
            Some(target) => nn::softmax_cross_entropy(&y.get().var, &target.get().var),
            None => nn::Loss::from(&y.get().var),
        })?;
        checked(loss.value.clone())?;
        Ok(Loss(loss))
    }

    /// The loss.
    #[getter]
    fn value(&self) -> Tensor {
        Tensor { var: self.0.value.clone() }
    }

    /// Where the walk back begins, and with which cotangent.
    fn seed(&self, py: Python<'_>, scale: f64) -> PyResult<(Tensor, Tensor)> {
        let (root, seed) = attributed(py, || self.0.seed(&optim::Scale::Fixed(scale)))?;
        Ok((Tensor { var: checked(root)? }, Tensor { var: checked(seed)? }))
    }
}

/// Adam's step as graph: new weight, first and second moment.
#[pyfunction]
pub fn adam_step(
    py: Python<'_>,
    of: [Bound<'_, Tensor>; 4],
    rate: &Bound<'_, Tensor>,
    betas: [f64; 2],
    eps: f64,
) -> PyResult<[Tensor; 3]> {
    let of: [&Var; 4] = of.each_ref().map(|t| &t.get().var);
    let made = attributed(py, || optim::adam_step(of, &rate.get().var, betas, eps))?;
    let [w, m, v] = made.map(checked);
    Ok([Tensor { var: w? }, Tensor { var: m? }, Tensor { var: v? }])
}

/// Random numbers inside programs.
#[pyclass(frozen, module = "aneforge")]
pub struct Noise(pub Source);

#[pymethods]
impl Noise {
    #[new]
    #[pyo3(signature = (seed = None))]
    fn new(py: Python<'_>, seed: Option<Bound<'_, PyAny>>) -> PyResult<Noise> {
        let number = |given: Bound<'_, PyAny>| {
            let shown = given.repr()?.to_string();
            given.extract::<u64>().map_err(|e| match e.is_instance_of::<PyOverflowError>(py) {
                true => {
                    PyValueError::new_err(format!("Noise: seed must be from 0 to 2**64 - 1, got {shown}"))
                }
                false => PyTypeError::new_err(format!("Noise: seed must be an integer, got {shown}")),
            })
        };
        let seed = seed.map(number).transpose()?;
        Ok(Noise(attributed(py, || seed.map_or_else(Source::off, Source::new))?))
    }

    /// Zeros where a number is below `rate`, and `x / (1 - rate)` elsewhere.
    fn dropout(&self, py: Python<'_>, x: &Bound<'_, PyAny>, rate: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let wrong = |what: &str, given: &Bound<'_, PyAny>| {
            let kind = given.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string());
            PyTypeError::new_err(format!("dropout: {what}, got {kind}"))
        };
        let x = x.cast::<Tensor>().map_err(|_| wrong("x must be a Tensor", x))?;
        let rate: f64 = rate.extract().map_err(|_| wrong("rate must be a number", rate))?;
        Ok(Tensor { var: checked(attributed(py, || self.0.dropout(&x.get().var, rate))?)? })
    }

    /// Numbers that are uniform in [0, 1), other ones in every step and for every call.
    fn uniform(&self, py: Python<'_>, shape: Vec<usize>) -> PyResult<Tensor> {
        let shape = Shape::new(&shape).map_err(|e| refused("uniform", &e.to_string()))?;
        Ok(Tensor { var: checked(attributed(py, || self.0.uniform(shape))?)? })
    }
}
