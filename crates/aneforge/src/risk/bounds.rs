//! How large values can become, from declared bounds of inputs and from constants.

use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::MATMUL_LIMIT;
use crate::ir::op::Op;
use crate::ir::ops::leaf::Input;
use crate::ir::ops::moves;
use aneforge_tensor::{DType, Tensor, f16};

/// What half precision holds.
pub const LARGEST: f64 = 65504.0;
/// Halfway to the next power of two: what is smaller rounds to `LARGEST`.
const ROUNDS_UP: f64 = 65520.0;

/// Upper bounds of magnitudes that are known, by node; `None` where nothing is.
///
/// A bound is for the worst operands there could be. That is a fair warning for one product or sum of values with a
/// bound. Sums of such sums do not come near theirs, which grow with every layer of a network; so they have none here,
/// nor have normalised rows, whose bound only a single spike in a row reaches.
#[derive(Clone, Debug)]
pub struct Bounds(Vec<Option<Bound>>);

/// What the magnitudes of a node do not exceed.
#[derive(Clone, Copy, Debug)]
struct Bound {
    most: f64,
    /// Whether it was found by adding up bounds along an axis.
    of_sums: bool,
}

/// A node whose exact result may exceed what can be stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// The magnitude it may reach, before it is stored.
    pub reach: f64,
    /// The largest that is stored.
    pub limit: f64,
}

impl Bounds {
    /// Bounds of every node. A value that may exceed what is stored is taken to be stored.
    pub fn of(graph: &Graph) -> Bounds {
        let mut bounds = Bounds(Vec::with_capacity(graph.len()));
        for (id, node) in graph.nodes() {
            let reach = bounds.reach(graph, id, node);
            bounds.0.push(reach.map(|reach| Bound { most: reach.most.min(LARGEST), ..reach }));
        }
        bounds
    }

    /// What a node's magnitudes do not exceed, if that is known.
    pub fn get(&self, id: NodeId) -> Option<f64> {
        self.0[id.index()].map(|bound| bound.most)
    }

    /// Whether a node may exceed what can be stored, and by how much.
    pub fn excess(&self, graph: &Graph, id: NodeId) -> Option<Excess> {
        let node = graph.node(id);
        let (limit, overflows) = match node.op {
            Op::Matmul(_) | Op::Bmm(_) | Op::BmmW(_) => (MATMUL_LIMIT, MATMUL_LIMIT.next_up()),
            _ => (LARGEST, ROUNDS_UP),
        };
        let reach = self.reach(graph, id, node)?.most;
        (reach >= overflows).then_some(Excess { reach, limit })
    }

    /// The bound of a node's exact result.
    fn reach(&self, graph: &Graph, id: NodeId, node: &GraphNode) -> Option<Bound> {
        if let Some(most) = range(&node.op) {
            return Some(Bound { most, of_sums: false });
        }
        let from_sums = node.inputs.iter().any(|i| self.0[i.index()].is_some_and(|bound| bound.of_sums));
        let sums = adds_up(&node.op);
        let most = self.most(graph, id, node).filter(|_| !(sums && from_sums))?;
        Some(Bound { most, of_sums: sums || from_sums })
    }

    /// The largest magnitude of a result, from those of operands.
    fn most(&self, graph: &Graph, id: NodeId, node: &GraphNode) -> Option<f64> {
        if let Some(tensor) = graph.constant(id) {
            return Some(largest_finite(tensor));
        }
        let x = |at: usize| node.inputs.get(at).and_then(|&i| self.get(i));
        let count = |at: usize| graph.node(node.inputs[at]).ty.shape.count();
        let terms = |at: usize| (count(at) / node.ty.shape.count().max(1)) as f64;
        match &node.op {
            Op::Relu(_) | Op::Abs(_) | Op::Gelu(_) | Op::Silu(_) | Op::Round(_) | Op::Cast(_) => x(0),
            Op::Floor(_) | Op::Ceil(_) => Some(x(0)?.ceil()),
            Op::Square(_) => Some(x(0)?.powi(2)),
            Op::Exp(_) => Some(x(0)?.exp()),
            Op::Exp2(_) => Some(x(0)?.exp2()),
            Op::Sqrt(_) => Some(x(0)?.sqrt()),
            Op::Muls(op) => Some(x(0)? * op.k.0.abs()),
            Op::Adds(op) => Some(x(0)? + op.k.0.abs()),
            Op::Add(_) | Op::Sub(_) => Some(x(0)? + x(1)?),
            Op::Mul(_) => Some(x(0)? * x(1)?),
            Op::Maximum(_) | Op::Minimum(_) => Some(x(0)?.max(x(1)?)),
            Op::Select(_) => Some(x(1)?.max(x(2)?)),
            Op::Concat(_) | Op::Stack(_) => {
                (0..node.inputs.len()).try_fold(0.0f64, |most, i| Some(most.max(x(i)?)))
            }
            Op::ReduceSum(_) | Op::ReduceL1Norm(_) => Some(x(0)? * terms(0)),
            Op::ReduceSumSquare(_) => Some(x(0)?.powi(2) * terms(0)),
            Op::ReduceL2Norm(_) => Some(x(0)? * terms(0).sqrt()),
            Op::ReduceMean(_) | Op::ReduceMax(_) | Op::ReduceMin(_) => x(0),
            Op::MaxPool(_) | Op::AvgPool(_) => x(0),
            Op::Matmul(_) => Some(x(0)? * self.weight(graph, node)? + x(2).unwrap_or(0.0)),
            Op::Conv(_) => Some(x(0)? * self.weight(graph, node)? + x(2).unwrap_or(0.0)),
            Op::Bmm(_) => {
                let shape = graph.node(node.inputs[0]).ty.shape;
                Some(x(0)? * x(1)? * shape[shape.rank() - 1] as f64)
            }
            op if moves(op) => x(0),
            _ => None,
        }
    }

