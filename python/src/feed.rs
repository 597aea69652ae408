//! Python's arrays as what a session is fed.

use crate::convert::{converted, copied, extremes, is_plain, unmasked};
use crate::error::Error;
use crate::operand::{as_array, dtype_name, kind, real_name};
use aneforge::{DType, Feed, RunError, Shape, Tensor, TensorType, f16};
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An array that is ready to be copied: contiguous, and of a type that a session takes.
pub enum Ready<'py> {
    F16(PyReadonlyArrayDyn<'py, f16>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
    U8(PyReadonlyArrayDyn<'py, u8>),
}

impl<'py> Ready<'py> {
    /// Prepares what was given for input `index`.
    pub fn new(index: usize, port: TensorType, given: &Bound<'py, PyAny>) -> PyResult<Ready<'py>> {
        if let Some(ready) = given.cast::<PyArrayDyn<f32>>().ok().filter(|a| is_plain(a.as_untyped())) {
            unmasked(&format!("input {index}"), given)?;
            return Ok(Ready::F32(ready.readonly()));
        }
        let array = match given.cast::<PyBytes>() {
            Ok(bytes) => elements(bytes)?,
            Err(_) => as_array(&format!("input {index}"), given)?,
        };
        match Ready::contiguous(&array) {
            Some(ready) => Ok(ready),
            None => Ready::converted(index, port, &array),
        }
    }

    fn contiguous(array: &Bound<'py, PyUntypedArray>) -> Option<Ready<'py>> {
        if !is_plain(array) {
            return None;
        }
        let array = array.as_any();
        None.or_else(|| array.cast::<PyArrayDyn<f32>>().ok().map(|a| Ready::F32(a.readonly())))
            .or_else(|| array.cast::<PyArrayDyn<f16>>().ok().map(|a| Ready::F16(a.readonly())))
            .or_else(|| array.cast::<PyArrayDyn<u8>>().ok().map(|a| Ready::U8(a.readonly())))
            .or_else(|| array.cast::<PyArrayDyn<f64>>().ok().map(|a| Ready::F64(a.readonly())))
    }

    fn converted(index: usize, port: TensorType, array: &Bound<'py, PyUntypedArray>) -> PyResult<Ready<'py>> {
        let to = match (kind(array), port.dtype) {
            ('b', DType::U8) => "uint8",
            ('i' | 'u', DType::U8) => {
                in_byte_range(index, array)?;
                "uint8"
            }
            ('b', _) => "float32",
            ('f' | 'i' | 'u', _) => real_name(array).unwrap_or("float64"),
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "input {index} is a {} port and takes real numbers, got an array of {}",
                    port.dtype,
                    dtype_name(array)?
                )));
            }
        };
        if let Some(ready) = Ready::contiguous(&converted(array, to)?) {
            return Ok(ready);
        }
        let name = dtype_name(array)?;
        Err(PyTypeError::new_err(format!("input {index}: arrays of {name} cannot be read")))
    }

    /// As a session takes it.
    pub fn feed(&self) -> Option<Feed<'_>> {
        Some(match self {
            Ready::F16(a) => Feed::F16(a.as_slice().ok()?),
            Ready::F32(a) => Feed::F32(a.as_slice().ok()?),
            Ready::F64(a) => Feed::F64(a.as_slice().ok()?),
            Ready::U8(a) => Feed::U8(a.as_slice().ok()?),
        })
    }

    /// As a tensor of its own, for a port of this type.
    pub fn tensor(&self, index: usize, port: TensorType) -> PyResult<Tensor> {
        let got = self.shape();
        let wrong = || RunError::Shape { index, want: port.shape, got: got.to_vec() };
        let shape = Shape::new(got).map_err(|_| Error::Run(wrong()))?;
        match self {
            Ready::F16(a) => copied::<f16>(a.as_untyped(), "float16", shape),
            Ready::F32(a) => copied::<f32>(a.as_untyped(), "float32", shape),
            Ready::F64(a) => copied::<f64>(a.as_untyped(), "float64", shape),
            Ready::U8(a) => copied::<u8>(a.as_untyped(), "uint8", shape),
        }
    }

    /// The array's shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Ready::F16(a) => a.shape(),
            Ready::F32(a) => a.shape(),
            Ready::F64(a) => a.shape(),
            Ready::U8(a) => a.shape(),
        }
    }
}

/// Bytes as numbers, as those of a `bytearray` are; NumPy would make them a string.
fn elements<'py>(bytes: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = bytes.py();
    Ok(py.import("numpy")?.call_method1("frombuffer", (bytes, "uint8"))?.cast_into()?)
}

fn in_byte_range(index: usize, array: &Bound<'_, PyUntypedArray>) -> PyResult<()> {
    if array.shape().contains(&0) {
        return Ok(());
    }
    let (least, most) = extremes(array)?;
    if least < 0 || most > 255 {
        return Err(PyValueError::new_err(format!(
            "input {index} is a uint8 port and takes integers from 0 to 255, got {least} to {most}"
        )));
    }
    Ok(())
}
