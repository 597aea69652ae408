//! Norms that survive every finite row.
//!
//! Plainly written, a norm squares its values or measures their length in half precision: a row with one value of 800
//! overflows, and one of values around 1e-4 vanishes. Here a row is first brought to where nothing overflows or
//! vanishes, by a factor that is a power of two and so changes no bit; then it is divided by its largest magnitude
//! before it is squared. What is divided out is not multiplied back, because a norm does not depend on it; `eps` gets the
//! same factors.

use crate::ir::form::{Form, Norm};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::ir::ops::conv::four;
use crate::ir::ops::norm::TINIEST;
use crate::ir::var::Var;
use crate::passes::{CompileOptions, Norms, PassError};
use crate::rewrite::Event;
use crate::risk::bounds::{Bounds, loses_variance, plain_limit};
use aneforge_tensor::Tensor;

/// Above this magnitude, rows are multiplied by [`SHRINK`]: the difference of two values stays below 65504.
const LARGE: f64 = 8192.0;
const SHRINK: f64 = 0.25;
/// Below this magnitude, rows are multiplied by [`GROW`]: the least positive number, 2^-24, becomes [`LEAST`].
const SMALL: f64 = 0.0625;
const GROW: f64 = 1024.0;
/// The least divisor, also the least number of full precision: half precision holds its reciprocal.
const LEAST: f64 = 1.0 / 16384.0;
/// The largest finite number.
const MOST: f64 = 65504.0;
/// Quotients are multiplied by this, so that the mean of up to 65536 squares, of which one is 1, keeps its precision.
const SPREAD: f64 = 16.0;

/// Writes norms in this way, as the options say.
pub(super) fn survive(
    graph: &Graph,
    options: &CompileOptions,
    events: &mut Vec<Event>,
) -> Result<Graph, PassError> {
    // A batch norm is one op in single precision, whose statistics alone may be too small for half precision.
    let lost = |id: NodeId| loses_variance(graph, id);
    let chosen: Vec<bool> = match options.norms {
        Norms::Plain => return Ok(graph.clone()),
        Norms::Robust => graph.nodes().map(|(id, _)| is_chain(&graph.form(id)) || lost(id)).collect(),
        Norms::Auto => {
            let bounds = Bounds::of(graph);
            let may_overflow = |(id, node): (NodeId, &GraphNode)| {
                let (limit, _) = plain_limit(&graph.form(id))?;
                Some(bounds.get(node.inputs[0])? > limit)
            };
            let chosen = |(id, node)| may_overflow((id, node)).unwrap_or(false) || lost(id);
            graph.nodes().map(chosen).collect()
        }
    };
    if !chosen.contains(&true) {
        return Ok(graph.clone());
    }
    let vars = graph.to_vars(|id, vars| {
        let node = graph.node(id);
        if !chosen[id.index()] {
            return None;
        }
        let batch = match &node.op {
            Op::BatchNorm(op) => Some(statistics(graph, node, op.eps.0)?),
            _ => None,
        };
        events.push(Event::fired("robust_norm", node));
        let x: Vec<Var> = node.inputs.iter().map(|i| vars[i.index()].clone()).collect();
        Some(node.at.scope(|| match batch {
            Some(statistics) => batch_norm(&x, &statistics),
            None => robust(node, &x),
        }))
    });
    let outputs: Vec<Var> = graph.outputs().iter().map(|o| vars[o.index()].clone()).collect();
    Ok(Graph::freeze(&outputs)?)
}

/// Whether a norm that is written plainly squares its operands in half precision: as a chain of ops, or in the engine's own
/// instance norm.
fn is_chain(form: &Form) -> bool {
    matches!(form, Form::Normalise(Norm::Centred { .. } | Norm::Length { .. } | Norm::Instance { .. }))
}

fn robust(node: &GraphNode, x: &[Var]) -> Var {
    let last = x[0].shape().rank() as i64 - 1;
    let channels = |v: &Var| v.reshape(&[1, v.shape().count() as i64, 1, 1]);
    match &node.op {
        Op::LayerNorm(op) => standard(&x[0], &[last], op.eps.0) * &x[1] + &x[2],
        Op::ChannelLayerNorm(op) => standard(&x[0], &[1], op.eps.0) * channels(&x[1]) + channels(&x[2]),
        Op::GroupNorm(op) => {
            let [n, c, h, w] = four(x[0].shape()).map(|d| d as i64);
            let groups = x[0].reshape(&[n, op.num_groups, c / op.num_groups, h * w]);
            let unit = standard(&groups, &[2, 3], op.eps.0).reshape_to(x[0].shape());
            unit * channels(&x[1]) + channels(&x[2])
        }
        Op::InstanceNorm(op) => standard(&x[0], &[2, 3], op.eps.0) * channels(&x[1]) + channels(&x[2]),
        Op::RmsNorm(op) => {
            let size = x[0].shape()[last as usize] as f64;
            unit_length(&x[0], last, (size * op.eps.0).sqrt()) * x[1].muls(size.sqrt())
        }
        Op::L2Norm(op) => unit_length(&x[0], op.axis, op.eps.0.max(0.0).sqrt()),
        op => unreachable!("{} is no norm", op.name()),
    }
}