    /// The largest sum of magnitudes of the weights of one result.
    fn weight(&self, graph: &Graph, node: &GraphNode) -> Option<f64> {
        let tensor = graph.constant(node.inputs[1])?;
        let outputs = tensor.shape()[0];
        let values = tensor.to_f32();
        let sum = |row: &[f32]| row.iter().map(|v| f64::from(f16::from_f32(*v).to_f32().abs())).sum();
        Some(values.chunks(values.len() / outputs).map(sum).fold(0.0, f64::max))
    }
}

/// The largest magnitude in a constant. Infinities in it, as in masks, are meant: no op made them.
fn largest_finite(tensor: &Tensor) -> f64 {
    let Some(values) = tensor.as_slice::<f16>() else {
        let finite = tensor.to_f32().into_iter().filter(|v| v.is_finite());
        return finite.fold(0.0, |most, v| most.max(f64::from(v.abs())));
    };
    // Magnitudes are ordered as their bits are.
    let magnitude = |v: &f16| v.to_bits() & !SIGN;
    let finite = |bits: u16| if bits < f16::INFINITY.to_bits() { bits } else { 0 };
    f16::from_bits(values.iter().fold(0, |most, v| most.max(finite(magnitude(v))))).to_f64()
}

/// The bit of a half-precision number that holds its sign.
const SIGN: u16 = 0x8000;

/// What the results of an op do not exceed whatever it is given.
fn range(op: &Op) -> Option<f64> {
    match op {
        Op::Input(Input { dtype: DType::U8, .. }) => Some(255.0),
        Op::Input(leaf) => Some(leaf.max_abs.0).filter(|bound| bound.is_finite()),
        Op::Sigmoid(_) | Op::Softmax(_) | Op::Tanh(_) | Op::Erf(_) | Op::Sign(_) => Some(1.0),
        Op::Sin(_) | Op::Cos(_) | Op::Softsign(_) | Op::L2Norm(_) => Some(1.0),
        Op::Relu6(_) => Some(6.0),
        Op::Clip(op) => Some(op.lo.0.abs().max(op.hi.0.abs())),
        _ => None,
    }
}

/// Whether an op adds up elements of an operand.
fn adds_up(op: &Op) -> bool {
    let product = matches!(op, Op::Matmul(_) | Op::Bmm(_) | Op::BmmW(_) | Op::Conv(_));
    product
        || matches!(op, Op::ReduceSum(_) | Op::ReduceL1Norm(_) | Op::ReduceSumSquare(_) | Op::ReduceL2Norm(_))
}

/// The largest magnitude of operands for which the chain that a norm is written as stays finite, and what overflows
/// beyond it.
pub fn plain_limit(graph: &Graph, node: &GraphNode) -> Option<(f64, &'static str)> {
    let x = graph.node(*node.inputs.first()?).ty.shape;
    let last = || x[x.rank() - 1] as f64;
    match &node.op {
        // The square of the difference to the mean, which is at most twice the magnitude.
        Op::LayerNorm(_) | Op::ChannelLayerNorm(_) | Op::GroupNorm(_) => {
            Some((LARGEST.sqrt() / 2.0, "the squared difference to the mean"))
        }
        Op::RmsNorm(_) => Some((LARGEST / last().sqrt(), "the length of a row")),
        Op::L2Norm(op) => {
            let size = x.axis(op.axis).map_or(1.0, |axis| x[axis] as f64);
            Some((LARGEST / size.sqrt(), "the length along the axis"))
        }
        _ => None,
    }
}
