//! Where the elements of a value lie, if it is a part of another one, in another order.

use crate::device::host::planner::Planner;
use crate::ir::form::{Form, Move};
use crate::ir::graph::NodeId;

/// A value's elements among those of another one, which is stored.
pub(super) struct Lying {
    pub(super) operand: NodeId,
    /// The first.
    pub(super) start: usize,
    /// Extents and strides of its axes.
    pub(super) axes: Vec<(usize, usize)>,
    /// The nodes that would move the elements, in their order.
    pub(super) moves: Vec<NodeId>,
}

impl Planner<'_> {
    /// A value by itself.
    pub(super) fn alone(&self, id: NodeId) -> Lying {
        let shape = self.ty(id).shape;
        let axes = shape.dims().iter().copied().zip(shape.strides()).collect();
        Lying { operand: id, start: 0, axes, moves: Vec::new() }
    }

    /// A value as what it is a window, a view or a transpose of, as far as strides say where its elements are. What is
    /// `covered` is the result of a whole, which writes as it does.
    pub(super) fn lying(&self, id: NodeId, covered: &[bool]) -> Lying {
        let node = self.graph.node(id);
        let moved = || {
            let before = |extents: &[usize]| {
                let lying = self.lying(node.inputs[0], covered);
                Some(Lying { axes: regrouped(&lying.axes, extents)?, ..lying })
            };
            let mut lying = match self.form(id) {
                _ if covered[id.index()] => None,
                Form::View => before(node.ty.shape.dims()),
                Form::Move(Move::Transpose { extents, perm }) => before(extents).and_then(|lying| {
                    let axes: Vec<_> = perm.iter().map(|&axis| lying.axes[axis]).collect();
                    Some(Lying { axes: regrouped(&axes, node.ty.shape.dims())?, ..lying })
                }),
                Form::Move(Move::Slice { begin, clamped }) if !self.is_limited(begin, *clamped) => {
                    before(self.ty(node.inputs[0]).shape.dims()).map(|mut lying| {
                        let axes = lying.axes.iter_mut().zip(begin).zip(node.ty.shape.dims());
                        for ((axis, begin), &extent) in axes {
                            lying.start += begin * axis.1;
                            axis.0 = extent;
                        }
                        lying
                    })
                }
                _ => None,
            }?;
            lying.moves.push(id);
            Some(lying)
        };
        moved().unwrap_or_else(|| self.alone(id))
    }

    /// Whether the engine makes infinities of large values in such a window.
    pub(super) fn is_limited(&self, begin: &[usize], clamped: bool) -> bool {
        let offset = clamped && begin.last().is_some_and(|&begin| begin > 0);
        offset && self.numerics.offset_slice_limit().is_finite()
    }
}

/// Axes of these extents with the same elements in the same order, if their strides are even.
pub(super) fn regrouped(axes: &[(usize, usize)], extents: &[usize]) -> Option<Vec<(usize, usize)>> {
    let mut axes = axes.iter().copied().filter(|&(extent, _)| extent != 1).rev();
    // Elements that are left of the axes taken so far, and how far apart they are.
    let (mut left, mut stride) = (1, 1);
    let mut of = |extent: usize| {
        if extent == 1 {
            return Some((1, stride));
        }
        if left == 1 {
            (left, stride) = axes.next()?;
        }
        while !left.is_multiple_of(extent) {
            let (more, _) = axes.next().filter(|&(_, apart)| apart == stride * left)?;
            left *= more;
        }
        let axis = (extent, stride);
        (left, stride) = (left / extent, stride * extent);
        Some(axis)
    };
    let mut regrouped: Vec<(usize, usize)> =
        extents.iter().rev().map(|&extent| of(extent)).collect::<Option<_>>()?;
    regrouped.reverse();
    Some(regrouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_split_and_joined_where_strides_allow_it() {
        let rows = [(4, 30), (6, 5), (1, 77), (5, 1)];
        assert_eq!(regrouped(&rows, &[4, 30]), Some(vec![(4, 30), (30, 1)]));
        assert_eq!(regrouped(&rows, &[2, 2, 3, 10]), Some(vec![(2, 60), (2, 30), (3, 10), (10, 1)]));
        assert_eq!(regrouped(&rows, &[120]), Some(vec![(120, 1)]));
        assert_eq!(regrouped(&rows, &[8, 1, 15]), Some(vec![(8, 15), (1, 15), (15, 1)]));
        // Of rows that are apart.
        let parts = [(4, 90), (6, 5), (5, 1)];
        assert_eq!(regrouped(&parts, &[4, 3, 10]), Some(vec![(4, 90), (3, 10), (10, 1)]));
        assert_eq!(regrouped(&parts, &[2, 2, 30]), Some(vec![(2, 180), (2, 90), (30, 1)]));
        assert_eq!(regrouped(&parts, &[8, 15]), None);
        assert_eq!(regrouped(&parts, &[120]), None);
        // Columns.
        assert_eq!(regrouped(&[(5, 1), (4, 5)], &[5, 2, 2]), Some(vec![(5, 1), (2, 10), (2, 5)]));
        assert_eq!(regrouped(&[(5, 1), (4, 5)], &[20]), None);
    }
}
