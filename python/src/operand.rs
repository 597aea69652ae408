//! NumPy arrays as constants, and what may stand beside a tensor in an expression.

use crate::caller::here;
use crate::convert::{converted, copied, listed, unmasked};
use crate::error::{Error, guarded, instead};
use crate::interrupt::{Attaching, interruptible};
use crate::tensor::Tensor;
use aneforge::ir::attr::Real;
use aneforge::{BuildError, Shape, Var, f16};
use aneforge_kernels::threads::stoppable;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple};

/// The other side of an operator.
pub enum Operand {
    /// A tensor, or a constant made from an array.
    Value(Var),
    /// A Python number.
    Number(f64),
}

impl Operand {
    /// As a value: a number becomes a scalar constant.
    pub fn into_var(self) -> Var {
        match self {
            Operand::Value(var) => var,
            Operand::Number(k) => Var::scalar(k),
        }
    }
}

/// Reads the other side of the operator `op`; `None` when it is nothing an operator takes.
pub fn operand(op: &str, other: &Bound<'_, PyAny>) -> PyResult<Option<Operand>> {
    if let Ok(tensor) = other.cast::<Tensor>() {
        return Ok(Some(Operand::Value(tensor.get().var.clone())));
    }
    if other.is_instance_of::<PyFloat>() || other.is_instance_of::<PyInt>() {
        let number = number("the operand", other)?;
        held(other.py(), op, number)?;
        return Ok(Some(Operand::Number(number)));
    }
    if !is_array(other)? {
        return Ok(None);
    }
    Ok(Some(Operand::Value(constant_of("the operand", &as_array("the operand", other)?)?)))
}

/// Refuses a number that half precision cannot hold, as the op would that takes it; `op` names it in messages.
fn held(py: Python<'_>, op: &str, number: f64) -> PyResult<()> {
    let Err(why) = Real(number).check() else { return Ok(()) };
    Err(Error::Build(BuildError { op: op.to_owned(), why, at: here(py)? }, false).into())
}

/// A Python number; `place` names it in messages.
fn number(place: &str, given: &Bound<'_, PyAny>) -> PyResult<f64> {
    given.extract().map_err(|e: PyErr| match e.is_instance_of::<PyOverflowError>(given.py()) {
        true => too_large(place, given),
        false => e,
    })
}

/// The exception for an integer that no number of the graph can be.
pub fn too_large(place: &str, given: &Bound<'_, PyAny>) -> PyErr {
    match given.call_method0(intern!(given.py(), "bit_length")).and_then(|bits| bits.extract::<u64>()) {
        Ok(bits) => PyValueError::new_err(format!("{place} is too large: an integer of {bits} bits")),
        Err(e) => instead(given.py(), e, || {
            PyValueError::new_err(format!("{place} has numbers that are too large"))
        }),
    }
}

/// Whether `object` is an array, or something that NumPy makes one of.
pub fn is_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.is_instance_of::<PyUntypedArray>()
        || object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
        || object.hasattr(intern!(object.py(), "__array__"))?
        || object.hasattr(intern!(object.py(), "__dlpack__"))?
        || is_buffer(object)?)
}

/// Whether `object` lends its memory, and is no string of bytes.
fn is_buffer(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
        return Ok(false);
    }
    match PyMemoryView::from(object) {
        Ok(_) => Ok(true),
        Err(e) if e.is_instance_of::<PyTypeError>(object.py()) => Ok(false),
        Err(e) if e.is_instance_of::<PyBufferError>(object.py()) => Ok(false),
        Err(e) if e.is_instance_of::<PyValueError>(object.py()) => Ok(false),
        Err(e) => Err(e),
    }
}

/// `object` as an array that may be a weight; `place` names it in messages.
pub fn weight_array<'py>(place: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let array = as_array(place, object)?;
    if is_real(&array) {
        return Ok(array);
    }
    Err(PyTypeError::new_err(match is_array(object)? {
        true => format!("{place} must be an array of real numbers, got {}", dtype_name(&array)?),
        false if object.is_none() => format!("{place} must be an array or a Tensor, got None"),
        false => format!("{place} must be an array or a Tensor, got {}", object.get_type().name()?.to_str()?),
    }))
}

/// Whether an array holds numbers or truth values.
fn is_real(array: &Bound<'_, PyUntypedArray>) -> bool {
    matches!(kind(array), 'f' | 'i' | 'u' | 'b')
}

/// The name of an array's element type in this machine's byte order, where it is one that constants keep.
pub fn real_name(array: &Bound<'_, PyUntypedArray>) -> Option<&'static str> {
    match (kind(array), array.dtype().itemsize()) {
        ('f', 2) => Some("float16"),
        ('f', 4) => Some("float32"),
        ('f', 8) => Some("float64"),
        _ => None,
    }
}

/// `as_array` for Python, of this element type if one is named.
#[pyfunction]
#[pyo3(signature = (object, place = "the array", dtype = None))]
pub fn array<'py>(
    object: &Bound<'py, PyAny>,
    place: &str,
    dtype: Option<&str>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let array = as_array(place, object)?;
    dtype.map_or(Ok(array.clone()), |dtype| converted(&array, dtype))
}

