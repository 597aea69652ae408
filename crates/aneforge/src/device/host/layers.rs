//! Native layers that no chain of MIL ops computes: the kernel of each.

use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Layer};
use aneforge_kernels::{Kernels, Scratch, layers};

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Form::Layer(layer) = setup.step.form else { return None };
    Some(Box::new(layer))
}

impl Routine for Layer {
    fn scratch(&self, step: &Step, _: &Kernels) -> usize {
        let elements = step.inputs[0].ty.shape.count();
        match self {
            Layer::Rank { .. } => layers::rank_scratch(elements),
            Layer::Farthest => layers::farthest_scratch(elements / 3),
            _ => 0,
        }
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let (k, x, second, out) = (call.kernels, call.half(0), || call.half(1), halves(out));
        match *self {
            Layer::Argmax { n, step } => layers::argmax(k, x, n, step, out),
            Layer::Rank { rows, ranking } => layers::rank_rows(k, x, rows, ranking, scratch, out),
            Layer::Farthest => layers::farthest_points(x, scratch, out),
            Layer::Within(radius) => layers::within(k, x, second(), radius, out),
            Layer::CostVolume => layers::cost_volume(k, x, second(), out),
            Layer::Cross => layers::cross(x, second(), out),
            Layer::Scaled(combine, scale) => layers::scaled(k, combine, scale, x, second(), out),
        }
        call.finish(out);
    }
}
