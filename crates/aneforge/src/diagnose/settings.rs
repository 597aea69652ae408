//! What settings of the arithmetic make of a network: where each parts from another first, and how far its results are.

use super::values::{Got, compare, held, numbers};
use crate::device::host::Host;
use crate::device::{Buffer, Device, DeviceError, Feed};
use crate::ir::graph::{Graph, InputInfo, NodeId};
use crate::ir::numerics::Numerics;
use crate::ir::op::Mil;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::{Caller, TensorType, counted};
use crate::plan::{Plan, Source};
use crate::session::RunError;
use crate::target::{CHIPS, Family, Target};
use aneforge_kernels::threads::stopped;
use aneforge_tensor::{DType, Tensor};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The first node whose values are others.
#[derive(Clone, Debug)]
pub struct Parting {
    /// The program that it is in.
    pub segment: usize,
    /// Its op, as compiled.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// Its type.
    pub ty: TensorType,
    /// How many of its values differ in their bits.
    pub values: usize,
    /// The largest difference, by the largest magnitude; infinite where one is and the other is not.
    pub difference: f64,
}

/// What one setting makes of a network.
#[derive(Clone, Debug)]
pub struct Departure {
    /// The setting.
    pub numerics: Numerics,
    /// Where it parts from the baseline first, if it does.
    pub first: Option<Parting>,
    /// Nodes whose values differ in their bits.
    pub nodes: usize,
    /// Of each result, the largest difference to the baseline's, by the largest magnitude.
    pub outputs: Vec<f64>,
}

/// Settings of the arithmetic, compared with one of them.
#[derive(Clone, Debug)]
pub struct Departures {
    /// What the program was compiled for.
    pub target: Target,
    /// What the others are compared with.
    pub baseline: Numerics,
    /// Nodes that compute.
    pub nodes: usize,
    /// Each other setting.
    pub settings: Vec<Departure>,
}

/// Every setting: IEEE arithmetic, and of each family what is free and all.
pub fn all_settings() -> Vec<Numerics> {
    let families = || Family::ALL.into_iter().filter(|family| family.runs_mil());
    let ane = families().map(Numerics::Ane);
    [Numerics::Ieee].into_iter().chain(ane).chain(families().map(Numerics::Faithful)).collect()
}

/// Runs a program with every one of these settings on the same inputs, and compares each with `baseline`, node by node.
pub fn departures(
    host: &Host,
    plan: &Plan,
    feeds: &[Tensor],
    baseline: Numerics,
    settings: &[Numerics],
) -> Result<Departures, RunError> {
    let base = computed(host, plan, feeds, baseline)?;
    let mut departures = Vec::new();
    for &numerics in settings.iter().filter(|&&numerics| numerics != baseline) {
        departures.push(compared(&base, &computed(host, plan, feeds, numerics)?, numerics));
    }
    Ok(Departures { target: plan.target, baseline, nodes: base.nodes.len(), settings: departures })
}

/// What a setting computes.
struct Computed {
    /// Every node that computes, in order.
    nodes: Vec<(Node, Got)>,
    outputs: Vec<Got>,
}

/// A node that computes.
#[derive(Clone, Copy)]
struct Node {
    segment: usize,
    op: &'static str,
    at: Caller,
    ty: TensorType,
}

fn computed(host: &Host, plan: &Plan, feeds: &[Tensor], numerics: Numerics) -> Result<Computed, RunError> {
    let host = host.clone().with_numerics(numerics);
    let fed = fed(&host, plan, feeds)?;
    let (mut nodes, mut results) = (Vec::new(), HashMap::new());
    for (at, segment) in plan.segments.iter().enumerate() {
        let graph = host.graph_of(segment)?;
        let input = |source: &Source| match *source {
            Source::Feed(feed) => fed[feed].clone(),
            Source::Segment { segment, output } => {
                let value: &Got = &results[&(segment, output)];
                value.clone()
            }
        };
        let mut values: HashMap<NodeId, Got> =
            graph.feeds().into_iter().zip(segment.inputs.iter().map(input)).collect();
        for (id, node) in graph.nodes().filter(|(_, node)| !matches!(node.op.mil(), Mil::Leaf)) {
            if stopped() {
                return Err(DeviceError::Stopped.into());
            }
            let value = one(&host, &graph, id, numerics, &values)?;
            nodes.push((Node { segment: at, op: node.op.name(), at: node.at, ty: node.ty }, value.clone()));
            values.insert(id, value);
        }
        for (output, id) in graph.outputs().iter().enumerate() {
            results.insert((at, output), values[id].clone());
        }
    }
    let output = |(_, source): &(_, Source)| match *source {
        Source::Segment { segment, output } => results[&(segment, output)].clone(),
        Source::Feed(_) => unreachable!("outputs are computed"),
    };
    Ok(Computed { outputs: plan.outputs.iter().map(output).collect(), nodes })
}

/// Inputs as a setting takes them.
fn fed(host: &Host, plan: &Plan, feeds: &[Tensor]) -> Result<Vec<Got>, RunError> {
    if feeds.len() != plan.feeds.len() {
        return Err(RunError::Count { want: plan.feeds.len(), got: feeds.len() });
    }
    let one = |(index, (tensor, feed)): (usize, (&Tensor, &InputInfo))| {
        let (want, got) = (feed.ty.shape, tensor.shape());
        if want != got {
            return Err(RunError::Shape { index, want, got: got.dims().to_vec() });
        }
        let buffer = host.allocate(feed.ty)?;
        let written = match (feed.ty.dtype, tensor.dtype()) {
            (DType::U8, DType::U8) => buffer.write(Feed::U8(tensor.bytes())),
            _ => buffer.write(Feed::F64(&Array::from_tensor(tensor, Precision::F64).data)),
        };
        written.map_err(|_| RunError::DType { index, want: feed.ty.dtype, got: tensor.dtype() })?;
        Ok(Got::Held(buffer))
    };
    feeds.iter().zip(&plan.feeds).enumerate().map(one).collect()
}

