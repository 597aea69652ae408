//! Native layers that no chain of MIL ops computes: the kernel of each.

use crate::device::host::plan::Step;
use crate::ir::form::Layer;
use aneforge_kernels::{Kernels, Scratch, layers};
use aneforge_tensor::f16;

/// Working memory a layer's kernel needs, in elements of single precision.
pub(super) fn scratch(layer: Layer, step: &Step) -> usize {
    let elements = step.inputs[0].1.shape.count();
    match layer {
        Layer::Rank { .. } => layers::rank_scratch(elements),
        Layer::Farthest => layers::farthest_scratch(elements / 3),
        _ => 0,
    }
}

/// Runs a layer on its operands.
pub(super) fn run(layer: Layer, k: &Kernels, x: &[&[f16]], scratch: &mut Scratch, out: &mut [f16]) {
    match layer {
        Layer::Argmax { n, step } => layers::argmax(k, x[0], n, step, out),
        Layer::Rank { rows, ranking } => layers::rank_rows(k, x[0], rows, ranking, scratch, out),
        Layer::Farthest => layers::farthest_points(x[0], scratch, out),
        Layer::Within(radius) => layers::within(k, x[0], x[1], radius, out),
        Layer::CostVolume => layers::cost_volume(k, x[0], x[1], out),
        Layer::Cross => layers::cross(x[0], x[1], out),
        Layer::Scaled(combine, scale) => layers::scaled(k, combine, scale, x[0], x[1], out),
    }
}
