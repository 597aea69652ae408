//! Building nodes: any op of the list by its name, and the two kinds of leaves.

use crate::caller::{attributed, here};
use crate::error::{checked, instead, memory};
use crate::interrupt::interruptible;
use crate::operand::{as_array, constant_of, too_large, weight_array};
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::ir::attr::Attr;
use aneforge::ir::op::{Info, find};
use aneforge::ir::ops::leaf::Role;
use aneforge::plan::Results;
use aneforge::{DType, Family, Shape, TensorType, Var, f16};
use aneforge_tensor::{AlignedBytes, Bytes};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyList, PyString, PyTuple};
use std::sync::atomic::Ordering;

type Attrs = Vec<(String, Attr)>;

/// The result of the op called `name`, checked at once.
#[pyfunction]
#[pyo3(signature = (name, inputs, attrs = None))]
pub fn apply(
    py: Python<'_>,
    name: &str,
    inputs: Vec<Bound<'_, Tensor>>,
    attrs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Tensor> {
    let entry = find(name).ok_or_else(|| PyValueError::new_err(format!("unknown op `{name}`")))?;
    let inputs: Vec<&Var> = inputs.iter().map(|t| &t.get().var).collect();
    let mut attrs = attrs.map_or_else(|| Ok(Attrs::new()), |attrs| read(&entry.info, attrs))?;
    let rank = inputs.first().map_or(0, |first| first.shape().rank());
    for (name, attr) in &mut attrs {
        let declared = entry.info.attrs.iter().find(|a| a.name == name);
        if let Some(axes) = declared.and_then(|declared| declared.axes) {
            axes.from_first(attr, rank);
        }
    }
    let get = |wanted: &str| attrs.iter().find(|(name, _)| name == wanted).map(|(_, attr)| attr.clone());
    let op = (entry.from_attrs)(&get).map_err(|why| PyTypeError::new_err(format!("{name}: {why}")))?;
    let var = attributed(py, || Var::apply(op, &inputs))?;
    Ok(Tensor { var: checked(var)? })
}

fn read(info: &Info, attrs: &Bound<'_, PyDict>) -> PyResult<Attrs> {
    let mut read = Attrs::with_capacity(attrs.len());
    for (key, value) in attrs {
        let key = key.extract::<Text>()?.to_string();
        let declared =
            info.attrs.iter().find(|a| a.name == key).ok_or_else(|| {
                PyTypeError::new_err(format!("{}: there is no attribute `{key}`", info.name))
            })?;
        let attr = attr(declared.ty, &value).map_err(|e| unread(info.name, &key, declared.ty, &value, e));
        read.push((key, attr?));
    }
    Ok(read)
}

/// Why an attribute is not what its op takes.
fn unread(op: &str, key: &str, ty: &str, value: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = value.py();
    if error.is_instance_of::<PyOverflowError>(py) {
        return too_large(&format!("{op}: {key}"), value);
    }
    let got = match value.repr().and_then(|repr| Ok(repr.to_str()?.to_owned())) {
        Ok(got) => got,
        Err(e) => return e,
    };
    instead(py, error, || PyTypeError::new_err(format!("{op}: {key} must be {}, got {got}", said(ty))))
}

fn said(ty: &str) -> &str {
    match ty {
        "int" => "an integer",
        "float" => "a number",
        "bool" => "True or False",
        "ints" => "integers",
        _ => "a name",
    }
}

fn attr(ty: &str, value: &Bound<'_, PyAny>) -> PyResult<Attr> {
    Ok(match ty {
        "int" => Attr::Int(int(value)?),
        "float" => Attr::Real(value.extract()?),
        "bool" => Attr::Bool(value.extract()?),
        "ints" => Attr::Ints(ints(value)?),
        _ => Attr::Str(value.extract::<Text>()?.to_string()),
    })
}

/// An integer, of Python or NumPy.
pub fn int(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if value.is_instance_of::<PyFloat>() {
        return Err(PyTypeError::new_err("a float is not an integer"));
    }
    value.extract()
}

/// One integer, or a sequence of them.
fn ints(value: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("not integers"));
    }
    match int(value) {
        Ok(one) => Ok(vec![one]),
        Err(e) if e.is_instance_of::<PyTypeError>(value.py()) => {
            value.try_iter()?.map(|item| int(&item?)).collect()
        }
        Err(e) => Err(e),
    }
}

