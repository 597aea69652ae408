//! Convolutions and their transposes.

use crate::device::host::packs::Packed;
use crate::device::host::plan::Step;
use crate::device::host::product::signed;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::Form;
use crate::ir::ops::conv::four;
use aneforge_kernels::conv::{self, ConvParams, PackedConv, PackedConvTranspose};
use aneforge_kernels::{Bias, Kernels, Scratch, order};
use aneforge_tensor::{Weight, f16};
use std::cell::RefCell;
use std::sync::Arc;

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    match setup.step.form {
        Form::Conv(params, groups) => Some(match setup.constant() {
            Some(weights) => {
                let weights = setup.packs.conv(weights, groups, || pack(weights, groups));
                Box::new(Constant { weights, params })
            }
            None => Box::new(Computed::new(four(setup.shape(1)), params, groups)),
        }),
        Form::ConvTranspose(params, groups) => {
            let weights = setup.weight();
            let packed = PackedConvTranspose::new(&weights.to_f16(), four(weights.shape()), groups, &params);
            Some(Box::new(Transposed(packed)))
        }
        _ => None,
    }
}

/// Encoded weights stay encoded, but in groups of so few channels and outputs that a panel would be mostly empty.
fn pack(weights: &Weight, groups: usize) -> PackedConv {
    let shape = four(weights.shape());
    let narrow = shape[0] / groups <= order::NARROW && shape[1] <= order::NARROW;
    match weights {
        Weight::Int8(weight) if !narrow => {
            PackedConv::from_int8(signed(weight.codes()), &weight.scales().to_f16(), shape, groups)
        }
        Weight::Lut4(weight) if !narrow => {
            PackedConv::from_lut4(weight.indices().bytes(), weight.entries(), shape, groups)
        }
        Weight::Sparse(weight) if !narrow => {
            PackedConv::from_sparse(weight.mask().bytes(), &weight.values().to_f16(), shape, groups)
        }
        other => match (other.as_slice::<f16>(), other.as_slice::<f32>()) {
            (Some(values), _) => PackedConv::new(values, shape, groups),
            (_, Some(values)) => PackedConv::new(values, shape, groups),
            _ => PackedConv::new(&other.to_f16(), shape, groups),
        },
    }
}

/// With a constant weight.
struct Constant {
    weights: Arc<Packed<PackedConv>>,
    params: ConvParams,
}

impl Routine for Constant {
    fn scratch(&self, step: &Step, kernels: &Kernels) -> usize {
        let image = four(step.inputs[0].ty.shape);
        conv::conv2d_images_scratch(kernels, image, &self.weights.weights, &self.params)
    }

    fn reads(&self, _: &Step) -> usize {
        1
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let epilogue = call.epilogue(Bias::Row);
        let (x, from) = call.images(&call.step.inputs[0]);
        let (image, weights, to) = (call.four(0), &self.weights.weights, call.step.output.spanned().images());
        let (x, out) = ((x, &from), (halves(out), &to));
        conv::conv2d_images(call.kernels, x, image, weights, &self.params, &epilogue, scratch, out);
    }
}

/// With a computed weight, which is packed in every call, into the same memory.
struct Computed {
    weights: RefCell<PackedConv>,
    params: ConvParams,
}

impl Computed {
    fn new(shape: [usize; 4], params: ConvParams, groups: usize) -> Computed {
        let zeros = vec![f16::ZERO; shape.iter().product()];
        Computed { weights: RefCell::new(PackedConv::new(&zeros, shape, groups)), params }
    }
}

impl Routine for Computed {
    fn scratch(&self, step: &Step, kernels: &Kernels) -> usize {
        let image = four(step.inputs[0].ty.shape);
        conv::conv2d_scratch(kernels, image, &self.weights.borrow(), &self.params)
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let mut weights = self.weights.borrow_mut();
        weights.refill(call.kernels, call.half(1));
        let (x, image, epilogue) = (call.half(0), call.four(0), call.epilogue(Bias::Row));
        conv::conv2d(call.kernels, x, image, &weights, &self.params, &epilogue, scratch, halves(out));
    }
}

struct Transposed(PackedConvTranspose);

impl Routine for Transposed {
    fn scratch(&self, step: &Step, kernels: &Kernels) -> usize {
        conv::conv_transpose2d_scratch(kernels, four(step.inputs[0].ty.shape), &self.0)
    }

    fn reads(&self, _: &Step) -> usize {
        1
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let (x, image, epilogue) = (call.half(0), call.four(0), call.epilogue(Bias::Row));
        conv::conv_transpose2d(call.kernels, x, image, &self.0, &epilogue, scratch, halves(out));
    }
}
