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
    /// By node, its place in `found`.
    known: HashMap<NodeId, usize>,
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
        let node = |at| self.known.iter().find_map(|(&node, &known)| (known == at).then_some(node));
        self.found.iter().enumerate().filter_map(move |(at, overflow)| Some((node(at)?, overflow)))
    }

    fn add(&mut self, node: NodeId, op: &'static str, values: usize) {
        let at = self.lines[node.index()];
        let place = *self.known.entry(node).or_insert_with(|| {
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
        if step.fused.nodes.is_empty() && self.known.contains_key(&step.first) {
            return self.add(step.first, step.op.name(), 0);
        }
        let mut before: Option<AlignedBytes> = None;
        for (node, op, part) in parts(step) {
            let Some(mut out) = AlignedBytes::try_zeroed(part.output.room()) else { return };
            Call { step: &part, watch: &Watch::default(), ..*call }.run(routine, scratch, &mut out);
            let added = part.fused.residual.as_ref().map(|added| call.images(added).0);
            let was_finite = |i: usize| match &before {
                None => finite,
                Some(before) => {
                    before.as_slice::<f16>()[i].is_finite() && added.is_none_or(|added| added[i].is_finite())
                }
            };
            let values = out.as_slice::<f16>().iter().enumerate();
            let values = values.filter(|(i, v)| !v.is_finite() && was_finite(*i)).count();
            if values > 0 {
                self.add(node, op, values);
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
        (node, op, Step { fused, finish, ..step.clone() })
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