/// A value that is fed at run time.
#[pyfunction]
#[pyo3(signature = (shape, dtype, max_abs = None, name = None))]
pub fn input(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    dtype: Text,
    max_abs: Option<f64>,
    name: Option<Text>,
) -> PyResult<Tensor> {
    let refuse = |what: &str| refused("input", what);
    let shape = shape_of(py, "input", shape)?;
    let dtype = DType::from_name(&dtype.trim().to_ascii_lowercase())
        .filter(|d| matches!(d, DType::F16 | DType::U8))
        .ok_or_else(|| {
            refuse(&format!(
                "dtype must be \"fp16\" or \"uint8\", got \"{}\"; feed fp16 and convert on the host",
                &*dtype
            ))
        })?;
    let ty = TensorType { dtype, shape };
    if name.as_deref() == Some("") {
        return Err(refuse("a name has at least one letter; leave it out for none"));
    }
    let bound = max_abs.unwrap_or(f64::INFINITY);
    let var =
        attributed(py, || Var::described_leaf(ty, Role::Feed, bound, name.as_deref().unwrap_or_default()))?;
    Ok(Tensor { var: checked(var)? })
}

/// An error of the function called so.
pub fn refused(name: &str, what: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: {what}"))
}

/// The shape that the function called so was given.
pub fn shape_of(py: Python<'_>, name: &str, shape: &Bound<'_, PyAny>) -> PyResult<Shape> {
    let no_integers = || PyTypeError::new_err(format!("{name}: shape must be a sequence of integers"));
    let dims = ints(shape)
        .map_err(|e| match e.is_instance_of::<PyOverflowError>(py) {
            true => refused(name, "a size is too large; sizes fit 32 bits"),
            false => instead(py, e, no_integers),
        })?
        .into_iter()
        .map(|d| usize::try_from(d).map_err(|_| refused(name, &format!("size {d} is negative"))))
        .collect::<PyResult<Vec<usize>>>()?;
    Shape::new(&dims).map_err(|e| refused(name, &e.to_string()))
}

/// A value baked into the program, copied from an array.
///
/// With `weight`, which names the place in messages, the array must be real.
#[pyfunction]
#[pyo3(signature = (array, weight = None))]
pub fn constant(array: &Bound<'_, PyAny>, weight: Option<&str>) -> PyResult<Tensor> {
    if let Ok(tensor) = array.cast::<Tensor>() {
        return Ok(Tensor { var: tensor.get().var.clone() });
    }
    let array = match weight {
        Some(place) => weight_array(place, array)?,
        None => as_array("the constant", array)?,
    };
    Ok(Tensor { var: checked(constant_of(weight.unwrap_or("the constant"), &array)?)? })
}

/// A square of ones on and below its diagonal, with a column for every element of an axis whose running sums `cumsum` takes.
#[pyfunction]
pub fn triangle(py: Python<'_>, size: usize) -> PyResult<Tensor> {
    let most = Family::A16.limits().tensor_dim;
    if size > most {
        return Err(PyValueError::new_err(format!(
            "cumsum: the axis has {size} elements, above the {most} that any target allows; take the running sums of parts, \
             and add to each the sum of those before it"
        )));
    }
    let at = here(py)?;
    let shape = Shape::new(&[size, size]).map_err(|e| PyValueError::new_err(format!("cumsum: {e}")))?;
    let bytes = size * size * size_of::<f16>();
    let ones = interruptible(py, move |stop| {
        let mut ones = AlignedBytes::try_zeroed(bytes)?;
        for (row, cells) in ones.as_mut_slice::<f16>().chunks_exact_mut(size.max(1)).enumerate() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            cells[..=row].fill(f16::ONE);
        }
        Some(Bytes::new(ones))
    })?;
    let ones = ones.ok_or_else(|| memory(bytes))?;
    let ones = aneforge::Tensor::new(DType::F16, shape, ones).expect("invariant: one value per element");
    Ok(Tensor { var: checked(at.scope(|| Var::constant(ones)))? })
}

