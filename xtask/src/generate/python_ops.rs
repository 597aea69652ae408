//! Methods of Python's `Tensor`, and functions for native layers, whose signatures follow from the declaration.

use super::examples::example;
use super::ops_page::unindented;
use crate::run::root;
use aneforge::ir::attr::Attr;
use aneforge::ir::op::{AttrInfo, Entry, Mil, OPS};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Native layers that are methods, as the reference has them; the others are functions.
const LAYER_METHODS: &[&str] = &["argmax"];

const HEADER: &str = r#"# Written by `cargo xtask gen` from the declarations in crates/aneforge/src/ir/ops. Do not edit.
"""Methods of `Tensor` and functions of native layers, whose signatures follow from the op list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aneforge import _native
from aneforge._native import Tensor
from aneforge._operand import Array, axes_of, reduced, value

__all__ = [{FUNCTIONS}]


class OpMethods:
    """One method per op of one input."""

    __slots__ = ()
"#;

/// The module `aneforge._ops`.
pub fn text() -> Result<String> {
    let (layers, methods): (Vec<&Entry>, Vec<&Entry>) =
        OPS.iter().filter(|entry| !is_by_hand(entry)).partition(|entry| is_function(entry));
    let names: Vec<String> = layers.iter().map(|entry| format!("\n    {:?},", entry.info.name)).collect();
    let mut out = HEADER.replace("{FUNCTIONS}", &(names.concat() + "\n"));
    for entry in methods {
        out += &method(entry)?;
    }
    for entry in layers {
        out += &function(entry)?;
    }
    Ok(out)
}

/// Whether Python's side of an op is written by hand: a function in `python/aneforge` has its name, or it is a leaf, or
/// it takes several operands and so is an operator or a method with a signature of its own, or compiling alone makes it.
pub fn is_by_hand(entry: &Entry) -> bool {
    let name = entry.info.name;
    let operator = entry.info.inputs.len() > 1 && !is_function(entry);
    matches!((entry.mil)(), Mil::Leaf) || operator || name.starts_with("native_") || written().contains(name)
}

/// Names of the functions in `python/aneforge` and of the methods of `Tensor` that are not generated.
fn written() -> &'static BTreeSet<String> {
    static WRITTEN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let folder = root().join("python/aneforge");
        let files =
            fs::read_dir(&folder).expect("invariant: the package is there").flatten().map(|file| file.path());
        let python =
            files.filter(|path| path.extension().is_some_and(|e| e == "py") && !path.ends_with("_ops.py"));
        let names = |path: PathBuf| {
            let of_tensor = path.ends_with("_tensor.py");
            let text = fs::read_to_string(path).unwrap_or_default();
            let name = move |line: &str| {
                let line = if of_tensor { line.trim_start() } else { line };
                Some(line.strip_prefix("def ")?.split('(').next()?.to_owned())
            };
            text.lines().filter_map(name).collect::<Vec<_>>()
        };
        python.flat_map(names).collect()
    });
    &WRITTEN
}

/// Whether an op is a function of the package rather than a method of `Tensor`.
pub fn is_function(entry: &Entry) -> bool {
    matches!((entry.mil)(), Mil::Native(_)) && !LAYER_METHODS.contains(&entry.info.name)
}

/// The columns of a line that Python's formatter leaves whole.
const COLUMNS: usize = 110;

/// The first line of a definition, or one line per parameter where that is too long.
fn signature(indent: &str, name: &str, parameters: &[String]) -> String {
    let line = format!("{indent}def {name}({}) -> Tensor:\n", parameters.join(", "));
    if line.trim_end().len() <= COLUMNS {
        return line;
    }
    let lines: String = parameters.iter().map(|parameter| format!("{indent}    {parameter},\n")).collect();
    format!("{indent}def {name}(\n{lines}{indent}) -> Tensor:\n")
}

/// Attributes as parameters, and as the dictionary that is passed on, with a comma before it.
fn attributes(entry: &Entry) -> Result<(Vec<String>, String)> {
    let op = entry.info.name;
    let defaults = entry.defaults().with_context(|| format!("op `{op}` cannot be made from its defaults"))?;
    let (mut parameters, mut passed) = (Vec::new(), Vec::new());
    for attr in entry.info.attrs {
        let default = attr.default.and_then(|_| defaults.iter().find(|(n, _)| *n == attr.name));
        parameters.push(parameter(attr, default.map(|(_, value)| value)));
        passed.push(format!("{0:?}: {0}", attr.name));
    }
    let attrs = if passed.is_empty() { String::new() } else { format!(", {{{}}}", passed.join(", ")) };
    Ok((parameters, attrs))
}

fn function(entry: &Entry) -> Result<String> {
    let (op, inputs) = (entry.info.name, entry.info.inputs);
    let (parameters, attrs) = attributes(entry)?;
    let mut taken: Vec<String> = inputs.iter().map(|input| format!("{input}: Tensor | Array")).collect();
    taken.extend(parameters);
    let given: Vec<String> = inputs.iter().map(|input| format!("value({input})")).collect();
    let docstring = docstring(entry).replace("\n    ", "\n");
    Ok(format!(
        "\n\n{}{}    return _native.apply({op:?}, [{}]{attrs})\n",
        signature("", op, &taken),
        docstring.strip_prefix("    ").unwrap_or(&docstring),
        given.join(", ")
    ))
}

fn method(entry: &Entry) -> Result<String> {
    let op = entry.info.name;
    if entry.info.inputs.len() != 1 {
        bail!("op `{op}` has several inputs; write its function by hand in python/aneforge");
    }
    let name = entry.info.method;
    let (attributes, mut attrs) = attributes(entry)?;
    let mut parameters = vec!["self".to_owned()];
    parameters.extend(attributes);
    let has = |name: &str| entry.info.attrs.iter().any(|attr| attr.name == name);
    if has("axes") {
        return Ok(over_axes(entry, name));
    }
    if has("axis") && name != "flatten2d" {
        parameters.extend(["*", "dim: int | None = None"].map(str::to_owned));
        attrs = attrs.replace("\"axis\": axis", "\"axis\": axis if dim is None else dim");
    }
    Ok(format!(
        "\n{}{}        return _native.apply({op:?}, [cast(Tensor, self)]{attrs})\n",
        signature("    ", name, &parameters),
        docstring(entry)
    ))
}

/// A method whose axes have the names that NumPy and PyTorch give them, and are all of them by default.
fn over_axes(entry: &Entry, name: &str) -> String {
    let op = entry.info.name;
    let axes = |name: &str| format!("{name}: int | Sequence[int] | None = None");
    let mut parameters = vec!["self".to_owned(), axes("axes"), "*".to_owned(), axes("axis"), axes("dim")];
    let call = if op.starts_with("reduce_") {
        parameters.extend(["keepdims: bool | None = None", "keepdim: bool | None = None"].map(str::to_owned));
        format!("reduced({op:?}, cast(Tensor, self), axes, axis, dim, keepdims, keepdim)")
    } else {
        let axes = format!("axes_of({op:?}, cast(Tensor, self), axes, axis, dim)");
        format!("_native.apply({op:?}, [cast(Tensor, self)], {{\"axes\": {axes}}})")
    };
    format!("\n{}{}        return {call}\n", signature("    ", name, &parameters), docstring(entry))
}

fn parameter(attr: &AttrInfo, default: Option<&Attr>) -> String {
    let ty = match attr.ty {
        "ints" => "int | Sequence[int]",
        other => other,
    };
    let value = match default {
        None => return format!("{}: {ty}", attr.name),
        Some(Attr::Bool(true)) => "True".to_owned(),
        Some(Attr::Bool(false)) => "False".to_owned(),
        Some(Attr::Ints(v)) => format!("({})", v.iter().map(|i| format!("{i},")).collect::<String>()),
        Some(other) => other.to_string(),
    };
    format!("{}: {ty} = {value}", attr.name)
}

fn docstring(entry: &Entry) -> String {
    let page = unindented(entry.info.page());
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    if !entry.info.attrs.is_empty() {
        lines.extend([String::new(), "Args:".to_owned()]);
    }
    for attr in entry.info.attrs {
        let mut doc = unindented(attr.doc).replace('\n', " ");
        if let Some(first) = doc.get(..1).filter(|_| !doc.starts_with('`')) {
            doc = first.to_lowercase() + &doc[1..];
        }
        lines.push(format!("    {}: {doc}", attr.name));
    }
    if let Some(example) = example(entry) {
        lines.extend([String::new(), "Example:".to_owned()]);
        lines.extend(example.into_iter().map(|line| format!("    {line}")));
    }
    match &lines[..] {
        [one] => format!("        \"\"\"{one}\"\"\"\n"),
        [first, rest @ ..] => {
            let indented = |line: &String| match line.as_str() {
                "" => "\n".to_owned(),
                line => format!("        {line}\n"),
            };
            let rest: String = rest.iter().map(indented).collect();
            format!("        \"\"\"{first}\n{rest}        \"\"\"\n")
        }
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::ir::op::find;

    fn of(name: &str) -> String {
        method(find(name).expect("it is an op")).expect("it has a method")
    }

    #[test]
    fn signatures_follow_from_declarations() {
        let relu = "def relu(self) -> Tensor:\n        \"\"\"`max(x, 0)`.\n\n        Example:\n            x = af.input(";
        assert!(of("relu").contains(relu));
        assert!(of("log").contains("def log(self, eps: float = 0.0) -> Tensor:"));
        assert!(
            of("softmax").contains("def softmax(self, axis: int = -1, *, dim: int | None = None) -> Tensor:")
        );
        assert!(of("reduce_mean").contains(
            "    def mean(\n        self,\n        axes: int | Sequence[int] | None = None,\n        *,\n"
        ));
        assert!(of("softmax").contains("        Args:\n            axis: the axis normalised over"));
    }

    #[test]
    fn ops_of_several_inputs_are_written_by_hand() {
        assert!(method(find("matmul").expect("it is an op")).is_err());
    }
}
