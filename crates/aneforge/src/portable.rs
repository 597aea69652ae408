//! Graphs and plans as bytes, for another process or another day.
//!
//! The bytes are a safetensors file: constants, and the parts of encoded ones, are its tensors, so they are used where they lie
//! when the bytes are mapped, and its notes say the rest. Graphs are written as text without their constants, which names every op and
//! attribute; what a plan gives the engine is emitted again when it is read, and compared with a checksum of what was
//! emitted when it was written.

mod plan;

pub use plan::{pack_plan, unpack_plan};
pub(crate) use plan::{plan_packed, plan_unpacked};

use crate::compile::CompileError;
use crate::ir::graph::Graph;
use crate::ir::text::{self, TextError};
use crate::ir::types::Caller;
use crate::ir::var::{BuildError, Var};
use crate::passes::legal::LegalError;
use crate::target::UnknownTarget;
use aneforge_formats::safetensors::{self, Layout};
use aneforge_formats::{SafeTensors, SafeTensorsError};
use aneforge_tensor::{Bytes, DType, Encoding, Shape, Tensor, Weight, f16};
use plan::PlanNote;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, TryReserveError};
use std::io::{self, Write};

/// The note that describes a file's graph or plan.
const NOTE: &str = "aneforge";
/// The version of that note.
const VERSION: u32 = 4;

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
    /// This version would give the engine something else than the one that wrote the plan.
    #[error(
        "segment {segment} was compiled by aneforge {by}, which emits other code for it than this version, {ours}; compile \
         it again, or use that version",
        ours = env!("CARGO_PKG_VERSION")
    )]
    Emitted {
        /// The segment.
        segment: usize,
        /// The version that wrote it.
        by: String,
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

/// Where a part of a constant lies in a file beside, and is therefore not written: by the graph, the constant and the part.
pub(crate) type Links<'a> = dyn Fn(usize, usize, usize) -> Option<(String, u64)> + 'a;

/// The contents of a file beside.
pub(crate) type Beside<'a> = dyn Fn(&str) -> Option<Bytes> + 'a;

#[derive(Serialize, Deserialize)]
struct GraphNote {
    text: String,
    /// The lines that built the nodes.
    lines: Vec<(String, u32)>,
    /// The leaves' numbers, in feed order.
    leaves: Vec<u64>,
    constants: Vec<WeightNote>,
}

/// The encoding and shape of a constant, whose parts are tensors of the file, or lie beside it.
#[derive(Serialize, Deserialize)]
struct WeightNote {
    encoding: String,
    shape: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beside: Vec<PartNote>,
}

/// Where a part of a constant lies.
#[derive(Serialize, Deserialize)]
struct PartNote {
    file: String,
    start: u64,
    dtype: String,
    shape: Vec<usize>,
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
    packed(Content::Values(note(&graph, &|_, _| None)), &[&graph], &|_, weight, part| {
        let tensor = weight.parts()[part];
        Some((tensor.dtype(), tensor.shape()))
    })
    .to_vec()
}

/// The values that [`pack_values`] was given.
pub fn unpack_values(bytes: Bytes, leaves: &mut Leaves<'_>) -> Result<Vec<Var>, PortableError> {
    let (file, Content::Values(written)) = decode("graph", bytes)? else {
        return Err(content("graph", "it is a plan"));
    };
    let graph = graph(&file, 0, &written, &|_| None)?;
    let feeds = graph.feeds();
    let vars = graph.to_vars(|id, _| {
        let feed = feeds.iter().position(|&f| f == id)?;
        let node = graph.node(id);
        Some(leaves(written.leaves[feed], Var::rebuilt(node.op.clone(), Vec::new(), node.ty, node.at)))
    });
    Ok(graph.outputs().iter().map(|o| vars[o.index()].clone()).collect())
}

fn content(what: &'static str, why: &str) -> PortableError {
    PortableError::Content { what, why: why.into() }
}

/// The note of a graph, and where parts of its constants lie in files beside.
fn note(graph: &Graph, beside: &dyn Fn(usize, usize) -> Option<(String, u64)>) -> GraphNote {
    GraphNote {
        text: text::print_nodes(graph),
        lines: graph.nodes().map(|(_, n)| (n.at.file().to_owned(), n.at.line())).collect(),
        leaves: graph.feed_types().iter().map(|feed| feed.leaf).collect(),
        constants: graph
            .constants()
            .iter()
            .enumerate()
            .map(|(i, w)| constant_note(w, |p| beside(i, p)))
            .collect(),
    }
}

fn constant_note(weight: &Weight, beside: impl Fn(usize) -> Option<(String, u64)>) -> WeightNote {
    let part = |(part, tensor): (usize, &Tensor)| {
        let (file, start) = beside(part)?;
        let (dtype, shape) = in_plan(weight, tensor);
        Some(PartNote { file, start, dtype: dtype.name().into(), shape: shape.dims().to_vec() })
    };
    WeightNote {
        encoding: weight.encoding().name().into(),
        shape: weight.shape().dims().to_vec(),
        beside: weight.parts().into_iter().enumerate().map(part).collect::<Option<_>>().unwrap_or_default(),
    }
}

/// The type and shape of a part of a constant in a plan: what is in full is in half precision there, as in weight files.
fn in_plan(weight: &Weight, part: &Tensor) -> (DType, Shape) {
    (weight.dense().map_or(part.dtype(), |_| DType::F16), part.shape())
}

/// Part `part` of constant `index` of graph `at`.
fn name(at: usize, index: usize, part: &str) -> String {
    format!("{at}.{index}.{part}")
}

/// Elements that are converted at a time.
const CHUNK: usize = 1 << 16;

/// A file that is to be written. It holds no copy of a weight.
pub(crate) struct Packed<'a> {
    layout: Layout,
    /// In the order in which they are written: a weight, which of its parts, and as what.
    parts: Vec<(&'a Weight, usize, DType)>,
}

impl Packed<'_> {
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.bytes
    }

    /// Writes the file.
    pub(crate) fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        sink.write_all(&self.layout.head)?;
        self.parts.iter().try_for_each(|(weight, part, dtype)| {
            let tensor = weight.parts()[*part];
            if tensor.dtype() == *dtype {
                return sink.write_all(tensor.bytes());
            }
            let (mut chunk, count) = (vec![f16::ZERO; CHUNK], tensor.shape().count());
            (0..count).step_by(CHUNK).try_for_each(|start| {
                let chunk = &mut chunk[..(count - start).min(CHUNK)];
                tensor.read_f16(start, chunk);
                sink.write_all(bytemuck::cast_slice(chunk))
            })
        })
    }

    /// The file's bytes.
    fn to_vec(&self) -> Result<Vec<u8>, PortableError> {
        let mut file = Vec::new();
        file.try_reserve_exact(self.bytes())?;
        self.write(&mut file).expect("invariant: a vector takes what there is room for");
        Ok(file)
    }
}

