//! Attention, which legal graphs have as two products with a softmax between them: a step that keeps no scores, and reads
//! and writes heads where they lie.

use crate::device::host::lying::Lying;
use crate::device::host::plan::Step;
use crate::device::host::planner::Planner;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::device::host::whole::{Computes, Found};
use crate::ir::form::{Form, Move, Norm, Product};
use crate::ir::graph::NodeId;
use aneforge_kernels::attention::{self, Heads, Mask, Shape};
use aneforge_kernels::map::{Binary, Unary};
use aneforge_kernels::{Kernels, Layout, Scratch};
use aneforge_tensor::f16;
use std::collections::BTreeSet;

/// Attention of all heads; the operands are queries, keys, values and what is added to the scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    pub(super) shape: Shape,
    /// Where the heads of queries, keys and values lie, from an element on.
    heads: [(usize, Heads); 3],
    pub(super) scale: Option<f16>,
    /// How many groups of heads have a mask of their own, for each of the masks.
    groups: [Option<usize>; 2],
    /// How many heads of the result lie side by side: it is `[.., queries, beside, values]`.
    beside: usize,
}

/// The matrices that an operand is, one for each head, from an element on, and what is read where its operand lies.
struct Matrices {
    operand: NodeId,
    start: usize,
    heads: Heads,
    /// The nodes that would move the elements.
    moves: Vec<NodeId>,
}

/// Scores that are scaled, masked and brought to a sum of one.
struct Weights {
    /// From the product to the softmax.
    nodes: Vec<NodeId>,
    scale: Option<f16>,
    /// What is added, one after the other.
    masks: Vec<NodeId>,
}

impl Planner<'_> {
    /// The attention whose scores are this product. What is `covered` is part of other wholes.
    pub(super) fn attention(&self, scores: NodeId, covered: &[bool]) -> Option<Found> {
        let [left, right] = self.batched(scores)?;
        let (of, rank) = (self.ty(scores).shape, self.ty(scores).shape.rank());
        let Weights { mut nodes, scale, masks } = self.weights(scores)?;
        let weights = nodes[nodes.len() - 1];
        let last = self.only_consumer(weights)?;
        let [first_of_last, right_of_last] = self.batched(last)?;
        nodes.push(last);
        let [queries, keys] = [of[rank - 2], of[rank - 1]];
        let shape = Shape {
            heads: of.dims()[..rank - 2].iter().product(),
            queries,
            keys,
            width: self.ty(left).shape.dims().last().copied()?,
            values: self.ty(last).shape.dims().last().copied()?,
        };
        let q = self.matrices(left, false, covered)?;
        let k = self.matrices(right, true, covered)?;
        let v = self.matrices(right_of_last, false, covered).filter(|_| first_of_last == weights)?;
        let sizes = [
            (left, queries * shape.width),
            (right, shape.width * keys),
            (right_of_last, keys * shape.values),
        ];
        let each = sizes.iter().all(|&(id, size)| self.ty(id).shape.count() == shape.heads * size);
        let mut groups = [None; 2];
        for (groups, &mask) in groups.iter_mut().zip(&masks) {
            *groups = Some(self.groups(mask, of)?);
        }
        let (last, beside) = self.put_side_by_side(last).unwrap_or((last, 1));
        nodes.extend((nodes.last() != Some(&last)).then_some(last));
        let matrices = [q, k, v];
        let inputs: Vec<NodeId> = matrices.iter().map(|matrices| matrices.operand).chain(masks).collect();
        let folded = self.folded(&nodes, &inputs, matrices.iter().flat_map(|matrices| &matrices.moves));
        let heads = matrices.map(|Matrices { start, heads, .. }| (start, heads));
        let computes = Attention { shape, heads, scale, groups, beside };
        each.then_some(Found { nodes, folded, last, inputs, computes: Computes::Attention(computes) })
    }

    /// What a product goes through until it is weights.
    fn weights(&self, scores: NodeId) -> Option<Weights> {
        let (of, mut nodes, mut scale, mut masks) = (self.ty(scores).shape, vec![scores], None, Vec::new());
        let mut next = self.only_consumer(scores)?;
        if let &Form::Map(Unary::MulScalar { k }) = self.form(next) {
            scale = Some(f16::from_f32(k));
            nodes.push(next);
            next = self.only_consumer(next)?;
        }
        while let Some([a, b]) = self.zip(next, Binary::Add).filter(|_| masks.len() < 2) {
            masks.push(if nodes.last() == Some(&a) { b } else { a });
            nodes.push(next);
            next = self.only_consumer(next)?;
        }
        nodes.push(next);
        let softmax = *self.form(next) == Form::Normalise(Norm::Softmax(of.rank() - 1));
        (softmax && self.ty(next).shape == of).then_some(Weights { nodes, scale, masks })
    }

    /// The operands of a product of two values.
    fn batched(&self, id: NodeId) -> Option<[NodeId; 2]> {
        let inputs = &self.graph.node(id).inputs;
        (*self.form(id) == Form::Product(Product::Batched)).then(|| [inputs[0], inputs[1]])
    }

    /// Of nodes that move what attention reads, those whose results it alone reads: they need no step.
    fn folded<'m>(
        &self,
        nodes: &[NodeId],
        inputs: &[NodeId],
        moves: impl Iterator<Item = &'m NodeId>,
    ) -> Vec<NodeId> {
        // Readers come first.
        let moves: BTreeSet<NodeId> = moves.copied().filter(|id| !inputs.contains(id)).collect();
        let mut folded = Vec::new();
        for id in moves.into_iter().rev() {
            let part = |reader: &NodeId| nodes.contains(reader) || folded.contains(reader);
            if self.readers(id).is_some_and(|readers| readers.iter().all(part)) {
                folded.push(id);
            }
        }
        folded
    }

    /// The matrices of an operand of a product, or their transposes: where they lie in a value that it is a part of, in
    /// another order, or else by themselves, if their rows lie in one piece.
    fn matrices(&self, id: NodeId, transposed: bool, covered: &[bool]) -> Option<Matrices> {
        let of = |Lying { operand, start, mut axes, moves }: Lying| {
            if transposed {
                let rank = axes.len();
                axes.swap(rank - 2, rank - 1);
            }
            Some(Matrices { operand, start, heads: heads(&axes)?, moves })
        };
        of(self.lying(id, covered)).or_else(|| of(self.alone(id)))
    }

    /// How many groups of neighbouring heads have a mask of their own, which is added to scores of such a shape: a row for
    /// each query, or one for all.
    fn groups(&self, mask: NodeId, scores: aneforge_tensor::Shape) -> Option<usize> {
        let (mask, rank) = (self.ty(mask).shape, scores.rank());
        let extent = |axis: usize| (axis + mask.rank()).checked_sub(rank).map_or(1, |axis| mask[axis]);
        let is_whole = |axis: usize| extent(axis) == scores[axis];
        let mut heads = (0..rank - 2).filter(|&axis| scores[axis] > 1).map(is_whole);
        let grouped = heads.by_ref().skip_while(|whole| *whole).all(|whole| !whole);
        (grouped && is_whole(rank - 1)).then(|| (0..rank - 2).map(extent).product())
    }

    /// The transpose that puts the rows of neighbouring heads side by side, if it alone reads a result, and of how many.
    fn put_side_by_side(&self, id: NodeId) -> Option<(NodeId, usize)> {
        let next = self.only_consumer(id)?;
        let Form::Move(Move::Transpose { extents, perm }) = self.form(next) else { return None };
        let (shape, rank) = (self.ty(id).shape, self.ty(id).shape.rank());
        let long = |axis: &usize| shape[*axis] > 1;
        let puts = |&batches: &usize| {
            let wanted = (0..batches).chain([rank - 2]).chain(batches..rank - 2).chain([rank - 1]);
            extents[..] == *shape.dims() && perm.iter().copied().filter(long).eq(wanted.filter(long))
        };
        let batches = (0..rank - 2).find(puts)?;
        Some((next, shape.dims()[batches..rank - 2].iter().product()))
    }
}

