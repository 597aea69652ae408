//! Ops whose kernel has not been written, by their scalar definition: exact to the bit, and slow.

use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::numerics::Numerics;
use crate::ir::precision::{Array, Precision};
use aneforge_kernels::Scratch;
use aneforge_tensor::{DType, f16};

struct Definition;

pub(super) fn recognise(_: &Setup<'_>) -> Option<Box<dyn Routine>> {
    Some(Box::new(Definition))
}

impl Routine for Definition {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let Step { op, inputs, output, .. } = call.step;
        let ty = &output.ty;
        let half = inputs.iter().chain([output]).all(|operand| operand.ty.dtype == DType::F16);
        assert!(half, "invariant: {} has a kernel", op.name());
        let array = |index: usize| Array::from_fn(inputs[index].ty.shape, |i| call.half(index)[i].to_f64());
        let arrays: Vec<Array> = (0..inputs.len()).map(array).collect();
        let value = op.eval(&arrays.iter().collect::<Vec<_>>(), ty, Precision::F16(Numerics::Ieee));
        for (out, v) in halves(out).iter_mut().zip(value.data) {
            *out = f16::from_f64(v);
        }
        call.finish(halves(out));
    }
}
