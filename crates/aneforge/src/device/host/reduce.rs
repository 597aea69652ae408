//! The elements along some axes made into one.

use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::Form;
use aneforge_kernels::Scratch;
use aneforge_kernels::reduce::{Reduction, reduce};

struct Reduce {
    function: Reduction,
    axes: u32,
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Form::Reduce(function, axes) = setup.step.form else { return None };
    Some(Box::new(Reduce { function, axes }))
}

impl Routine for Reduce {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        reduce(call.kernels, self.function, call.half(0), call.extents(0), self.axes, halves(out));
        call.finish(halves(out));
    }
}
