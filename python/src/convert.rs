//! Arrays of NumPy in another element type or order, piece by piece, so that Ctrl-C is heard meanwhile.

use crate::error::memory;
use crate::interrupt::{breathe, interruptible};
use aneforge::{Shape, Tensor};
use aneforge_tensor::{AlignedBytes, Bytes};
use numpy::{PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple};

/// Elements of a piece. Far apart and in a foreign type, they take some ten milliseconds.
const PIECE: usize = 1 << 18;

/// Bytes that it takes more than some ten milliseconds to zero.
const LARGE: usize = 1 << 24;

/// Whether an array's elements can be read as a slice: one after the other, and where their type may lie.
pub fn is_plain(array: &Bound<'_, PyUntypedArray>) -> bool {
    #[expect(unsafe_code, reason = "NumPy keeps the flag in the array's header")]
    // SAFETY: the pointer is that of a live array.
    let flags = unsafe { (*array.as_array_ptr()).fields.flags };
    flags & numpy::npyffi::NPY_ARRAY_ALIGNED != 0 && array.is_c_contiguous()
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
    if array.len() <= PIECE {
        let options = PyDict::new(py);
        options.set_item("order", "C")?;
        return Ok(array.call_method(intern!(py, "astype"), (dtype,), Some(&options))?.cast_into()?);
    }
    let numpy = py.import("numpy")?;
    let made = numpy.call_method1("empty", (PyTuple::new(py, array.shape())?, dtype))?;
    let (flat, copy, options) =
        (made.call_method1("reshape", (-1,))?, numpy.getattr("copyto")?, PyDict::new(py));
    options.set_item("casting", "unsafe")?;
    each_piece(array, &mut |start, piece| {
        let to = flat.get_item(PySlice::new(py, start as isize, (start + piece.len()) as isize, 1))?;
        let to = to.call_method1("reshape", (PyTuple::new(py, piece.shape())?,))?;
        copy.call((to, piece), Some(&options)).map(drop)
    })?;
    Ok(made.cast_into()?)
}

type Visit<'a, 'py> = dyn FnMut(usize, &Bound<'py, PyUntypedArray>) -> PyResult<()> + 'a;

/// Calls `visit` with windows of an array, row by row, and the place of the first element of each; a signal ends it.
fn each_piece<'py>(array: &Bound<'py, PyUntypedArray>, visit: &mut Visit<'_, 'py>) -> PyResult<()> {
    // Windows of a matrix are matrices, which never have fewer axes; those of its base class do.
    let base = array.py().import("numpy")?.call_method1("asarray", (array,))?;
    windows(0, &base.cast_into()?, visit)
}

fn windows<'py>(
    start: usize,
    array: &Bound<'py, PyUntypedArray>,
    visit: &mut Visit<'_, 'py>,
) -> PyResult<()> {
    let (py, count) = (array.py(), array.len());
    if count <= PIECE {
        visit(start, array)?;
        return if start > 0 || count == PIECE { breathe(py) } else { Ok(()) };
    }
    let rows = array.shape()[0];
    if rows == 1 {
        return windows(start, &array.get_item(0)?.cast_into()?, visit);
    }
    let (row, some) = (count / rows, (PIECE / (count / rows)).max(1));
    for first in (0..rows).step_by(some) {
        let window = PySlice::new(py, first as isize, rows.min(first + some) as isize, 1);
        windows(start + first * row, &array.get_item(window)?.cast_into()?, visit)?;
    }
    Ok(())
}

/// The least and the greatest of an array of integers that is not empty.
pub fn extremes(array: &Bound<'_, PyUntypedArray>) -> PyResult<(i64, i64)> {
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    let clamped = |value: Bound<'_, PyAny>| {
        let value: i128 = value.extract()?;
        Ok::<_, PyErr>(i64::try_from(value).unwrap_or(i64::MAX))
    };
    each_piece(array, &mut |_, piece| {
        least = least.min(clamped(piece.call_method0("min")?)?);
        most = most.max(clamped(piece.call_method0("max")?)?);
        Ok(())
    })?;
    Ok((least, most))
}

/// A tensor with a copy of an array's values, which fill `shape`, as elements of the type called `dtype`, which is `T`.
pub fn copied<T>(array: &Bound<'_, PyUntypedArray>, dtype: &str, shape: Shape) -> PyResult<Tensor>
where
    T: aneforge_tensor::Element + numpy::Element,
{
    let (py, size) = (array.py(), shape.count().saturating_mul(size_of::<T>()));
    let zeroed = move || AlignedBytes::try_zeroed(size);
    let bytes = if size > LARGE { interruptible(py, move |_| zeroed())? } else { zeroed() };
    let mut bytes = bytes.ok_or_else(|| memory(size))?;
    let cells = bytes.as_mut_slice::<T>();
    let copied = each_piece(array, &mut |start, piece| {
        let plain = converted(piece, dtype)?;
        let values = plain.cast::<PyArrayDyn<T>>()?.try_readonly()?;
        cells[start..start + piece.len()].copy_from_slice(values.as_slice()?);
        Ok(())
    });
    if let Err(e) = copied {
        // Giving much memory back takes a while, in which other threads may run.
        py.detach(|| drop(bytes));
        return Err(e);
    }
    Ok(Tensor::new(T::DTYPE, shape, Bytes::new(bytes)).expect("invariant: one value per element"))
}

/// How deep lists may lie in lists: deeper than arrays have axes.
const DEEPEST: usize = 64;

/// Refuses masked arrays, also in lists: nothing here keeps a mask. `place` names the array in messages.
pub fn unmasked(place: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if !is_masked(object, 0, &mut 0)? {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "{place} is a masked array, and graphs have no masks; say what stands in the masked places, as \
         array.filled(0) does"
    )))
}

/// Whether there is a mask in an object that lies so deep in lists; `seen` are the items so far.
fn is_masked(object: &Bound<'_, PyAny>, depth: usize, seen: &mut usize) -> PyResult<bool> {
    if object.is_exact_instance_of::<PyUntypedArray>() || depth > DEEPEST {
        return Ok(false);
    }
    if object.is_instance_of::<PyUntypedArray>() {
        return object.is_instance(&object.py().import("numpy.ma")?.getattr("MaskedArray")?);
    }
    if let Ok(list) = object.cast::<PyList>() {
        return any_masked(list.iter(), depth, seen);
    }
    object.cast::<PyTuple>().map_or(Ok(false), |tuple| any_masked(tuple.iter(), depth, seen))
}

fn any_masked<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
    seen: &mut usize,
) -> PyResult<bool> {
    for item in items {
        *seen += 1;
        if seen.is_multiple_of(LISTED) {
            breathe(item.py())?;
        }
        if is_masked(&item, depth + 1, seen)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Elements of a list that become an array at once: some milliseconds.
const LISTED: usize = 1 << 16;

/// The array of a list, piece by piece where it is long; `as_array` is `numpy.asarray`.
pub fn listed<'py>(list: &Bound<'py, PyList>, as_array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let row = list.get_item(0).ok().and_then(|row| row.len().ok()).unwrap_or(1).max(1);
    let some = (LISTED / row).max(1);
    if list.len() <= some {
        return as_array.call1((list,));
    }
    let pieces = PyList::empty(list.py());
    for first in (0..list.len()).step_by(some) {
        pieces.append(as_array.call1((list.get_slice(first, first + some),))?)?;
        breathe(list.py())?;
    }
    list.py().import("numpy")?.call_method1("concatenate", (pieces,))
}
