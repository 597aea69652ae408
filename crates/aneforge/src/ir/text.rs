//! The text form of graphs: what tests, dumps and bug reports are written in.
//!
//! ```text
//! @0 : fp32[3, 4] = 0.5 -1.0 0.25 ...
//! @1 : fp32[3] = normal(7, 0.1)
//! @2 : fp16[2, 3] = int8 1 -2 3 4 -5 6; 0.5 0.25
//! %0 = input(feed=0, dtype="fp16", role="feed") : fp16[2, 4]
//! %1 = const_array(index=0) : fp16[3, 4]
//! %2 = matmul(%0, %1) : fp16[2, 3]
//! return %2
//! ```
//!
//! A step that keeps state says before `return` what each leaf of state becomes, as in `carry %0 = %2`; it may return nothing.
//! Inputs are numbered in the order in which they are fed, from 0 on. Constants are lists of numbers, `splat(v)`, or `normal(seed, scale)` from the fixture generator; an encoded one is the
//! name of its encoding and the numbers of its parts ([`Encoding::parts`]), bytes as integers.
//! [`print()`] writes every element, so that [`parse`] gives the same graph back; leaves get new
//! identities in the same feed order. `Display` shortens long constants.

mod cursor;

use crate::ir::attr::{Attr, AttrValue};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::{Entry, Op, find};
use crate::ir::ops::leaf::Role;
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::{Var, dims};
use crate::ir::verify::verify;
use aneforge_tensor::{
    AlignedBytes, Bytes, DType, Encoding, Shape, Tensor, TensorError, Weight, random, round_f16,
};
use cursor::Cursor;
use std::fmt::{self, Write};

/// Text is not a graph. The file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("graph text{at}: {why}", at = if *line > 0 { format!(", line {line}") } else { String::new() })]
pub struct TextError {
    /// The line, from 1; 0 where there is none.
    pub line: usize,
    /// What was found, and what was expected.
    pub why: String,
}

/// Constants longer than this are shortened by `Display`.
const SHOWN: usize = 8;

/// The complete text of a graph.
pub fn print(graph: &Graph) -> String {
    let mut out = String::new();
    write_graph(&mut out, graph, usize::MAX).expect("invariant: strings take any text");
    out
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self, SHOWN)
    }
}

/// The text of a graph without its constants.
pub fn print_nodes(graph: &Graph) -> String {
    let mut out = String::new();
    write_nodes(&mut out, graph).expect("invariant: strings take any text");
    out
}

fn write_graph(f: &mut impl Write, graph: &Graph, shown: usize) -> fmt::Result {
    for (i, weight) in graph.constants().iter().enumerate() {
        write!(f, "@{i} : {}{} =", weight.dtype(), weight.shape())?;
        if weight.encoding() != Encoding::Dense {
            write!(f, " {}", weight.encoding())?;
        }
        for (at, part) in weight.parts().into_iter().enumerate() {
            f.write_str(if at > 0 { ";" } else { "" })?;
            write_elements(f, part, shown)?;
        }
        writeln!(f)?;
    }
    write_nodes(f, graph)
}

fn write_elements(f: &mut impl Write, tensor: &Tensor, shown: usize) -> fmt::Result {
    let count = tensor.shape().count();
    for at in 0..count.min(shown) {
        write!(f, " {}", element(tensor, at))?;
    }
    f.write_str(if count > shown { " ..." } else { "" })
}

fn write_nodes(f: &mut impl Write, graph: &Graph) -> fmt::Result {
    let feeds = graph.feeds();
    for (id, node) in graph.nodes() {
        writeln!(f, "%{} = {}", id.0, NodeText { node, feed: feeds.iter().position(|&f| f == id) })?;
    }
    for (state, next) in graph.carries() {
        writeln!(f, "carry %{} = %{}", state.0, next.0)?;
    }
    let outputs: Vec<String> = graph.returned().iter().map(|o| format!("%{}", o.0)).collect();
    writeln!(f, "{}", format!("return {}", outputs.join(", ")).trim_end())
}

/// One element, in the shortest form that reads back to the same bits.
fn element(tensor: &Tensor, at: usize) -> String {
    if tensor.dtype() == DType::F64 {
        let bytes = tensor.bytes().get(at * 8..at * 8 + 8).and_then(|b| b.try_into().ok());
        return bytes.map_or_else(String::new, |b| format!("{:?}", f64::from_le_bytes(b)));
    }
    let mut value = [0.0];
    tensor.read_f32(at, &mut value);
    if tensor.dtype().is_float() { format!("{:?}", value[0]) } else { value[0].to_string() }
}