/// `numpy.asarray(object)`, or `numpy.from_dlpack(object)` of what NumPy knows by DLPack only, but for masked arrays, which
/// are refused, and tensors of PyTorch that do not say themselves what they hold; `place` names it in messages.
pub fn as_array<'py>(place: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    unmasked(place, object)?;
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return known(array.clone());
    }
    let py = object.py();
    let has = |name: &Bound<'py, PyString>| object.hasattr(name);
    if has(intern!(py, "__dlpack__"))? && !has(intern!(py, "__array__"))? && !is_buffer(object)? {
        return known(py.import("numpy")?.call_method1("from_dlpack", (object,))?.cast_into()?);
    }
    let as_array =
        AS_ARRAY.get_or_try_init(py, || py.import("numpy")?.getattr("asarray").map(Bound::unbind))?;
    let as_array = as_array.bind(py);
    let made = match object.cast_exact::<PyList>() {
        Ok(list) if !list.is_empty() => listed(list, as_array),
        _ => as_array.call1((object,)),
    };
    match made {
        Ok(array) => known(array.cast_into()?),
        Err(e) if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() => {
            if !e.is_instance_of::<PyValueError>(py) {
                return Err(e);
            }
            let why = e.value(py).str()?;
            Err(PyValueError::new_err(format!("{place} is a list that is no array: {}", why.to_str()?)))
        }
        Err(e) => plain(object, as_array)?.map_or(Err(e), known),
    }
}

/// The values of a tensor of PyTorch that refuses to be an array, though it has them: one that has a gradient, is negated as
/// it is read, or has a real type that NumPy lacks and single precision holds. None of anything else.
fn plain<'py>(
    object: &Bound<'py, PyAny>,
    as_array: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let py = object.py();
    if !object.hasattr(intern!(py, "detach"))? || !object.hasattr(intern!(py, "is_floating_point"))? {
        return Ok(None);
    }
    let mut values = object.call_method0(intern!(py, "detach"))?;
    if values.hasattr(intern!(py, "resolve_neg"))? {
        values = values.call_method0(intern!(py, "resolve_neg"))?;
    }
    let mut made = as_array.call1((&values,));
    if made.is_err() && values.call_method0(intern!(py, "is_floating_point"))?.is_truthy()? {
        made = values.call_method0(intern!(py, "float")).and_then(|values| as_array.call1((values,)));
    }
    match made {
        Ok(array) => Ok(Some(array.cast_into()?)),
        Err(_) => Ok(None),
    }
}

/// Numbers of a type that is not NumPy's own, such as `bfloat16`, in single precision, if that holds all of them; any
/// other array as it is.
fn known(array: Bound<'_, PyUntypedArray>) -> PyResult<Bound<'_, PyUntypedArray>> {
    if kind(&array) != 'V' {
        return Ok(array);
    }
    let py = array.py();
    let fits = py.import("numpy")?.call_method1("can_cast", (array.dtype(), "float32"))?.extract()?;
    if fits { converted(&array, "float32") } else { Ok(array) }
}

/// An array's element type as NumPy names it.
pub fn dtype_name(array: &Bound<'_, PyUntypedArray>) -> PyResult<String> {
    Ok(array.dtype().str()?.to_str()?.to_owned())
}

/// The kind of an array's element type: `f` real, `i` and `u` integers, `b` truth values.
pub fn kind(array: &Bound<'_, PyUntypedArray>) -> char {
    char::from(array.dtype().kind())
}

/// The shape of an array, as this library's.
pub fn shape_of(array: &Bound<'_, PyUntypedArray>) -> PyResult<Shape> {
    Shape::new(array.shape()).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// Arrays of more elements are copied on another thread, so that Ctrl-C ends the wait.
const LARGE: usize = 1 << 20;

/// A constant with an array's values, built by the line that calls; `place` names it in messages.
pub fn constant_of(place: &str, array: &Bound<'_, PyUntypedArray>) -> PyResult<Var> {
    let py = array.py();
    let at = here(py)?;
    if array.len() <= LARGE {
        let tensor = floating(place, array)?;
        if array.ndim() == 0 {
            let number = tensor.as_slice::<f64>().map(|values| values[0]);
            held(py, place, number.unwrap_or_else(|| tensor.to_f32()[0].into()))?;
        }
        return guarded(|| at.scope(|| Var::constant(tensor)));
    }
    let (place, array, attaching) = (place.to_owned(), array.clone().unbind(), Attaching::new());
    interruptible(py, move |stop| {
        let _attaching = attaching;
        let tensor = stoppable(stop, || Python::attach(|py| floating(&place, array.bind(py))))?;
        Ok(at.scope(|| Var::constant(tensor)))
    })?
}

/// A copy of an array's values. Real arrays keep their element type; integers and truth values become double
/// precision, so that what half precision cannot hold is told by its value.
fn floating(place: &str, array: &Bound<'_, PyUntypedArray>) -> PyResult<aneforge::Tensor> {
    if !is_real(array) {
        let name = dtype_name(array)?;
        return Err(PyTypeError::new_err(format!(
            "{place}: constants are real numbers, got an array of {name}"
        )));
    }
    let shape = shape_of(array)?;
    match real_name(array) {
        Some(half @ "float16") => copied::<f16>(array, half, shape),
        Some(single @ "float32") => copied::<f32>(array, single, shape),
        _ => copied::<f64>(array, "float64", shape),
    }
}
