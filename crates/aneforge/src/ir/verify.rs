//! What every graph satisfies, at every stage.
//!
//! 1. Inputs of a node come before it.
//! 2. The number of inputs is one the op takes.
//! 3. The recorded type is the inferred type.
//! 4. A constant's index is in the table, its shape is the node's, its element type is floating point.
//! 5. Leaves have distinct identities, and distinct names where they have any.
//! 6. Outputs exist; there is at least one.
//! 7. What is carried is state, each once, and becomes a value of its type.
//!
//! A graph that breaks one of these is a bug of ours or text that was edited by hand.

use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::ir::ops::leaf::Constant;
use crate::ir::types::TensorType;
use std::collections::HashSet;

/// A node at fault, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("%{} = {op}: {why}", node.0)]
pub struct VerifyError {
    /// The node.
    pub node: NodeId,
    /// Its op's name.
    pub op: &'static str,
    /// Which invariant it breaks.
    pub why: String,
}

/// Checks every invariant; reports the first node at fault.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    let mut leaves = HashSet::new();
    for (id, node) in graph.nodes() {
        check(graph, id, node, &mut leaves).map_err(|why| VerifyError {
            node: id,
            op: node.op.name(),
            why,
        })?;
    }
    if let Some((node, name)) = graph.repeated_name() {
        return Err(VerifyError { node, op: "input", why: format!("another input is called `{name}`") });
    }
    let end = NodeId(graph.len() as u32);
    let missing = |why: &str| VerifyError { node: end, op: "return", why: why.into() };
    if graph.outputs().is_empty() {
        return Err(missing("nothing is returned"));
    }
    if graph.outputs().iter().any(|&o| o >= end) {
        return Err(missing("a value that does not exist is returned"));
    }
    if let Some((_, why)) = graph.wrong_carry() {
        return Err(VerifyError { op: "carry", ..missing(&why) });
    }
    Ok(())
}

fn check(graph: &Graph, id: NodeId, node: &GraphNode, leaves: &mut HashSet<u64>) -> Result<(), String> {
    if let Some(later) = node.inputs.iter().find(|&&i| i >= id) {
        return Err(format!("uses %{} before it is made", later.0));
    }
    match &node.op {
        Op::Constant(Constant { index }) => {
            let weight =
                graph.constant(id).ok_or_else(|| format!("constant @{index} is not in the table"))?;
            if !weight.dtype().is_float() || node.ty != TensorType::f16(weight.shape()) {
                return Err(format!(
                    "constant @{index} is {} {}, the node {}",
                    weight.dtype(),
                    weight.shape(),
                    node.ty
                ));
            }
            return Ok(());
        }
        Op::Input(leaf) if !leaves.insert(leaf.id) => return Err(format!("leaf {} occurs twice", leaf.id)),
        _ => {}
    }
    let types: Vec<TensorType> = node.inputs.iter().map(|&i| graph.node(i).ty).collect();
    let ty = node.op.infer(&types)?;
    if ty != node.ty {
        return Err(format!("is recorded as {}, but computes {ty}", node.ty));
    }
    Ok(())
}
