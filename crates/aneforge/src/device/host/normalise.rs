//! Rows, lanes or channels brought to a common scale.

use crate::device::host::norms::{Rows, Scaling};
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::device::host::whole::Computes;
use crate::ir::form::{Form, Norm};
use aneforge_kernels::channel::Response;
use aneforge_kernels::norm::{Normalize, ScaleShift, normalize};
use aneforge_kernels::{Scratch, Stores, channel, softmax};
use aneforge_tensor::{f16, round_f16};

enum Normalise {
    /// Along this axis.
    Softmax(usize),
    /// With mean and variance given for each channel.
    Given(f32),
    /// Over the pixels of each channel.
    Instance(f32),
    /// By the squares of neighbouring channels.
    Response(Response),
    /// Every row of neighbouring elements.
    Rows(Rows),
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let half = |eps: f64| round_f16(eps).to_f32();
    let Form::Normalise(norm) = setup.step.form else { return None };
    let rows = setup.step.fused.whole.as_ref().map(|whole| whole.computes);
    Some(Box::new(match norm {
        Norm::Softmax(axis) => Normalise::Softmax(axis),
        Norm::Given { eps } => Normalise::Given(half(eps)),
        Norm::Instance { eps } => Normalise::Instance(half(eps)),
        Norm::Response(response) => Normalise::Response(response),
        // Legal graphs have these as the ops they are made of.
        Norm::Centred { .. } | Norm::Length { .. } => match rows {
            Some(Computes::Rows(rows)) => Normalise::Rows(rows),
            _ => return None,
        },
    }))
}

impl Routine for Normalise {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let (k, x, out) = (call.kernels, call.half(0), halves(out));
        let inner = || call.of_one_channel(0);
        let affine = || channel::PerChannel { gamma: call.half(1), beta: call.half(2) };
        match *self {
            Normalise::Rows(rows) => return rows.run(call, out),
            Normalise::Softmax(axis) => {
                softmax::softmax(k, x, call.extents(0), axis, call.stores().flush_nan, out);
            }
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

impl Rows {
    fn run(&self, call: &Call<'_, '_>, out: &mut [f16]) {
        let scale_shift = |Scaling { span, shifts }| ScaleShift {
            gamma: call.half(1),
            beta: shifts.then(|| call.half(2)),
            span,
        };
        let &Rows { norm, size, scaling } = self;
        let Stores { flush_nan, watch } = call.stores();
        let parameters = Normalize { norm, affine: scaling.map(scale_shift), flush_nan, watch };
        normalize(call.kernels, call.half(0), size, &parameters, out);
    }
}
