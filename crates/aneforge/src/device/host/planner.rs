//! From a legal graph to steps: what is fused, what needs no step, and where values lie.

use crate::device::host::plan::{Finish, Fused, HostPlan, Place, Step};
use crate::device::host::step::unary_of;
use crate::ir::graph::{Graph, NodeId};
use crate::ir::numerics::Numerics;
use crate::ir::op::Op;
use crate::ir::ops::leaf::Constant;
use crate::ir::ops::moves;
use crate::ir::types::TensorType;
use crate::plan::{Span, assign_slots};
use aneforge_tensor::{DType, f16};

/// A step before slots are assigned: its value is buffer number `node`.
struct Draft {
    node: NodeId,
    last: NodeId,
    inputs: Vec<NodeId>,
    bias: Option<NodeId>,
    fused: Fused,
}

/// Plans a legal graph. With `fuse` off, every node that computes is a step of its own.
pub(super) fn plan(graph: &Graph, numerics: Numerics, fuse: bool) -> HostPlan {
    let planner = Planner { graph, uses: graph.uses(), consumers: consumers(graph), numerics };
    let drafts = planner.drafts(fuse);
    planner.place(drafts)
}

struct Planner<'a> {
    graph: &'a Graph,
    uses: Vec<u32>,
    consumers: Vec<Vec<NodeId>>,
    numerics: Numerics,
}

fn consumers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut out = vec![Vec::new(); graph.len()];
    for (id, node) in graph.nodes() {
        for input in &node.inputs {
            out[input.index()].push(id);
        }
    }
    out
}

/// Ops whose result is their operand's bytes under another shape.
fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Squeeze(_) | Op::ExpandDims(_) | Op::Flatten2d(_))
}

