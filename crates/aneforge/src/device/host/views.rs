//! Which values are parts of others in the same memory: slices of what is read where it lies, and what is put together
//! where it is written.
//!
//! A slice is no step if everything that reads it reads that part of the value. What is put together is written there from
//! the beginning, if the step that computes it can, and everything that reads it. What cannot be so is copied, by a step,
//! which says why.

use crate::device::host::operand::{Operand, Order, Window};
use crate::device::host::plan::Place;
use crate::device::host::planner::{Draft, Planner};
use crate::device::host::reach::Refusal;
use crate::ir::form::{Form, Move};
use crate::ir::graph::NodeId;

/// The most values that lie together.
const TOGETHER: usize = 256;

/// What a value is a part of.
#[derive(Clone, Debug)]
struct Within {
    whole: NodeId,
    /// Where it begins there, and its extents, by the axes of that one's type.
    begin: Vec<usize>,
    extents: Vec<usize>,
}

/// Where values lie in each other.
pub(super) struct Views<'a, 'g> {
    planner: &'a Planner<'g>,
    drafts: &'a [Draft],
    /// By node.
    orders: Vec<Order>,
    within: Vec<Option<Within>>,
    /// The parts of each node that are so.
    parts: Vec<Vec<NodeId>>,
    writer: Vec<Option<usize>>,
    /// The drafts that read each node, and as which operand.
    readers: Vec<Vec<(usize, usize)>>,
    /// Drafts that are no steps.
    gone: Vec<bool>,
    /// By draft.
    copies: Vec<Vec<Refusal>>,
}

impl<'a, 'g> Views<'a, 'g> {
    /// Every value by itself.
    pub(super) fn none(planner: &'a Planner<'g>, drafts: &'a [Draft], orders: &[Order]) -> Self {
        let nodes = planner.graph.len();
        let mut views = Views {
            planner,
            drafts,
            orders: vec![Order::RowMajor; nodes],
            within: vec![None; nodes],
            parts: vec![Vec::new(); nodes],
            writer: vec![None; nodes],
            readers: vec![Vec::new(); nodes],
            gone: vec![false; drafts.len()],
            copies: vec![Vec::new(); drafts.len()],
        };
        for (number, (draft, &order)) in drafts.iter().zip(orders).enumerate() {
            views.orders[draft.last.index()] = order;
            views.writer[draft.last.index()] = Some(number);
            let read = draft.inputs.iter().chain(&draft.residual);
            read.enumerate().for_each(|(at, input)| views.readers[input.index()].push((number, at)));
        }
        views
    }

    /// As many as can be in each other.
    pub(super) fn found(planner: &'a Planner<'g>, drafts: &'a [Draft], orders: &[Order]) -> Self {
        let mut views = Views::none(planner, drafts, orders);
        for (number, draft) in drafts.iter().enumerate() {
            match planner.form(draft.node) {
                _ if draft.fused.whole.is_some() => {}
                Form::Move(Move::Slice { begin, clamped }) => {
                    let found = views.slice(draft, begin, *clamped);
                    views.gone[number] = found.is_ok();
                    views.copies[number].extend(found.err());
                }
                &Form::Move(Move::Concat(axis)) => views.concat(number, axis),
                _ => {}
            }
        }
        views
    }

    fn slice(&mut self, draft: &Draft, begin: &[usize], clamped: bool) -> Result<(), Refusal> {
        let (slice, whole) = (draft.last, draft.inputs[0]);
        if self.planner.is_limited(begin, clamped) {
            return Err("the engine makes infinities of large elements on the way");
        }
        let extents = self.planner.ty(slice).shape.dims().to_vec();
        self.lie(slice, Within { whole, begin: begin.to_vec(), extents }, true)
    }

    fn concat(&mut self, number: usize, axis: usize) {
        let drafts = self.drafts;
        let (inputs, mut at) = (&drafts[number].inputs, 0);
        while at < inputs.len() {
            // Neighbouring parts that are all of a value are where they belong if it is.
            let alone = || (self.planner.root(inputs[at]), 1);
            let (value, count) = self.all_of(&inputs[at..], axis).unwrap_or_else(alone);
            let found = self.movable(value).and_then(|()| {
                let mut within = self.put(number, axis, at);
                within.extents[axis] =
                    (at..at + count).map(|at| self.put(number, axis, at).extents[axis]).sum();
                self.lie(value, within, false)
            });
            self.copies[number].extend(found.err());
            at += count;
        }
        self.gone[number] = self.copies[number].is_empty();
        self.copies[number].dedup();
    }

    /// Whether a value may be put into another one.
    fn movable(&self, id: NodeId) -> Result<(), Refusal> {
        match self.writer[id.index()] {
            _ if self.within[id.index()].is_some() => Err("it is a part of another value"),
            Some(step) if !self.gone[step] || !self.parts[id.index()].is_empty() => Ok(()),
            _ => Err("no step writes it"),
        }
    }

