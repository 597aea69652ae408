//! Words that Python gives.

use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ops::Deref;

/// A word that is looked up somewhere. A lone surrogate, which no text in UTF-8 has, is spelled `\udcff` in it, so that the
/// word is an unknown one like any other.
pub struct Text(String);

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;
    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Text> {
        let text = given.cast::<PyString>().map_err(PyErr::from)?;
        match text.to_str() {
            Ok(text) => Ok(Text(text.to_owned())),
            Err(_) => {
                let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
                Ok(Text(String::from_utf8_lossy(bytes.extract()?).into_owned()))
            }
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.to_owned())
    }
}

/// What Python shows of a value.
pub fn shown(value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(value.str()?.extract::<Text>()?.0)
}
