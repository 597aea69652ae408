//! Matrix products.

use crate::device::host::packs::Packed;
use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Product};
use crate::ir::ops::matmul::lead;
use aneforge_kernels::gemm::{self, BatchShape, PackedB, Rows};
use aneforge_kernels::{Bias, Kernels, Scratch};
use aneforge_tensor::{Shape, Tensor, Weight, f16};
use std::sync::Arc;

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    match setup.step.form {
        Form::Product(Product::Linear) => {
            let weights = setup.weights();
            let weights = setup.packs.rows(&weights, || match weights[..] {
                [weight] => pack(weight),
                _ => together(&weights),
            });
            Some(Box::new(Linear::new(setup, weights)))
        }
        Form::Product(Product::Batched) => Some(Box::new(Batched::new(setup))),
        _ => None,
    }
}

/// Encoded weights stay encoded.
fn pack(weights: &Weight) -> PackedB {
    let (columns, terms) = (weights.shape()[0], weights.shape()[1]);
    match weights {
        Weight::Dense(tensor) => match tensor.as_slice::<f16>() {
            Some(values) => PackedB::from_nk(values, columns, terms),
            None => PackedB::from_nk(&tensor.to_f16(), columns, terms),
        },
        Weight::Int8(weight) => {
            PackedB::from_int8(signed(weight.codes()), &weight.scales().to_f16(), columns, terms)
        }
        Weight::Blockwise(weight) => {
            PackedB::from_int8(signed(weight.codes()), &weight.scales().to_f16(), columns, terms)
        }
        Weight::Lut4(weight) => {
            PackedB::from_lut4(weight.indices().bytes(), weight.entries(), columns, terms)
        }
        Weight::Sparse(weight) => {
            PackedB::from_sparse(weight.mask().bytes(), &weight.values().to_f16(), columns, terms)
        }
    }
}

/// Weights of as many terms as one: the columns of each follow those of the one before.
fn together(weights: &[&Weight]) -> PackedB {
    let values = weights.iter().map(|weight| weight.to_f16()).collect::<Vec<_>>().concat();
    let columns = weights.iter().map(|weight| weight.shape()[0]).sum();
    PackedB::from_nk(&values, columns, weights[0].shape()[1])
}

/// The codes of an encoded weight.
pub(super) fn signed(codes: &Tensor) -> &[i8] {
    bytemuck::cast_slice(codes.bytes())
}

/// By a constant matrix.
struct Linear {
    weights: Arc<Packed<PackedB>>,
    rows: usize,
    /// Where they are, and where those of the result go.
    lie: [Rows; 2],
}

impl Linear {
    fn new(setup: &Setup<'_>, weights: Arc<Packed<PackedB>>) -> Linear {
        let (packed, Step { inputs, output, .. }) = (&weights.weights, setup.step);
        let sides = [(&inputs[0], packed.terms()), (&output.spanned(), packed.columns())];
        let lie = sides.map(|(side, columns)| side.matrix(columns).expect("invariant: rows of a product"));
        Linear { rows: setup.shape(0).count() / packed.terms(), lie, weights }
    }
}

impl Routine for Linear {
    fn scratch(&self, _: &Step, kernels: &Kernels) -> usize {
        gemm::gemm_scratch(kernels, self.rows, &self.weights.weights)
    }

    fn reads(&self, _: &Step) -> usize {
        1
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let (x, epilogue, [from, to]) =
            (call.around(&call.step.inputs[0]), call.epilogue(Bias::Column), self.lie);
        let (k, weights, out) = (call.kernels, &self.weights.weights, halves(out));
        gemm::gemm_rows(k, (x, from), self.rows, weights, &epilogue, scratch, (out, to));
    }
}

/// Of two computed operands.
struct Batched {
    /// The leading axes of the result and of the operands.
    lead: [Shape; 3],
    rows: usize,
    terms: usize,
    columns: usize,
    transposed: bool,
}

impl Batched {
    fn new(setup: &Setup<'_>) -> Batched {
        let (a, b) = (setup.shape(0), setup.shape(1));
        let transposed = setup.step.fused.transposed;
        let columns = if transposed { b[b.rank() - 2] } else { b[b.rank() - 1] };
        let lead = [lead(setup.step.output.ty.shape), lead(a), lead(b)];
        Batched { lead, rows: a[a.rank() - 2], terms: a[a.rank() - 1], columns, transposed }
    }

    fn shape(&self) -> BatchShape<'_> {
        let [batch, a, b] = &self.lead;
        BatchShape {
            batch: batch.dims(),
            a_batch: a.dims(),
            b_batch: b.dims(),
            rows: self.rows,
            terms: self.terms,
            columns: self.columns,
            transpose_a: false,
            transpose_b: self.transposed,
        }
    }
}

impl Routine for Batched {
    fn scratch(&self, _: &Step, kernels: &Kernels) -> usize {
        gemm::bmm_scratch(kernels, &self.shape())
    }

    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]) {
        let (a, b, epilogue) = (call.half(0), call.half(1), call.epilogue(Bias::Column));
        gemm::bmm(call.kernels, a, b, &self.shape(), &epilogue, scratch, halves(out));
    }
}
