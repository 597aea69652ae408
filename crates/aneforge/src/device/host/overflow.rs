//! Which nodes made an infinity or NaN of finite operands.
//!
//! Chains count them. Other kernels say only that one came up in a step; which of its nodes it came from, and whether their
//! operands were finite, is found out here, by computing the step again. So a call that stays finite pays nothing for it.

use crate::device::host::plan::{Finish, Fused, Step};
use crate::device::host::routine::{Call, Routine};
use crate::device::{DeviceError, Overflow};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::types::Caller;
use aneforge_kernels::{Scratch, Watch};
use aneforge_tensor::{AlignedBytes, DType, f16};
use std::collections::HashMap;

/// What was found so far.
pub(super) struct Overflows {
    /// The lines that built the nodes, by number.
    lines: Vec<Caller>,
    found: Vec<Overflow>,
    /// By node, and by the part of a joined product that it belongs to, its place in `found`.
    known: HashMap<(NodeId, usize), usize>,
}

impl Overflows {
    pub(super) fn new(graph: &Graph) -> Overflows {
        let lines = graph.nodes().map(|(_, node)| node.at).collect();
        Overflows { lines, found: Vec::new(), known: HashMap::new() }
    }

    pub(super) fn found(&self) -> &[Overflow] {
        &self.found
    }

    /// The same, with the nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Overflow)> {
        let node = |at| self.known.iter().find_map(|(&(node, _), &known)| (known == at).then_some(node));
        self.found.iter().enumerate().filter_map(move |(at, overflow)| Some((node(at)?, overflow)))
    }

    pub(super) fn add(&mut self, node: NodeId, op: &'static str, values: usize) {
        self.add_at((node, 0), self.lines[node.index()], op, values);
    }

    fn add_at(&mut self, key: (NodeId, usize), at: Caller, op: &'static str, values: usize) {
        let place = *self.known.entry(key).or_insert_with(|| {
            self.found.push(Overflow { op, at, values, calls: 0 });
            self.found.len() - 1
        });
        self.found[place].calls += 1;
    }

    /// Looks into a step that has just run and stored an infinity or NaN.
    pub(super) fn look_into(&mut self, call: &Call<'_, '_>, routine: &dyn Routine, scratch: &mut Scratch) {
        let step = call.step;
        if let Some(made) = routine.made() {
            for (link, values) in step.fused.links.iter().zip(made).filter(|&(_, values)| values > 0) {
                self.add(link.node, link.op, values);
            }
            return;
        }
        if let Some(whole) = &step.fused.whole {
            // Where memory runs out, nothing is found.
            let made = whole.made(call);
            debug_assert!(
                !matches!(made, Err(DeviceError::Bind { .. })),
                "invariant: as many feeds as ports: {made:?}"
            );
            for (node, op, values) in made.unwrap_or_default() {
                self.add(node, op, values);
            }
            return;
        }
        let finite = operands_are_finite(call);
        if !finite && step.fused.nodes.is_empty() {
            return;
        }
        // Of one node with finite operands there is nothing to find out a second time.
        let parts_of_product = &step.fused.parts[..];
        let alone = step.fused.nodes.is_empty() && parts_of_product.is_empty();
        if alone && self.known.contains_key(&(step.first, 0)) {
            return self.add(step.first, step.op.name(), 0);
        }
        let mut before: Option<AlignedBytes> = None;
        for (node, op, part) in parts(step) {
            let Some(mut out) = AlignedBytes::try_zeroed(part.output.room()) else { return };
            Call { step: &part, watch: &Watch::default(), ..*call }.run(routine, scratch, &mut out);
            let added = Call { step: &part, ..*call }.added();
            let was_finite = |i: usize| match &before {
                None => finite,
                Some(before) => {
                    before.as_slice::<f16>()[i].is_finite() && added.is_none_or(|added| added[i].is_finite())
                }
            };
            let values = out.as_slice::<f16>().iter().enumerate();
            let made = values.filter(|(i, v)| !v.is_finite() && was_finite(*i));
            let count = parts_of_product.len().max(1);
            let columns = step.output.ty.shape.dims().last().map_or(1, |&columns| columns / count);
            let mut counts = vec![0; count];
            made.for_each(|(i, _)| counts[if count == 1 { 0 } else { i / columns % count }] += 1);
            for (at, values) in counts.into_iter().enumerate().filter(|&(_, values)| values > 0) {
                let line = |lines: &[Caller; 2]| lines[usize::from(node != step.first)];
                let line = parts_of_product.get(at).map_or(self.lines[node.index()], line);
                self.add_at((node, at), line, op, values);
            }
            before = Some(out);
        }
    }
}

fn operands_are_finite(call: &Call<'_, '_>) -> bool {
    let Step { inputs, fused, .. } = call.step;
    let halves = inputs.iter().chain(&fused.residual).filter(|operand| operand.ty.dtype == DType::F16);
    // Constants are finite in every legal graph, and those that were packed are not at hand.
    let mut variable = halves.filter(|operand| !operand.place.is_constant());
    variable.all(|operand| call.elements(operand).all(|v| v.is_finite()))
}

/// The step up to each of its nodes, with nothing made of NaN.
fn parts(step: &Step) -> Vec<(NodeId, &'static str, Step)> {
    let Fused { bias, residual, activation, ref nodes, .. } = step.fused;
    let part = |node, op, bias, residual, activation| {
        let fused = Fused { bias, residual, activation, ..step.fused.clone() };
        let finish = Finish { flush_nan: false, ..step.finish };
        let output = if step.output.is_dense() { step.output.spanned() } else { step.output };
        (node, op, Step { fused, finish, output, ..step.clone() })
    };
    let mut later = nodes.iter().copied();
    let mut parts = vec![part(step.first, step.op.name(), None, None, None)];
    if bias.is_some() {
        parts.extend(later.next().map(|(node, op)| part(node, op, bias, None, None)));
    }
    if residual.is_some() {
        parts.extend(later.next().map(|(node, op)| part(node, op, bias, residual, None)));
    }
    parts.extend(later.next().map(|(node, op)| part(node, op, bias, residual, activation)));
    parts
}
