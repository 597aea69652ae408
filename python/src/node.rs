//! A tensor as a node: its attributes as ANEForge names them, making one from them, and showing the graph
//! behind it.

use crate::apply::{apply, constant, input, to_python};
use crate::memory::zeros;
use crate::tensor::Tensor;
use crate::text::Text;
use aneforge::ir::op::{Info, Mil, Op, find};
use aneforge::ir::ops::leaf::Input;
use aneforge::target::layers::stand_in;
use aneforge::{Var, f16};
use numpy::PyArrayMethods;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMappingProxy, PyTuple};
use std::collections::HashSet;

/// The node that a value is shown as: for an op that stands for several, the last of those. They are made when first
/// asked for, and are the same ever after.
pub fn shown(var: &Var) -> &Var {
    match var.op().mil() {
        Mil::Composed(_) => var.note(|| {
            let written = var.caller().scope(|| stand_in(var.op(), var.inputs()));
            written.expect("invariant: composed ops are written out")
        }),
        _ => var,
    }
}

/// Inputs that are constants and weights of their op, with their places.
fn weights(var: &Var) -> impl Iterator<Item = (usize, &Var)> {
    let from = var.facts().weights_from;
    var.inputs().iter().enumerate().skip(from).filter(|(_, input)| input.data().is_some())
}

/// Inputs that are not constant weights.
pub fn sources(var: &Var) -> impl ExactSizeIterator<Item = &Var> {
    let var = shown(var);
    let weights: HashSet<usize> = weights(var).map(|(place, _)| place).collect();
    let inputs = var.inputs().iter().enumerate().filter(|(i, _)| !weights.contains(i));
    inputs.map(|(_, input)| input).collect::<Vec<_>>().into_iter()
}

/// A constant's values, read-only.
pub fn contents<'py>(py: Python<'py>, weight: &aneforge::Weight) -> PyResult<Bound<'py, PyAny>> {
    let array = zeros::<f16>(py, weight.shape().dims())?;
    let mut values = array.readwrite();
    weight.read_f16(0, values.as_slice_mut().expect("invariant: new arrays are contiguous"));
    values.make_nonwriteable();
    Ok(array.into_any())
}

/// Attributes that ANEForge gives as one number where both directions agree.
const SINGULAR: [(&str, &str); 3] = [("strides", "stride"), ("dilations", "dilation"), ("kernel_sizes", "k")];

pub fn attrs<'py>(py: Python<'py>, var: &Var) -> PyResult<Bound<'py, PyAny>> {
    let var = shown(var);
    if let Op::Input(leaf) = var.op() {
        let notes = var.note(|| notes(py, leaf).map(Bound::unbind));
        return match notes {
            Ok(notes) => Ok(notes.bind(py).clone().into_any()),
            Err(error) => Err(error.clone_ref(py)),
        };
    }
    let attrs = PyDict::new(py);
    if let (Op::Constant(_), Some(weight)) = (var.op(), var.data()) {
        attrs.set_item("value", contents(py, weight)?)?;
        return Ok(PyMappingProxy::new(py, attrs.as_mapping()).into_any());
    }
    for (name, attr) in var.op().attrs() {
        let value = to_python(py, &attr)?;
        if let Some((_, singular)) = SINGULAR.iter().find(|(plural, _)| *plural == name)
            && let Ok(both) = value.extract::<Vec<i64>>(py)
            && both.windows(2).all(|pair| pair[0] == pair[1])
        {
            attrs.set_item(*singular, both[0])?;
        }
        attrs.set_item(name, value)?;
    }
    let info = var.op().info();
    for (place, weight) in weights(var) {
        let data = weight.data().expect("invariant: weights are constants");
        attrs.set_item(info.shown[place].trim_end_matches('?'), contents(py, data)?)?;
    }
    Ok(PyMappingProxy::new(py, attrs.as_mapping()).into_any())
}

fn notes<'py>(py: Python<'py>, leaf: &Input) -> PyResult<Bound<'py, PyDict>> {
    let notes = PyDict::new(py);
    notes.set_item("idx", leaf.id)?;
    if leaf.dtype != aneforge::DType::F16 {
        notes.set_item("dtype", leaf.dtype.name())?;
    }
    if leaf.max_abs.0.is_finite() {
        notes.set_item("max_abs", leaf.max_abs.0)?;
    }
    if !leaf.name.is_empty() {
        notes.set_item("name", &leaf.name)?;
    }
    Ok(notes)
}

