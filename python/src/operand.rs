//! NumPy arrays as constants, and what may stand beside a tensor in an expression.

use crate::tensor::Tensor;
use aneforge::{Shape, Var, f16};
use numpy::{PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple};

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
            Operand::Number(k) => Var::full(Shape::SCALAR, k),
        }
    }
}

/// Reads the other side of an operator; `None` when it is nothing an operator takes.
pub fn operand(other: &Bound<'_, PyAny>) -> PyResult<Option<Operand>> {
    if let Ok(tensor) = other.cast::<Tensor>() {
        return Ok(Some(Operand::Value(tensor.get().var.clone())));
    }
    if other.is_instance_of::<PyFloat>() || other.is_instance_of::<PyInt>() {
        return Ok(Some(Operand::Number(other.extract()?)));
    }
    if !is_array(other)? {
        return Ok(None);
    }
    let array = as_array(other)?;
    Ok(Some(Operand::Value(Var::constant(floating(&array)?))))
}

/// Whether `object` is an array, or something that NumPy makes one of.
pub fn is_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.is_instance_of::<PyUntypedArray>()
        || object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
        || object.hasattr(intern!(object.py(), "__array__"))?
        || object.hasattr(intern!(object.py(), "__dlpack__"))?
        || is_buffer(object))
}

/// Whether `object` lends its memory, and is no string of bytes.
fn is_buffer(object: &Bound<'_, PyAny>) -> bool {
    let text = object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>();
    !text && PyMemoryView::from(object).is_ok()
}

/// `object` as an array that may be a weight; `place` names it in messages.
pub fn float_array<'py>(place: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let array = as_array(object)?;
    if real_name(&array).is_some() {
        return Ok(array);
    }
    let name = dtype_name(&array);
    Err(PyTypeError::new_err(format!(
        "{place} must be a float16, float32 or float64 array, got {name}; the engine is fp16-only"
    )))
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

/// Whether an array's elements can be read as a slice: one after the other, and where their type may lie.
pub fn is_plain(array: &Bound<'_, PyUntypedArray>) -> bool {
    #[expect(unsafe_code, reason = "NumPy keeps the flag in the array's header")]
    // SAFETY: the pointer is that of a live array.
    let flags = unsafe { (*array.as_array_ptr()).fields.flags };
    flags & numpy::npyffi::NPY_ARRAY_ALIGNED != 0 && array.is_c_contiguous()
}

/// `numpy.asarray(object)`, or `numpy.from_dlpack(object)` of what NumPy knows by DLPack only.
#[pyfunction]
#[pyo3(name = "array")]
pub fn as_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let py = object.py();
    let has = |name: &Bound<'py, PyString>| object.hasattr(name);
    if has(intern!(py, "__dlpack__"))? && !has(intern!(py, "__array__"))? && !is_buffer(object) {
        return Ok(py.import("numpy")?.call_method1("from_dlpack", (object,))?.cast_into()?);
    }
    let as_array =
        AS_ARRAY.get_or_try_init(py, || py.import("numpy")?.getattr("asarray").map(Bound::unbind))?;
    Ok(as_array.bind(py).call1((object,))?.cast_into()?)
}

/// An array's element type as NumPy names it.
pub fn dtype_name(array: &Bound<'_, PyUntypedArray>) -> String {
    array.dtype().to_string()
}

/// The kind of an array's element type: `f` real, `i` and `u` integers, `b` truth values.
pub fn kind(array: &Bound<'_, PyUntypedArray>) -> char {
    char::from(array.dtype().kind())
}

/// The same values as contiguous and aligned elements of the type called `dtype`; the array itself where it is that.
pub fn converted<'py>(
    array: &Bound<'py, PyUntypedArray>,
    dtype: &str,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = array.py();
    if is_plain(array) && array.dtype().is_equiv_to(&numpy::PyArrayDescr::new(py, dtype)?) {
        return Ok(array.clone());
    }
    let options = PyDict::new(py);
    options.set_item("order", "C")?;
    Ok(array.call_method(intern!(py, "astype"), (dtype,), Some(&options))?.cast_into()?)
}

/// The shape of an array, as this library's.
pub fn shape_of(array: &Bound<'_, PyUntypedArray>) -> PyResult<Shape> {
    Shape::new(array.shape()).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// A copy of an array's values. Real arrays keep their element type; integers and truth values become double
/// precision, so that what half precision cannot hold is told by its value.
pub fn floating(array: &Bound<'_, PyUntypedArray>) -> PyResult<aneforge::Tensor> {
    let name = dtype_name(array);
    if !matches!(kind(array), 'f' | 'i' | 'u' | 'b') {
        return Err(PyTypeError::new_err(format!("constants are real numbers, got an array of {name}")));
    }
    let shape = shape_of(array)?;
    let plain = converted(array, real_name(array).unwrap_or("float64"))?;
    copied::<f16>(&plain, shape)
        .or_else(|| copied::<f32>(&plain, shape))
        .or_else(|| copied::<f64>(&plain, shape))
        .ok_or_else(|| PyTypeError::new_err(format!("arrays of {name} are not supported")))
}

fn copied<T>(array: &Bound<'_, PyUntypedArray>, shape: Shape) -> Option<aneforge::Tensor>
where
    T: aneforge_tensor::Element + numpy::Element,
{
    let array = array.cast::<PyArrayDyn<T>>().ok()?;
    let values = array.try_readonly().ok()?;
    aneforge::Tensor::from_slice(shape, values.as_slice().ok()?).ok()
}