/// How a part of a constant is written, by its graph and place; none where it lies beside.
type AsWhat<'a> = dyn Fn((usize, usize), &Weight, usize) -> Option<(DType, Shape)> + 'a;

fn packed<'a>(content: Content, graphs: &[&'a Graph], as_what: &AsWhat<'_>) -> Packed<'a> {
    let (mut tensors, mut parts) = (Vec::new(), Vec::new());
    for (at, graph) in graphs.iter().enumerate() {
        for (index, weight) in graph.constants().iter().enumerate() {
            for (part, (of, _)) in weight.encoding().parts().iter().enumerate() {
                let Some((dtype, shape)) = as_what((at, index), weight, part) else { continue };
                tensors.push((name(at, index, of), dtype, shape));
                parts.push((weight, part, dtype));
            }
        }
    }
    let note = serde_json::to_string(&Note { version: VERSION, content });
    let note = note.expect("invariant: notes are plain data");
    let layout = safetensors::layout(&tensors, &BTreeMap::from([(NOTE.to_owned(), note)]));
    let parts = layout.order.iter().map(|&at| parts[at]).collect();
    Packed { layout, parts }
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
    beside: &Beside<'_>,
) -> Result<Weight, PortableError> {
    let fails = |why: String| content("graph", &format!("constant {index}: {why}"));
    let encoding = Encoding::from_name(&note.encoding);
    let encoding = encoding.ok_or_else(|| fails(format!("encoding `{}` is not known", note.encoding)))?;
    let shape = Shape::new(&note.shape).map_err(|e| fails(e.to_string()))?;
    let parts = if note.beside.is_empty() {
        let parts = encoding.parts().iter().map(|(part, _)| file.tensor(&name(at, index, part)));
        parts.collect::<Result<_, _>>()?
    } else {
        note.beside.iter().map(|part| elsewhere(part, beside)).collect::<Result<_, _>>().map_err(fails)?
    };
    Weight::assemble(encoding, shape, parts).map_err(|e| fails(e.to_string()))
}

/// A part of a constant that lies in a file beside.
fn elsewhere(note: &PartNote, beside: &Beside<'_>) -> Result<Tensor, String> {
    let PartNote { file, start, dtype, shape } = note;
    let bytes = beside(file).ok_or_else(|| format!("it lies in `{file}` of the folder; name the folder"))?;
    let dtype = DType::from_name(dtype).ok_or_else(|| format!("type `{dtype}` is not known"))?;
    let shape = Shape::new(shape).map_err(|e| e.to_string())?;
    let range = || {
        let start = usize::try_from(*start).ok()?;
        Some(start..start.checked_add(shape.count().checked_mul(dtype.size())?)?)
    };
    let part = range().and_then(|range| bytes.slice(range));
    let part = part.ok_or_else(|| format!("`{file}` has {} bytes, and it lies beyond", bytes.len()))?;
    Tensor::new(dtype, shape, part).map_err(|e| e.to_string())
}

/// Graph `at` of a file.
fn graph(
    file: &SafeTensors,
    at: usize,
    written: &GraphNote,
    beside: &Beside<'_>,
) -> Result<Graph, PortableError> {
    let constants = written.constants.iter().enumerate();
    let constants =
        constants.map(|(index, note)| constant(file, (at, index), note, beside)).collect::<Result<_, _>>()?;
    let mut graph = text::parse_with(&written.text, constants)?;
    if graph.feeds().len() != written.leaves.len() || graph.len() != written.lines.len() {
        return Err(content("graph", "its numbers of inputs or lines are wrong"));
    }
    for (node, (file, line)) in graph.nodes.iter_mut().zip(&written.lines) {
        node.at = Caller::named(file, *line);
    }
    Ok(graph)
}