    /// The value that the first of these are the parts of, one after another along an axis, and how many are.
    fn all_of(&self, values: &[NodeId], axis: usize) -> Option<(NodeId, usize)> {
        let whole = self.within[values.first()?.index()].as_ref()?.whole;
        let (shape, mut done) = (self.planner.ty(whole).shape, 0);
        for (count, value) in values.iter().enumerate() {
            let within = self.within[value.index()].as_ref().filter(|within| within.whole == whole)?;
            let alike = |other: usize| match other == axis {
                true => within.begin[other] == done,
                false => within.extents[other] == shape[other],
            };
            let size = within.extents.get(axis).filter(|_| (0..shape.rank()).all(alike))?;
            done += size;
            if done == shape[axis] {
                return Some((whole, count + 1));
            }
        }
        None
    }

    /// Where operand `at` of what is put together along an axis is wanted.
    fn put(&self, number: usize, axis: usize, at: usize) -> Within {
        let Draft { inputs, last: whole, .. } = &self.drafts[number];
        let shape = self.planner.ty(*whole).shape;
        let size = |id: &NodeId| self.planner.ty(*id).shape.count() / (shape.count() / shape[axis]);
        let (mut begin, mut extents) = (vec![0; shape.rank()], shape.dims().to_vec());
        (begin[axis], extents[axis]) = (inputs[..at].iter().map(size).sum(), size(&inputs[at]));
        Within { whole: *whole, begin, extents }
    }

    /// Whether a step need not read this operand: it is no step, or the operand is where it is wanted.
    fn skips(&self, step: usize, at: usize) -> bool {
        let Draft { node, inputs, last, .. } = &self.drafts[step];
        let Form::Move(Move::Concat(axis)) = *self.planner.form(*node) else { return self.gone[step] };
        let in_place = || {
            let &id = inputs.get(at).filter(|&&id| self.base(id) == self.base(*last))?;
            let Within { begin, extents, .. } = self.put(step, axis, at);
            let wanted = self.window(*last)?.1.part(&begin, &extents);
            let wanted = wanted.view(self.planner.ty(id).shape.dims())?;
            Some(self.window(id)?.1.is(&wanted))
        };
        self.gone[step] || in_place().unwrap_or(false)
    }

    /// Puts a value in another one, if all agree.
    fn lie(&mut self, part: NodeId, within: Within, is_slice: bool) -> Result<(), Refusal> {
        let whole = within.whole;
        // A slice is no step then; what is put together is computed as before.
        let step = self.writer[part.index()].filter(|_| is_slice);
        self.within[part.index()] = Some(within);
        self.parts[whole.index()].push(part);
        step.into_iter().for_each(|step| self.gone[step] = true);
        // All that lies in the same memory may lie otherwise now, but for what a slice is of.
        let agreed = self.agreed(if is_slice { part } else { self.base(whole) });
        if agreed.is_err() {
            self.within[part.index()] = None;
            self.parts[whole.index()].pop();
            step.into_iter().for_each(|step| self.gone[step] = false);
        }
        agreed
    }

    /// Whether all that writes or reads what lies in a value can do so.
    fn agreed(&self, of: NodeId) -> Result<(), Refusal> {
        if self.planner.graph.constant(self.base(of)).is_some() {
            return Err("it is a constant");
        }
        let mut all = self.together(of)?.into_iter().filter(|&id| self.is_part(id));
        all.try_for_each(|id| self.reached(id))
    }

    /// Whether all that writes or reads a part of a value can do so. No step may do both in one memory.
    fn reached(&self, id: NodeId) -> Result<(), Refusal> {
        if self.planner.graph.outputs().contains(&id) {
            return Err("it is returned");
        }
        let written = self.writer[id.index()].filter(|&step| !self.gone[step]);
        let read = self.readers[id.index()].iter().filter(|&&(step, at)| !self.skips(step, at));
        if written.is_none() && read.clone().next().is_none() {
            return Ok(());
        }
        let (base, window) = self.window(id).ok_or("a view of it is read")?;
        let lying = |draft| self.lying(id, &window, self.lies_by_pixels(draft));
        if let Some(draft) = written.map(|step| &self.drafts[step]) {
            self.planner.writes(draft, &lying(draft))?;
        }
        for &(step, at) in read {
            let draft = &self.drafts[step];
            if self.base(draft.last) == base {
                return Err("a step would read and write the same memory");
            }
            self.planner.reads(draft, at, &lying(draft))?;
        }
        Ok(())
    }

    /// Whether a value is a part of another one, or a view of such.
    fn is_part(&self, id: NodeId) -> bool {
        self.within[self.planner.root(id).index()].is_some()
    }

