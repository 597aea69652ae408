//! What each op's step does: which kernel, with what prepared once.

use crate::device::host::layers;
use crate::device::host::packs::{Packed, Packs};
use crate::device::host::plan::Step;
use crate::ir::form::{Form, Layer, Move, Norm, Pooling, Product, Sampling};
use crate::ir::graph::Graph;
use crate::ir::op::Op;
use crate::ir::ops::conv::four;
use crate::ir::ops::matmul::lead;
use aneforge_kernels::conv::{ConvParams, PackedConv, PackedConvTranspose};
use aneforge_kernels::gemm::{BatchShape, PackedB};
use aneforge_kernels::map::{Binary, Compare, Unary};
use aneforge_kernels::reduce::Reduction;
use aneforge_kernels::{Kernels, gather, pool};
use aneforge_tensor::{Shape, Tensor, f16, round_f16};
use std::sync::Arc;

/// A kernel with its parameters and packed weights.
pub(super) enum Work {
    Unary(Unary),
    Binary(Binary),
    Compare(Compare),
    Select,
    Not,
    Gemm(Arc<Packed<PackedB>>),
    Bmm {
        lead: [Shape; 3],
        rows: usize,
        terms: usize,
        columns: usize,
        transposed: bool,
    },
    Conv {
        weights: Arc<Packed<PackedConv>>,
        params: ConvParams,
    },
    /// A convolution whose weight is packed on every call.
    ValueConv {
        params: ConvParams,
        groups: usize,
    },
    ConvTranspose(Box<PackedConvTranspose>),
    MaxPool(pool::Window),
    AvgPool(pool::Window, bool),
    Reduce(Reduction, u32),
    Softmax(usize),
    Transpose {
        /// What the operand's axes are split into, or its own extents.
        extents: Vec<usize>,
        perm: Vec<usize>,
    },
    /// Places per axis.
    Gather(Vec<Vec<usize>>),
    Slice(Vec<usize>),
    Concat(usize),
    Reverse(u32),
    /// Where the rows and the columns of the result read.
    Bilinear([Vec<gather::Tap>; 2]),
    Prelu,
    BatchNorm(f32),
    InstanceNorm(f32),
    Cast,
    /// A native layer.
    Layer(Layer),
    /// The scalar definition: exact to the bit, and slow. For ops whose kernel has not been written.
    Definition(Op),
}

/// Chooses a step's kernel and packs its weights.
pub(super) fn prepare(step: &Step, graph: &Graph, packs: &Packs) -> Work {
    let norm_eps = |eps: f64| round_f16(eps).to_f32();
    match &step.form {
        Form::Map(function) => Work::Unary(*function),
        Form::Zip(function) => Work::Binary(*function),
        Form::Compare(function) => Work::Compare(*function),
        Form::Not => Work::Not,
        Form::Select => Work::Select,
        Form::Cast => Work::Cast,
        Form::Prelu => Work::Prelu,
        Form::Reduce(function, axes) => Work::Reduce(*function, *axes),
        Form::Product(Product::Linear) => {
            let weights = constant(step, graph);
            Work::Gemm(packs.rows(weights, || pack_rows(weights)))
        }
        Form::Product(Product::Batched) => batched(step),
        &Form::Conv(params, groups) => match constant_of(step, graph) {
            Some(weights) => {
                Work::Conv { weights: packs.conv(weights, groups, || pack(weights, groups)), params }
            }
            None => Work::ValueConv { params, groups },
        },
        &Form::ConvTranspose(params, groups) => {
            let weights = constant(step, graph);
            let packed = PackedConvTranspose::new(&weights.to_f16(), four(weights.shape()), groups, &params);
            Work::ConvTranspose(Box::new(packed))
        }
        Form::Pool(window, Pooling::Max) => Work::MaxPool(*window),
        Form::Pool(window, Pooling::Mean { exclude_pad }) => Work::AvgPool(*window, *exclude_pad),
        Form::Normalise(Norm::Softmax(axis)) => Work::Softmax(*axis),
        Form::Normalise(Norm::Given { eps }) => Work::BatchNorm(norm_eps(*eps)),
        Form::Normalise(Norm::Instance { eps }) => Work::InstanceNorm(norm_eps(*eps)),
        Form::Move(places) => moved(places, shape(step)),
        Form::Sample(sampling) => Work::Bilinear([0, 1].map(|axis| taps(sampling, axis))),
        Form::Layer(layer) => Work::Layer(*layer),
        Form::Leaf | Form::View | Form::Attention { .. } | Form::Opaque(_) => {
            Work::Definition(step.op.clone())
        }
        Form::Normalise(Norm::Centred { .. } | Norm::Length { .. }) => Work::Definition(step.op.clone()),
    }
}

/// Work that moves elements, as tables.
fn moved(places: &Move, x: Shape) -> Work {
    match places {
        Move::Transpose { extents, perm } => Work::Transpose { extents: extents.clone(), perm: perm.clone() },
        Move::Repeat(times) => {
            let repeated = |(axis, &n): (usize, &usize)| (0..x[axis] * n).map(|i| i % x[axis]).collect();
            Work::Gather(times.iter().enumerate().map(repeated).collect())
        }
        Move::Nearest(sampling) => Work::Gather(vec![
            (0..x[0]).collect(),
            (0..x[1]).collect(),
            sampling.before(0),
            sampling.before(1),
        ]),
        Move::Slice { begin, .. } => Work::Slice(begin.clone()),
        Move::Concat(axis) => Work::Concat(*axis),
        Move::Reverse(axes) => Work::Reverse(*axes),
    }
}