struct NodeText<'a> {
    node: &'a GraphNode,
    feed: Option<usize>,
}

impl fmt::Display for NodeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node;
        let attrs: Vec<String> = match (&node.op, self.feed) {
            (Op::Input(leaf), Some(feed)) => {
                let role = leaf.role.to_attr();
                let mut attrs = vec![format!("feed={feed}"), format!("role={role}")];
                if leaf.max_abs.0.is_finite() {
                    attrs.push(format!("max_abs={:?}", leaf.max_abs.0));
                }
                if !leaf.name.is_empty() {
                    attrs.push(format!("name={:?}", leaf.name));
                }
                attrs
            }
            (op, _) => op.attrs().iter().map(|(name, value)| format!("{name}={value}")).collect(),
        };
        let inputs = node.inputs.iter().map(|i| format!("%{}", i.0));
        let args: Vec<String> = inputs.chain(attrs).collect();
        write!(f, "{}({}) : {}", node.op.name(), args.join(", "), node.ty)
    }
}

/// What messages call text of no known file.
const NAMELESS: &str = "<graph text>";

/// Reads the text of a graph and verifies it.
pub fn parse(text: &str) -> Result<Graph, TextError> {
    read(text, Vec::new(), NAMELESS)
}

/// Reads the text of a graph that is in a file of this name, and verifies it. Messages about its nodes name the file.
pub fn parse_named(text: &str, file: &str) -> Result<Graph, TextError> {
    read(text, Vec::new(), Caller::named(file, 0).file())
}

/// Reads the text of a graph whose constants begin with these, and verifies it.
pub fn parse_with(text: &str, constants: Vec<Weight>) -> Result<Graph, TextError> {
    read(text, constants, NAMELESS)
}

fn read(text: &str, constants: Vec<Weight>, file: &'static str) -> Result<Graph, TextError> {
    let mut graph = Graph { constants, ..Graph::default() };
    let mut feeds: Vec<(i64, usize)> = Vec::new();
    let mut lines = Vec::new();
    let mut returned = false;
    for (index, line) in text.lines().enumerate() {
        let fail = |why: String| TextError { line: index + 1, why };
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if returned {
            return Err(fail("nothing may follow `return`".into()));
        }
        let mut cursor = Cursor { rest: line };
        if cursor.eat("@") {
            constant(&mut cursor, &mut graph).map_err(fail)?;
        } else if cursor.eat("%") {
            let feed = node(&mut cursor, &mut graph, Caller::new(file, index as u32 + 1)).map_err(fail)?;
            feeds.extend(feed.map(|ordinal| (ordinal, graph.nodes.len() - 1)));
            lines.push(index + 1);
        } else if cursor.eat("carry") {
            let [state, next] = carry(&mut cursor, graph.nodes.len()).map_err(fail)?;
            graph.carries.push(state);
            graph.outputs.push(next);
        } else if cursor.eat("return") {
            let mut outputs = references(&mut cursor, graph.nodes.len()).map_err(fail)?;
            outputs.append(&mut graph.outputs);
            graph.outputs = outputs;
            returned = true;
        } else {
            return Err(fail(format!("expected `@`, `%`, `carry` or `return`, found `{}`", cursor.found())));
        }
        cursor.end().map_err(fail)?;
    }
    identify(&mut graph, feeds).map_err(|(at, why)| TextError { line: lines[at], why })?;
    verify(&graph).map_err(|e| match lines.get(e.node.0 as usize) {
        Some(&line) => TextError { line, why: e.to_string() },
        None => TextError { line: text.lines().count(), why: format!("{}; end with `return %N`", e.why) },
    })?;
    Ok(graph)
}

/// Reads a type as graphs write it, such as `fp16[2, 3]`.
pub fn parse_type(text: &str) -> Result<TensorType, String> {
    let mut cursor = Cursor { rest: text };
    let ty = cursor.ty()?;
    cursor.end()?;
    Ok(ty)
}

/// Gives leaves new identities, in feed order; an error names a node.
fn identify(graph: &mut Graph, mut feeds: Vec<(i64, usize)>) -> Result<(), (usize, String)> {
    feeds.sort_unstable();
    for (expected, (feed, at)) in (0..).zip(feeds) {
        if feed != expected {
            let which = match feed < expected {
                true => format!("another input has feed={feed}"),
                false => format!("feed={feed}, and no input has feed={expected}"),
            };
            return Err((
                at,
                format!("input: {which}; number inputs from 0 on, each with a number of its own"),
            ));
        }
        if let Op::Input(leaf) = &mut graph.nodes[at].op {
            let fresh = Var::leaf(TensorType::f16(Shape::SCALAR), leaf.role);
            if let Op::Input(new) = fresh.op() {
                leaf.id = new.id;
            }
        }
    }
    Ok(())
}

