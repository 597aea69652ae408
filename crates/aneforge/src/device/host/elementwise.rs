//! One value from the values at the same place.

use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::Form;
use aneforge_kernels::map::{Binary, Compare, Unary};
use aneforge_kernels::{Scratch, View, channel, convert, map};
use aneforge_tensor::DType;

enum Elementwise {
    Unary(Unary),
    Binary(Binary),
    Compare(Compare),
    Not,
    Select,
    /// A slope per channel below zero.
    Prelu,
    Cast,
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    Some(Box::new(match setup.step.form {
        Form::Map(function) => Elementwise::Unary(function),
        Form::Zip(function) => Elementwise::Binary(function),
        Form::Compare(function) => Elementwise::Compare(function),
        Form::Not => Elementwise::Not,
        Form::Select => Elementwise::Select,
        Form::Prelu => Elementwise::Prelu,
        Form::Cast => Elementwise::Cast,
        _ => return None,
    }))
}

impl Routine for Elementwise {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let k = call.kernels;
        match self {
            Elementwise::Compare(f) => map::compare(k, *f, call.view(0), call.view(1), call.result(), out),
            Elementwise::Not => map::logical_not(k, call.bytes(0), out),
            Elementwise::Unary(f) => map::unary(k, *f, call.half(0), call.stores(), halves(out)),
            Elementwise::Binary(f) => {
                let (a, b) = (call.view(0), call.view(1));
                map::binary(k, *f, a, b, call.result(), call.stores(), halves(out));
            }
            Elementwise::Select => {
                let condition = View::new(call.bytes(0), call.extents(0));
                map::select(k, condition, call.view(1), call.view(2), call.result(), halves(out));
                call.finish(halves(out));
            }
            Elementwise::Prelu => {
                let inner = call.of_one_channel(0);
                channel::prelu(k, call.half(0), inner, call.half(1), halves(out));
                call.finish(halves(out));
            }
            Elementwise::Cast => {
                match call.step.inputs[0].ty.dtype {
                    DType::U8 => convert::u8_to_f16(k, call.bytes(0), halves(out)),
                    _ => out.copy_from_slice(call.bytes(0)),
                }
                call.finish(halves(out));
            }
        }
    }
}
