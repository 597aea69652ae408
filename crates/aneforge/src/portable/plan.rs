//! Plans as bytes.

use super::{
    Beside, Content, GraphNote, Leaves, Links, Packed, PortableError, content, decode, graph, in_plan, note,
    packed,
};
use crate::compile::code;
use crate::ir::attr::{Attr, AttrValue};
use crate::ir::graph::{Graph, InputInfo};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::leaf::{Input, Role};
use crate::ir::text;
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::Var;
use crate::passes::WeightReport;
use crate::passes::legal;
use crate::plan::{Plan, Results, Segment, Source};
use crate::target::Target;
use aneforge_tensor::{Bytes, Encoding, Shape};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

#[derive(Serialize, Deserialize)]
pub(super) struct PlanNote {
    target: String,
    /// The version of this library that wrote it.
    library: String,
    n_ops: usize,
    /// Number, type, role and name.
    feeds: Vec<(u64, String, String, String)>,
    outputs: Vec<(String, SourceNote)>,
    /// The feeds that the last outputs are for.
    carries: Vec<usize>,
    results: ResultsNote,
    segments: Vec<SegmentNote>,
    weights: Vec<StoredNote>,
}

/// How a weight is stored, as [`WeightReport`] says it.
#[derive(Serialize, Deserialize)]
struct StoredNote {
    op: String,
    line: (String, u32),
    shape: Vec<usize>,
    encoding: String,
    scaled: bool,
    bytes: [usize; 2],
    /// The bits of a double-precision number.
    error: u64,
    /// The same of the calibrated error.
    calibrated: Option<u64>,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct SegmentNote {
    graph: GraphNote,
    inputs: Vec<SourceNote>,
    /// A checksum of what the engine is given.
    code: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResultsNote {
    Order,
    Alone,
    Names(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceNote {
    Feed(usize),
    Segment(usize, usize),
}

/// A plan as bytes, without the traces of how it was compiled. Weights in full are in half precision, as in weight files.
pub fn pack_plan(plan: &Plan) -> Result<Vec<u8>, PortableError> {
    plan_packed(plan, &|_, feed| feed.leaf, &|_, _, _| None).to_vec()
}

/// The same, to be written, with these numbers for its inputs, and without what lies beside.
pub(crate) fn plan_packed<'a>(
    plan: &'a Plan,
    number: &dyn Fn(usize, &InputInfo) -> u64,
    beside: &Links<'_>,
) -> Packed<'a> {
    let feed = |(at, feed): (usize, &InputInfo)| {
        let Attr::Str(role) = feed.role.to_attr() else { unreachable!("roles are words") };
        (number(at, feed), feed.ty.to_string(), role, feed.name.clone())
    };
    let segment = |(at, segment): (usize, &Segment)| SegmentNote {
        // Those of segments have no numbers that count.
        graph: GraphNote {
            leaves: (0..segment.inputs.len() as u64).collect(),
            ..note(&segment.graph, &|constant, part| beside(at, constant, part))
        },
        inputs: segment.inputs.iter().map(source_note).collect(),
        code: sum_of(segment),
    };
    let written = PlanNote {
        target: plan.target.name().into(),
        library: env!("CARGO_PKG_VERSION").into(),
        n_ops: plan.n_ops,
        feeds: plan.feeds.iter().enumerate().map(feed).collect(),
        outputs: plan.outputs.iter().map(|(ty, s)| (ty.to_string(), source_note(s))).collect(),
        carries: plan.carries.clone(),
        results: match &plan.results {
            Results::InOrder => ResultsNote::Order,
            Results::Alone => ResultsNote::Alone,
            Results::Named(names) => ResultsNote::Names(names.clone()),
        },
        segments: plan.segments.iter().enumerate().map(segment).collect(),
        weights: plan.weights.iter().map(stored_note).collect(),
    };
    let graphs: Vec<&Graph> = plan.segments.iter().map(|s| &s.graph).collect();
    packed(Content::Plan(written), &graphs, &|(segment, constant), weight, part| {
        let all_beside = (0..weight.parts().len()).all(|part| beside(segment, constant, part).is_some());
        (!all_beside).then(|| in_plan(weight, weight.parts()[part]))
    })
}

/// A checksum of what the engine is given for a segment, but for the weights of its graph.
fn sum_of(segment: &Segment) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(segment.text().as_bytes());
    sum.update(&segment.weight_bytes().to_le_bytes());
    for (name, bytes) in segment.netplist().into_iter().flat_map(|netplist| &netplist.weights) {
        sum.update(name.as_bytes());
        sum.update(bytes);
    }
    sum.finalize()
}

/// The plan that [`pack_plan`] was given.
pub fn unpack_plan(bytes: Bytes, leaves: &mut Leaves<'_>) -> Result<Plan, PortableError> {
    plan_unpacked(bytes, leaves, &|_| None)
}

/// The same, where parts of constants may lie beside.
pub(crate) fn plan_unpacked(
    bytes: Bytes,
    leaves: &mut Leaves<'_>,
    beside: &Beside<'_>,
) -> Result<Plan, PortableError> {
    let (file, Content::Plan(written)) = decode("plan", bytes)? else {
        return Err(content("plan", "it is a graph"));
    };
    let target = Target::named(&written.target)?;
    let feeds = feeds(&written.feeds, leaves)?;
    let mut segments: Vec<Segment> = Vec::new();
    let library = &written.library;
    for (at, written) in written.segments.iter().enumerate() {
        let sum = written.code;
        let graph = graph(&file, at, &written.graph, beside)?;
        legal::check(&graph, target)?;
        let inputs = sources(&written.inputs, &feeds, &segments, &graph)?;
        let code = code(&graph, is_native(&graph)?)?;
        let segment = Segment { code, graph, inputs };
        if sum_of(&segment) != sum {
            return Err(PortableError::Emitted { segment: at, by: library.clone() });
        }
        segments.push(segment);
    }
    let outputs = outputs(&written.outputs, &segments)?;
    if !(0..written.carries.len()).all(|at| is_state(&written.carries, at, &feeds, &outputs)) {
        return Err(content("plan", "a state becomes what it cannot be"));
    }
    Ok(Plan {
        target,
        segments,
        feeds,
        results: results(written.results, outputs.len() - written.carries.len())?,
        carries: written.carries,
        outputs,
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
    let fits = |(feed, next): (&InputInfo, &(TensorType, Source))| feed.ty == next.0 && feed.role.is_kept();
    feeds.get(carries[at]).zip(next).is_some_and(fits) && !carries[..at].contains(&carries[at])
}

/// The inputs that these notes describe, each with its leaf.
fn feeds(
    written: &[(u64, String, String, String)],
    leaves: &mut Leaves<'_>,
) -> Result<Vec<InputInfo>, PortableError> {
    let mut feeds = Vec::new();
    for (number, ty, role, name) in written {
        let ty = text::parse_type(ty).map_err(|why| content("plan", &why))?;
        let role = Role::from_attr(&Attr::Str(role.clone()))
            .ok_or_else(|| content("plan", "an input has an unknown role"))?;
        let leaf = leaves(*number, Var::described_leaf(ty, role, f64::INFINITY, name));
        let Op::Input(Input { id, .. }) = leaf.op() else {
            return Err(content("plan", "an input is no leaf"));
        };
        feeds.push(InputInfo { leaf: *id, ty, role, name: name.clone() });
    }
    Ok(feeds)
}

/// How so many results are handed over.
fn results(written: ResultsNote, count: usize) -> Result<Results, PortableError> {
    match written {
        ResultsNote::Order => Ok(Results::InOrder),
        ResultsNote::Alone if count == 1 => Ok(Results::Alone),
        ResultsNote::Names(names)
            if names.len() == count && names.iter().collect::<HashSet<_>>().len() == count =>
        {
            Ok(Results::Named(names))
        }
        _ => Err(content("plan", "the names of its results are others than the results")),
    }
}

fn stored_note(report: &WeightReport) -> StoredNote {
    StoredNote {
        op: report.op.clone(),
        line: (report.at.file().to_owned(), report.at.line()),
        shape: report.shape.dims().to_vec(),
        encoding: report.encoding.name().into(),
        scaled: report.scaled,
        bytes: [report.bytes, report.dense_bytes],
        error: report.error.to_bits(),
        calibrated: report.calibrated.map(f64::to_bits),
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
        scaled: note.scaled,
        bytes,
        dense_bytes,
        error: f64::from_bits(note.error),
        calibrated: note.calibrated.map(f64::from_bits),
        why: note.why.clone(),
    })
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
