//! What a family makes of a graph, without compiling it: which ops it computes, and what is too large for it.

use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::{Mil, Op};
use crate::ir::types::Caller;
use crate::passes::extents::{self, Extents};
use crate::target::layers::written_out;
use crate::target::{Availability, Family, op_status};
use aneforge_tensor::Shape;
use std::collections::HashSet;

/// A node, and what a family makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// Its op.
    pub op: &'static str,
    /// Its shape.
    pub shape: Shape,
    /// The line that built it.
    pub at: Caller,
    /// What becomes of the op.
    pub status: Availability,
    /// What of it is larger than the family takes it, if anything is.
    pub oversize: Option<String>,
}

/// What a family makes of a graph. A node that is too large is in the list of its status, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Preflight {
    /// The family.
    pub family: Family,
    /// Nodes that its engine computes.
    pub native: Vec<NodeReport>,
    /// Nodes that are written with others.
    pub decompose: Vec<NodeReport>,
    /// Nodes that it does not compute.
    pub reject: Vec<NodeReport>,
    /// Nodes that are too large.
    pub oversize: Vec<NodeReport>,
}

impl NodeReport {
    /// Why a family does not take it, if it does not.
    pub fn why(&self, family: Family) -> Option<String> {
        let first = crate::target::floor(self.op);
        let rejected = || match family.runs_mil() {
            false => format!("{family} runs no MIL program; the oldest family that does is A13"),
            true => format!("needs {first} or newer"),
        };
        self.oversize.clone().or_else(|| (self.status == Availability::Reject).then(rejected))
    }
}

impl Preflight {
    /// Whether nothing is rejected or too large. Compiling checks more.
    pub fn ok(&self) -> bool {
        self.reject.is_empty() && self.oversize.is_empty()
    }
}

/// What a family makes of the nodes that ANEForge has for a graph, inputs and constants too; of weights only of those that are
/// too large. A family that runs no programs rejects every node.
///
/// ```
/// use aneforge::passes::preflight;
/// use aneforge::{Family, Graph, Shape, Var};
/// let graph = Graph::freeze(&[Var::input(Shape::new(&[1, 20000])?).relu()])?;
/// assert!(preflight(&graph, Family::A16).ok());
/// let report = preflight(&graph, Family::A13);
/// assert_eq!((report.reject.len(), report.oversize.len()), (0, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn preflight(graph: &Graph, family: Family) -> Preflight {
    let graph = &written_out(graph);
    let extents = Extents::of(graph);
    let weights: HashSet<NodeId> = graph
        .nodes()
        .flat_map(|(id, node)| node.inputs.iter().skip(graph.facts(id).weights_from).copied())
        .filter(|&id| matches!(graph.node(id).op.mil(), Mil::Leaf) && graph.constant(id).is_some())
        .collect();
    let (native, decompose, reject, oversize) = (vec![], vec![], vec![], vec![]);
    let mut report = Preflight { family, native, decompose, reject, oversize };
    for (id, node) in graph.nodes() {
        let status = op_status(node.op.name(), family);
        let too_large = || {
            let excess = extents.axis(id, node, family).or_else(|| extents::kernel(graph, node, family));
            let excess = excess.map(|excess| excess.said(&family.to_string()));
            excess.or_else(|| large_groups(graph, node, family))
        };
        let oversize = if family.runs_mil() { too_large() } else { None };
        if weights.contains(&id) && oversize.is_none() {
            continue;
        }
        let row = NodeReport { op: node.op.name(), shape: node.ty.shape, at: node.at, status, oversize };
        if row.oversize.is_some() {
            report.oversize.push(row.clone());
        }
        match status {
            Availability::Native => report.native.push(row),
            Availability::Decompose => report.decompose.push(row),
            Availability::Reject => report.reject.push(row),
        }
    }
    report
}

/// Groups of channels are normalised as rows and columns, of which each has the limit of an axis.
///
/// Evidence: ANEForge 0.4.0.
fn large_groups(graph: &Graph, node: &GraphNode, family: Family) -> Option<String> {
    let (Op::GroupNorm(op), shape) = (&node.op, graph.node(*node.inputs.first()?).ty.shape) else {
        return None;
    };
    let (channels, pixels) = (shape[1] / op.num_groups as usize, shape[2] * shape[3]);
    let limit = family.limits().tensor_dim;
    (channels.max(pixels) > limit).then(|| {
        format!(
            "{channels} channels per group or {pixels} pixels are above the {limit} that {family} allows; use more \
             groups or smaller images"
        )
    })
}
