//! What each op's step does: which kernel, with what prepared once.

use crate::device::host::layers::Layer;
use crate::device::host::packs::{Packed, Packs};
use crate::device::host::plan::Step;
use crate::ir::graph::Graph;
use crate::ir::op::Op;
use crate::ir::ops::blocks::Moves;
use crate::ir::ops::conv::Conv;
use crate::ir::ops::conv_transpose::ConvTranspose;
use crate::ir::ops::matmul::lead;
use crate::ir::ops::pool::Window;
use crate::ir::ops::resize::Tap;
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
    /// Where the rows and the columns of the result read.
    Bilinear([Vec<gather::Tap>; 2]),
    Prelu,
    BatchNorm(f32),
    InstanceNorm(f32),
    Slice(Vec<usize>),
    Concat(usize),
    Reverse(u32),
    Cast,
    /// A native layer.
    Layer(Layer),
    /// The scalar definition: exact to the bit, and slow. For ops whose kernel has not been written.
    Definition(Op),
}

/// The kernel function of an elementwise op of one input.
pub(super) fn unary_of(op: &Op) -> Option<Unary> {
    let k = |real: crate::ir::attr::Real| round_f16(real.0).to_f32();
    Some(match op {
        Op::Relu(_) => Unary::Relu,
        Op::Gelu(_) => Unary::Gelu,
        Op::Silu(_) => Unary::Silu,
        Op::Sigmoid(_) => Unary::Sigmoid,
        Op::Tanh(_) => Unary::Tanh,
        Op::Exp(_) => Unary::Exp,
        Op::Exp2(_) => Unary::Exp2,
        Op::Sqrt(_) => Unary::Sqrt,
        Op::Abs(_) => Unary::Abs,
        Op::Square(_) => Unary::Square,
        Op::Sin(_) => Unary::Sin,
        Op::Cos(_) => Unary::Cos,
        Op::Atan(_) => Unary::Atan,
        Op::Erf(_) => Unary::Erf,
        Op::Relu6(_) => Unary::Relu6,
        Op::Softsign(_) => Unary::Softsign,
        Op::NativeSoftplus(_) => Unary::Softplus,
        Op::Floor(_) => Unary::Floor,
        Op::Ceil(_) => Unary::Ceil,
        Op::NativeRound(_) => Unary::Round,
        Op::Sign(_) => Unary::Sign,
        Op::Muls(op) => Unary::MulScalar { k: k(op.k) },
        Op::Adds(op) => Unary::AddScalar { k: k(op.k) },
        Op::Log(op) => Unary::Log { eps: k(op.eps) },
        Op::Rsqrt(op) => Unary::Rsqrt { eps: k(op.eps) },
        Op::Inverse(op) => Unary::Inverse { eps: k(op.eps) },
        Op::Elu(op) => Unary::Elu { alpha: k(op.alpha) },
        Op::LeakyRelu(op) => Unary::LeakyRelu { alpha: k(op.alpha) },
        Op::Threshold(op) => Unary::Threshold { alpha: k(op.alpha) },
        Op::ThresholdedRelu(op) => Unary::ThresholdedRelu { alpha: k(op.alpha) },
        Op::Clip(op) => Unary::Clip { lo: k(op.lo), hi: k(op.hi) },
        Op::ScaledTanh(op) => Unary::ScaledTanh { alpha: k(op.alpha), beta: k(op.beta) },
        Op::ClampedRelu(op) => Unary::ClampedRelu { alpha: k(op.alpha), beta: k(op.beta) },
        Op::SigmoidHard(op) => Unary::SigmoidHard { alpha: k(op.alpha), beta: k(op.beta) },
        Op::LinearActivation(op) => Unary::Linear { alpha: k(op.alpha), beta: k(op.beta) },
        _ => return None,
    })
}

