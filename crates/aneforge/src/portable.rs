//! Graphs and plans as bytes, for another process or another day.
//!
//! The bytes are a safetensors file: constants, and the parts of encoded ones, are its tensors, so they are used where they lie
//! when the bytes are mapped, and its notes say the rest. Graphs are written as text without their constants, which names every op and
//! attribute; what a plan gives the engine is emitted again when it is read.

use crate::compile::{CompileError, code};
use crate::ir::attr::{Attr, AttrValue};
use crate::ir::graph::{Graph, InputInfo};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::leaf::{Input, Role};
use crate::ir::text::{self, TextError};
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::{BuildError, Var};
use crate::passes::WeightReport;
use crate::passes::legal::{self, LegalError};
use crate::plan::{Plan, Segment, Source};
use crate::target::{Target, UnknownTarget};
use aneforge_formats::{SafeTensors, SafeTensorsError, safetensors};
use aneforge_tensor::{Bytes, Encoding, Shape, Weight};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, TryReserveError};

/// The note that describes a file's graph or plan.
const NOTE: &str = "aneforge";
/// The version of that note.
const VERSION: u32 = 3;

/// Bytes are not what was written, which is the file's fault, or cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortableError {
    /// They are no safetensors file.
    #[error(transparent)]
    File(#[from] SafeTensorsError),
    /// They hold something else, or were written by another version.
    #[error("this holds no {what} that this version reads: {why}; write it again")]
    Content {
        /// A graph or a plan.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A graph to be written has a mistake. The caller's fault.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no memory for them.
    #[error("the bytes of this graph and its weights do not fit the memory that is left: {0}")]
    Memory(#[from] TryReserveError),
    /// A graph in them is damaged.
    #[error(transparent)]
    Graph(#[from] TextError),
    /// A plan in them is for a chip that is not known.
    #[error(transparent)]
    Target(#[from] UnknownTarget),
    /// A plan in them is not one that its chip runs.
    #[error(transparent)]
    Legal(#[from] LegalError),
    /// A plan in them cannot be emitted.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Which leaf stands for one that was written, given its number there and a new one like it. Numbers are those of the
/// process that wrote; one that reads several files of another can so let them share their leaves.
pub type Leaves<'a> = dyn FnMut(u64, Var) -> Var + 'a;

#[derive(Serialize, Deserialize)]
struct GraphNote {
    text: String,
    /// The lines that built the nodes.
    lines: Vec<(String, u32)>,
    /// The leaves' numbers, in feed order.
    leaves: Vec<u64>,
    constants: Vec<WeightNote>,
}

/// The encoding and shape of a constant, whose parts are tensors of the file.
#[derive(Serialize, Deserialize)]
struct WeightNote {
    encoding: String,
    shape: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct PlanNote {
    target: String,
    n_ops: usize,
    /// Number, type, role and name.
    feeds: Vec<(u64, String, String, String)>,
    outputs: Vec<(String, SourceNote)>,
    #[serde(default)]
    carries: Vec<usize>,
    segments: Vec<SegmentNote>,
    #[serde(default)]
    weights: Vec<StoredNote>,
}

/// How a weight is stored, as [`WeightReport`] says it.
#[derive(Serialize, Deserialize)]
struct StoredNote {
    op: String,
    line: (String, u32),
    shape: Vec<usize>,
    encoding: String,
    bytes: [usize; 2],
    /// The bits of a double-precision number.
    error: u64,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct SegmentNote {
    graph: GraphNote,
    inputs: Vec<SourceNote>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceNote {
    Feed(usize),
    Segment(usize, usize),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Values(GraphNote),
    Plan(PlanNote),
}

#[derive(Serialize, Deserialize)]
struct Note {
    version: u32,
    content: Content,
}

/// What `outputs` need, as bytes.
pub fn pack_values(outputs: &[Var]) -> Result<Vec<u8>, PortableError> {
    let graph = Graph::freeze(outputs)?;
    encode(Content::Values(note(&graph)), &[&graph])
}

/// The values that [`pack_values`] was given.
pub fn unpack_values(bytes: Bytes, leaves: &mut Leaves<'_>) -> Result<Vec<Var>, PortableError> {
    let (file, Content::Values(written)) = decode("graph", bytes)? else {
        return Err(content("graph", "it is a plan"));
    };
    let graph = graph(&file, 0, &written)?;
    let feeds = graph.feeds();
    let vars = graph.to_vars(|id, _| {
        let feed = feeds.iter().position(|&f| f == id)?;
        let node = graph.node(id);
        Some(leaves(written.leaves[feed], Var::rebuilt(node.op.clone(), Vec::new(), node.ty, node.at)))
    });
    Ok(graph.outputs().iter().map(|o| vars[o.index()].clone()).collect())
}

/// A plan as bytes, without the traces of how it was compiled.
pub fn pack_plan(plan: &Plan) -> Result<Vec<u8>, PortableError> {
    let feed = |feed: &InputInfo| {
        let Attr::Str(role) = feed.role.to_attr() else { unreachable!("roles are words") };
        (feed.leaf, feed.ty.to_string(), role, feed.name.clone())
    };
    let segment = |segment: &Segment| SegmentNote {
        graph: note(&segment.graph),
        inputs: segment.inputs.iter().map(source_note).collect(),
    };
    let written = PlanNote {
        target: plan.target.name().into(),
        n_ops: plan.n_ops,
        feeds: plan.feeds.iter().map(feed).collect(),
        outputs: plan.outputs.iter().map(|(ty, s)| (ty.to_string(), source_note(s))).collect(),
        carries: plan.carries.clone(),
        segments: plan.segments.iter().map(segment).collect(),
        weights: plan.weights.iter().map(stored_note).collect(),
    };
    let graphs: Vec<&Graph> = plan.segments.iter().map(|s| &s.graph).collect();
    encode(Content::Plan(written), &graphs)
}

/// The plan that [`pack_plan`] was given.
pub fn unpack_plan(bytes: Bytes, leaves: &mut Leaves<'_>) -> Result<Plan, PortableError> {
    let (file, Content::Plan(written)) = decode("plan", bytes)? else {
        return Err(content("plan", "it is a graph"));
    };
    let target = Target::named(&written.target)?;
    let mut feeds = Vec::new();
    for (number, ty, role, name) in &written.feeds {
        let ty = text::parse_type(ty).map_err(|why| content("plan", &why))?;
        let role = Role::from_attr(&Attr::Str(role.clone()))
            .ok_or_else(|| content("plan", "an input has an unknown role"))?;
        let leaf = leaves(*number, Var::described_leaf(ty, role, f64::INFINITY, name));
        let Op::Input(Input { id, .. }) = leaf.op() else {
            return Err(content("plan", "an input is no leaf"));
        };
        feeds.push(InputInfo { leaf: *id, ty, role, name: name.clone() });
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (at, written) in written.segments.iter().enumerate() {
        let graph = graph(&file, at, &written.graph)?;
        legal::check(&graph, target)?;
        let inputs = sources(&written.inputs, &feeds, &segments, &graph)?;
        let code = code(&graph, is_native(&graph)?)?;
        segments.push(Segment { code, graph, inputs });
    }
    let outputs = outputs(&written.outputs, &segments)?;
    if !(0..written.carries.len()).all(|at| is_state(&written.carries, at, &feeds, &outputs)) {
        return Err(content("plan", "a state becomes what it cannot be"));
    }
    Ok(Plan {
        target,
        segments,
        feeds,
        outputs,
        carries: written.carries,
        n_ops: written.n_ops,
        traces: Vec::new(),
        weights: written
            .weights
            .iter()
            .map(stored)
            .collect::<Option<_>>()
            .ok_or_else(|| content("plan", "it says of a weight what no weight is"))?,
    })
}

/// What a plan returns and what becomes of its state: each the output of a segment, and each once.
fn outputs(
    written: &[(String, SourceNote)],
    segments: &[Segment],
) -> Result<Vec<(TensorType, Source)>, PortableError> {
    let mut outputs = Vec::new();
    for (ty, from) in written {
        let ty = text::parse_type(ty).map_err(|why| content("plan", &why))?;
        let SourceNote::Segment(segment, output) = *from else {
            return Err(content("plan", "an output is not computed"));
        };
        if !type_of(segments, segment, output).is_some_and(|port| carries(port, ty)) {
            return Err(content("plan", "an output comes from nowhere"));
        }
        let source = Source::Segment { segment, output };
        if outputs.iter().any(|(_, other)| *other == source) {
            return Err(content("plan", "two outputs are one value"));
        }
        outputs.push((ty, source));
    }
    Ok(outputs)
}

/// Whether carry `at` is of a state, for the first time, that becomes an output of its type.
fn is_state(carries: &[usize], at: usize, feeds: &[InputInfo], outputs: &[(TensorType, Source)]) -> bool {
    let first = outputs.len().checked_sub(carries.len());
    let next = first.and_then(|first| outputs.get(first + at));
    let fits =
        |(feed, next): (&InputInfo, &(TensorType, Source))| feed.ty == next.0 && feed.role == Role::State;
    feeds.get(carries[at]).zip(next).is_some_and(fits) && !carries[..at].contains(&carries[at])
}

fn stored_note(report: &WeightReport) -> StoredNote {
    StoredNote {
        op: report.op.clone(),
        line: (report.at.file().to_owned(), report.at.line()),
        shape: report.shape.dims().to_vec(),
        encoding: report.encoding.name().into(),
        bytes: [report.bytes, report.dense_bytes],
        error: report.error.to_bits(),
        why: report.why.clone(),
    }
}

fn stored(note: &StoredNote) -> Option<WeightReport> {
    let [bytes, dense_bytes] = note.bytes;
    Some(WeightReport {
        op: note.op.clone(),
        at: Caller::named(&note.line.0, note.line.1),
        shape: Shape::new(&note.shape).ok()?,
        encoding: Encoding::from_name(&note.encoding)?,
        bytes,
        dense_bytes,
        error: f64::from_bits(note.error),
        why: note.why.clone(),
    })
}

fn content(what: &'static str, why: &str) -> PortableError {
    PortableError::Content { what, why: why.into() }
}

fn source_note(source: &Source) -> SourceNote {
    match *source {
        Source::Feed(feed) => SourceNote::Feed(feed),
        Source::Segment { segment, output } => SourceNote::Segment(segment, output),
    }
}

fn type_of(segments: &[Segment], segment: usize, output: usize) -> Option<TensorType> {
    let graph = &segments.get(segment)?.graph;
    Some(graph.node(*graph.outputs().get(output)?).ty)
}

/// Whether a port of one type has a value of another: scalars go through ports of one element.
fn carries(port: TensorType, value: TensorType) -> bool {
    let line = value.shape.rank() == 0 && port.shape.dims() == [1] && port.dtype == value.dtype;
    port == value || line
}

/// Whether a segment is one native layer and not a program.
fn is_native(graph: &Graph) -> Result<bool, PortableError> {
    let computed = || graph.nodes().filter(|(_, node)| !matches!(node.op.mil(), Mil::Leaf));
    let layers = computed().filter(|(_, node)| matches!(node.op.mil(), Mil::Native(_))).count();
    match (layers, computed().count()) {
        (0, _) => Ok(false),
        (1, 1) => Ok(true),
        _ => Err(content("plan", "a segment is neither one native layer nor without any")),
    }
}

/// Where a segment's feeds come from: one source for each, of its type, and none that runs later.
fn sources(
    written: &[SourceNote],
    feeds: &[InputInfo],
    before: &[Segment],
    graph: &Graph,
) -> Result<Vec<Source>, PortableError> {
    let types: Vec<TensorType> = graph.feed_types().iter().map(|feed| feed.ty).collect();
    let resolve = |from: &SourceNote| match *from {
        SourceNote::Feed(feed) => Some((Source::Feed(feed), feeds.get(feed)?.ty)),
        SourceNote::Segment(segment, output) => {
            Some((Source::Segment { segment, output }, type_of(before, segment, output)?))
        }
    };
    let fits =
        |found: &[(Source, TensorType)]| found.iter().zip(&types).all(|((_, ty), port)| carries(*port, *ty));
    let found: Option<Vec<(Source, TensorType)>> = written.iter().map(resolve).collect();
    match found {
        Some(found) if found.len() == types.len() && fits(&found) => {
            Ok(found.into_iter().map(|(s, _)| s).collect())
        }
        _ => Err(content("plan", "a segment's inputs come from nowhere")),
    }
}

fn note(graph: &Graph) -> GraphNote {
    GraphNote {
        text: text::print_nodes(graph),
        lines: graph.nodes().map(|(_, n)| (n.at.file().to_owned(), n.at.line())).collect(),
        leaves: graph.feed_types().iter().map(|feed| feed.leaf).collect(),
        constants: graph.constants().iter().map(constant_note).collect(),
    }
}

fn constant_note(weight: &Weight) -> WeightNote {
    WeightNote { encoding: weight.encoding().name().into(), shape: weight.shape().dims().to_vec() }
}

/// Part `part` of constant `index` of graph `at`.
fn name(at: usize, index: usize, part: &str) -> String {
    format!("{at}.{index}.{part}")
}

fn encode(content: Content, graphs: &[&Graph]) -> Result<Vec<u8>, PortableError> {
    let mut tensors = Vec::new();
    for (at, graph) in graphs.iter().enumerate() {
        for (index, weight) in graph.constants().iter().enumerate() {
            let parts = weight.encoding().parts().iter().zip(weight.parts());
            tensors.extend(parts.map(|((part, _), tensor)| (name(at, index, part), tensor.clone())));
        }
    }
    let note = serde_json::to_string(&Note { version: VERSION, content });
    let note = note.expect("invariant: notes are plain data");
    Ok(safetensors::encode(&tensors, &BTreeMap::from([(NOTE.to_owned(), note)]))?)
}

fn decode(what: &'static str, bytes: Bytes) -> Result<(SafeTensors, Content), PortableError> {
    let file = SafeTensors::parse(bytes)?;
    let note = file.metadata().get(NOTE).ok_or_else(|| content(what, "it has no such note"))?;
    let note: Note = serde_json::from_str(note).map_err(|e| content(what, &e.to_string()))?;
    if note.version != VERSION {
        return Err(content(what, &format!("it is of version {}, not {VERSION}", note.version)));
    }
    Ok((file, note.content))
}

/// Constant `index` of graph `at`.
fn constant(
    file: &SafeTensors,
    (at, index): (usize, usize),
    note: &WeightNote,
) -> Result<Weight, PortableError> {
    let fails = |why: String| content("graph", &format!("constant {index}: {why}"));
    let encoding = Encoding::from_name(&note.encoding);
    let encoding = encoding.ok_or_else(|| fails(format!("encoding `{}` is not known", note.encoding)))?;
    let shape = Shape::new(&note.shape).map_err(|e| fails(e.to_string()))?;
    let parts = encoding.parts().iter().map(|(part, _)| file.tensor(&name(at, index, part)));
    Weight::assemble(encoding, shape, parts.collect::<Result<_, _>>()?).map_err(|e| fails(e.to_string()))
}

/// Graph `at` of a file.
fn graph(file: &SafeTensors, at: usize, written: &GraphNote) -> Result<Graph, PortableError> {
    let constants = written.constants.iter().enumerate();
    let constants =
        constants.map(|(index, note)| constant(file, (at, index), note)).collect::<Result<_, _>>()?;
    let mut graph = text::parse_with(&written.text, constants)?;
    if graph.feeds().len() != written.leaves.len() || graph.len() != written.lines.len() {
        return Err(content("graph", "its numbers of inputs or lines are wrong"));
    }
    for (node, (file, line)) in graph.nodes.iter_mut().zip(&written.lines) {
        node.at = Caller::named(file, *line);
    }
    Ok(graph)
}
