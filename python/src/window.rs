//! What `x[...]` selects.

use crate::apply::int;
use crate::error::instead;
use aneforge::Var;
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PySlice, PyTuple};

/// What an index selects of one axis: `count` elements from `begin` on, `step` apart.
struct Axis {
    begin: usize,
    count: usize,
    step: usize,
    /// Whether they come in the opposite order.
    reversed: bool,
    /// Whether the axis stays.
    kept: bool,
}

impl Axis {
    fn whole(extent: usize) -> Axis {
        Axis { begin: 0, count: extent, step: 1, reversed: false, kept: true }
    }

    /// From the first element to the last.
    fn span(&self) -> usize {
        (self.count - 1) * self.step + 1
    }
}

/// What `x[...]` selects: something of every axis, and where new axes of one element go.
pub struct Window {
    axes: Vec<Axis>,
    added: Vec<i64>,
}

impl Window {
    /// Reads an index of integers, slices, an ellipsis and None.
    pub fn read(dims: &[usize], index: &Bound<'_, PyAny>) -> PyResult<Window> {
        let items: Vec<Bound<'_, PyAny>> = match index.cast::<PyTuple>() {
            Ok(tuple) => tuple.iter().collect(),
            Err(_) => vec![index.clone()],
        };
        let is_ellipsis = |item: &Bound<'_, PyAny>| item.is(index.py().Ellipsis());
        let ellipses = items.iter().filter(|item| is_ellipsis(item)).count();
        let named = items.iter().filter(|item| !is_ellipsis(item) && !item.is_none()).count();
        if ellipses > 1 {
            return Err(PyIndexError::new_err(format!("an index can have one ellipsis, got {ellipses}")));
        }
        if named > dims.len() {
            let message = format!("{named} indices for a tensor of {} axes", dims.len());
            return Err(PyIndexError::new_err(message));
        }
        let mut window = Window { axes: Vec::new(), added: Vec::new() };
        for item in &items {
            let at = window.axes.len();
            if item.is_none() {
                let kept = window.axes.iter().filter(|axis| axis.kept).count();
                window.added.push((kept + window.added.len()) as i64);
            } else if is_ellipsis(item) {
                window
                    .axes
                    .extend(dims[at..at + dims.len() - named].iter().map(|&extent| Axis::whole(extent)));
            } else {
                window.axes.push(axis(at, dims[at], item)?);
            }
        }
        let rest = window.axes.len();
        window.axes.extend(dims[rest..].iter().map(|&extent| Axis::whole(extent)));
        Ok(window)
    }

    /// What it selects of `x`.
    pub fn of(&self, x: &Var) -> Var {
        let begin: Vec<usize> = self.axes.iter().map(|axis| axis.begin).collect();
        let size: Vec<usize> = self.axes.iter().map(Axis::span).collect();
        let mut part = if x.shape().dims() == size { x.clone() } else { x.slice_by_size(&begin, &size) };
        for (at, axis) in self.axes.iter().enumerate().filter(|(_, axis)| axis.step > 1) {
            // What follows a mistake has no axes to choose from.
            if part.check().is_err() {
                return part;
            }
            part = part.every(at as i64, 0, axis.step, axis.count);
        }
        if part.check().is_err() {
            return part;
        }
        let reversed = self.places(|axis| axis.reversed);
        if !reversed.is_empty() {
            part = part.reverse(&reversed);
        }
        let dropped = self.places(|axis| !axis.kept);
        if !dropped.is_empty() {
            part = part.squeeze(&dropped);
        }
        if self.added.is_empty() { part } else { part.expand_dims(&self.added) }
    }

    fn places(&self, of: impl Fn(&Axis) -> bool) -> Vec<i64> {
        let places = self.axes.iter().enumerate().filter(|(_, axis)| of(axis));
        places.map(|(at, _)| at as i64).collect()
    }
}

fn axis(at: usize, extent: usize, item: &Bound<'_, PyAny>) -> PyResult<Axis> {
    if let Ok(slice) = item.cast::<PySlice>() {
        let found = slice.indices(extent as isize)?;
        let Some(more) = found.slicelength.checked_sub(1) else {
            let slice = slice.str()?;
            let slice = slice.to_str()?;
            return Err(PyValueError::new_err(format!(
                "slice {slice} of axis {at}, which has {extent} elements, must keep at least one"
            )));
        };
        let step = if more == 0 { 1 } else { found.step.unsigned_abs() };
        let reversed = more > 0 && found.step < 0;
        let begin = found.start as usize - if reversed { more * step } else { 0 };
        return Ok(Axis { begin, count: more + 1, step, reversed, kept: true });
    }
    let refuse = || {
        PyTypeError::new_err(
            "indices are integers, slices, ... and None; take elements at a list of places with gather, and \
             by a condition with where",
        )
    };
    if item.is_instance_of::<PyBool>() {
        return Err(refuse());
    }
    let index = int(item).map_err(|e| match e.is_instance_of::<PyOverflowError>(item.py()) {
        true => PyIndexError::new_err(format!(
            "an index of more than 64 bits is outside axis {at}, which has {extent} elements"
        )),
        false => instead(item.py(), e, refuse),
    })?;
    let from_first = if index < 0 { index + extent as i64 } else { index };
    match usize::try_from(from_first) {
        Ok(begin) if begin < extent => Ok(Axis { begin, count: 1, step: 1, reversed: false, kept: false }),
        _ => {
            let message = format!("index {index} is outside axis {at}, which has {extent} elements");
            Err(PyIndexError::new_err(message))
        }
    }
}
