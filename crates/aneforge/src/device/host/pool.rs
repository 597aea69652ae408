//! One value for every window of an image.

use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Pooling};
use aneforge_kernels::pool::{Window, avg_pool, max_pool};
use aneforge_kernels::{Kernels, Scratch, map};

struct Pool {
    window: Window,
    pooling: Pooling,
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Form::Pool(window, pooling) = setup.step.form else { return None };
    Some(Box::new(Pool { window, pooling }))
}

impl Routine for Pool {
    fn scratch(&self, _: &Step, _: &Kernels) -> usize {
        0
    }

    fn reads(&self, _: &Step) -> usize {
        1
    }

    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let (k, x, image, window) = (call.kernels, call.half(0), call.four(0), &self.window);
        let (size, out) = ([call.result()[2], call.result()[3]], halves(out));
        match self.pooling {
            Pooling::Max => max_pool(k, x, image, window, size, out),
            Pooling::Mean { exclude_pad } => avg_pool(k, x, image, window, exclude_pad, size, out),
        }
        if let Some(activation) = call.step.fused.activation {
            map::unary_in_place(k, activation, out);
        }
        call.finish(out);
    }
}
