//! From a part that is one native layer to its property list.

use crate::ir::graph::Graph;
use crate::ir::op::Mil;
use crate::ir::types::TensorType;
use aneforge_mil::netplist::Netplist;

/// The document of a graph whose one op is a native layer.
///
/// # Panics
/// If the graph is no such graph.
pub fn netplist(graph: &Graph) -> Netplist {
    let node = graph.node(graph.outputs()[0]);
    let Mil::Native(native) = node.op.mil() else {
        panic!("invariant: {} is not a native layer", node.op.name())
    };
    let types: Vec<TensorType> = node.inputs.iter().map(|&i| graph.node(i).ty).collect();
    Netplist::new(node.op.name(), (native.layer)(&node.op, &types))
}