fn taps(sampling: &Sampling, axis: usize) -> Vec<gather::Tap> {
    let tap = |(low, high, share)| gather::Tap { low, high, weight: share as f32 };
    sampling.between(axis).into_iter().map(tap).collect()
}

fn shape(step: &Step) -> Shape {
    step.inputs[0].1.shape
}

fn constant_of<'a>(step: &Step, graph: &'a Graph) -> Option<&'a Tensor> {
    match step.inputs.get(1) {
        Some((crate::device::host::plan::Place::Constant(index), _)) => {
            graph.constants().get(*index as usize)
        }
        _ => None,
    }
}

fn constant<'a>(step: &Step, graph: &'a Graph) -> &'a Tensor {
    constant_of(step, graph).expect("invariant: a legal graph has constant weights here")
}

fn pack_rows(weights: &Tensor) -> PackedB {
    let (columns, terms) = (weights.shape()[0], weights.shape()[1]);
    match (weights.as_slice::<f16>(), weights.as_slice::<f32>()) {
        (Some(values), _) => PackedB::from_nk(values, columns, terms),
        (_, Some(values)) => PackedB::from_nk(values, columns, terms),
        _ => PackedB::from_nk(&weights.to_f16(), columns, terms),
    }
}

fn pack(weights: &Tensor, groups: usize) -> PackedConv {
    match weights.as_slice::<f32>() {
        Some(values) => PackedConv::new(values, four(weights.shape()), groups),
        None => PackedConv::new(&weights.to_f16(), four(weights.shape()), groups),
    }
}

fn batched(step: &Step) -> Work {
    let (a, b) = (step.inputs[0].1.shape, step.inputs[1].1.shape);
    let transposed = step.fused.transposed;
    let columns = if transposed { b[b.rank() - 2] } else { b[b.rank() - 1] };
    Work::Bmm {
        lead: [lead(step.ty.shape), lead(a), lead(b)],
        rows: a[a.rank() - 2],
        terms: a[a.rank() - 1],
        columns,
        transposed,
    }
}

impl Work {
    /// Working memory the kernel needs, in elements of single precision.
    pub(super) fn scratch(&self, step: &Step, kernels: &Kernels) -> usize {
        match self {
            Work::Gemm(packed) => {
                let weights = &packed.weights;
                let rows = step.inputs[0].1.shape.count() / weights.terms();
                aneforge_kernels::gemm::gemm_scratch(kernels, rows, weights)
            }
            Work::Bmm { .. } => {
                self.batch_shape().map_or(0, |shape| aneforge_kernels::gemm::bmm_scratch(kernels, &shape))
            }
            Work::Conv { weights, params } => {
                let input = std::array::from_fn(|a| step.inputs[0].1.shape[a]);
                aneforge_kernels::conv::conv2d_scratch(kernels, input, &weights.weights, params)
            }
            Work::ValueConv { params, groups } => {
                let [input, extents]: [[usize; 4]; 2] =
                    [0, 1].map(|i: usize| std::array::from_fn(|a| step.inputs[i].1.shape[a]));
                let zeros = vec![f16::ZERO; extents.iter().product()];
                let weights = PackedConv::new(&zeros, extents, *groups);
                aneforge_kernels::conv::conv2d_scratch(kernels, input, &weights, params)
            }
            Work::ConvTranspose(weights) => {
                let input = std::array::from_fn(|a| step.inputs[0].1.shape[a]);
                aneforge_kernels::conv::conv_transpose2d_scratch(kernels, input, weights)
            }
            Work::Layer(layer) => layers::scratch(*layer, step),
            _ => 0,
        }
    }

    /// The shapes of a batched product.
    pub(super) fn batch_shape(&self) -> Option<BatchShape<'_>> {
        let Work::Bmm { lead: [batch, a, b], rows, terms, columns, transposed } = self else { return None };
        Some(BatchShape {
            batch: batch.dims(),
            a_batch: a.dims(),
            b_batch: b.dims(),
            rows: *rows,
            terms: *terms,
            columns: *columns,
            transpose_a: false,
            transpose_b: *transposed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::host::planner::plan;
    use crate::ir::numerics::Numerics;
    use crate::ir::op::{Case, Mil, OPS};
    use crate::ir::var::Var;
    use aneforge_tensor::DType;
    use std::collections::BTreeSet;

    fn built(case: &Case) -> Option<Graph> {
        let input = |(i, ty): (usize, &crate::TensorType)| match ty.dtype {
            DType::Bool => Var::input(ty.shape).greater(&Var::from(0.0)),
            DType::F16 if i >= case.constants_from => Var::full(ty.shape, 0.5),
            _ => Var::input_of(*ty),
        };
        let inputs: Vec<Var> = case.inputs.iter().enumerate().map(input).collect();
        let output = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
        let output = match output.ty().dtype {
            DType::Bool => output.select(&Var::from(1.0), &Var::from(0.0)),
            _ => output,
        };
        let plan =
            crate::compile(&[output], &crate::CompileOptions::default()).expect("invariant: cases compile");
        plan.segments.into_iter().next().map(|segment| segment.graph)
    }

    #[test]
    fn few_statements_run_as_their_definition() {
        let mut slow = BTreeSet::new();
        for case in OPS.iter().flat_map(|entry| (entry.cases)()) {
            let Some(graph) = built(&case) else { continue };
            for step in plan(&graph, Numerics::Ieee, true).steps {
                let work = prepare(&step, &graph, &Packs::default());
                let statement = matches!(step.op.mil(), Mil::Stmt(_) | Mil::StmtWith(..));
                if statement && matches!(work, Work::Definition(_)) {
                    slow.insert(step.op.name());
                }
            }
        }
        let known = ["affine", "einsum", "local_response_norm"];
        assert_eq!(slow, BTreeSet::from(known));
    }
}