    /// All values that lie in one, and itself.
    fn together(&self, of: NodeId) -> Result<Vec<NodeId>, Refusal> {
        let (mut all, mut at) = (vec![of], 0);
        while let Some(&id) = all.get(at) {
            let readers = self.planner.consumers(id).iter();
            let views = readers.filter(|&&reader| *self.planner.form(reader) == Form::View);
            for &next in self.parts[id.index()].iter().chain(views) {
                if !all.contains(&next) {
                    all.push(next);
                }
            }
            if all.len() > TOGETHER {
                return Err("too many values would lie together");
            }
            at += 1;
        }
        Ok(all)
    }

    /// The value in whose memory one lies, and where; none if strides do not say where.
    pub(super) fn window(&self, id: NodeId) -> Option<(NodeId, Window)> {
        let (mut base, mut path) = (id, Vec::new());
        loop {
            let next = match &self.within[base.index()] {
                Some(within) => within.whole,
                None if *self.planner.form(base) == Form::View => self.planner.graph.node(base).inputs[0],
                None => break,
            };
            path.push(base);
            base = next;
        }
        let alone = self.orders[base.index()].window(self.planner.ty(base));
        let part = |window: Window, id: &NodeId| {
            let shape = self.planner.ty(*id).shape;
            match &self.within[id.index()] {
                Some(Within { begin, extents, .. }) => {
                    // Zeros beside a single pixel are as far from it as another one would be.
                    let part = window.part(begin, extents);
                    if extents[..] == *shape.dims() { Some(part) } else { part.view(shape.dims()) }
                }
                None => window.view(shape.dims()),
            }
        };
        Some((base, path.iter().rev().try_fold(alone, part)?))
    }

    /// The value in whose memory one lies, wherever.
    pub(super) fn base(&self, id: NodeId) -> NodeId {
        let mut base = id;
        loop {
            base = match &self.within[base.index()] {
                Some(within) => within.whole,
                None if *self.planner.form(base) == Form::View => self.planner.graph.node(base).inputs[0],
                None => return base,
            };
        }
    }

    /// Whether a value is a part of no other one.
    pub(super) fn is_alone(&self, id: NodeId) -> bool {
        self.within[self.planner.root(id).index()].is_none()
    }

    /// The bytes of a value's memory.
    pub(super) fn room(&self, base: NodeId) -> usize {
        self.orders[base.index()].room(self.planner.ty(base))
    }

    /// A value as it is read and written.
    pub(super) fn operand(&self, id: NodeId, place: Place) -> Operand {
        let (base, window) = self.window(id).expect("invariant: what is read is where strides say");
        Operand::part(place, self.planner.ty(id), self.order(id), &window, self.room(base))
    }

    /// How a value lies: a part of images has the zeros around them, if it is some of their channels.
    pub(super) fn order(&self, id: NodeId) -> Order {
        let (order, mut at) = (self.orders[id.index()], id);
        while let Some(Within { whole, extents, .. }) = &self.within[at.index()] {
            let pixels = |extents: &[usize]| extents.iter().skip(2).product::<usize>();
            let of = self.planner.ty(*whole).shape;
            if extents.first() != of.dims().first() || pixels(extents) != pixels(of.dims()) {
                return order.bare();
            }
            at = *whole;
        }
        order
    }

    /// A value by itself that has zeros around its images, if any has.
    pub(super) fn with_halo(&self, base: NodeId, place: Place) -> Option<Operand> {
        let alone = Operand::new(place, self.planner.ty(base), self.orders[base.index()]);
        (alone.order != alone.order.bare()).then_some(alone)
    }

    fn lying(&self, id: NodeId, window: &Window, by_pixels: bool) -> Operand {
        let place = Place::Slot(0);
        let mut operand = Operand::part(place, self.planner.ty(id), self.order(id), window, 0);
        if by_pixels {
            operand.by_pixels();
        }
        operand
    }

    /// Whether a step that treats all axes alike has pixels.
    fn lies_by_pixels(&self, draft: &Draft) -> bool {
        let mut all = draft.inputs.iter().chain([&draft.last]);
        self.planner.goes_along(draft) && all.any(|id| self.order(*id) != Order::RowMajor)
    }

    /// The drafts that are steps, and why they copy, with what of operands is left to copy.
    pub(super) fn steps(&self) -> Vec<Draft> {
        let left = |(number, draft): (usize, &Draft)| (!self.gone[number]).then(|| self.left(number, draft));
        self.drafts.iter().enumerate().filter_map(left).collect()
    }

    fn left(&self, number: usize, draft: &Draft) -> Draft {
        let mut draft = draft.clone();
        draft.copies.clone_from(&self.copies[number]);
        let Form::Move(Move::Concat(axis)) = *self.planner.form(draft.node) else { return draft };
        let kept: Vec<usize> = (0..draft.inputs.len()).filter(|&at| !self.skips(number, at)).collect();
        if kept.len() < draft.inputs.len() {
            draft.fused.begins = kept.iter().map(|&at| self.put(number, axis, at).begin[axis]).collect();
            draft.inputs = kept.into_iter().map(|at| draft.inputs[at]).collect();
        }
        draft
    }
}
