//! One value for every window of an image.

use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Pooling};
use crate::ir::ops::conv::four;
use aneforge_kernels::conv::Images;
use aneforge_kernels::pool::{Window, avg_pool, avg_pool_nhwc, max_pool, max_pool_nhwc};
use aneforge_kernels::{Scratch, map};

struct Pool {
    window: Window,
    pooling: Pooling,
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Form::Pool(window, pooling) = setup.step.form else { return None };
    Some(Box::new(Pool { window, pooling }))
}

impl Routine for Pool {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let (k, image, window) = (call.kernels, call.four(0), &self.window);
        let (output, out) = (call.step.output.spanned(), halves(out));
        let [_, _, height, width] = four(output.ty.shape);
        let (size, (x, from)) = ([height, width], call.images(&call.step.inputs[0]));
        match (self.pooling, from, output.images()) {
            (Pooling::Max, Images::Pixels(from), Images::Pixels(to)) => {
                max_pool_nhwc(k, (x, &from), image, window, size, (out, &to));
            }
            (Pooling::Mean { exclude_pad }, Images::Pixels(from), Images::Pixels(to)) => {
                avg_pool_nhwc(k, (x, &from), image, window, exclude_pad, size, (out, &to));
            }
            (Pooling::Max, ..) => max_pool(k, x, image, window, size, out),
            (Pooling::Mean { exclude_pad }, ..) => avg_pool(k, x, image, window, exclude_pad, size, out),
        }
        if let Some(activation) = call.step.fused.activation {
            map::unary_in_place(k, activation, out);
        }
        call.finish(out);
    }
}