fn binary_of(op: &Op) -> Option<Binary> {
    Some(match op {
        Op::Add(_) => Binary::Add,
        Op::Sub(_) => Binary::Sub,
        Op::Mul(_) => Binary::Mul,
        Op::RealDiv(_) => Binary::RealDiv,
        Op::Maximum(_) => Binary::Maximum,
        Op::Minimum(_) => Binary::Minimum,
        Op::Pow(_) => Binary::Pow,
        _ => return None,
    })
}

fn compare_of(op: &Op) -> Option<Compare> {
    Some(match op {
        Op::Greater(_) => Compare::Greater,
        Op::Less(_) => Compare::Less,
        Op::Equal(_) => Compare::Equal,
        Op::NotEqual(_) => Compare::NotEqual,
        Op::LessEqual(_) => Compare::LessEqual,
        Op::GreaterEqual(_) => Compare::GreaterEqual,
        _ => return None,
    })
}

fn reduction_of(op: &Op) -> Option<(Reduction, &[i64])> {
    Some(match op {
        Op::ReduceMean(op) => (Reduction::Mean, &op.axes),
        Op::ReduceSum(op) => (Reduction::Sum, &op.axes),
        Op::ReduceMax(op) => (Reduction::Max, &op.axes),
        Op::ReduceMin(op) => (Reduction::Min, &op.axes),
        Op::ReduceL1Norm(op) => (Reduction::SumAbs, &op.axes),
        Op::ReduceL2Norm(op) => (Reduction::L2Norm, &op.axes),
        Op::ReduceLogSum(op) => (Reduction::LogSum, &op.axes),
        Op::ReduceSumSquare(op) => (Reduction::SumSquare, &op.axes),
        Op::ReduceLogSumExp(op) => (Reduction::LogSumExp, &op.axes),
        _ => return None,
    })
}

fn window(w: Window) -> pool::Window {
    pool::Window {
        kernel: w.kernel.map(|v| v as usize),
        stride: w.strides.map(|v| v as usize),
        pad: w.pad.map(|v| v as usize),
    }
}

/// Work that moves elements, or mixes neighbours: what an op says about places, as tables.
fn moved(op: &Op, x: Shape, out: Shape) -> Option<Work> {
    let blocks =
        |Moves { extents, perm }: Moves| Work::Transpose { extents: extents.into(), perm: perm.into() };
    let whole = |axis: usize| (0..x[axis]).collect::<Vec<_>>();
    let nearest = |taps: [Vec<Tap>; 2]| {
        let places = taps.iter().map(|taps| taps.iter().map(Tap::low).collect());
        Work::Gather([whole(0), whole(1)].into_iter().chain(places).collect())
    };
    let mixed = |taps: [Vec<Tap>; 2]| Work::Bilinear(taps.map(|t| t.iter().map(Tap::single).collect()));
    Some(match op {
        Op::Transpose(t) => {
            Work::Transpose { extents: x.dims().into(), perm: t.perm.iter().map(|&p| p as usize).collect() }
        }
        Op::PixelShuffle(op) => blocks(op.moves(x)),
        Op::PixelUnshuffle(op) => blocks(op.moves(x)),
        Op::DepthToSpace(op) => blocks(op.moves(x)),
        Op::SpaceToDepth(op) => blocks(op.moves(x)),
        Op::Tile(tile) => Work::Gather((0..x.rank()).map(|axis| tile.places(x, axis)).collect()),
        Op::Upsample(op) => nearest(op.taps(x, out)),
        Op::ResizeNearest(op) => nearest(op.taps(x, out)),
        Op::UpsampleBilinear(op) => mixed(op.taps(x, out)),
        Op::ResizeBilinear(op) => mixed(op.taps(x, out)),
        Op::SliceBySize(slice) => Work::Slice(slice.begin()),
        Op::Crop(crop) => Work::Slice(crop.begin().into()),
        Op::Split(split) => Work::Slice(split.begin(x)),
        Op::Concat(concat) => Work::Concat(x.axis(concat.axis).expect("invariant: inferred")),
        Op::Stack(stack) => Work::Concat(stack.axis as usize),
        Op::Reverse(reverse) => Work::Reverse(bits(x, &reverse.axes)),
        _ => return None,
    })
}

