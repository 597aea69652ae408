//! The ports of a model, by what Python calls them.

use crate::error::Error;
use crate::model::Model;
use crate::state;
use crate::tensor::Tensor;
use crate::text::{Text, shown};
use aneforge::RunError;
use aneforge::ir::op::Op;
use aneforge::ir::ops::leaf::Input;
use aneforge::ir::types::counted;
use aneforge::plan::{Code, Segment, Source};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyTuple};

impl Model {
    /// The number of the input with this tensor, number or name.
    pub fn port(&self, name: &Bound<'_, PyAny>) -> PyResult<usize> {
        let count = self.plan().feeds.len();
        let found = if name.is_none() {
            (count == 1).then_some(0)
        } else if let Ok(tensor) = name.cast::<Tensor>() {
            match tensor.get().var.op() {
                Op::Input(Input { id, .. }) => self.plan().feeds.iter().position(|feed| feed.leaf == *id),
                _ => None,
            }
        } else if let Ok(name) = name.extract::<Text>() {
            self.plan().feed(&name).or_else(|| self.names().iter().position(|known| **known == *name))
        } else {
            number(name).filter(|&index| index < count)
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let names = self.names().join(", ");
        let given = if name.is_none() { String::new() } else { format!("; got {}", shown(name)?) };
        Err(PyValueError::new_err(format!(
            "name one of the model's {}: its tensor, its number, or its name of {names}{given}",
            counted(count, "input")
        )))
    }

    /// The number of the output with this number or name.
    pub fn output(&self, given: &Bound<'_, PyAny>) -> PyResult<usize> {
        let count = self.plan().returned().len();
        let names = self.output_names();
        let found = match given.extract::<Text>() {
            Ok(name) => names.iter().position(|known| **known == *name),
            Err(_) => number(given).filter(|&index| index < count),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let number = if count == 1 { "0".into() } else { format!("an integer from 0 to {}", count - 1) };
        let named =
            if names.is_empty() { String::new() } else { format!(", or a name of {}", names.join(", ")) };
        let got = given.repr()?;
        let got = got.to_str()?;
        Err(PyValueError::new_err(format!("output_view: index must be {number}{named}; got {got}")))
    }

    /// Names of the inputs: their own, or else those in the program that reads them first, with a number where another
    /// input has that name; empty for those that none reads.
    pub fn names(&self) -> Vec<String> {
        let name = |segment: &Segment, port: usize| match &segment.code {
            Code::Mil { program, .. } => program.functions[0].params[port].name.clone(),
            Code::Native(netplist) => netplist.layer.feeds[port].1.name.to_owned(),
        };
        let read = |feed: usize| {
            self.plan().segments.iter().find_map(|segment| {
                let port = segment.inputs.iter().position(|&source| source == Source::Feed(feed))?;
                Some(name(segment, port))
            })
        };
        let mut names: Vec<String> = self.plan().feeds.iter().map(|feed| feed.name.clone()).collect();
        for at in 0..names.len() {
            let Some(own) = names[at].is_empty().then(|| read(at)).flatten() else { continue };
            let mut others = (2..).map(|n| format!("{own}_{n}"));
            let mut free = own.clone();
            while names.contains(&free) {
                free = others.next().expect("invariant: numbers do not end");
            }
            names[at] = free;
        }
        names
    }

    /// The array of each feed, of those given in order and those given by tensor, number or name. Parameters and state
    /// may be given, by tensor or name.
    pub fn in_order<'py>(
        &self,
        arrays: &Bound<'py, PyTuple>,
        named: &Bound<'py, PyDict>,
    ) -> PyResult<Vec<(usize, Bound<'py, PyAny>)>> {
        let fed = state::fed(self.running());
        if arrays.iter().any(|array| array.is_instance_of::<PyDict>()) {
            let names = self.names();
            let names: Vec<&str> = fed.iter().map(|&at| names[at].as_str()).collect();
            return Err(PyTypeError::new_err(format!(
                "a model takes arrays, and got a dict; its inputs are fed by name as keywords, model(**feeds), with the \
                 names {}",
                names.join(", ")
            )));
        }
        if named.is_empty() && arrays.len() == fed.len() {
            return Ok(fed.into_iter().zip(arrays.iter()).collect());
        }
        let count = |got| Error::Run(RunError::Count { want: fed.len(), got });
        if arrays.len() > fed.len() {
            return Err(count(arrays.len() + named.len()).into());
        }
        let mut given: Vec<Option<Bound<'py, PyAny>>> = vec![None; self.plan().feeds.len()];
        fed.iter().zip(arrays).for_each(|(&at, array)| given[at] = Some(array));
        for (name, array) in named {
            let at = match self.port(&name) {
                Err(e) if e.is_instance_of::<PyValueError>(named.py()) => {
                    return Err(PyTypeError::new_err(e.value(named.py()).str()?.to_str()?.to_owned()));
                }
                at => at?,
            };
            if given[at].replace(array).is_some() {
                let message = format!("input {at} ({}) is given twice", self.names()[at]);
                return Err(PyTypeError::new_err(message));
            }
        }
        match fed.iter().find(|&&at| given[at].is_none()) {
            Some(at) if !named.is_empty() => {
                let message = format!("input {at} ({}) is not given", self.names()[*at]);
                Err(PyValueError::new_err(message))
            }
            Some(_) => Err(count(arrays.len()).into()),
            None => Ok(given.into_iter().enumerate().filter_map(|(at, array)| Some((at, array?))).collect()),
        }
    }
}

/// A place among ports, which truth values are not.
fn number(given: &Bound<'_, PyAny>) -> Option<usize> {
    if given.is_instance_of::<PyBool>() { None } else { given.extract().ok() }
}
