//! Scales of a weight's rows, taken out of it and put behind the op, where one table of 16 values then fits all rows better.
//!
//! They are powers of two from 1 down, so that taking one out rounds nothing, and putting it back only what leaves the range of
//! half precision on the small side. A row without its scale has about the length of the longest row, and so have its products,
//! which overflow no sooner than those of the longest row did.

use crate::ir::graph::{Graph, NodeId};
use crate::ir::op::Op;
use crate::ir::var::Var;
use crate::passes::PassError;
use crate::quantize::{Seen, calibrated_lut4};
use aneforge_kernels::threads::Pool;
use aneforge_tensor::{Shape, Tensor, Weight};
use std::collections::HashMap;

/// The smallest scale: what half precision keeps of products is then still as exact as of those with the longest row.
const LEAST: i32 = -10;

/// The error with scales, as a part of that without, from which on they are worth an op.
const GAIN: f64 = 0.95;

/// How a weight is stored.
pub(super) struct Stored {
    pub(super) weight: Weight,
    /// The scales behind its op, and what it stands for with them.
    pub(super) scaled: Option<(Vec<f32>, Weight)>,
}

impl Stored {
    /// What it stands for.
    pub(super) fn stands(&self) -> &Weight {
        self.scaled.as_ref().map_or(&self.weight, |(_, stands)| stands)
    }

    /// The bytes of it and its scales.
    pub(super) fn bytes(&self) -> usize {
        self.weight.stored_bytes() + self.scaled.as_ref().map_or(0, |(scales, _)| 2 * scales.len())
    }
}

impl From<Weight> for Stored {
    fn from(weight: Weight) -> Stored {
        Stored { weight, scaled: None }
    }
}

/// A weight without the scales of its rows, and those; `None` where all are 1 or it has no rows.
pub(super) fn taken_out(weight: &Weight) -> Option<(Weight, Vec<f32>)> {
    let (shape, mut values) = (weight.shape(), weight.to_f32());
    let rows = *shape.dims().first()?;
    let run = (values.len() / rows.max(1)).max(1);
    let length = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = values.chunks(run).map(length).collect();
    let longest = lengths.iter().copied().fold(0.0, f64::max);
    if !(longest > 0.0 && longest.is_finite()) {
        return None;
    }
    let exponent = |&length: &f64| match length > 0.0 {
        true => ((length / longest).log2().round() as i32).clamp(LEAST, 0),
        false => 0,
    };
    let scales: Vec<f32> = lengths.iter().map(|length| 2.0f32.powi(exponent(length))).collect();
    if scales.iter().all(|&scale| scale == 1.0) {
        return None;
    }
    for (row, scale) in values.chunks_mut(run).zip(&scales) {
        row.iter_mut().for_each(|value| *value /= scale);
    }
    Some((Tensor::from_slice(shape, &values).ok()?.into(), scales))
}

/// A weight as a table of 16 values, and the scales that then stand behind its op, where that is nearer by [`GAIN`] than this
/// table without them; else that.
pub(super) fn nearer(weight: &Weight, table: Weight, pool: &Pool, seen: &Seen) -> Stored {
    let found = taken_out(weight).and_then(|(rest, scales)| {
        let rest = calibrated_lut4(&rest, seen, pool)?;
        let stands = with_scales(&rest, &scales)?;
        let [with, without] = [&stands, &table].map(|stored| seen.expected(weight, stored, pool));
        (with < GAIN * without).then_some(Stored { weight: rest, scaled: Some((scales, stands)) })
    });
    found.unwrap_or(Stored { weight: table, scaled: None })
}

/// What a weight stands for with the scales that are behind its op.
pub(super) fn with_scales(stored: &Weight, scales: &[f32]) -> Option<Weight> {
    let mut values = stored.to_f32();
    let run = (values.len() / scales.len().max(1)).max(1);
    for (row, scale) in values.chunks_mut(run).zip(scales) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    Some(Tensor::from_slice(stored.shape(), &values).ok()?.into())
}

