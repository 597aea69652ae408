//! Native layers that no chain of MIL ops computes: the kernel of each.

use crate::device::host::plan::Step;
use crate::ir::op::Op;
use aneforge_kernels::layers::{self, Combine, Ranking};
use aneforge_kernels::{Kernels, Scratch};
use aneforge_tensor::{f16, round_f16};

/// A layer's kernel with its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Argmax { n: usize, step: usize },
    Rank { rows: usize, ranking: Ranking },
    Farthest,
    Within(f32),
    CostVolume,
    Cross,
    Scaled(Combine, f16),
}

impl Layer {
    /// The kernel of a step's op, if it is a layer.
    pub fn of(step: &Step) -> Option<Layer> {
        let shape = step.inputs.first()?.1.shape;
        let rank =
            |descending, places| Layer::Rank { rows: shape[0], ranking: Ranking { descending, places } };
        Some(match &step.op {
            Op::Argmax(op) => match shape.axis(op.axis) {
                Ok(0) => Layer::Argmax { n: shape[0], step: shape[1] },
                _ => Layer::Argmax { n: shape[1], step: 1 },
            },
            Op::Topk(op) => rank(op.largest, false),
            Op::Sort(op) => rank(op.descending, op.return_indices),
            Op::Fps(_) => Layer::Farthest,
            Op::RadiusSearch(op) => Layer::Within(op.radius.0 as f32),
            Op::CostVolume(_) => Layer::CostVolume,
            Op::CrossProduct(_) => Layer::Cross,
            Op::ScaledElementwise(op) => {
                let combine = match op.op.as_str() {
                    "Add" => Combine::Add,
                    "Mult" => Combine::Multiply,
                    "Min" => Combine::Minimum,
                    _ => Combine::Maximum,
                };
                Layer::Scaled(combine, round_f16(op.scale.0))
            }
            _ => return None,
        })
    }

    /// Working memory the kernel needs, in elements of single precision.
    pub fn scratch(self, step: &Step) -> usize {
        let elements = step.inputs[0].1.shape.count();
        match self {
            Layer::Rank { .. } => layers::rank_scratch(elements),
            Layer::Farthest => layers::farthest_scratch(elements / 3),
            _ => 0,
        }
    }

    /// Runs the layer on its operands.
    pub fn run(self, k: &Kernels, x: &[&[f16]], scratch: &mut Scratch, out: &mut [f16]) {
        match self {
            // One column of several rows is as contiguous as one row.
            Layer::Argmax { n, step } => layers::argmax(k, x[0], n, step, out),
            Layer::Rank { rows, ranking } => layers::rank_rows(k, x[0], rows, ranking, scratch, out),
            Layer::Farthest => layers::farthest_points(x[0], scratch, out),
            Layer::Within(radius) => layers::within(k, x[0], x[1], radius, out),
            Layer::CostVolume => layers::cost_volume(k, x[0], x[1], out),
            Layer::Cross => layers::cross(x[0], x[1], out),
            Layer::Scaled(combine, scale) => layers::scaled(k, combine, scale, x[0], x[1], out),
        }
    }
}