/// The most elements a generated constant may have: text stands for at most 64 MiB.
const MOST_GENERATED: usize = 1 << 24;

fn constant(cursor: &mut Cursor<'_>, graph: &mut Graph) -> Result<(), String> {
    let index: usize = cursor.number()?;
    if index != graph.constants.len() {
        return Err(format!("expected constant @{}, found @{index}", graph.constants.len()));
    }
    cursor.expect(":")?;
    let ty = cursor.ty()?;
    cursor.expect("=")?;
    let count = ty.shape.count();
    let generated = |values: &mut dyn Iterator<Item = f64>| {
        if count > MOST_GENERATED {
            return Err(format!("{count} elements are too many to generate from text"));
        }
        tensor_of(ty, &mut values.take(count).map(Ok))
    };
    if let Some(encoding) = Encoding::ALL[1..].iter().copied().find(|encoding| cursor.eat(encoding.name())) {
        graph.constants.push(encoded(ty, encoding, cursor.take_rest())?);
        return Ok(());
    }
    let tensor = if cursor.eat("splat(") {
        let value: f64 = cursor.number()?;
        cursor.expect(")")?;
        generated(&mut std::iter::repeat(value))?
    } else if cursor.eat("normal(") {
        let seed: u64 = cursor.number()?;
        cursor.expect(",")?;
        let scale: f32 = cursor.number()?;
        cursor.expect(")")?;
        generated(&mut (0..count as u64).map(|i| f64::from(random::normal(seed, i) * scale)))?
    } else {
        let words = cursor.take_rest();
        // A number takes a character at least.
        if count > words.len() {
            let got = words.split_whitespace().count();
            return Err(TensorError::Count { shape: ty.shape, got }.to_string());
        }
        let number = |w: &str| w.parse().map_err(|_| format!("`{w}` is not a number"));
        tensor_of(ty, &mut words.split_whitespace().map(number))?
    };
    graph.constants.push(tensor.into());
    Ok(())
}

/// A weight whose parts are written one after the other.
fn encoded(ty: TensorType, encoding: Encoding, text: &str) -> Result<Weight, String> {
    if ty.dtype != DType::F16 {
        return Err(format!("encoded constants are fp16, found {}", ty.dtype));
    }
    let part = |(words, (_, dtype)): (&str, &(&str, Option<DType>))| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let line = Shape::new(&[words.len()]).map_err(|e| e.to_string())?;
        match dtype {
            Some(DType::I8) => {
                Tensor::from_slice(line, &numbers::<i8>(&words, "whole number from -128 to 127")?)
            }
            Some(DType::U8) => {
                Tensor::from_slice(line, &numbers::<u8>(&words, "whole number from 0 to 255")?)
            }
            _ => {
                let values = numbers::<f64>(&words, "number")?.into_iter().map(round_f16);
                Tensor::from_slice(line, &values.collect::<Vec<_>>())
            }
        }
        .map_err(|e| e.to_string())
    };
    let (wanted, given) = (encoding.parts(), text.split(';').count());
    if given != wanted.len() {
        return Err(format!(
            "{encoding} weights have {} parts, set apart by `;`, found {given}",
            wanted.len()
        ));
    }
    let parts = text.split(';').zip(wanted).map(part).collect::<Result<_, _>>()?;
    Weight::assemble(encoding, ty.shape, parts).map_err(|e| e.to_string())
}

fn numbers<T: std::str::FromStr>(words: &[&str], kind: &str) -> Result<Vec<T>, String> {
    let number = |word: &&str| word.parse().map_err(|_| format!("`{word}` is no {kind}"));
    words.iter().map(number).collect()
}

/// A tensor of values, of which there are about as many as the type says.
fn tensor_of(
    ty: TensorType,
    values: &mut dyn Iterator<Item = Result<f64, String>>,
) -> Result<Tensor, String> {
    if !matches!(ty.dtype, DType::F16 | DType::F32 | DType::F64) {
        return Err(format!("constants are fp16, fp32 or fp64, found {}", ty.dtype));
    }
    let mut bytes = AlignedBytes::try_zeroed(ty.bytes())
        .ok_or_else(|| format!("there is no memory for a constant of {} bytes", ty.bytes()))?;
    let mut got = 0;
    let mut places = bytes.chunks_exact_mut(ty.dtype.size());
    for value in values {
        let value = value?;
        got += 1;
        let Some(place) = places.next() else { continue };
        match ty.dtype {
            DType::F16 => place.copy_from_slice(&round_f16(value).to_le_bytes()),
            DType::F32 => place.copy_from_slice(&(value as f32).to_le_bytes()),
            _ => place.copy_from_slice(&value.to_le_bytes()),
        }
    }
    if got != ty.shape.count() {
        return Err(TensorError::Count { shape: ty.shape, got }.to_string());
    }
    Tensor::new(ty.dtype, ty.shape, Bytes::new(bytes)).map_err(|e| e.to_string())
}