/// The axis of an op's results that the rows of its weight make.
fn axis(op: &Op, rank: usize) -> Option<usize> {
    match op {
        Op::Matmul(_) => rank.checked_sub(1),
        Op::Conv(_) => Some(1),
        _ => None,
    }
}

/// Whether scales of rows may stand behind that op.
pub(super) fn takes(op: &Op) -> bool {
    axis(op, 1).is_some()
}

/// The graph with these scales behind the ops that read the constants they were taken out of, by their places in the table.
pub(super) fn put_behind(graph: &Graph, scales: &HashMap<usize, Vec<f32>>) -> Result<Graph, PassError> {
    let scaled = |id: NodeId, vars: &[Var]| {
        let node = graph.node(id);
        let scales = scales.get(&graph.place_of_constant(*node.inputs.get(1)?)?)?;
        let rank = node.ty.shape.rank();
        let mut dims = vec![1; rank];
        dims[axis(&node.op, rank)?] = scales.len();
        let factor = Tensor::from_slice(Shape::new(&dims).ok()?, scales).ok()?;
        let inputs = node.inputs.iter().map(|input| vars[input.index()].clone()).collect();
        let product = Var::rebuilt(node.op.clone(), inputs, node.ty, node.at);
        Some(node.at.scope(|| product * Var::rebuilt_constant(factor, node.at)))
    };
    let vars = graph.to_vars(scaled);
    let outputs: Vec<Var> = graph.outputs().iter().map(|output| vars[output.index()].clone()).collect();
    Ok(Graph::freeze(&outputs)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::random;
    use proptest::prelude::*;

    fn weight(seed: u64, rows: usize, columns: usize, spread: f32) -> Weight {
        let row = |at: u64| (spread * random::normal(seed + 1, at / columns as u64)).exp();
        let values: Vec<f32> =
            (0..(rows * columns) as u64).map(|at| random::normal(seed, at) * row(at)).collect();
        Tensor::from_slice(Shape::new(&[rows, columns]).unwrap(), &values).unwrap().into()
    }

    proptest! {
        #[test]
        fn scales_round_nothing_and_make_rows_alike(
            seed in 0u64..1 << 40,
            rows in 1usize..9,
            columns in 1usize..9,
            spread in 0.0f32..2.0,
        ) {
            let weight = weight(seed, rows, columns, spread);
            let Some((rest, scales)) = taken_out(&weight) else { return Ok(()) };
            prop_assert_eq!(with_scales(&rest, &scales).unwrap().to_f32(), weight.to_f32());
            let length = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let lengths = |weight: &Weight| weight.to_f32().chunks(columns).map(length).collect::<Vec<_>>();
            let longest = lengths(&weight).into_iter().fold(0.0, f64::max);
            for (length, scale) in lengths(&rest).into_iter().zip(scales) {
                let part = length / longest;
                prop_assert!(scale <= 1.0 && scale >= 2.0f32.powi(LEAST) && scale.log2().fract() == 0.0);
                prop_assert!(part * part <= 2.001 && (part * part >= 0.499 || scale == 2.0f32.powi(LEAST)), "{}", part);
            }
        }
    }

    #[test]
    fn what_has_no_rows_or_only_equal_ones_has_no_scales() {
        let of = |dims: &[usize], values: &[f32]| {
            taken_out(&Tensor::from_slice(Shape::new(dims).unwrap(), values).unwrap().into())
        };
        assert!(of(&[], &[2.0]).is_none() && of(&[2, 2], &[0.0; 4]).is_none());
        assert!(
            of(&[2, 2], &[1.0, -1.0, 1.2, 1.0]).is_none() && of(&[1, 2], &[f32::INFINITY, 1.0]).is_none()
        );
        let (_, scales) = of(&[3, 1], &[8.0, 0.0, -1.0]).unwrap();
        assert_eq!(scales, [1.0, 1.0, 0.125], "a row of zeros keeps them");
    }
}
