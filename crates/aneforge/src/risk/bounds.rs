//! How large values can become, from declared bounds of inputs and from constants.

use crate::ir::form::{Form, Layer, Norm, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::MATMUL_LIMIT;
use crate::ir::op::Op;
use crate::ir::ops::leaf::Input;
use crate::ir::ops::norm::TINIEST;
use aneforge_kernels::layers::Combine;
use aneforge_kernels::map::{Binary, Unary};
use aneforge_kernels::reduce::Reduction;
use aneforge_tensor::{DType, Weight, f16, round_f16};
use std::cell::OnceCell;

/// What half precision holds.
pub const LARGEST: f64 = 65504.0;
/// Halfway to the next power of two: what is smaller rounds to `LARGEST`.
const ROUNDS_UP: f64 = 65520.0;

/// The bit of a half-precision number that holds its sign.
const SIGN: u16 = 0x8000;

/// Upper bounds of magnitudes that are known, by node; `None` where nothing is.
///
/// A bound is for the worst operands there could be. That is a fair warning for one product or sum of values with a
/// bound. Sums of such sums do not come near theirs, which grow with every layer of a network; so they have none here,
/// nor have normalised rows, whose bound only a single spike in a row reaches.
#[derive(Clone, Debug)]
pub struct Bounds(Vec<Known>);

/// What is known of a node.
#[derive(Clone, Debug)]
enum Known {
    Nothing,
    Bounded(Bound),
    /// A constant, which is not looked through before its bound is wanted.
    Constant(Box<Weight>, OnceCell<f64>),
}

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
            let known = match (graph.constant(id), range(graph, id, node)) {
                (Some(weight), None) => Known::Constant(Box::new(weight.clone()), OnceCell::new()),
                _ => bounds.reach(graph, id, node).map_or(Known::Nothing, |reach| {
                    Known::Bounded(Bound { most: reach.most.min(LARGEST), ..reach })
                }),
            };
            bounds.0.push(known);
        }
        bounds
    }

    /// What a node's magnitudes do not exceed, if that is known.
    pub fn get(&self, id: NodeId) -> Option<f64> {
        match &self.0[id.index()] {
            Known::Nothing => None,
            Known::Bounded(bound) => Some(bound.most),
            Known::Constant(weight, most) => Some(*most.get_or_init(|| largest_finite(weight).min(LARGEST))),
        }
    }

    fn is_of_sums(&self, id: NodeId) -> bool {
        matches!(self.0[id.index()], Known::Bounded(Bound { of_sums: true, .. }))
    }

    /// Whether a node may exceed what can be stored, and by how much.
    pub fn excess(&self, graph: &Graph, id: NodeId) -> Option<Excess> {
        let node = graph.node(id);
        if graph.constant(id).is_some() {
            return None;
        }
        let (limit, overflows) = match graph.form(id) {
            Form::Product(_) | Form::RowProduct | Form::Conv(..) | Form::ConvTranspose(..) => {
                (MATMUL_LIMIT, MATMUL_LIMIT.next_up())
            }
            _ => (LARGEST, ROUNDS_UP),
        };
        let reach = match self.reach(graph, id, node) {
            Some(bound) => bound.most,
            None => unit_reach(graph, id, node)?,
        };
        (reach >= overflows).then_some(Excess { reach, limit })
    }

    /// The bound of a node's exact result.
    fn reach(&self, graph: &Graph, id: NodeId, node: &GraphNode) -> Option<Bound> {
        if let Some(most) = range(graph, id, node) {
            return Some(Bound { most, of_sums: false });
        }
        let from_sums = node.inputs.iter().any(|&input| self.is_of_sums(input));
        let sums = adds_up(&graph.form(id));
        let most = self.most(graph, id, node).filter(|_| !(sums && from_sums))?;
        Some(Bound { most, of_sums: sums || from_sums })
    }

    /// The largest magnitude of a result, from those of operands.
    fn most(&self, graph: &Graph, id: NodeId, node: &GraphNode) -> Option<f64> {
        let x = |at: usize| node.inputs.get(at).and_then(|&i| self.get(i));
        let count = |at: usize| graph.node(node.inputs[at]).ty.shape.count();
        let terms = |at: usize| (count(at) / node.ty.shape.count().max(1)) as f64;
        match graph.form(id) {
            Form::Map(function) => mapped(function, x(0)?),
            Form::Zip(Binary::Add | Binary::Sub) => Some(x(0)? + x(1)?),
            Form::Zip(Binary::Mul) => Some(x(0)? * x(1)?),
            Form::Zip(Binary::RealDiv) => Some(x(0)? / smallest(graph.constant(node.inputs[1])?)),
            Form::Zip(Binary::Pow) => {
                let [base, exponent] = [0, 1].map(|at| graph.constant(node.inputs[at]));
                power([x(0)?, x(1)?], base, exponent)
            }
            Form::Prelu => Some(x(0)? * x(1)?.max(1.0)),
            Form::Layer(Layer::Scaled(combine, scale)) => {
                let combined = match combine {
                    Combine::Add => x(0)? + x(1)?,
                    Combine::Multiply => x(0)? * x(1)?,
                    Combine::Minimum | Combine::Maximum => x(0)?.max(x(1)?),
                };
                Some(combined * scale.to_f64().abs())
            }
            Form::Normalise(Norm::Given { eps }) => {
                let constants: Option<Vec<&Weight>> =
                    node.inputs[1..].iter().map(|&i| graph.constant(i)).collect();
                Some(given(x(0)?, &constants?, eps))
            }
            Form::ConvTranspose(_, groups) => {
                Some(x(0)? * spread(graph.constant(node.inputs[1])?, groups) + x(2).unwrap_or(0.0))
            }
            Form::Zip(Binary::Maximum | Binary::Minimum) => Some(x(0)?.max(x(1)?)),
            Form::Select => Some(x(1)?.max(x(2)?)),
            Form::View | Form::Move(_) => {
                (0..node.inputs.len()).try_fold(0.0f64, |most, i| Some(most.max(x(i)?)))
            }
            Form::Reduce(function, _) => match function {
                Reduction::Sum | Reduction::SumAbs => Some(x(0)? * terms(0)),
                Reduction::SumSquare => Some(x(0)?.powi(2) * terms(0)),
                Reduction::L2Norm => Some(x(0)? * terms(0).sqrt()),
                Reduction::Mean | Reduction::Max | Reduction::Min => x(0),
                _ => None,
            },
            Form::Pool(..) | Form::Cast | Form::Sample(_) => x(0),
            Form::Product(Product::Linear) | Form::Conv(..) => {
                let each = count(1) / graph.node(node.inputs[1]).ty.shape[0];
                let most = x(0)?;
                let weights = self.weight(graph, node).or_else(|| Some(x(1)? * each as f64))?;
                Some(most * weights + x(2).unwrap_or(0.0))
            }
            Form::Product(Product::Batched) => {
                let shape = graph.node(node.inputs[0]).ty.shape;
                Some(x(0)? * x(1)? * shape[shape.rank() - 1] as f64)
            }
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
fn largest_finite(tensor: &Weight) -> f64 {
    // Magnitudes are ordered as their bits are.
    if let Some(values) = tensor.as_slice::<f32>() {
        let magnitude = |v: &f32| v.to_bits() as i32 & i32::MAX;
        let finite = |bits: i32| if bits < f32::INFINITY.to_bits() as i32 { bits } else { 0 };
        let most = values.iter().fold(0, |most, v| most.max(finite(magnitude(v))));
        return f64::from(f32::from_bits(most as u32));
    }
    let Some(values) = tensor.as_slice::<f16>() else {
        let finite = tensor.to_f32().into_iter().filter(|v| v.is_finite());
        return finite.fold(0.0, |most, v| most.max(f64::from(v.abs())));
    };
    let magnitude = |v: &f16| v.to_bits() & !SIGN;
    let finite = |bits: u16| if bits < f16::INFINITY.to_bits() { bits } else { 0 };
    f16::from_bits(values.iter().fold(0, |most, v| most.max(finite(magnitude(v))))).to_f64()
}

/// The least magnitude in a constant.
fn smallest(tensor: &Weight) -> f64 {
    tensor
        .to_f32()
        .into_iter()
        .fold(f64::INFINITY, |least, v| least.min(round_f16(f64::from(v)).to_f64().abs()))
}

/// What `x^y` does not exceed, for magnitudes of `x` and `y` one of which is constant. Where exponents may be negative,
/// it is the smallest base that goes furthest.
fn power([x, y]: [f64; 2], base: Option<&Weight>, exponent: Option<&Weight>) -> Option<f64> {
    match (base, exponent) {
        (Some(base), _) => Some(x.max(1.0 / smallest(base)).max(1.0).powf(y)),
        (None, Some(exponent)) => exponent.to_f32().iter().all(|&e| e >= 0.0).then(|| x.max(1.0).powf(y)),
        (None, None) => None,
    }
}

/// What `(x - mean) * gamma / sqrt(variance + eps) + beta` does not exceed in any channel.
fn given(x: f64, constants: &[&Weight], eps: f64) -> f64 {
    let [gamma, beta, mean, variance]: [Vec<f32>; 4] = std::array::from_fn(|i| constants[i].to_f32());
    let channel = |c: usize| {
        let [gamma, beta, mean] = [gamma[c], beta[c], mean[c]].map(|v| f64::from(v.abs()));
        let deviation = (f64::from(variance[c]) + eps).max(TINIEST).sqrt();
        (x + mean) * gamma / deviation + beta
    };
    (0..gamma.len()).map(channel).fold(0.0, f64::max)
}

/// The largest sum of magnitudes that one result of a transposed convolution takes from its kernels
/// `[Cin, Cout/groups, kH, kW]`.
fn spread(kernels: &Weight, groups: usize) -> f64 {
    let (channels, per_group) = (kernels.shape()[0], kernels.shape()[1]);
    let taps = kernels.shape().count() / (channels * per_group);
    let mut sums = vec![0.0f64; groups * per_group];
    for (at, kernel) in kernels.to_f32().chunks(taps).enumerate() {
        let group = at / per_group / (channels / groups);
        let sum: f64 = kernel.iter().map(|v| f64::from(v.abs())).sum();
        sums[group * per_group + at % per_group] += sum;
    }
    sums.into_iter().fold(0.0, f64::max)
}

/// What some result of a norm reaches whatever it is given, but for rows of equal values: normalised rows have a value
/// of magnitude 1 at least, which is then scaled and shifted.
fn unit_reach(graph: &Graph, id: NodeId, node: &GraphNode) -> Option<f64> {
    let Form::Normalise(Norm::Centred { .. } | Norm::Instance { .. } | Norm::Length { .. }) = graph.form(id)
    else {
        return None;
    };
    let constant = |at: usize| graph.constant(*node.inputs.get(at)?).map(Weight::to_f32);
    let (gamma, beta) = (constant(1)?, constant(2).unwrap_or_default());
    let reach = |(c, gamma): (usize, &f32)| f64::from(gamma.abs() + beta.get(c).map_or(0.0, |b| b.abs()));
    Some(gamma.iter().enumerate().map(reach).fold(0.0, f64::max))
}

/// Whether half precision holds some variance of a batch norm so badly that it shows.
pub fn loses_variance(graph: &Graph, id: NodeId) -> bool {
    let Form::Normalise(Norm::Given { eps }) = graph.form(id) else { return false };
    let Some(variance) = graph.constant(graph.node(id).inputs[4]) else { return false };
    let half = |v: f64| round_f16(v).to_f64();
    variance.to_f32().iter().any(|&v| {
        let exact = f64::from(v) + eps;
        (half(f64::from(v)) + half(eps).max(TINIEST) - exact).abs() > exact.abs() / 100.0
    })
}

/// What a function's results do not exceed for arguments up to `x`, if that is known.
fn mapped(function: Unary, x: f64) -> Option<f64> {
    Some(match function {
        Unary::Relu | Unary::Abs | Unary::Gelu | Unary::Silu | Unary::Round => x,
        Unary::ThresholdedRelu { .. } => x,
        Unary::Threshold { alpha } | Unary::Elu { alpha } => x.max(f64::from(alpha.abs())),
        Unary::LeakyRelu { alpha } => x * f64::from(alpha.abs()).max(1.0),
        Unary::Linear { alpha, beta } => x * f64::from(alpha.abs()) + f64::from(beta.abs()),
        Unary::Softplus => x + std::f64::consts::LN_2,
        Unary::Floor | Unary::Ceil => x.ceil(),
        Unary::Square => x.powi(2),
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::Sqrt => x.sqrt(),
        Unary::MulScalar { k } => x * f64::from(k.abs()),
        Unary::AddScalar { k } => x + f64::from(k.abs()),
        _ => return None,
    })
}

/// What the results of a node do not exceed whatever it is given.
fn range(graph: &Graph, id: NodeId, node: &GraphNode) -> Option<f64> {
    match &node.op {
        Op::Input(Input { dtype: DType::U8, .. }) => return Some(255.0),
        Op::Input(leaf) => return Some(leaf.max_abs.0).filter(|bound| bound.is_finite()),
        _ => {}
    }
    match graph.form(id) {
        Form::Map(Unary::Sigmoid | Unary::Tanh | Unary::Erf | Unary::Sign) => Some(1.0),
        Form::Map(Unary::Sin | Unary::Cos | Unary::Softsign) => Some(1.0),
        Form::Map(Unary::Relu6) => Some(6.0),
        Form::Map(Unary::Atan) => Some(std::f64::consts::FRAC_PI_2),
        Form::Map(Unary::ScaledTanh { alpha, .. }) => Some(f64::from(alpha.abs())),
        Form::Map(Unary::SigmoidHard { .. }) => Some(1.0),
        Form::Map(Unary::Clip { lo, hi }) => Some(f64::from(lo.abs().max(hi.abs()))),
        Form::Normalise(Norm::Softmax(_)) => Some(1.0),
        Form::Normalise(Norm::Length { .. }) if node.inputs.len() == 1 => Some(1.0),
        _ => None,
    }
}

/// Whether a form adds up elements of an operand.
fn adds_up(form: &Form) -> bool {
    use Reduction::{L2Norm, Sum, SumAbs, SumSquare};
    matches!(
        form,
        Form::Product(_)
            | Form::Conv(..)
            | Form::ConvTranspose(..)
            | Form::Reduce(Sum | SumAbs | SumSquare | L2Norm, _)
    )
}

/// The largest magnitude of operands for which the chain that a norm is written as stays finite, and what overflows
/// beyond it.
pub fn plain_limit(form: &Form) -> Option<(f64, &'static str)> {
    match form {
        // The square of the difference to the mean, which is at most twice the magnitude.
        Form::Normalise(Norm::Centred { .. }) => {
            Some((LARGEST.sqrt() / 2.0, "the squared difference to the mean"))
        }
        Form::Normalise(Norm::Length { terms }) => {
            Some((LARGEST / (*terms as f64).sqrt(), "the length of a row"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::ops::leaf::Role;
    use crate::ir::types::TensorType;
    use crate::ir::var::Var;
    use aneforge_tensor::{Shape, Tensor};

    #[test]
    fn the_largest_finite_value_of_a_constant_counts_in_every_type() {
        let (shape, values) = (Shape::new(&[4]).unwrap(), [1.0f32, f32::NEG_INFINITY, f32::NAN, -3.0]);
        let halves = values.map(f16::from_f32);
        let wide = values.map(f64::from);
        let constants = [
            Tensor::from_slice(shape, &values),
            Tensor::from_slice(shape, &halves),
            Tensor::from_slice(shape, &wide),
        ];
        for constant in constants {
            let x = Var::bounded_leaf(TensorType::f16(shape), Role::Feed, 2.0);
            let graph = Graph::freeze(&[&x + &Var::constant(constant.unwrap())]).unwrap();
            assert_eq!(Bounds::of(&graph).get(graph.outputs()[0]), Some(5.0));
        }
    }
}
