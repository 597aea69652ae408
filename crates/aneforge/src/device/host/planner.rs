//! From a legal graph to steps: what is fused, what needs no step, and where values lie.

use crate::device::host::chain;
use crate::device::host::joined::Joined;
use crate::device::host::layout::{self, Treatment};
use crate::device::host::operand::{Operand, Order};
use crate::device::host::places::Places;
use crate::device::host::plan::{Finish, Fused, HostPlan, Place, Step};
use crate::device::host::reach::Refusal;
use crate::device::host::views::Views;
use crate::ir::form::{Form, Move, Pooling, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::Numerics;
use crate::ir::op::Op;
use crate::ir::ops::leaf::Constant;
use crate::ir::types::TensorType;
use aneforge_kernels::map::{Binary, Unary};
use aneforge_tensor::{DType, f16};
use std::borrow::Cow;
use std::collections::HashMap;

/// Functions that never exchange the order of two elements, to the bit.
const ASCENDING: &[Unary] = &[Unary::Relu, Unary::Relu6];

/// A step before slots are assigned: its value is buffer number `node`.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) node: NodeId,
    pub(super) last: NodeId,
    pub(super) inputs: Vec<NodeId>,
    pub(super) bias: Option<NodeId>,
    pub(super) residual: Option<NodeId>,
    pub(super) fused: Fused,
    /// The elementwise nodes that it is, in their order.
    pub(super) links: Vec<NodeId>,
    /// Why it copies what could have been where it belongs.
    pub(super) copies: Vec<Refusal>,
}

impl Draft {
    /// Of a node without operands yet.
    pub(super) fn new(node: NodeId, links: Vec<NodeId>) -> Draft {
        let fused = Fused::default();
        let (inputs, copies) = (Vec::new(), Vec::new());
        Draft { node, last: node, inputs, bias: None, residual: None, fused, links, copies }
    }
}

/// What is run for a graph, and how: with one product in the place of several, where that is as good for those who read them.
pub(super) fn planned(graph: &Graph, numerics: Numerics, fuse: bool) -> (Cow<'_, Graph>, HostPlan) {
    let joined =
        Some(Planner::new(graph, numerics, true)).filter(|_| fuse).and_then(|planner| planner.joined());
    let Some(Joined { graph, mut parts, .. }) = joined else {
        return (Cow::Borrowed(graph), plan(graph, numerics, fuse));
    };
    let mut plan = plan(&graph, numerics, fuse);
    for step in &mut plan.steps {
        step.fused.parts = parts.remove(&step.first).unwrap_or_default();
    }
    (Cow::Owned(graph), plan)
}

/// Plans a legal graph. With `fuse` off, every node that computes is a step of its own.
pub(super) fn plan(graph: &Graph, numerics: Numerics, fuse: bool) -> HostPlan {
    let planner = Planner::new(graph, numerics, fuse);
    let mut drafts = planner.drafts();
    if fuse {
        drafts = planner.chained(drafts);
    }
    let orders = if fuse { layout::orders(&planner, &drafts) } else { vec![Order::RowMajor; drafts.len()] };
    let views = if fuse { Views::found } else { Views::none }(&planner, &drafts, &orders);
    planner.place(&views.steps(), &views)
}

pub(super) struct Planner<'a> {
    pub(super) graph: &'a Graph,
    forms: Vec<Form>,
    uses: Vec<u32>,
    consumers: Vec<Vec<NodeId>>,
    feeds: Vec<NodeId>,
    pub(super) numerics: Numerics,
    fuse: bool,
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

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph, numerics: Numerics, fuse: bool) -> Planner<'a> {
        // Fast kernels follow what costs nothing.
        let numerics = numerics.fast();
        let form = |(id, _): (NodeId, &GraphNode)| match graph.form(id) {
            Form::Map(function) => Form::Map(numerics.arithmetic().function(function)),
            other => other,
        };
        let forms = graph.nodes().map(form).collect();
        let (uses, consumers) = (graph.uses(), consumers(graph));
        Planner { graph, forms, uses, consumers, feeds: graph.feeds(), numerics, fuse }
    }
}

