//! Where results are written: where they are returned, in slots by lifetime, or in the place of an operand that is read
//! for the last time.

use crate::device::host::plan::Place;
use crate::device::host::planner::{Draft, Planner};
use crate::device::host::views::Views;
use crate::ir::graph::NodeId;
use crate::plan::{Slots, Span, assign_slots};
use aneforge_tensor::DType;
use std::iter::zip;

/// Where the result of each draft is written, and how long it is read.
pub(super) struct Places {
    /// The draft that writes a node's value.
    pub(super) writer: Vec<Option<usize>>,
    /// Where each node's value is, if drafts write it and it is a part of no other one.
    pub(super) of: Vec<Option<Place>>,
    /// The operand of each draft that lies in the place of the result.
    pub(super) in_place: Vec<Option<usize>>,
    pub(super) slots: Slots,
    pub(super) spans: Vec<Span>,
}

/// Memory that drafts write: of a value by itself, or of all that are parts of one.
struct Home {
    base: NodeId,
    /// While something is written there or read.
    life: Span,
    /// The output that it is.
    returned: Option<usize>,
    /// The home whose place it has, as its value is written over that one's.
    over: Option<usize>,
}

impl Planner<'_> {
    pub(super) fn places(&self, drafts: &[Draft], views: &Views<'_, '_>) -> Places {
        let mut writer: Vec<Option<usize>> = vec![None; self.graph.len()];
        let (mut homes, home) = self.homes(drafts, views);
        let spans = drafts.iter().map(|draft| homes[home[views.base(draft.last).index()]].life).collect();
        let mut in_place = vec![None; drafts.len()];
        for (step, draft) in drafts.iter().enumerate() {
            writer[draft.last.index()] = Some(step);
            let own = home[views.base(draft.last).index()];
            if homes[own].returned.is_some() || !views.is_alone(draft.last) {
                continue;
            }
            let dies = |id: NodeId| {
                let from = home[views.base(id).index()];
                let dies = homes.get(from).is_some_and(|home| home.life.last == step);
                let alike =
                    dies && views.is_alone(id) && views.order(self.root(id)) == views.order(draft.last);
                alike.then_some(from)
            };
            if let Some((operand, from)) = self.replaced(draft, views, dies) {
                in_place[step] = Some(operand);
                homes[own].over = Some(from);
            }
        }
        let (slots, place) = assigned(&homes);
        let mut of = vec![None; self.graph.len()];
        zip(&homes, place).for_each(|(home, place)| of[home.base.index()] = Some(place));
        Places { writer, of, in_place, slots, spans }
    }

    /// The memory that drafts write, and which is that of each node's value; of others, a number that no home has.
    fn homes(&self, drafts: &[Draft], views: &Views<'_, '_>) -> (Vec<Home>, Vec<usize>) {
        let (mut homes, mut home): (Vec<Home>, _) = (Vec::new(), vec![usize::MAX; self.graph.len()]);
        for (step, draft) in drafts.iter().enumerate() {
            let base = views.base(draft.last);
            if home[base.index()] == usize::MAX {
                home[base.index()] = homes.len();
                let life = Span { bytes: views.room(base), first: step, last: step };
                homes.push(Home { base, life, returned: None, over: None });
            }
            let used = draft.inputs.iter().chain(&draft.bias).chain(&draft.residual).chain([&draft.last]);
            for &value in used {
                if let Some(home) = homes.get_mut(home[views.base(value).index()]) {
                    home.life.last = step;
                }
            }
        }
        // A value that is returned is written where it is wanted.
        for (at, &output) in self.graph.outputs().iter().enumerate() {
            if let Some(home) = homes.get_mut(home[views.base(output).index()]) {
                home.life.last = usize::MAX;
                home.returned.get_or_insert(at);
            }
        }
        (homes, home)
    }

    /// The operand of a chain in whose place the result may be written, and what `dies` says of it: the chain is the last
    /// to read it, and reads each element only where it writes.
    fn replaced(
        &self,
        draft: &Draft,
        views: &Views<'_, '_>,
        dies: impl Fn(NodeId) -> Option<usize>,
    ) -> Option<(usize, usize)> {
        let ty = self.ty(draft.last);
        if draft.links.is_empty() || ty.dtype != DType::F16 {
            return None;
        }
        let alike = |(operand, &id): (usize, &NodeId)| {
            let base = views.base(id);
            let read = draft.inputs.iter().filter(|&&other| views.base(other) == base).count();
            Some((operand, Some(id).filter(|&id| read == 1 && self.ty(id) == ty).and_then(&dies)?))
        };
        draft.inputs.iter().enumerate().find_map(alike)
    }
}

/// The slots of what is not returned, and the place of each home.
fn assigned(homes: &[Home]) -> (Slots, Vec<Place>) {
    // Values that are written over each other are in one place from the first to the last.
    let mut first: Vec<usize> = (0..homes.len()).collect();
    let mut lives: Vec<Span> = homes.iter().map(|home| home.life).collect();
    for (at, home) in homes.iter().enumerate() {
        if let Some(over) = home.over {
            first[at] = first[over];
            lives[first[at]].last = home.life.last;
        }
    }
    let kept: Vec<usize> =
        (0..homes.len()).filter(|&at| first[at] == at && homes[at].returned.is_none()).collect();
    let slots = assign_slots(&kept.iter().map(|&at| lives[at]).collect::<Vec<_>>());
    let mut slot = vec![None; homes.len()];
    zip(&kept, &slots.of).for_each(|(&at, &number)| slot[at] = Some(number));
    let place = |(at, home): (usize, &Home)| match home.returned {
        Some(output) => Place::Output(output),
        None => Place::Slot(slot[first[at]].expect("invariant: one slot per home")),
    };
    let places = homes.iter().enumerate().map(place).collect();
    (slots, places)
}
