//! What `x[...]` selects.

use crate::apply::int;
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PySlice, PyTuple};

/// What an index selects: where the window begins, its extents, and which axes stay.
type Window = (Vec<usize>, Vec<usize>, Vec<bool>);

/// Reads `x[...]` with integers, slices of step one and an ellipsis.
pub fn window(dims: &[usize], index: &Bound<'_, PyAny>) -> PyResult<Window> {
    let py = index.py();
    let items: Vec<Bound<'_, PyAny>> = match index.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().collect(),
        Err(_) => vec![index.clone()],
    };
    let is_ellipsis = |item: &Bound<'_, PyAny>| item.is(py.Ellipsis());
    let ellipses = items.iter().filter(|i| is_ellipsis(i)).count();
    let named = items.len() - ellipses;
    if named > dims.len() || ellipses > 1 {
        let message = format!("{} indices for a tensor of {} axes", items.len(), dims.len());
        return Err(PyIndexError::new_err(message));
    }
    let mut window: Window = (Vec::new(), Vec::new(), Vec::new());
    let mut keep = |begin: usize, size: usize, kept: bool| {
        window.0.push(begin);
        window.1.push(size);
        window.2.push(kept);
    };
    let mut axis = 0;
    for item in &items {
        if is_ellipsis(item) {
            for &extent in &dims[axis..axis + dims.len() - named] {
                keep(0, extent, true);
            }
            axis += dims.len() - named;
            continue;
        }
        let (begin, size, kept) = axis_window(axis, dims[axis], item)?;
        keep(begin, size, kept);
        axis += 1;
    }
    for &extent in &dims[axis..] {
        keep(0, extent, true);
    }
    Ok(window)
}

fn axis_window(axis: usize, extent: usize, item: &Bound<'_, PyAny>) -> PyResult<(usize, usize, bool)> {
    if let Ok(slice) = item.cast::<PySlice>() {
        let found = slice.indices(extent as isize)?;
        if found.step != 1 || found.slicelength == 0 {
            return Err(PyValueError::new_err(format!(
                "slice {slice} of axis {axis}, which has {extent} elements, must have step 1 and keep at least \
                 one; use reverse or gather"
            )));
        }
        return Ok((found.start as usize, found.slicelength, true));
    }
    let at = int(item).map_err(|_| PyTypeError::new_err("indices are integers, slices and ..."))?;
    let from_first = if at < 0 { at + extent as i64 } else { at };
    match usize::try_from(from_first) {
        Ok(begin) if begin < extent => Ok((begin, 1, false)),
        _ => {
            let message = format!("index {at} is outside axis {axis}, which has {extent} elements");
            Err(PyIndexError::new_err(message))
        }
    }
}