fn conv_params(conv: &Conv) -> ConvParams {
    ConvParams {
        stride: conv.strides.map(|v| v as usize),
        pad: conv.pad.map(|v| v as usize),
        dilation: conv.dilations.map(|v| v as usize),
    }
}

/// The axes as a set of bits, the outermost axis first.
fn bits(shape: Shape, axes: &[i64]) -> u32 {
    axes.iter().map(|&a| 1 << shape.axis(a).expect("invariant: inferred")).sum()
}

/// Chooses a step's kernel and packs its weights.
pub(super) fn prepare(step: &Step, graph: &Graph, packs: &Packs) -> Work {
    let op = &step.op;
    let shape = step.inputs.first().map_or(Shape::SCALAR, |(_, ty)| ty.shape);
    let half = step.inputs.iter().all(|(_, ty)| ty.dtype == aneforge_tensor::DType::F16);
    if let Some(function) = unary_of(op).filter(|_| half) {
        return Work::Unary(function);
    }
    if let Some(function) = binary_of(op) {
        return Work::Binary(function);
    }
    if let Some(function) = compare_of(op) {
        return Work::Compare(function);
    }
    if let Some(work) = moved(op, shape, step.ty.shape) {
        return work;
    }
    if let Some(layer) = Layer::of(step) {
        return Work::Layer(layer);
    }
    if let Some((reduction, axes)) = reduction_of(op) {
        return Work::Reduce(reduction, bits(shape, axes));
    }
    match op {
        Op::Select(_) => Work::Select,
        Op::LogicalNot(_) => Work::Not,
        Op::Matmul(_) => {
            let weights = constant(step, graph);
            Work::Gemm(packs.rows(weights, || pack_rows(weights)))
        }
        Op::Bmm(_) | Op::BmmW(_) => batched(step),
        Op::Conv(conv) if constant_of(step, graph).is_some() => {
            let weights = constant(step, graph);
            let extents: [usize; 4] = std::array::from_fn(|a| weights.shape()[a]);
            let groups = conv.groups as usize;
            let pack = || match weights.as_slice::<f32>() {
                Some(values) => PackedConv::new(values, extents, groups),
                None => PackedConv::new(&weights.to_f16(), extents, groups),
            };
            let weights = packs.conv(weights, groups, pack);
            let params = conv_params(conv);
            Work::Conv { weights, params }
        }
        Op::ConvTranspose(conv) => {
            Work::ConvTranspose(Box::new(pack_transposed(conv, constant(step, graph))))
        }
        Op::Conv(conv) => Work::ValueConv { params: conv_params(conv), groups: conv.groups as usize },
        Op::MaxPool(pool) => Work::MaxPool(window(pool.window())),
        Op::AvgPool(pool) => Work::AvgPool(window(pool.window()), pool.exclude_pad),
        Op::Softmax(softmax) => Work::Softmax(shape.axis(softmax.axis).expect("invariant: inferred")),
        Op::Prelu(_) => Work::Prelu,
        Op::BatchNorm(op) => Work::BatchNorm(round_f16(op.eps.0).to_f32()),
        Op::InstanceNorm(op) => Work::InstanceNorm(round_f16(op.eps.0).to_f32()),
        Op::Cast(_) => Work::Cast,
        other => Work::Definition(other.clone()),
    }
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

fn pack_transposed(conv: &ConvTranspose, weights: &Tensor) -> PackedConvTranspose {
    let extents: [usize; 4] = std::array::from_fn(|a| weights.shape()[a]);
    let params = ConvParams {
        stride: conv.strides.map(|v| v as usize),
        pad: conv.pad.map(|v| v as usize),
        dilation: conv.dilations.map(|v| v as usize),
    };
    PackedConvTranspose::new(&weights.to_f16(), extents, conv.groups as usize, &params)
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
            Work::Layer(layer) => layer.scratch(step),
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
        let plan = crate::compile(&[output], &crate::Options::default()).expect("invariant: cases compile");
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
