//! Products of the rows of images, which are read and written where they lie.

use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::Form;
use crate::ir::ops::conv::four;
use aneforge_kernels::gemm::{RowShape, row_product, row_product_scratch};
use aneforge_kernels::{Bias, Kernels, Scratch};

struct RowProduct(RowShape);

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    let Form::RowProduct = setup.step.form else { return None };
    let [images, channels, height, terms] = four(setup.shape(0));
    let columns = setup.shape(1)[3];
    Some(Box::new(RowProduct(RowShape { images, channels, height, terms, columns })))
}

impl Routine for RowProduct {
    fn scratch(&self, _: &Step, kernels: &Kernels) -> usize {
        row_product_scratch(kernels, &self.0)
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let (a, b, epilogue) = (call.half(0), call.half(1), call.epilogue(Bias::Column));
        row_product(call.kernels, a, b, &self.0, &epilogue, scratch, halves(out));
    }
}