/// Where heads lie whose axes have such extents and strides, if each row is in one piece, and the heads of a batch and the
/// batches are equally far apart.
fn heads(axes: &[(usize, usize)]) -> Option<Heads> {
    let &[ref lead @ .., (rows, row), (width, step)] = axes else { return None };
    let lead: Vec<(usize, usize)> = lead.iter().copied().filter(|&(extent, _)| extent > 1).collect();
    let is_even = |axes: &[(usize, usize)]| axes.windows(2).all(|pair| pair[0].1 == pair[1].0 * pair[1].1);
    let cut = (0..=lead.len()).find(|&cut| is_even(&lead[..cut]) && is_even(&lead[cut..]))?;
    let [batches, heads] = [&lead[..cut], &lead[cut..]].map(|axes| {
        let extent: usize = axes.iter().map(|&(extent, _)| extent).product();
        (extent, axes.last().map_or(0, |&(_, stride)| stride))
    });
    let axes = [batches, heads, (rows, row), (width, step)];
    let (extents, strides) = (axes.map(|(extent, _)| extent), axes.map(|(_, stride)| stride));
    Heads::of(&Layout::new(0, &extents, &strides))
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    match setup.step.fused.whole.as_ref()?.computes {
        Computes::Attention(attention) => Some(Box::new(attention)),
        Computes::Rows(_) => None,
    }
}

impl Routine for Attention {
    fn scratch(&self, _: &Step, kernels: &Kernels) -> usize {
        let nothing = (&[][..], None);
        attention::attention_scratch(kernels, &self.of([nothing; 3], [Mask::None; 2]))
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let finish = call.step.finish;
        let mask = |at: usize| match self.groups[at] {
            None => Mask::None,
            Some(groups) => Mask::Added { values: call.half(3 + at), groups },
        };
        let operands = [0, 1, 2].map(|at| {
            let (start, heads) = self.heads[at];
            (&call.half(at)[start..], Some(heads))
        });
        let attention = attention::Attention {
            limit: finish.limit,
            flush_nan: finish.flush_nan,
            watch: finish.watched.then_some(call.watch),
            ..self.of(operands, [0, 1].map(mask))
        };
        attention::attention(call.kernels, &attention, self.beside, scratch, halves(out));
    }
}

impl Attention {
    fn of<'a>(
        &self,
        [q, k, v]: [(&'a [f16], Option<Heads>); 3],
        masks: [Mask<'a>; 2],
    ) -> attention::Attention<'a> {
        let &Attention { shape, scale, .. } = self;
        attention::Attention { shape, q, k, v, scale, masks, limit: None, flush_nan: false, watch: None }
    }
}