impl Planner<'_> {
    pub(super) fn form(&self, id: NodeId) -> &Form {
        &self.forms[id.index()]
    }

    pub(super) fn ty(&self, id: NodeId) -> TensorType {
        self.graph.node(id).ty
    }

    fn drafts(&self) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let (mut wholes, mut covered) = match self.fuse {
            true => self.wholes(),
            false => (HashMap::new(), vec![false; self.graph.len()]),
        };
        // Values that are there when the next draft runs.
        let mut there = vec![false; self.graph.len()];
        for (id, node) in self.graph.nodes() {
            if let Some(whole) = wholes.remove(&id) {
                there[id.index()] = true;
                drafts.push(whole);
                continue;
            }
            let no_step = matches!(self.form(id), Form::Leaf | Form::View);
            there[id.index()] |= matches!(node.op, Op::Input(_));
            let folded = self.fuse
                && (self.is_folded_transpose(id, &covered)
                    || self.pooled(id).is_some()
                    || self.is_joined_weight(id));
            if no_step || folded || covered[id.index()] {
                continue;
            }
            let links = chain::function(self.form(id)).map(|_| id).into_iter().collect();
            let inputs = self.operands(node);
            let mut draft = Draft { inputs, ..Draft::new(id, links) };
            if self.fuse {
                self.fuse(&mut draft, &mut covered, &there);
            }
            there[draft.last.index()] = true;
            drafts.push(draft);
        }
        drafts
    }

    /// What a node reads; of a weight that is packed from several, these.
    fn operands(&self, node: &GraphNode) -> Vec<NodeId> {
        match node.inputs[..] {
            [x, weight] if self.fuse && self.is_joined_weight(weight) => {
                std::iter::once(x).chain(self.graph.node(weight).inputs.iter().copied()).collect()
            }
            _ => node.inputs.clone(),
        }
    }

    /// The nodes that read a value, each as often as it does.
    pub(super) fn consumers(&self, id: NodeId) -> &[NodeId] {
        &self.consumers[id.index()]
    }

    /// The nodes that read a value, each as often as it does, if it is not returned.
    pub(super) fn readers(&self, id: NodeId) -> Option<&[NodeId]> {
        let consumers = &self.consumers[id.index()];
        (self.uses[id.index()] as usize == consumers.len()).then_some(consumers)
    }

    /// The only consumer of a value that is not returned.
    pub(super) fn only_consumer(&self, id: NodeId) -> Option<NodeId> {
        match (self.uses[id.index()], &self.consumers[id.index()][..]) {
            (1, &[next]) => Some(next),
            _ => None,
        }
    }

    fn fuse(&self, draft: &mut Draft, covered: &mut [bool], there: &[bool]) {
        match self.form(draft.node) {
            Form::Pool(_, Pooling::Max) => {
                let x = draft.inputs[0];
                if let Some(activation) = self.pooled(x).filter(|_| !covered[x.index()]) {
                    draft.inputs = self.graph.node(x).inputs.clone();
                    draft.fused.activation = Some(activation);
                    draft.fused.nodes.push((x, self.graph.node(x).op.name()));
                }
                return;
            }
            Form::Product(Product::Batched) => {
                let y = draft.inputs[1];
                if self.is_folded_transpose(y, covered) {
                    draft.inputs[1] = self.graph.node(y).inputs[0];
                    draft.fused.transposed = true;
                }
            }
            _ if self.takes_more(draft) => {}
            _ => return,
        }
        if let Some((sum, bias)) = self.bias_after(draft.last) {
            covered[sum.index()] = true;
            draft.last = sum;
            draft.bias = Some(bias);
            draft.fused.nodes.push((sum, "add"));
        }
        let adds = !matches!(self.form(draft.node), Form::Product(Product::Batched));
        if let Some((sum, added)) = self.residual_after(draft.last, there).filter(|_| adds) {
            covered[sum.index()] = true;
            draft.last = sum;
            draft.residual = Some(added);
            draft.fused.nodes.push((sum, "add"));
        }
        if let Some(next) = self.only_consumer(draft.last)
            && let &Form::Map(function) = self.form(next)
        {
            covered[next.index()] = true;
            draft.last = next;
            draft.fused.activation = Some(function);
            draft.fused.nodes.push((next, self.graph.node(next).op.name()));
        }
    }

    /// Whether the kernel of a draft may compute a function of its results, too.
    pub(super) fn takes_more(&self, draft: &Draft) -> bool {
        match self.form(draft.node) {
            _ if draft.fused.whole.is_some() => false,
            Form::Product(Product::Batched) => true,
            Form::Product(Product::Linear) | Form::Conv(..) => self.graph.constant(draft.inputs[1]).is_some(),
            _ => false,
        }
    }

    /// An addition of a constant per output column (per channel, for a convolution) to this value alone.
    pub(super) fn bias_after(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let next = self.only_consumer(id)?;
        let (Form::Zip(Binary::Add), &[a, bias]) = (self.form(next), &self.graph.node(next).inputs[..])
        else {
            return None;
        };
        let (shape, extents) = (self.ty(id).shape, self.ty(bias).shape);
        let axis = if matches!(self.form(id), Form::Conv(..)) { 1 } else { shape.rank() - 1 };
        let from_right = shape.rank() - axis;
        let fits = extents.rank() >= from_right
            && extents.count() == shape[axis]
            && extents[extents.rank() - from_right] == shape[axis];
        (a == id && fits && self.ty(next).shape == shape && self.graph.constant(bias).is_some())
            .then_some((next, bias))
    }

    /// An addition of a value of the same shape, which is there already, to this value alone.
    fn residual_after(&self, id: NodeId, there: &[bool]) -> Option<(NodeId, NodeId)> {
        let next = self.only_consumer(id)?;
        let (Form::Zip(Binary::Add), &[a, b]) = (self.form(next), &self.graph.node(next).inputs[..]) else {
            return None;
        };
        let added = if a == id { b } else { a };
        (self.ty(added) == self.ty(id) && there[self.root(added).index()]).then_some((next, added))
    }

    /// A transpose of the last two axes that only one product reads, as its second operand. Neither is part of a whole, which
    /// reads and writes as it can.
    fn is_folded_transpose(&self, id: NodeId, covered: &[bool]) -> bool {
        let Form::Move(Move::Transpose { extents, perm }) = self.form(id) else { return false };
        let rank = self.ty(id).shape.rank();
        let swaps = rank >= 2
            && extents.len() == rank
            && perm[..rank - 2].iter().enumerate().all(|(i, &p)| i == p)
            && perm[rank - 2] == rank - 1;
        let Some(next) = self.only_consumer(id) else { return false };
        let product = matches!(self.form(next), Form::Product(Product::Batched));
        let apart = !covered[id.index()] && !covered[next.index()];
        swaps && product && apart && self.graph.node(next).inputs[1] == id
    }

    /// The function of a node that only a pool reads, which takes the greatest element of each window: where greater
    /// elements have greater values, the pool may come first, and leaves fewer elements to compute the function of. NaN is
    /// greatest to a pool but not to a function, so there must be none, and no window may be without elements.
    fn pooled(&self, id: NodeId) -> Option<Unary> {
        let &Form::Map(function) = self.form(id) else { return None };
        let next = self.only_consumer(id)?;
        let Form::Pool(window, Pooling::Max) = self.form(next) else { return None };
        let (image, result) = (self.ty(id).shape, self.ty(next).shape);
        let full = window.has_cells([image[2], image[3]], [result[2], result[3]]);
        (ASCENDING.contains(&function) && self.numerics.flushes_nan() && full).then_some(function)
    }

    /// The node whose bytes a value is: itself, unless it is a view.
    pub(super) fn root(&self, mut id: NodeId) -> NodeId {
        while *self.form(id) == Form::View {
            id = self.graph.node(id).inputs[0];
        }
        id
    }

    fn place(&self, drafts: &[Draft], views: &Views<'_, '_>) -> HostPlan {
        let Places { writer, of, in_place, slots, spans } = self.places(drafts, views);
        let place = |id: NodeId| self.place_of(views.base(id), &of);
        let step = |(at, draft): (usize, &Draft)| {
            let step = self.step(draft, |id| views.operand(id, place(id)));
            let apart = if self.fuse { self.apart(draft, drafts, &writer) } else { None };
            let halo = views.with_halo(views.base(draft.last), place(draft.last));
            let halo = halo.filter(|_| spans[at].first == at);
            Step { in_place: in_place[at], apart, halo, ..step }
        };
        let steps = drafts.iter().enumerate().map(step).collect();
        let outputs = self.graph.outputs().iter().map(|&id| (place(id), self.ty(id))).collect();
        let feeds = self.feeds.iter().map(|&id| self.ty(id)).collect();
        let takes_nan = self.numerics.arithmetic().takes_nan_for_infinity;
        HostPlan { steps, outputs, feeds, slots, spans, flush_nan: takes_nan }
    }

    /// The step of a draft, by where values lie and how.
    fn step(&self, draft: &Draft, operand: impl Fn(NodeId) -> Operand) -> Step {
        let whole = draft.fused.whole.as_ref();
        let mut form = whole.map_or_else(|| self.form(draft.node).clone(), |whole| whole.form());
        let mut output = operand(draft.last);
        let mut inputs: Vec<Operand> = draft.inputs.iter().map(|&id| operand(id)).collect();
        let pixels = |operand: &Operand| operand.order != Order::RowMajor;
        if self.goes_along(draft) && (pixels(&output) || inputs.iter().any(pixels)) {
            // What is the same in both orders goes along.
            inputs.iter_mut().for_each(Operand::by_pixels);
            output.by_pixels();
            if let Treatment::Along(reordered) = self.treatment(draft) {
                form = reordered;
            }
        }
        let nodes = std::iter::once(draft.node).chain(draft.fused.nodes.iter().map(|(id, _)| *id));
        Step {
            first: draft.node,
            node: draft.last,
            op: self.graph.node(draft.node).op.clone(),
            form,
            inputs,
            fused: Fused {
                bias: draft.bias.map(|id| operand(id).place),
                residual: draft.residual.map(&operand),
                links: self.links(draft),
                ..draft.fused.clone()
            },
            output,
            in_place: None,
            apart: None,
            halo: None,
            copies: draft.copies.clone(),
            finish: self.finish(draft.links.last().copied().unwrap_or(draft.node), draft.last),
            flops: nodes.map(|id| self.graph.facts(id).flops).sum(),
            bytes: self.bytes(draft),
        }
    }

    /// What a draft reads, as it is stored, and writes.
    fn bytes(&self, draft: &Draft) -> usize {
        let stored = |id: &NodeId| match self.graph.constant(*id) {
            Some(weight) => weight.stored_bytes(),
            None => self.ty(*id).bytes(),
        };
        let read: usize = draft.inputs.iter().chain(&draft.residual).map(stored).sum();
        // Of what is put together, what is there already is neither read nor written.
        if draft.fused.begins.is_empty() { read + self.ty(draft.last).bytes() } else { 2 * read }
    }

    /// Where a value lies that is a part of no other one, by the places of what steps write.
    fn place_of(&self, base: NodeId, of: &[Option<Place>]) -> Place {
        match (&self.graph.node(base).op, of[base.index()]) {
            (Op::Constant(Constant { index }), _) => Place::Constant(*index),
            (Op::Input(_), _) => {
                let feed = self.feeds.iter().position(|&f| f == base);
                Place::Feed(feed.expect("invariant: leaves are feeds"))
            }
            (_, Some(place)) => place,
            (op, None) => unreachable!("{} is read but never written", op.name()),
        }
    }

    /// Whether a convolution sums more than one term. One is an elementwise product, which has the range of half precision.
    fn sums_terms(&self, id: NodeId) -> bool {
        let [image, kernels] = [0, 1].map(|i| self.ty(self.graph.node(id).inputs[i]).shape);
        let channels = match *self.form(id) {
            Form::ConvTranspose(_, groups) => image[1] / groups,
            _ => kernels[1],
        };
        channels * kernels[2] * kernels[3] > 1
    }

    /// What is done to the values that `last` stores, whose step starts with `first`.
    pub(super) fn finish(&self, first: NodeId, last: NodeId) -> Finish {
        let limit = match self.form(first) {
            Form::Product(_) | Form::RowProduct => self.numerics.matmul_limit(),
            Form::Conv(..) | Form::ConvTranspose(..) if self.sums_terms(first) => {
                self.numerics.matmul_limit()
            }
            Form::Move(Move::Slice { begin, clamped: true }) if begin.last().is_some_and(|&b| b > 0) => {
                self.numerics.offset_slice_limit()
            }
            _ => f64::INFINITY,
        };
        let may_overflow = !self.graph.facts(first).stays_finite;
        let computes = self.ty(last).dtype == DType::F16 && may_overflow;
        Finish {
            limit: limit.is_finite().then(|| f16::from_f64(limit)),
            watched: computes || limit.is_finite(),
            flush_nan: computes && self.numerics.flushes_nan(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_kernels::{Kernels, Stores, map};

    #[test]
    fn ascending_functions_keep_the_order_of_every_two_elements() {
        let mut values: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|v| !v.is_nan()).collect();
        values.sort_by(f16::total_cmp);
        let mut results = values.clone();
        for &function in ASCENDING {
            map::unary(&Kernels::with_threads(1), function, &values, Stores::default(), &mut results);
            assert!(results.is_sorted_by(|a, b| a.total_cmp(b).is_le()), "{function:?}");
        }
    }
}
