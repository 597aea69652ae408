//! Arithmetic of numbers in two halves.

use crate::caller::attributed;
use crate::error::checked;
use crate::tensor::Tensor;
use aneforge::paired::Paired;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type Halves<'py> = (Bound<'py, Tensor>, Bound<'py, Tensor>);

fn paired((hi, lo): &Halves<'_>) -> Paired {
    Paired::new(&hi.get().var, &lo.get().var)
}

fn built(py: Python<'_>, build: impl FnOnce() -> Paired) -> PyResult<(Tensor, Tensor)> {
    let Paired { hi, lo } = attributed(py, build)?;
    Ok((Tensor { var: checked(hi)? }, Tensor { var: checked(lo)? }))
}

/// The result of the operator called `name`: `add`, `sub` or `mul`.
#[pyfunction]
pub fn paired_apply(py: Python<'_>, name: &str, a: Halves<'_>, b: Halves<'_>) -> PyResult<(Tensor, Tensor)> {
    let (a, b) = (paired(&a), paired(&b));
    match name {
        "add" => built(py, || &a + &b),
        "sub" => built(py, || &a - &b),
        "mul" => built(py, || &a * &b),
        _ => Err(PyIndexError::new_err(format!("pairs have no operator `{name}`"))),
    }
}

/// Both halves times a number.
#[pyfunction]
pub fn paired_muls(py: Python<'_>, a: Halves<'_>, k: f64) -> PyResult<(Tensor, Tensor)> {
    built(py, || &paired(&a) * k)
}

/// The sum of products along `axis`, which becomes the last and has size one.
#[pyfunction]
pub fn paired_dot(py: Python<'_>, a: Halves<'_>, b: Halves<'_>, axis: i64) -> PyResult<(Tensor, Tensor)> {
    let (a, b) = (paired(&a), paired(&b));
    if let Ok(shape) = a.hi.shape().broadcast(b.hi.shape())
        && shape.axis(axis).is_err()
    {
        let shape = PyTuple::new(py, shape.dims())?.str()?;
        let message = format!("Paired.dot: axis {axis} is out of range for shape {}", shape.to_str()?);
        return Err(PyValueError::new_err(message));
    }
    built(py, || a.dot(&b, axis))
}

/// A pair from its high half, whose low half is zero.
#[pyfunction]
pub fn paired_of(py: Python<'_>, hi: &Bound<'_, Tensor>) -> PyResult<(Tensor, Tensor)> {
    built(py, || Paired::from(&hi.get().var))
}
