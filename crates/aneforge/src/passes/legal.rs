//! The spec `Legal(target)`: what a graph satisfies before it is emitted.
//!
//! 1. Every node is a port, a constant, one native layer, or has exactly one MIL statement for its number
//!    of inputs, whose lists have elements.
//! 2. Weights of `matmul`, `conv_transpose` and normalisations are constants; that of `conv` is one too,
//!    or the batch is 1 and nothing is dilated.
//! 3. Every constant is finite in half precision, and encoded only where the op that uses it decodes it.
//! 4. No value has more than five axes, every extent is within the family's limits, and the family computes every op.
//! 5. Outputs are half precision, computed, and distinct; there is at least one input; both have axes.

use crate::ir::attr::Attr;
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::leaf::Constant;
use crate::ir::ops::pool::AvgPool;
use crate::ir::types::{Caller, TensorType};
use crate::passes::encoded::refusal;
use crate::passes::extents::{Extents, beyond_mil, kernel};
use crate::target::{Target, WIDEST_KERNEL, floor, layers};
use aneforge_mil::verify::MAX_RANK;
use aneforge_tensor::DType;
use std::collections::HashSet;

/// Whose fault it is that a graph is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The graph's: no target would run it.
    Graph,
    /// The target's: another might run it, or a later version of this library.
    Target,
}

/// A target cannot run a graph. The caller's fault or the target's limit; the message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {why} (at {at})")]
pub struct LegalError {
    /// The op at fault.
    pub op: &'static str,
    /// The limit, the numbers, and the way out.
    pub why: String,
    /// The line that built it.
    pub at: Caller,
    /// Whose fault it is.
    pub fault: Fault,
}

/// Checks the whole spec; reports the first node at fault.
pub fn check(graph: &Graph, target: Target) -> Result<(), LegalError> {
    if let Err(error) = target.runs_programs() {
        let at = graph.nodes.last().map_or_else(Caller::here, |n| n.at);
        return Err(LegalError { op: "program", why: error.to_string(), at, fault: Fault::Target });
    }
    let limits = Extents::of(graph);
    for (id, node) in graph.nodes() {
        let fail = |fault| move |why| LegalError { op: node.op.name(), why, at: node.at, fault };
        rank(node).map_err(fail(Fault::Graph))?;
        spelled(node).map_err(fail(Fault::Target))?;
        weights(graph, id, node).map_err(fail(Fault::Target))?;
        encoded(graph, node).map_err(fail(Fault::Graph))?;
        finite(graph, id, node).map_err(fail(Fault::Graph))?;
        extents(&limits, id, node, target).map_err(fail(Fault::Target))?;
        available(graph, node, target).map_err(fail(Fault::Target))?;
        reliable(graph, id, node).map_err(fail(Fault::Target))?;
    }
    ports(graph)
}

fn rank(node: &GraphNode) -> Result<(), String> {
    let rank = node.ty.shape.rank();
    if rank > MAX_RANK {
        return Err(format!("rank {rank} is above the engine's limit of {MAX_RANK}; reshape to fewer axes"));
    }
    Ok(())
}

fn spelled(node: &GraphNode) -> Result<(), String> {
    let spelling = match node.op.mil() {
        Mil::Leaf | Mil::Native(_) => return Ok(()),
        Mil::Stmt(spelling) => spelling,
        Mil::StmtWith(spelling, n, _) if n == node.inputs.len() => spelling,
        Mil::StmtWith(..) | Mil::Decompose(_) | Mil::Legalized | Mil::Composed(_) => {
            return Err("has no single MIL statement after legalization".into());
        }
    };
    let empty = |name: &str| node.op.attrs().contains(&(name, Attr::Ints(Vec::new())));
    if let Some(name) = spelling.args.iter().filter_map(|(_, arg)| arg.attr()).find(|name| empty(name)) {
        return Err(format!("{name} is empty, which MIL cannot write"));
    }
    match &node.op {
        Op::AvgPool(AvgPool { pad: pad @ [top, bottom, left, right], ceil_mode: true, .. })
            if top != bottom || left != right =>
        {
            Err(format!("takes a partial last window with equal padding only, got {pad:?}; pad with concat"))
        }
        _ => Ok(()),
    }
}

fn weights(graph: &Graph, id: NodeId, node: &GraphNode) -> Result<(), String> {
    let constant = |id: &NodeId| graph.constant(*id).is_some();
    let Some(values) = node.inputs.get(graph.facts(id).weights_from..) else { return Ok(()) };
    if values.iter().all(constant) {
        return Ok(());
    }
    if let Op::Conv(conv) = &node.op {
        return match conv.dilations {
            [1, 1] if node.ty.shape[0] == 1 => Ok(()),
            dilations => Err(format!(
                "a computed kernel of width {} with dilations {dilations:?} is too wide when it is written with \
                 zeros between its taps; use a constant weight or add the results of narrower kernels",
                graph.node(values[0]).ty.shape[3]
            )),
        };
    }
    Err("takes its weights as constants; write it with elementwise ops or matmul to train them".into())
}