/// `1 / sqrt(variance + eps)` of a batch norm whose statistics are constants.
fn statistics(graph: &Graph, node: &GraphNode, eps: f64) -> Option<Vec<f64>> {
    let variance = graph.constant(node.inputs[4])?.to_f32();
    Some(
        variance.iter().map(|&v| 1.0 / (f64::from(v) + eps.max(0.0)).max(f64::MIN_POSITIVE).sqrt()).collect(),
    )
}

/// `(x - mean) * scale * gamma + beta`. Where both factors are constants, their product is computed beforehand; it stays two
/// constants if its magnitude is beyond what half precision holds well.
fn batch_norm(x: &[Var], scale: &[f64]) -> Var {
    let wide = |v: &Var| {
        let mut dims = vec![1; x[0].shape().rank()];
        dims[1] = v.shape().count() as i64;
        v.reshape(&dims)
    };
    let part = |f: &dyn Fn(f64) -> f64, factors: &[f64]| {
        let values: Vec<f64> = factors.iter().map(|&s| f(s)).collect();
        let shape = x[1].shape();
        wide(&Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one scale per channel")))
    };
    let gamma = x[1].data().map(|gamma| gamma.to_f32());
    let factors: Vec<f64> = match &gamma {
        Some(gamma) => scale.iter().zip(gamma).map(|(s, &g)| s * f64::from(g)).collect(),
        None => scale.to_vec(),
    };
    let held = |f: f64| f.abs().clamp(LEAST, LARGE).copysign(f);
    let mut unit = (&x[0] - wide(&x[3])) * part(&held, &factors);
    if factors.iter().any(|&f| held(f) != f) {
        unit = unit * part(&|f| (f / held(f)).clamp(0.0, MOST), &factors);
    }
    let scaled = if gamma.is_some() { unit } else { unit * wide(&x[1]) };
    scaled + wide(&x[2])
}

/// The largest magnitude over `axes`.
fn largest(x: &Var, axes: &[i64]) -> Var {
    x.abs().amax(axes)
}

/// `x` with each row multiplied by a power of two, and `floor` multiplied by the same.
fn scaled(x: &Var, axes: &[i64], floor: f64) -> (Var, Var) {
    let most = largest(x, axes);
    // Numbers are 8 apart above 8192, and 2^-15 below 2^-4, so these are 0 or 1.
    let large = most.adds(-LARGE).clip(0.0, 1.0);
    let mut factor = large.muls(SHRINK - 1.0).adds(1.0);
    // With a larger floor, small rows stay small.
    if floor * GROW <= MOST {
        let small = most.clip(0.0, 1.0).muls(-32768.0).adds(SMALL * 32768.0).clip(0.0, 1.0);
        factor = factor + small.muls(GROW - 1.0);
    }
    // Half precision holds a floor such as 1e-6 badly, and a thousand times that well.
    let apart = if floor * GROW * GROW <= MOST { GROW } else { 1.0 };
    let floor = factor.muls((floor * apart).min(MOST)).muls(1.0 / apart);
    (x * factor, floor)
}

/// Each row divided by its largest magnitude, or by `floor` where that is larger, and multiplied by [`SPREAD`]; and
/// `floor` likewise.
fn spread(x: &Var, axes: &[i64], floor: &Var) -> (Var, Var) {
    let divisor = largest(x, axes).maximum(floor).clip(LEAST, MOST);
    let floor = (floor * divisor.inverse(0.0)).muls(SPREAD);
    ((x / divisor).muls(SPREAD), floor)
}

/// `(x - mean) / sqrt(variance + eps)` over `axes`.
fn standard(x: &Var, axes: &[i64], eps: f64) -> Var {
    let (x, floor) = scaled(x, axes, eps.max(0.0).sqrt());
    // The mean is rounded: among large values to a whole number or worse. What that leaves is small enough to be exact.
    let nearly = &x - x.mean(axes);
    let centred = &nearly - nearly.mean(axes);
    let (unit, floor) = spread(&centred, axes, &floor);
    let variance = unit.square().mean(axes) + floor.square();
    unit * variance.adds(TINIEST).rsqrt(0.0)
}

/// `x / max(|x|, floor)` along an axis.
fn unit_length(x: &Var, axis: i64, floor: f64) -> Var {
    let (x, floor) = scaled(x, &[axis], floor);
    let (unit, floor) = spread(&x, &[axis], &floor);
    let length = unit.reduce_l2_norm(&[axis]).maximum(&floor).clip(LEAST, MOST);
    unit / length
}