/// Reads one node; the result is its feed number if it is a leaf.
fn node(cursor: &mut Cursor<'_>, graph: &mut Graph, at: Caller) -> Result<Option<i64>, String> {
    let index: usize = cursor.number()?;
    if index != graph.nodes.len() {
        return Err(format!("expected %{}, found %{index}", graph.nodes.len()));
    }
    cursor.expect("=")?;
    let name = cursor.word()?;
    cursor.expect("(")?;
    let mut inputs = Vec::new();
    let mut attrs: Vec<(String, Attr)> = Vec::new();
    while !cursor.eat(")") {
        if cursor.eat("%") {
            inputs.push(reference(cursor, graph.nodes.len())?);
        } else {
            let name = cursor.word()?.to_owned();
            cursor.expect("=")?;
            if attrs.iter().any(|(given, _)| *given == name) {
                return Err(format!("`{name}` is given twice"));
            }
            attrs.push((name, cursor.attr()?));
        }
        if !cursor.eat(",") {
            cursor.expect(")")?;
            break;
        }
    }
    cursor.expect(":")?;
    let ty = cursor.ty()?;
    let get = |name: &str| attrs.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone());
    let entry = find(name).ok_or_else(|| format!("there is no op `{name}`"))?;
    let is_leaf = name == "input";
    let takes = |attr: &str| match (is_leaf, attr) {
        (true, "feed") => true,
        // The one is given by `feed`, the other by the type.
        (true, "id" | "shape") => false,
        _ => entry.info.attrs.iter().any(|a| a.name == attr),
    };
    if let Some((unknown, _)) = attrs.iter().find(|(attr, _)| !takes(attr)) {
        return Err(format!("{name} has no attribute `{unknown}`"));
    }
    let (op, feed) = match is_leaf {
        true => leaf(entry, ty, &get).map(|(op, feed)| (op, Some(feed))),
        false => (entry.from_attrs)(&get).map(|op| (op, None)),
    }
    .map_err(|e| format!("{name}: {e}"))?;
    graph.nodes.push(GraphNode { op, inputs, ty, at });
    Ok(feed)
}

/// An input of this type, and its number.
fn leaf(entry: &Entry, ty: TensorType, get: &dyn Fn(&str) -> Option<Attr>) -> Result<(Op, i64), String> {
    let feed = match get("feed") {
        Some(Attr::Int(feed)) if feed >= 0 => feed,
        Some(other) => return Err(format!("feed must be a whole number from 0 on, got {other}")),
        None => return Err("`feed` is missing; number inputs from 0 on, such as `input(feed=0)`".into()),
    };
    if let Some(role) = get("role").filter(|role| Role::from_attr(role).is_none()) {
        return Err(format!(r#"role must be "feed", "parameter", "state" or "cut", got {role}"#));
    }
    let known = |name: &str| match name {
        "id" => Some(Attr::Int(0)),
        "dtype" => get(name).or_else(|| Some(ty.dtype.to_attr())),
        "shape" => Some(dims(ty.shape).to_attr()),
        _ => get(name),
    };
    Ok(((entry.from_attrs)(&known)?, feed))
}

fn reference(cursor: &mut Cursor<'_>, defined: usize) -> Result<NodeId, String> {
    let index: u32 = cursor.number()?;
    if index as usize >= defined {
        return Err(format!("%{index} is used before it is made"));
    }
    Ok(NodeId(index))
}

/// What is left of `carry %0 = %2`.
fn carry(cursor: &mut Cursor<'_>, defined: usize) -> Result<[NodeId; 2], String> {
    cursor.expect("%")?;
    let state = reference(cursor, defined)?;
    cursor.expect("=")?;
    cursor.expect("%")?;
    Ok([state, reference(cursor, defined)?])
}

fn references(cursor: &mut Cursor<'_>, defined: usize) -> Result<Vec<NodeId>, String> {
    let mut out = Vec::new();
    if cursor.rest.is_empty() {
        return Ok(out);
    }
    loop {
        cursor.expect("%")?;
        out.push(reference(cursor, defined)?);
        if !cursor.eat(",") {
            return Ok(out);
        }
    }
}
