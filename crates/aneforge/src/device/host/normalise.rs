//! Rows, lanes or channels brought to a common scale.

use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Norm};
use aneforge_kernels::channel::Response;
use aneforge_kernels::{Scratch, channel, softmax};
use aneforge_tensor::round_f16;

enum Normalise {
    /// Along this axis.
    Softmax(usize),
    /// With mean and variance given for each channel.
    Given(f32),
    /// Over the pixels of each channel.
    Instance(f32),
    /// By the squares of neighbouring channels.
    Response(Response),
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let half = |eps: f64| round_f16(eps).to_f32();
    let Form::Normalise(norm) = setup.step.form else { return None };
    Some(Box::new(match norm {
        Norm::Softmax(axis) => Normalise::Softmax(axis),
        Norm::Given { eps } => Normalise::Given(half(eps)),
        Norm::Instance { eps } => Normalise::Instance(half(eps)),
        Norm::Response(response) => Normalise::Response(response),
        // Legal graphs have these as the ops they are made of.
        Norm::Centred { .. } | Norm::Length { .. } => return None,
    }))
}

impl Routine for Normalise {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let (k, x, out) = (call.kernels, call.half(0), halves(out));
        let inner = || call.of_one_channel(0);
        let affine = || channel::PerChannel { gamma: call.half(1), beta: call.half(2) };
        match *self {
            Normalise::Softmax(axis) => softmax::softmax(k, x, call.extents(0), axis, out),
            Normalise::Given(eps) => {
                channel::batch_norm(k, x, inner(), affine(), [call.half(3), call.half(4)], eps, out);
            }
            Normalise::Instance(eps) => channel::instance_norm(k, x, inner(), affine(), eps, out),
            Normalise::Response(response) => {
                channel::response_norm(k, x, [call.four(0)[1], inner()], response, out);
            }
        }
        call.finish(out);
    }
}