impl Planner<'_> {
    fn op(&self, id: NodeId) -> &Op {
        &self.graph.node(id).op
    }

    fn ty(&self, id: NodeId) -> TensorType {
        self.graph.node(id).ty
    }

    fn drafts(&self, fuse: bool) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut covered = vec![false; self.graph.len()];
        for (id, node) in self.graph.nodes() {
            let no_step = matches!(node.op, Op::Input(_) | Op::Constant(_)) || is_view(&node.op);
            if no_step || covered[id.index()] || (fuse && self.is_folded_transpose(id)) {
                continue;
            }
            let mut draft = Draft {
                node: id,
                last: id,
                inputs: node.inputs.clone(),
                bias: None,
                fused: Fused::default(),
            };
            if fuse {
                self.fuse(&mut draft, &mut covered);
            }
            drafts.push(draft);
        }
        drafts
    }

    /// The only consumer of a value that is not returned.
    fn only_consumer(&self, id: NodeId) -> Option<NodeId> {
        match (self.uses[id.index()], &self.consumers[id.index()][..]) {
            (1, &[next]) => Some(next),
            _ => None,
        }
    }

    fn fuse(&self, draft: &mut Draft, covered: &mut [bool]) {
        match self.op(draft.node) {
            Op::Bmm(_) => {
                let y = draft.inputs[1];
                if self.is_folded_transpose(y) {
                    draft.inputs[1] = self.graph.node(y).inputs[0];
                    draft.fused.transposed = true;
                }
            }
            Op::BmmW(_) => {}
            Op::Matmul(_) | Op::Conv(_) if self.graph.constant(draft.inputs[1]).is_some() => {}
            _ => return,
        }
        if let Some((sum, bias)) = self.bias_after(draft.last) {
            covered[sum.index()] = true;
            draft.last = sum;
            draft.bias = Some(bias);
            draft.fused.nodes.push((sum, "add"));
        }
        if let Some(next) = self.only_consumer(draft.last)
            && let Some(function) = unary_of(self.op(next))
        {
            covered[next.index()] = true;
            draft.last = next;
            draft.fused.activation = Some(function);
            draft.fused.nodes.push((next, self.op(next).name()));
        }
    }

    /// An addition of a constant per output column (per channel, for a convolution) to this value alone.
    fn bias_after(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let next = self.only_consumer(id)?;
        let (Op::Add(_), &[a, bias]) = (self.op(next), &self.graph.node(next).inputs[..]) else {
            return None;
        };
        let (shape, extents) = (self.ty(id).shape, self.ty(bias).shape);
        let axis = if matches!(self.op(id), Op::Conv(_)) { 1 } else { shape.rank() - 1 };
        let from_right = shape.rank() - axis;
        let fits = extents.rank() >= from_right
            && extents.count() == shape[axis]
            && extents[extents.rank() - from_right] == shape[axis];
        (a == id && fits && self.ty(next).shape == shape && self.graph.constant(bias).is_some())
            .then_some((next, bias))
    }

    /// A transpose of the last two axes that only one product reads, as its second operand.
    fn is_folded_transpose(&self, id: NodeId) -> bool {
        let Op::Transpose(op) = self.op(id) else { return false };
        let rank = op.perm.len();
        let swaps = rank >= 2
            && op.perm[..rank - 2].iter().enumerate().all(|(i, &p)| i as i64 == p)
            && op.perm[rank - 2] == rank as i64 - 1;
        let Some(next) = self.only_consumer(id) else { return false };
        swaps && matches!(self.op(next), Op::Bmm(_)) && self.graph.node(next).inputs[1] == id
    }

    /// The node whose bytes a value is: itself, unless it is a view.
    fn root(&self, mut id: NodeId) -> NodeId {
        while is_view(self.op(id)) {
            id = self.graph.node(id).inputs[0];
        }
        id
    }

    fn place(&self, drafts: Vec<Draft>) -> HostPlan {
        let feeds = self.graph.feeds();
        let mut writer: Vec<Option<usize>> = vec![None; self.graph.len()];
        let mut spans: Vec<Span> = Vec::new();
        for (step, draft) in drafts.iter().enumerate() {
            let bytes = self.ty(draft.last).bytes();
            writer[draft.last.index()] = Some(step);
            spans.push(Span { bytes, first: step, last: step });
            for &input in draft.inputs.iter().chain(&draft.bias) {
                if let Some(buffer) = writer[self.root(input).index()] {
                    spans[buffer].last = step;
                }
            }
        }
        for &output in self.graph.outputs() {
            if let Some(buffer) = writer[self.root(output).index()] {
                spans[buffer].last = usize::MAX;
            }
        }
        let slots = assign_slots(&spans);
        let place = |id: NodeId| {
            let root = self.root(id);
            match (self.op(root), writer[root.index()]) {
                (Op::Constant(Constant { index }), _) => Place::Constant(*index),
                (Op::Input(_), _) => {
                    Place::Feed(feeds.iter().position(|&f| f == root).expect("invariant: leaves are feeds"))
                }
                (_, Some(buffer)) => Place::Slot(slots.of[buffer]),
                (op, None) => unreachable!("{} is read but never written", op.name()),
            }
        };
        let steps = drafts
            .iter()
            .enumerate()
            .map(|(i, draft)| Step {
                first: draft.node,
                node: draft.last,
                op: self.op(draft.node).clone(),
                inputs: draft.inputs.iter().map(|&id| (place(id), self.ty(id))).collect(),
                fused: Fused { bias: draft.bias.map(place), ..draft.fused.clone() },
                output: slots.of[i],
                ty: self.ty(draft.last),
                finish: self.finish(draft),
            })
            .collect();
        let outputs = self.graph.outputs().iter().map(|&id| (place(id), self.ty(id))).collect();
        let feeds = feeds.iter().map(|&id| self.ty(id)).collect();
        HostPlan { steps, outputs, feeds, slots, spans, flush_nan: self.numerics.flushes_nan() }
    }

    fn finish(&self, draft: &Draft) -> Finish {
        let op = self.op(draft.node);
        let limit = match op {
            Op::Matmul(_) | Op::Bmm(_) | Op::BmmW(_) => self.numerics.matmul_limit(),
            Op::SliceBySize(slice) if slice.begin.last().is_some_and(|&b| b > 0) => {
                self.numerics.offset_slice_limit()
            }
            Op::Crop(crop) if crop.crop_width[0] > 0 => self.numerics.offset_slice_limit(),
            _ => f64::INFINITY,
        };
        let computes = self.ty(draft.last).dtype == DType::F16 && may_leave_finite(op);
        Finish {
            limit: limit.is_finite().then(|| f16::from_f64(limit)),
            watched: computes || limit.is_finite(),
            flush_nan: computes && self.numerics.flushes_nan(),
        }
    }
}

/// Whether an op can store an infinity or NaN when its operands are finite.
fn may_leave_finite(op: &Op) -> bool {
    let stays = matches!(
        op,
        Op::Relu(_)
            | Op::Relu6(_)
            | Op::Abs(_)
            | Op::Sign(_)
            | Op::Floor(_)
            | Op::Ceil(_)
            | Op::NativeRound(_)
            | Op::Clip(_)
            | Op::Maximum(_)
            | Op::Minimum(_)
            | Op::Select(_)
            | Op::MaxPool(_)
            | Op::ReduceMax(_)
            | Op::ReduceMin(_)
            | Op::Concat(_)
            | Op::Stack(_)
            | Op::Cast(_)
    );
    !stays && !moves(op)
}
