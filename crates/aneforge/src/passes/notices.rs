//! What a chip may make of a graph that compiles for it: wrong values, and refusals that are likely and not certain.

use crate::ir::form::{Form, Move, Norm};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::OFFSET_SLICE_LIMIT;
use crate::ir::op::Op;
use crate::ir::types::Caller;
use crate::risk::bounds::Bounds;
use crate::target::divergence::{Divergence, divergence};
use crate::target::layers::written_out;
use crate::target::{Family, Limits, Target, has_texture_engine};

/// What is said of a node, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// Elements are not those that they should be.
    WrongElements,
    /// Large values become infinite.
    Saturates,
    /// The compiler's tables have a smaller kernel; nobody has tried.
    Stepped,
    /// It rounds as it does on no other family.
    Rounding,
}

impl Notice {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Notice::WrongElements => "wrong_elements",
            Notice::Saturates => "saturates",
            Notice::Stepped => "stepped",
            Notice::Rounding => "rounding",
        }
    }

    /// Whether to warn of it: results or the compile may be wrong.
    pub fn is_warning(self) -> bool {
        self != Notice::Rounding
    }
}

/// One node of which something is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Noticed {
    /// What.
    pub kind: Notice,
    /// Its op.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// In words, with the numbers and the way out.
    pub why: String,
}

/// What is said of a graph that is compiled for a chip, in the order of its nodes. Nothing is of a chip that runs no program.
pub fn notices(graph: &Graph, target: Target) -> Vec<Noticed> {
    if target.runs_programs().is_err() {
        return Vec::new();
    }
    let graph = &written_out(graph);
    let bounds = Bounds::of(graph);
    let found = graph.nodes().filter_map(|(id, node)| {
        let (kind, why) = notice(graph, &bounds, id, target)?;
        Some(Noticed { kind, op: node.op.name(), at: node.at, why })
    });
    found.collect()
}

fn notice(graph: &Graph, bounds: &Bounds, id: NodeId, target: Target) -> Option<(Notice, String)> {
    let node = graph.node(id);
    let family = target.family();
    match graph.form(id) {
        Form::Move(Move::Slice { .. }) => saturates(graph, bounds, id, family),
        Form::Move(Move::Concat(_)) => wrong_elements(graph, node, family),
        Form::Sample(_) if !has_texture_engine(family) => {
            let why = format!("{family} resizes in software, which rounds otherwise than newer engines do");
            Some((Notice::Rounding, why))
        }
        Form::ConvTranspose(..) => stepped(graph, node, family),
        _ => None,
    }
}

/// Where a window starts on the last axis, if engines that clamp such windows may clamp this one.
fn offset(graph: &Graph, id: NodeId) -> Option<usize> {
    match graph.form(id) {
        Form::Move(Move::Slice { begin, clamped: true }) => begin.last().copied().filter(|&begin| begin > 0),
        _ => None,
    }
}

/// Evidence: see [`OFFSET_SLICE_LIMIT`]. Sources disagree about A15, which was not measured.
fn saturates(graph: &Graph, bounds: &Bounds, id: NodeId, family: Family) -> Option<(Notice, String)> {
    let begin = offset(graph, id).filter(|_| family < Family::A16)?;
    let most = bounds.get(graph.node(id).inputs[0]);
    if most.is_some_and(|most| most <= OFFSET_SLICE_LIMIT) {
        return None;
    }
    let does = if family == Family::A15 { "may saturate (it was not measured)" } else { "saturates" };
    let why = format!(
        "starts at {begin} on the last axis, where {family} {does}: magnitudes above {OFFSET_SLICE_LIMIT} become \
         infinite; start at 0, slice another axis, or declare max_abs of the input"
    );
    Some((Notice::Saturates, why))
}

/// Evidence: ANEForge 0.4.0, which warns of it before A16.
fn wrong_elements(graph: &Graph, node: &GraphNode, family: Family) -> Option<(Notice, String)> {
    let windows = node.inputs.iter().filter(|&&input| offset(graph, input).is_some()).count();
    let why = format!(
        "joins {windows} slices that start past 0 on the last axis, of which {family} may return wrong elements; slice \
         another axis, or compute something between"
    );
    (windows > 1 && family < Family::A16).then_some((Notice::WrongElements, why))
}

fn stepped(graph: &Graph, node: &GraphNode, family: Family) -> Option<(Notice, String)> {
    let Op::ConvTranspose(op) = &node.op else { return None };
    let Limits { stepped_width, stepped_height, .. } = family.limits();
    let kernel = graph.node(node.inputs[1]).ty.shape;
    for (what, axis, most) in [("height", 0, stepped_height), ("width", 1, stepped_width)] {
        let (size, stride) = (kernel[2 + axis], op.strides[axis]);
        if stride > 1 && size > most {
            let why = format!(
                "kernel {what} {size} with stride {stride} is above the {most} that the compiler's table has for {family}, \
                 which may refuse it; use a smaller kernel, or upsample and conv"
            );
            return Some((Notice::Stepped, why));
        }
        if stride > 2 {
            let why = format!(
                "stride {stride} is above the 2 that the compiler is known to take, and {family} may refuse it; use two layers, or \
                 upsample and conv"
            );
            return Some((Notice::Stepped, why));
        }
    }
    None
}

/// How results of a graph may differ between two families: a line for each op and each way.
pub fn cross_chip(graph: &Graph, families: [Family; 2]) -> Vec<String> {
    let graph = &written_out(graph);
    let bounds = Bounds::of(graph);
    let mut lines = Vec::new();
    for (id, node) in graph.nodes() {
        let (kind, begin) = match graph.form(id) {
            Form::Move(Move::Slice { .. }) => ("slice", offset(graph, id).map(|begin| begin as i64)),
            Form::Reduce(..) => ("reduce", None),
            Form::Normalise(Norm::Given { .. } | Norm::Response(_)) => continue,
            Form::Normalise(_) => ("norm", None),
            _ => continue,
        };
        let how = divergence(kind, families, begin, node.inputs.first().and_then(|&input| bounds.get(input)));
        let [a, b] = families;
        let line = match how {
            Divergence::None => continue,
            Divergence::Saturation => format!(
                "{}: {}: magnitudes above {OFFSET_SLICE_LIMIT} become infinite on {}, and stay on {}",
                node.op.name(),
                how.name(),
                a.min(b),
                a.max(b)
            ),
            Divergence::Ulp1 => {
                format!("{}: {}: the last place may differ between {a} and {b}", node.op.name(), how.name())
            }
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