/// The node of `op` with these attributes, weights among them.
pub fn create(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    op: &str,
    srcs: Vec<Bound<'_, Tensor>>,
    attrs: &Bound<'_, PyDict>,
) -> PyResult<Tensor> {
    let made = match op {
        "input" => leaf(py, shape, attrs)?,
        "const_array" => {
            let value = attrs.get_item("value")?;
            let value = value.ok_or_else(|| PyKeyError::new_err("const_array: attrs need `value`"))?;
            constant(&value, None)?
        }
        _ => {
            let entry = find(op).ok_or_else(|| PyValueError::new_err(format!("unknown op `{op}`")))?;
            let (inputs, own) = split(py, &entry.info, srcs, attrs)?;
            apply(py, op, inputs, Some(&own))?
        }
    };
    let wanted: Vec<usize> = shape.try_iter()?.map(|size| size?.extract()).collect::<PyResult<_>>()?;
    let got = made.var.shape();
    if got.dims() != wanted {
        return Err(PyValueError::new_err(format!("{op}: gives {got}, not {wanted:?}")));
    }
    Ok(made)
}

fn leaf(py: Python<'_>, shape: &Bound<'_, PyAny>, attrs: &Bound<'_, PyDict>) -> PyResult<Tensor> {
    let dtype: Option<Text> = attrs.get_item("dtype")?.map(|d| d.extract()).transpose()?;
    let max_abs: Option<f64> = attrs.get_item("max_abs")?.map(|m| m.extract()).transpose()?;
    let name: Option<Text> = attrs.get_item("name")?.map(|n| n.extract()).transpose()?;
    let made = input(py, shape, dtype.unwrap_or_else(|| Text::from("fp16")), max_abs, name)?;
    let notes = crate::node::attrs(py, &made.var)?;
    for (key, value) in attrs {
        if &*key.extract::<Text>()? != "idx" {
            notes.set_item(key, value)?;
        }
    }
    Ok(made)
}

/// Inputs with the weights that `attrs` hold, and the attributes that are left, under their own names.
fn split<'py>(
    py: Python<'py>,
    info: &Info,
    srcs: Vec<Bound<'py, Tensor>>,
    attrs: &Bound<'py, PyDict>,
) -> PyResult<(Vec<Bound<'py, Tensor>>, Bound<'py, PyDict>)> {
    let (mut inputs, own) = (srcs, attrs.copy()?);
    for shown in info.shown.iter().skip(inputs.len()) {
        let name = shown.trim_end_matches('?');
        let Some(value) = own.get_item(name)?.filter(|value| !value.is_none()) else { continue };
        inputs.push(Bound::new(py, constant(&value, None)?)?);
        own.del_item(name)?;
    }
    for (plural, singular) in SINGULAR {
        let declared = |name: &str| info.attrs.iter().any(|a| a.name == name);
        let Some(value) = own.get_item(singular)?.filter(|_| declared(plural)) else { continue };
        if !own.contains(plural)? {
            own.set_item(plural, PyTuple::new(py, [&value, &value])?)?;
        }
        own.del_item(singular)?;
    }
    if let Some(pad) = own.get_item("pad")?
        && let Ok(side) = pad.extract::<i64>()
        && info.attrs.iter().any(|a| a.name == "pad")
    {
        own.set_item("pad", [side; 4])?;
    }
    Ok((inputs, own))
}

/// Rows of the table that notebooks show.
const MOST_ROWS: usize = 24;

/// A table of the node and those that it is made from, last first.
pub fn html(var: &Var) -> String {
    let mut seen = HashSet::new();
    let mut pending = vec![(var.clone(), u64::MAX)];
    let mut nodes = Vec::new();
    while let Some((node, user)) = pending.pop() {
        if !seen.insert(node.id()) || nodes.len() > MOST_ROWS {
            continue;
        }
        // Nodes are numbered as they are built, so a later one never comes before what it is made from; but those that
        // a composed op is shown as are built last, and belong right before it.
        let place = if node.id() > user { (user, node.id()) } else { (node.id(), u64::MAX) };
        pending.extend(shown(&node).inputs().iter().map(|input| (input.clone(), place.0)));
        nodes.push((place, node));
    }
    nodes.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    let more = nodes.len() > MOST_ROWS || !pending.is_empty();
    let row = |(_, var): &(_, Var)| {
        let node = shown(var);
        let inputs: Vec<String> = node.inputs().iter().map(|v| format!("#{}", v.id())).collect();
        let attrs: Vec<String> = node.op().attrs().iter().map(|(k, v)| format!("{k}={v}")).collect();
        let cells = [
            format!("#{}", var.id()),
            node.op().name().to_owned(),
            inputs.join(", "),
            if node.data().is_some() { String::new() } else { attrs.join(", ") },
            node.ty().to_string(),
        ];
        let cells: String = cells.iter().map(|c| format!("<td>{}</td>", escaped(c))).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = nodes.iter().take(MOST_ROWS).map(row).collect();
    let rest = if more { "<tr><td colspan=5>and more before these</td></tr>" } else { "" };
    let heads: String = ["", "op", "of", "attributes", "type"].map(|h| format!("<th>{h}</th>")).concat();
    format!("<table><thead><tr>{heads}</tr></thead><tbody>{rows}{rest}</tbody></table>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
