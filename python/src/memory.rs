//! Arrays of NumPy: new ones, and ones that look at the memory of ports.

use aneforge::{Buffer, TensorType, f16};
use aneforge_tensor::MAX_RANK;
use numpy::ndarray::{ArrayView, IxDyn};
use numpy::npyffi::{PY_ARRAY_API, npy_intp};
use numpy::{Element, PyArrayDescrMethods, PyArrayDyn};
use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use std::ffi::c_int;

/// What keeps a port's memory while NumPy looks at it.
#[pyclass(frozen, module = "aneforge._native")]
struct Port {
    _buffer: Buffer,
}

/// A new array of zeros. Where there is no memory for it, `PyArray::zeros` would panic.
pub fn zeros<'py, T: Element>(py: Python<'py>, dims: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let mut extents = [0; MAX_RANK];
    let extents = &mut extents[..dims.len()];
    extents.iter_mut().zip(dims).for_each(|(extent, &dim)| *extent = dim as npy_intp);
    let (rank, element) = (dims.len() as c_int, T::get_dtype(py).into_dtype_ptr());
    #[expect(unsafe_code, reason = "the safe function panics without memory")]
    // SAFETY: there are `rank` extents, and NumPy takes over the reference to the element type. What it returns is a new
    // array, or null with an exception set.
    let array = unsafe {
        let array = PY_ARRAY_API.PyArray_Zeros(py, rank, extents.as_mut_ptr(), element, 0);
        Bound::from_owned_ptr_or_err(py, array)?
    };
    Ok(array.cast_into()?)
}

/// An array over a port's memory.
pub fn view<'py>(py: Python<'py>, buffer: Buffer, ty: TensorType) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
    if !buffer.layout().is_row_major() {
        let strides = buffer.layout().strides();
        return Err(PyNotImplementedError::new_err(format!(
            "the device keeps this {ty} with strides {strides:?}; call the model with arrays instead"
        )));
    }
    let memory = buffer.expose().cast::<f16>();
    let port = Bound::new(py, Port { _buffer: buffer })?.into_any();
    #[expect(unsafe_code, reason = "zero-copy arrays over a port's memory")]
    // SAFETY: a buffer's memory neither moves nor is freed before the buffer is dropped, which the array's base object
    // `port` prevents. It holds half precision without gaps, and as many elements as the shape.
    // Writing through the array while a run is under way in another thread is a race between the caller's
    // own threads, as with any array that NumPy shares; the documentation forbids it.
    unsafe {
        let elements = ArrayView::from_shape_ptr(IxDyn(ty.shape.dims()), memory.cast_const());
        Ok(PyArrayDyn::borrow_from_array(&elements, port))
    }
}