/// One node, truth values by its definition.
fn one(
    host: &Host,
    graph: &Graph,
    id: NodeId,
    numerics: Numerics,
    values: &HashMap<NodeId, Got>,
) -> Result<Got, RunError> {
    let (node, precision) = (graph.node(id), Precision::F16(numerics));
    let truth = |id: NodeId| graph.node(id).ty.dtype == DType::Bool;
    if !truth(id) && !node.inputs.iter().any(|&input| truth(input)) {
        let operand = |input: NodeId| -> &Buffer {
            match &values[&input] {
                Got::Held(buffer) => buffer,
                Got::Truth(_) => unreachable!("truth values are computed by the definition"),
            }
        };
        return Ok(Got::Held(host.node(graph, id, numerics, operand)?));
    }
    let input = |&input: &NodeId| match graph.constant(input) {
        Some(weight) => Arc::new(Array::from_weight(weight, precision)),
        None => values[&input].array(),
    };
    let inputs: Vec<Arc<Array>> = node.inputs.iter().map(input).collect();
    let inputs: Vec<&Array> = inputs.iter().map(|array| &**array).collect();
    let array = node.op.eval(&inputs, &node.ty, precision);
    Ok(if truth(id) { Got::Truth(Arc::new(array)) } else { Got::Held(held(host, &array)?) })
}

fn compared(base: &Computed, other: &Computed, numerics: Numerics) -> Departure {
    let (mut first, mut nodes) = (None, 0);
    for ((node, want), (_, got)) in base.nodes.iter().zip(&other.nodes) {
        let values = differing(want, got);
        if values == 0 {
            continue;
        }
        nodes += 1;
        let &Node { segment, op, at, ty } = node;
        first.get_or_insert_with(|| Parting { segment, op, at, ty, values, difference: apart(want, got) });
    }
    let outputs = base.outputs.iter().zip(&other.outputs).map(|(want, got)| apart(want, got)).collect();
    Departure { numerics, first, nodes, outputs }
}

/// How many values differ in their bits.
fn differing(want: &Got, got: &Got) -> usize {
    match (want, got) {
        (Got::Held(want), Got::Held(got)) => match (want.values(), got.values()) {
            (Some(want), Some(got)) => {
                want.iter().zip(got.iter()).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
            }
            _ => numbers(want).iter().zip(&numbers(got)).filter(|(a, b)| a != b).count(),
        },
        _ => want.array().data.iter().zip(&got.array().data).filter(|(a, b)| a != b).count(),
    }
}

fn apart(want: &Got, got: &Got) -> f64 {
    compare(&want.array().data, got.array().data.iter().copied()).1
}

impl Departures {
    /// Everything, as plain data.
    pub fn to_json(&self) -> Json {
        let number = |v: f64| if v.is_finite() { json!(v) } else { Json::Null };
        let setting = |departure: &Departure| {
            let first = departure.first.as_ref().map(|first| {
                json!({
                    "segment": first.segment, "op": first.op, "at": first.at.to_string(), "type": first.ty.to_string(),
                    "values": first.values, "difference": number(first.difference),
                })
            });
            let outputs: Vec<Json> = departure.outputs.iter().map(|v| number(*v)).collect();
            json!({
                "numerics": departure.numerics.to_string(), "chips": chips(departure.numerics), "first": first,
                "nodes": departure.nodes, "outputs": outputs,
            })
        };
        json!({
            "target": self.target.to_string(), "baseline": self.baseline.to_string(), "nodes": self.nodes,
            "settings": self.settings.iter().map(setting).collect::<Vec<_>>(),
        })
    }
}

/// Chips whose arithmetic a setting models.
fn chips(numerics: Numerics) -> Vec<&'static str> {
    let Some(family) = numerics.family() else { return Vec::new() };
    CHIPS.iter().filter(|chip| chip.family == family).map(|chip| chip.name).collect()
}

impl fmt::Display for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Departures { target, baseline, nodes, settings } = self;
        writeln!(f, "compiled for {target}, compared with {baseline}: {}", counted(*nodes, "node"))?;
        for Departure { numerics, first, nodes, outputs } in settings {
            let largest = outputs.iter().copied().fold(0.0, f64::max);
            let Some(Parting { op, at, ty, values, difference, .. }) = first else {
                writeln!(f, "{numerics:<14} the same bits everywhere")?;
                continue;
            };
            let count = counted(ty.shape.count(), "value");
            let chips = match &chips(*numerics)[..] {
                [] => String::new(),
                chips => format!(" (as {})", chips.join(", ")),
            };
            writeln!(
                f,
                "{numerics:<14} parts at {op} : {ty} ({at}): {values} of {count}, by {difference:.1e}"
            )?;
            writeln!(f, "{:<14} {} in all, results by {largest:.1e}{chips}", "", counted(*nodes, "node"))?;
        }
        writeln!(
            f,
            "none of this has run on an engine; docs/silicon.md says what of it was measured, and by whom"
        )
    }
}
