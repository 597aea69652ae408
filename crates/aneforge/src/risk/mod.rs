//! Where a graph may lose precision in half-precision arithmetic, judged from its structure alone.
//!
//! The judgement is ANEForge's pessimistic one (arXiv 2606.17090): it takes sums as accumulated in
//! half precision, while this library's numerics, with the reference's own device tests, take them as wide. Its
//! third finding, a group normalisation beyond the axis limit, is an error here when it is built.

pub mod bounds;

use crate::ir::attr::Attr;
use crate::ir::form::{Form, Norm};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::ops::norm::TINIEST;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::Caller;
use aneforge_kernels::map::{Binary, Unary};
use aneforge_kernels::reduce::Reduction;
use aneforge_tensor::{f16, round_f16};
use bounds::{Bounds, loses_variance, plain_limit};

/// What a graph computes to within when nothing stands out.
pub const CLEAN: f64 = 1e-3;
/// Elements from which a sum of mixed signs stands out.
const LONG_SUM: usize = 256;
/// Elements from which a difference is worth a note.
const WIDE_DIFFERENCE: usize = 64;

/// What stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Concern {
    /// A long sum over values that may cancel.
    NarrowSum,
    /// A difference that may cancel. A note, not a risk.
    CancelSub,
    /// A value that may exceed what half precision holds, by the bounds that inputs declare and constants have.
    Overflow,
    /// A norm that would overflow if it were written plainly, by the same bounds. A note: by default it is not.
    PlainNorm,
    /// A norm's `eps` that half precision would round to 0, or a variance that it does not hold.
    LostEps,
}

/// One node that stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its place in topological order.
    pub index: usize,
    /// Its op.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// What stands out.
    pub kind: Concern,
    /// The relative error it may make.
    pub error: f64,
    /// Why, with the numbers.
    pub reason: String,
}

impl Concern {
    /// Its name in the reference.
    pub fn name(self) -> &'static str {
        match self {
            Concern::NarrowSum => "narrow_sum",
            Concern::CancelSub => "cancel_sub",
            Concern::Overflow => "overflow",
            Concern::PlainNorm => "plain_norm",
            Concern::LostEps => "lost_eps",
        }
    }

    /// What mends it.
    pub fn remedy(self) -> &'static str {
        match self {
            Concern::NarrowSum => "reduce_sum->matmul",
            Concern::CancelSub => "paired-fp16",
            Concern::Overflow => "scale down before it",
            Concern::PlainNorm => "norms=robust, as by default",
            Concern::LostEps => "norms=robust, or a larger eps",
        }
    }
}

impl Finding {
    /// Whether it is a risk, not a note.
    pub fn is_hotspot(&self) -> bool {
        !matches!(self.kind, Concern::CancelSub | Concern::PlainNorm)
    }
}

/// Every node that stands out, in topological order.
pub fn findings(graph: &Graph) -> Vec<Finding> {
    let bounds = Bounds::of(graph);
    graph.nodes().filter_map(|(id, node)| finding(graph, &bounds, id, node)).collect()
}

/// The relative error of the whole graph.
pub fn error(findings: &[Finding]) -> f64 {
    findings.iter().map(|f| f.error).fold(CLEAN, f64::max)
}

fn finding(graph: &Graph, bounds: &Bounds, id: NodeId, node: &GraphNode) -> Option<Finding> {
    let other = || match graph.form(id) {
        Form::Reduce(Reduction::Sum, _) => narrow_sum(graph, node),
        // Known statistics are computed beforehand.
        Form::Normalise(Norm::Given { .. }) if graph.constant(node.inputs[4]).is_some() => {
            let reason = "has variances that half precision does not hold; they are computed beforehand";
            loses_variance(graph, id).then(|| (Concern::PlainNorm, CLEAN, reason.to_owned()))
        }
        Form::Normalise(norm) => plain_norm(bounds, node, norm).or_else(|| lost_eps(norm)),
        Form::Zip(Binary::Sub) => lost_scalar(graph, node).or_else(|| cancel_sub(graph, node)),
        Form::Zip(_) => lost_scalar(graph, node),
        Form::Map(Unary::AddScalar { .. } | Unary::MulScalar { .. }) => {
            node.op.attrs().iter().find_map(|(_, attr)| match attr {
                Attr::Real(k) => lost_number(*k),
                _ => None,
            })
        }
        _ => None,
    };
    let (kind, error, reason) = overflow(graph, bounds, id).or_else(other)?;
    Some(Finding { index: id.index(), op: node.op.name(), at: node.at, kind, error, reason })
}

fn overflow(graph: &Graph, bounds: &Bounds, id: NodeId) -> Option<(Concern, f64, String)> {
    let excess = bounds.excess(graph, id)?;
    let reason =
        format!("may reach {:.3e}, above {}, by declared bounds and constants", excess.reach, excess.limit);
    Some((Concern::Overflow, 1.0, reason))
}

fn plain_norm(bounds: &Bounds, node: &GraphNode, norm: Norm) -> Option<(Concern, f64, String)> {
    let (limit, what) = plain_limit(&Form::Normalise(norm))?;
    let bound = bounds.get(node.inputs[0]).filter(|&bound| bound > limit)?;
    let reason = format!("takes values up to {bound}; plainly written, {what} overflows above {limit:.1}");
    Some((Concern::PlainNorm, CLEAN, reason))
}

fn lost_eps(norm: Norm) -> Option<(Concern, f64, String)> {
    let eps = match norm {
        Norm::Centred { eps, .. } | Norm::Given { eps } | Norm::Instance { eps } => eps,
        Norm::Softmax(_) | Norm::Length { .. } | Norm::Response(_) => return None,
    };
    let reason = format!("adds eps {eps:e}, which half precision does not hold; it becomes {TINIEST:.2e}");
    (eps < TINIEST / 2.0).then_some((Concern::LostEps, CLEAN, reason))
}

/// A scalar that half precision rounds to 0.
fn lost_scalar(graph: &Graph, node: &GraphNode) -> Option<(Concern, f64, String)> {
    let scalars = node.inputs.iter().filter_map(|&input| graph.constant(input));
    let scalars = scalars.filter(|weight| weight.shape().count() == 1);
    scalars.filter_map(|weight| lost_number(Array::from_weight(weight, Precision::F64).data[0])).next()
}

fn lost_number(k: f64) -> Option<(Concern, f64, String)> {
    let lost = k != 0.0 && round_f16(k) == f16::ZERO;
    lost.then(|| (Concern::LostEps, CLEAN, format!("takes {k:e}, which half precision rounds to 0")))
}

fn narrow_sum(graph: &Graph, node: &GraphNode) -> Option<(Concern, f64, String)> {
    let source = graph.node(node.inputs[0]);
    let terms = source.ty.shape.count() / node.ty.shape.count().max(1);
    let never_negative = graph.facts(node.inputs[0]).never_negative;
    let reason = format!("sums {terms} values of {}, which may cancel", source.op.name());
    let error = (1e-3 * (terms as f64).sqrt()).min(1.0);
    (terms >= LONG_SUM && !never_negative).then_some((Concern::NarrowSum, error, reason))
}

fn cancel_sub(graph: &Graph, node: &GraphNode) -> Option<(Concern, f64, String)> {
    let count = node.ty.shape.count();
    let scaled = node.inputs.iter().any(|&i| matches!(graph.form(i), Form::Map(Unary::MulScalar { .. })));
    let reason = format!("subtracts {count} pairs of values, which may be close");
    (count >= WIDE_DIFFERENCE && !scaled).then_some((Concern::CancelSub, 1e-3, reason))
}
