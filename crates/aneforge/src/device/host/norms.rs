//! Norms, which legal graphs have as chains of simpler ops: rows that are read and written once.

use crate::device::host::planner::Planner;
use crate::device::host::whole::{Computes, Found};
use crate::ir::form::Form;
use crate::ir::graph::NodeId;
use aneforge_kernels::map::{Binary, Unary};
use aneforge_kernels::norm::Norm;
use aneforge_kernels::reduce::Reduction;
use aneforge_tensor::{Shape, f16};

/// Rows of neighbouring elements, each normalised by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) norm: Norm,
    /// Elements of a row.
    pub(super) size: usize,
    /// What follows.
    pub(super) scaling: Option<Scaling>,
}

/// A factor for each element, and a summand: operands of the step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaling {
    /// Neighbouring elements that share a factor.
    pub(super) span: usize,
    /// Whether there are summands.
    pub(super) shifts: bool,
}

impl Planner<'_> {
    /// The norm that begins with this node.
    pub(super) fn norm(&self, first: NodeId) -> Option<Found> {
        let &Form::Reduce(reduction, axes) = self.form(first) else { return None };
        let x = self.graph.node(first).inputs[0];
        let size = rows(self.ty(x).shape, axes)?;
        let (norm, mut nodes) = match reduction {
            Reduction::Mean => self.by_variance(x, first, axes)?,
            Reduction::L2Norm => self.by_length(x, first)?,
            _ => return None,
        };
        let mut inputs = vec![x];
        let scaling = self.scaling(&mut nodes, &mut inputs);
        let last = nodes[nodes.len() - 1];
        Some(Found {
            nodes,
            folded: Vec::new(),
            last,
            inputs,
            computes: Computes::Rows(Rows { norm, size, scaling }),
        })
    }

    /// `d = x - mean(x)`, and then `d / sqrt(mean(d d) + eps)`.
    fn by_variance(&self, x: NodeId, mean: NodeId, axes: u32) -> Option<(Norm, Vec<NodeId>)> {
        let centred = self.only_consumer(mean)?;
        (self.zip(centred, Binary::Sub)? == [x, mean]).then_some(())?;
        let mut readers = self.readers(centred)?.to_vec();
        readers.dedup();
        let &[square, unit] = &readers[..] else { return None };
        let squares = *self.form(square) == Form::Map(Unary::Square)
            || self.zip(square, Binary::Mul) == Some([centred, centred]);
        let variance = self.only_consumer(square).filter(|_| squares)?;
        (*self.form(variance) == Form::Reduce(Reduction::Mean, axes)).then_some(())?;
        let sum = self.only_consumer(variance)?;
        let &Form::Map(Unary::AddScalar { k }) = self.form(sum) else { return None };
        let root = self.only_consumer(sum).filter(|_| k >= 0.0)?;
        (*self.form(root) == Form::Map(Unary::Rsqrt { eps: 0.0 })).then_some(())?;
        // It reads both, and has no room for more.
        let scaled = self.only_consumer(root)? == unit && self.zip(unit, Binary::Mul).is_some();
        let nodes = vec![mean, centred, square, variance, sum, root, unit];
        scaled.then_some((Norm::Variance { eps: f16::from_f32(k) }, nodes))
    }

    /// `x / max(length(x), floor)`.
    fn by_length(&self, x: NodeId, length: NodeId) -> Option<(Norm, Vec<NodeId>)> {
        let greater = self.only_consumer(length)?;
        let [a, least] = self.zip(greater, Binary::Maximum)?;
        let floor = self.graph.constant(least).filter(|weight| a == length && weight.shape().count() == 1)?;
        let mut value = [f16::ZERO];
        floor.read_f16(0, &mut value);
        let unit = self.only_consumer(greater).filter(|_| value[0] >= f16::ZERO)?;
        let divided = self.zip(unit, Binary::RealDiv)? == [x, greater] && self.ty(unit) == self.ty(x);
        divided.then_some((Norm::Length { floor: value[0] }, vec![length, greater, unit]))
    }

    /// Adds the product with factors that follows the last of `nodes`, and the sum with summands that follows that, to the
    /// nodes, and the factors and the summands to `inputs`.
    fn scaling(&self, nodes: &mut Vec<NodeId>, inputs: &mut Vec<NodeId>) -> Option<Scaling> {
        let mut unit = nodes[nodes.len() - 1];
        let mut next = self.only_consumer(unit)?;
        while *self.form(next) == Form::View {
            (unit, next) = (next, self.only_consumer(next)?);
        }
        let shape = self.ty(unit).shape;
        let other = |id: NodeId, function: Binary, x: NodeId| {
            let [a, b] = self.zip(id, function)?;
            let other = if a == x { b } else { a };
            (other != x && self.ty(id).shape == shape).then_some(other)
        };
        let factors = other(next, Binary::Mul, unit)?;
        let place = repeats(self.ty(factors).shape, shape)?;
        nodes.push(next);
        inputs.push(factors);
        let shift = self.only_consumer(next).and_then(|sum| Some((sum, other(sum, Binary::Add, next)?)));
        let shift = shift.filter(|&(_, summands)| repeats(self.ty(summands).shape, shape) == Some(place));
        if let Some((sum, summands)) = shift {
            nodes.push(sum);
            inputs.push(summands);
        }
        Some(Scaling { span: place.span, shifts: shift.is_some() })
    }

    /// The operands of a function of two.
    pub(super) fn zip(&self, id: NodeId, function: Binary) -> Option<[NodeId; 2]> {
        let inputs = &self.graph.node(id).inputs;
        (*self.form(id) == Form::Zip(function)).then(|| [inputs[0], inputs[1]])
    }
}

/// The elements of each row, if these axes are neighbours in memory and the last.
fn rows(shape: Shape, axes: u32) -> Option<usize> {
    let reduced = |&axis: &usize| axes >> axis & 1 == 1;
    let long: Vec<usize> = (0..shape.rank()).filter(|&axis| shape[axis] > 1).collect();
    let size = long.iter().copied().filter(reduced).map(|axis| shape[axis]).product();
    long.iter().map(reduced).is_sorted().then_some(size)
}

/// Where the values of a broadcast operand are met.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Repeats {
    count: usize,
    /// Neighbouring elements that meet the same.
    span: usize,
}

/// Where an array of `shape` meets the elements of another that broadcasts to it, if they differ along neighbouring axes
/// only.
fn repeats(values: Shape, shape: Shape) -> Option<Repeats> {
    let count = values.count();
    let first = shape.rank().checked_sub(values.rank())?;
    let long: Vec<usize> = (0..values.rank()).filter(|&axis| values[axis] > 1).collect();
    let (Some(&low), Some(&high)) = (long.first(), long.last()) else {
        return Some(Repeats { count, span: shape.count().max(1) });
    };
    let met = (low..=high).all(|axis| values[axis] == shape[first + axis]);
    met.then(|| Repeats { count, span: shape.dims()[first + high + 1..].iter().product() })
}
