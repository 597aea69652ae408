//! Sizes beyond a family's limits: of axes, and of kernels.

use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::target::{Family, Limits};
use aneforge_mil::verify::MAX_DIM;
use std::collections::HashSet;

/// Which nodes have limits of their own.
pub(super) struct Extents {
    /// Inputs that feed a transpose directly share its wider limit.
    transposed: HashSet<NodeId>,
    /// Constants that only convolutions read, as their weight.
    kernels: HashSet<NodeId>,
}

/// Something is larger than a family takes it.
pub(super) struct Excess {
    what: String,
    limit: usize,
    remedy: &'static str,
}

impl Excess {
    /// In words, where `by` is whose limit it is.
    pub(super) fn said(&self, by: &str) -> String {
        format!("{} is above the {} that {by} allows; {}", self.what, self.limit, self.remedy)
    }
}

impl Extents {
    pub(super) fn of(graph: &Graph) -> Extents {
        let (mut transposed, mut kernels, mut others) = (HashSet::new(), HashSet::new(), HashSet::new());
        for node in &graph.nodes {
            for (operand, &input) in node.inputs.iter().enumerate() {
                match (&node.op, &graph.node(input).op) {
                    (Op::Transpose(_), Op::Input(_)) => _ = transposed.insert(input),
                    (Op::Conv(_), Op::Constant(_)) if operand == 1 => _ = kernels.insert(input),
                    _ => _ = others.insert(input),
                }
            }
        }
        let kernels = &kernels - &others;
        Extents { transposed, kernels }
    }

    /// The first axis of a value that is longer than a family takes it.
    pub(super) fn axis(&self, id: NodeId, node: &GraphNode, family: Family) -> Option<Excess> {
        let Limits { tensor_dim, channels, transposed, .. } = family.limits();
        let wide = self.transposed.contains(&id) || matches!(node.op, Op::Transpose(_));
        let shape = node.ty.shape;
        let limit = |axis: usize| match (wide, shape.rank(), axis) {
            (true, ..) => transposed,
            (false, 4, 1) => channels,
            (false, 4, 0) if self.kernels.contains(&id) => channels,
            _ => tensor_dim,
        };
        let axis = (0..shape.rank()).find(|&axis| shape[axis] > limit(axis))?;
        let what = format!("axis {axis} of {shape}");
        Some(Excess { what, limit: limit(axis), remedy: "split it into parts" })
    }
}

/// The first axis of a value that is longer than MIL has it, whatever the family.
pub(super) fn beyond_mil(node: &GraphNode) -> Option<Excess> {
    let (shape, limit) = (node.ty.shape, MAX_DIM as usize);
    let axis = (0..shape.rank()).find(|&axis| shape[axis] > limit)?;
    Some(Excess { what: format!("axis {axis} of {shape}"), limit, remedy: "split it into parts" })
}

/// A kernel that is larger than a family takes it.
pub(super) fn kernel(graph: &Graph, node: &GraphNode, family: Family) -> Option<Excess> {
    let Limits { kernel_width, kernel_height, .. } = family.limits();
    let size = |axis: usize| graph.node(node.inputs[1]).ty.shape[axis];
    let (width, height) = match node.op {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::DynamicConv(_) => (size(3), size(2)),
        // The layer is a convolution inside; nothing is known of its height.
        Op::CrossCorrelation(_) => (size(1), 1),
        _ => return None,
    };
    if width > kernel_width {
        let remedy = "use space_to_depth, or add the results of narrower kernels";
        return Some(Excess { what: format!("kernel width {width}"), limit: kernel_width, remedy });
    }
    let remedy = "use space_to_depth, or add the results of shorter kernels";
    let excess = || Excess { what: format!("kernel height {height}"), limit: kernel_height, remedy };
    (height > kernel_height).then(excess)
}
