//! What stands for ops that are several nodes; and native layers that are also chains of MIL ops: which of the two a
//! program gets.

use crate::ir::graph::Graph;
use crate::ir::op::{Mil, Native};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::passes::{CompileOptions, PassError, Routes};
use crate::rewrite::{Event, Match, Miss, Rule};
use crate::target::layers;

/// One rule: a layer becomes the ops that compute the same.
pub static ROUTE: &[Rule] = &[Rule { name: "write_out", apply: write_out }];

/// Layers written out wherever they can be, for a device that has no layers.
static EXPAND: &[Rule] = &[Rule { name: "expand", apply: expand }];

pub(super) fn route(
    graph: &Graph,
    options: &CompileOptions,
    events: &mut Vec<Event>,
) -> Result<Graph, PassError> {
    for (_, node) in graph.nodes().filter(|(_, node)| matches!(node.op.mil(), Mil::Composed(_))) {
        events.push(Event::fired("write_out", node));
    }
    let written = layers::written_out(graph);
    match options.routes {
        Routes::WrittenOut => Ok(crate::rewrite::run(&written, ROUTE, events)?),
        Routes::Native => Ok(written),
    }
}

fn native(m: &Match<'_>) -> Result<(Native, Vec<Var>), Miss> {
    match m.node().op.mil() {
        Mil::Native(native) => Ok((native, m.inputs())),
        _ => Err(Miss::Other),
    }
}

fn write_out(m: &Match<'_>) -> Result<Var, Miss> {
    let (native, inputs) = native(m)?;
    let types: Vec<TensorType> = inputs.iter().map(Var::ty).collect();
    match native.written {
        Some(write) if (native.route)(&m.node().op, &types) => Ok(write(&m.node().op, &inputs)),
        Some(_) => Err(Miss::Because("the reference keeps this layer native")),
        None => Err(Miss::Because("no chain of MIL ops computes the same")),
    }
}

fn expand(m: &Match<'_>) -> Result<Var, Miss> {
    let (native, inputs) = native(m)?;
    native.written.map(|write| write(&m.node().op, &inputs)).ok_or(Miss::Other)
}

/// A legal graph with its layers written out, where they can be: what a device without layers runs. The
/// values are the same to the bit.
pub fn written_out(graph: &Graph, options: &CompileOptions) -> Result<Graph, PassError> {
    let expanded = crate::rewrite::run(graph, EXPAND, &mut Vec::new())?;
    super::legalize::legalize(&expanded, options, &mut Vec::new())
}
