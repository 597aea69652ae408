//! Where results are written: where they are returned, in slots by lifetime, or in the place of an operand that is read
//! for the last time.

use crate::device::host::plan::{Order, Place};
use crate::device::host::planner::{Draft, Planner};
use crate::plan::{Slots, Span, assign_slots};
use aneforge_tensor::DType;
use std::iter::zip;

/// Where the result of each draft is written, and how long it is read.
pub(super) struct Places {
    /// The draft that writes a node's value.
    pub(super) writer: Vec<Option<usize>>,
    pub(super) written: Vec<Place>,
    /// The operand of each draft that lies in the place of the result.
    pub(super) in_place: Vec<Option<usize>>,
    pub(super) slots: Slots,
    pub(super) spans: Vec<Span>,
}

impl Planner<'_> {
    pub(super) fn places(&self, drafts: &[Draft], orders: &[Order]) -> Places {
        let mut writer: Vec<Option<usize>> = vec![None; self.graph.len()];
        let mut spans: Vec<Span> = Vec::new();
        for (step, draft) in drafts.iter().enumerate() {
            writer[draft.last.index()] = Some(step);
            spans.push(Span { bytes: orders[step].room(self.ty(draft.last)), first: step, last: step });
            for &input in draft.inputs.iter().chain(&draft.bias).chain(&draft.residual) {
                if let Some(from) = writer[self.root(input).index()] {
                    spans[from].last = step;
                }
            }
        }
        // A value that is returned is written where it is wanted.
        let mut returned: Vec<Option<usize>> = vec![None; drafts.len()];
        for (at, &output) in self.graph.outputs().iter().enumerate() {
            if let Some(step) = writer[self.root(output).index()] {
                spans[step].last = usize::MAX;
                returned[step].get_or_insert(at);
            }
        }
        // The draft whose result had its place first, and how long the place is in use.
        let mut home: Vec<usize> = (0..drafts.len()).collect();
        let mut lives = spans.clone();
        let mut in_place = vec![None; drafts.len()];
        for (step, draft) in drafts.iter().enumerate().filter(|&(step, _)| returned[step].is_none()) {
            let dies = |from: usize| spans[from].last == step && orders[from] == orders[step];
            if let Some((operand, from)) = self.replaced(draft, &writer, dies) {
                in_place[step] = Some(operand);
                home[step] = home[from];
                lives[home[from]].last = spans[step].last;
            }
        }
        let own = |step: &usize| home[*step] == *step && returned[*step].is_none();
        let kept: Vec<usize> = (0..drafts.len()).filter(own).collect();
        let slots = assign_slots(&kept.iter().map(|&step| lives[step]).collect::<Vec<_>>());
        let mut slot = vec![None; drafts.len()];
        zip(&kept, &slots.of).for_each(|(&step, &number)| slot[step] = Some(number));
        let place = |(step, returned): (usize, &Option<usize>)| match returned {
            Some(at) => Place::Output(*at),
            None => Place::Slot(slot[home[step]].expect("invariant: one slot per home")),
        };
        let written = returned.iter().enumerate().map(place).collect();
        Places { writer, written, in_place, slots, spans }
    }

    /// The operand of a chain in whose place the result may be written, and the draft that wrote it: the chain is the
    /// last to read it, and reads each element only where it writes.
    fn replaced(
        &self,
        draft: &Draft,
        writer: &[Option<usize>],
        dies: impl Fn(usize) -> bool,
    ) -> Option<(usize, usize)> {
        let ty = self.ty(draft.last);
        if draft.links.is_empty() || ty.dtype != DType::F16 {
            return None;
        }
        let writers = draft.inputs.iter().map(|&input| writer[self.root(input).index()]);
        let alike = |(operand, from): (usize, Option<usize>)| {
            let read = writers.clone().filter(|other| *other == from).count();
            let from = from.filter(|&from| read == 1 && self.ty(draft.inputs[operand]) == ty && dies(from));
            Some((operand, from?))
        };
        writers.clone().enumerate().find_map(alike)
    }
}
