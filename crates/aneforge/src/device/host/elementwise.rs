//! One value from the values at the same place: chains of functions, of one link or more.

use crate::device::host::operand::Operand;
use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::Form;
use aneforge_kernels::map::{Chain, Data, DataMut, Link};
use aneforge_kernels::{Kernels, Layout, Scratch, channel, convert};
use aneforge_tensor::DType;
use smallvec::SmallVec;

/// The most operands of a chain; so many are listed without an allocation.
pub(super) const OPERANDS: usize = 16;

enum Elementwise {
    Chain(Chain),
    /// A slope per channel below zero.
    Prelu,
    Cast,
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Step { form, fused, inputs, output, in_place, .. } = setup.step;
    Some(Box::new(match form {
        Form::Prelu => Elementwise::Prelu,
        Form::Cast => Elementwise::Cast,
        _ if fused.links.is_empty() => return None,
        _ => {
            let operand = |operand: &Operand| match operand.is_dense() {
                true => Layout::row_major(operand.lying.dims()),
                false => operand.layout,
            };
            let operands: Vec<Layout> = inputs.iter().map(operand).collect();
            let links: Vec<Link> = fused.links.iter().map(|link| link.does.clone()).collect();
            let rows = || output.rows().expect("invariant: a chain writes rows");
            let apart = (!output.is_dense()).then(rows);
            Elementwise::Chain(Chain::between(output.lying.dims(), &operands, &links, *in_place, apart))
        }
    }))
}

impl Routine for Elementwise {
    fn scratch(&self, _: &Step, kernels: &Kernels) -> usize {
        match self {
            Elementwise::Chain(chain) => chain.scratch(kernels),
            Elementwise::Prelu | Elementwise::Cast => 0,
        }
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let k = call.kernels;
        match self {
            Elementwise::Chain(chain) => {
                let operands: SmallVec<[Data<'_>; OPERANDS]> = data(call).collect();
                let out = match call.step.output.ty.dtype {
                    DType::F16 => DataMut::Half(halves(out)),
                    _ => DataMut::Truth(out),
                };
                chain.run(k, &operands, call.watch, scratch, out);
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

    fn made(&self) -> Option<Vec<usize>> {
        match self {
            Elementwise::Chain(chain) => Some(chain.take_made().collect()),
            Elementwise::Prelu | Elementwise::Cast => None,
        }
    }
}

fn data<'a>(call: &'a Call<'_, '_>) -> impl Iterator<Item = Data<'a>> {
    let operand = |(index, operand): (usize, &Operand)| match operand.ty.dtype {
        _ if call.step.in_place == Some(index) => Data::InPlace,
        DType::F16 if operand.is_dense() => Data::Half(call.half(index)),
        DType::F16 => Data::Half(call.around(operand)),
        _ => Data::Truth(call.bytes(index)),
    };
    call.step.inputs.iter().enumerate().map(operand)
}
