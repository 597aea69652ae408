//! The catalog of MIL's ops.

use crate::text::Text;
use aneforge::Family;
use aneforge::target::catalog::CATALOG;
use aneforge::target::family_of;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The families of the catalog's columns, with the columns' names.
const COLUMNS: [(&str, Family); 4] =
    [("m1", Family::A13), ("m2", Family::A14), ("m3", Family::A15), ("m4_m5", Family::A16)];

/// Every op's record, with its name.
#[pyfunction]
pub fn catalog(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let rows = PyList::empty(py);
    for op in CATALOG {
        let row = PyDict::new(py);
        row.set_item("category", op.category)?;
        for (column, family) in COLUMNS {
            row.set_item(column, op.status(family).name())?;
        }
        row.set_item("kernel", op.kernel)?;
        row.set_item("mil_status", op.class.name())?;
        row.set_item("note", op.note)?;
        rows.append((op.name, row))?;
    }
    Ok(rows)
}

/// The column of the catalog that a chip belongs to, by any of its names.
#[pyfunction]
pub fn catalog_column(chip: Text) -> PyResult<&'static str> {
    let family = family_of(&chip);
    let column = COLUMNS.iter().find(|(_, f)| Some(*f) == family).map(|(column, _)| *column);
    column.ok_or_else(|| {
        let why = match family {
            Some(family) => format!("is {family}, which runs no MIL program"),
            None => "is unknown; known are m1 to m5, a13 to a17, and targets such as h17s".into(),
        };
        PyValueError::new_err(format!("chip `{}` {why}", &*chip))
    })
}