fn encoded(graph: &Graph, node: &GraphNode) -> Result<(), String> {
    let refused = |(operand, id): (usize, &NodeId)| {
        let weight = graph.constant(*id)?;
        Some((operand, weight, refusal(&node.op, operand, weight)?))
    };
    let Some((operand, weight, why)) = node.inputs.iter().enumerate().find_map(refused) else {
        return Ok(());
    };
    Err(format!(
        "operand {operand} is a weight {} stored as {}, which it does not take: {why}; decode it",
        weight.shape(),
        weight.encoding()
    ))
}

fn finite(graph: &Graph, id: NodeId, node: &GraphNode) -> Result<(), String> {
    let (Op::Constant(Constant { index }), Some(weight)) = (&node.op, graph.constant(id)) else {
        return Ok(());
    };
    let Some(at) = weight.first_beyond_half() else { return Ok(()) };
    let mut value = [0.0];
    weight.read_f32(at, &mut value);
    let value = value[0];
    // What hides scores, as in masks.
    let mask = if value < 0.0 { "; a mask hides as well with -1e4" } else { "" };
    if weight.shape().rank() == 0 {
        return Err(format!(
            "constant @{index} is {value:?}, which half precision cannot hold; rescale first{mask}"
        ));
    }
    Err(format!(
        "constant @{index} {} has {value:?} at element {at}, which half precision cannot hold; fix or rescale the weights{mask}",
        weight.shape(),
    ))
}

fn extents(extents: &Extents, id: NodeId, node: &GraphNode, target: Target) -> Result<(), String> {
    let by = || format!("{target} ({})", target.family());
    let excess = extents.axis(id, node, target.family()).map(|excess| excess.said(&by()));
    let longest = || beyond_mil(node).map(|excess| excess.said("MIL"));
    excess.or_else(longest).map_or(Ok(()), Err)
}

/// Why no target takes an op on operands of these types, if none does: a mistake that is known before there is a target.
pub fn refused_by_all(op: &Op, x: &[TensorType]) -> Option<String> {
    let shape = x.get(1)?.shape;
    let width = *shape.dims().last()?;
    let rank = if matches!(op, Op::CrossCorrelation(_)) { 2 } else { 4 };
    if width <= WIDEST_KERNEL || shape.rank() != rank {
        return None;
    }
    let above = format!("width {width} is above {WIDEST_KERNEL}");
    match op {
        Op::Conv(_) | Op::DynamicConv(_) => {
            Some(format!("kernel {above}; use space_to_depth or a product in the frequency domain"))
        }
        Op::ConvTranspose(_) => Some(format!("kernel {above}")),
        Op::CrossCorrelation(_) => Some(format!("template {above}; correlate its halves and add them")),
        _ => None,
    }
}

fn available(graph: &Graph, node: &GraphNode, target: Target) -> Result<(), String> {
    let types: Vec<TensorType> = node.inputs.iter().map(|&i| graph.node(i).ty).collect();
    if let Some(why) = refused_by_all(&node.op, &types) {
        return Err(why);
    }
    let first = floor(node.op.name());
    if target.family() < first {
        return Err(format!(
            "needs {first} or newer; target {target} is {}. Compile for a newer target",
            target.family()
        ));
    }
    if let Some(excess) = kernel(graph, node, target.family()) {
        return Err(excess.said(&format!("{target} ({})", target.family())));
    }
    let shape = |operand: usize| graph.node(node.inputs[operand]).ty.shape;
    if matches!(node.op, Op::CrossCorrelation(_)) && shape(0) == shape(1) {
        return Err(format!(
            "the engine needs a template smaller than the map {}; multiply and sum instead",
            shape(0)
        ));
    }
    Ok(())
}

fn reliable(graph: &Graph, id: NodeId, node: &GraphNode) -> Result<(), String> {
    let types: Vec<TensorType> = node.inputs.iter().map(|&i| graph.node(i).ty).collect();
    layers::unreliable(&graph.form(id), &types).map_or(Ok(()), Err)
}

fn ports(graph: &Graph) -> Result<(), LegalError> {
    let mut seen = HashSet::new();
    for &id in graph.outputs() {
        let node = graph.node(id);
        let fault = Fault::Graph;
        let fail = |why: &str| Err(LegalError { op: node.op.name(), why: why.into(), at: node.at, fault });
        if node.ty.dtype != DType::F16 {
            return fail("results are fp16; turn a bool into numbers with select");
        }
        if matches!(node.op.mil(), Mil::Leaf) || !seen.insert(id) {
            return fail("is returned without being computed, or twice, after legalization");
        }
    }
    let ports = graph.feeds();
    if let Some(node) =
        ports.iter().chain(graph.outputs()).map(|&id| graph.node(id)).find(|n| n.ty.shape.rank() == 0)
    {
        let why = "a port needs at least one axis; make it [1]".into();
        return Err(LegalError { op: node.op.name(), why, at: node.at, fault: Fault::Graph });
    }
    if ports.is_empty() {
        let node = graph.node(graph.outputs()[0]);
        let why = "the program has no inputs; make one with input()".into();
        return Err(LegalError { op: node.op.name(), why, at: node.at, fault: Fault::Graph });
    }
    Ok(())
}