/// The elements at static places along one axis.
#[pyfunction]
pub fn gather(
    py: Python<'_>,
    x: &Bound<'_, Tensor>,
    indices: Vec<usize>,
    axis: &Bound<'_, PyAny>,
) -> PyResult<Tensor> {
    let axis = int(axis)?;
    let var = attributed(py, || x.get().var.gather(&indices, axis))?;
    Ok(Tensor { var: checked(var)? })
}

/// An attribute as Python sees it.
pub fn to_python(py: Python<'_>, attr: &Attr) -> PyResult<Py<PyAny>> {
    Ok(match attr {
        Attr::Int(v) => v.into_pyobject(py)?.into_any().unbind(),
        Attr::Real(v) => v.into_pyobject(py)?.into_any().unbind(),
        Attr::Bool(v) => PyBool::new(py, *v).to_owned().into_any().unbind(),
        Attr::Str(v) => v.into_pyobject(py)?.into_any().unbind(),
        Attr::Ints(v) => PyTuple::new(py, v)?.into_any().unbind(),
    })
}

/// How a model gives its results back.
#[derive(Clone)]
pub enum Returned {
    /// One array.
    One,
    /// A tuple.
    Tuple,
    /// A dictionary with these keys.
    Named(Vec<String>),
}

impl Returned {
    /// The same in the words of a plan.
    pub fn results(&self) -> Results {
        match self {
            Returned::One => Results::Alone,
            Returned::Tuple => Results::InOrder,
            Returned::Named(names) => Results::Named(names.clone()),
        }
    }

    /// How a model of a plan gives its results back.
    pub fn of(results: &Results) -> Returned {
        match results {
            Results::Alone => Returned::One,
            Results::InOrder => Returned::Tuple,
            Results::Named(names) => Returned::Named(names.clone()),
        }
    }
}

/// Outputs of several tensors, given as one, as a sequence, or under names.
pub fn outputs(out: &Bound<'_, PyAny>, may_be_empty: bool) -> PyResult<(Vec<Var>, Returned)> {
    let refuse =
        || PyTypeError::new_err("out takes a Tensor, a list or tuple of them, or a dict of them by name");
    let tensor = |item: Bound<'_, PyAny>| Ok(item.cast::<Tensor>().map_err(|_| refuse())?.get().var.clone());
    let none = || PyValueError::new_err("out is empty; give at least one Tensor");
    if let Ok(named) = out.cast::<PyDict>() {
        let text = |name: Bound<'_, PyAny>| {
            let what = if name.is_instance_of::<PyString>() {
                Some(name.repr()?.to_str()?.to_owned())
            } else {
                None
            };
            let no_text = |shown| {
                PyValueError::new_err(format!("compile: the name {shown} of a result is no text in UTF-8"))
            };
            name.extract().map_err(|e| instead(out.py(), e, || what.map_or_else(refuse, no_text)))
        };
        let names: Vec<String> = named.keys().iter().map(text).collect::<PyResult<_>>()?;
        if names.is_empty() {
            return Err(none());
        }
        let vars = named.values().iter().map(tensor).collect::<PyResult<_>>()?;
        return Ok((vars, Returned::Named(names)));
    }
    if out.is_instance_of::<PyList>() || out.is_instance_of::<PyTuple>() {
        let vars: Vec<Var> = out.try_iter()?.map(|item| tensor(item?)).collect::<PyResult<_>>()?;
        if vars.is_empty() && !may_be_empty {
            return Err(none());
        }
        return Ok((vars, Returned::Tuple));
    }
    Ok((vec![tensor(out.clone())?], Returned::One))
}
