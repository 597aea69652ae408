//! Single nodes, for who looks at every value of a graph.

use super::faithful::Faithful;
use super::packs::Packs;
use super::{Host, planner, run};
use crate::device::{Buffer, Device, DeviceError, Loaded, Port};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::Numerics;
use crate::ir::op::Op;
use crate::ir::ops::leaf::{Constant, Role};
use crate::ir::var::Var;
use std::collections::HashMap;

impl Host {
    /// The value of one node of a legal graph, in a buffer of its own. `operand` gives the buffers of what it reads that is no
    /// constant. No truth values: they lie in no buffer.
    pub(crate) fn node<'a>(
        &self,
        graph: &Graph,
        id: NodeId,
        numerics: Numerics,
        operand: impl Fn(NodeId) -> &'a Buffer,
    ) -> Result<Buffer, DeviceError> {
        let node = graph.node(id);
        let (alone, fed) = alone(graph, id);
        let mut program: Box<dyn Loaded> = if numerics.is_faithful() {
            Box::new(Faithful::new(&alone, numerics, self.kernels.clone())?)
        } else {
            let plan = planner::plan(&alone, numerics, false);
            Box::new(run::Program::new(&alone, plan, self.kernels.clone(), &Packs::default())?)
        };
        for (port, &input) in fed.iter().enumerate() {
            program.bind(Port::Input(port), operand(input))?;
        }
        let result = self.allocate(node.ty)?;
        program.bind(Port::Output(0), &result)?;
        program.execute()?;
        Ok(result)
    }
}

/// A node as a graph of its own, and what is fed to that.
pub(super) fn alone(graph: &Graph, id: NodeId) -> (Graph, Vec<NodeId>) {
    let node = graph.node(id);
    let mut alone = Graph::default();
    let mut places: HashMap<NodeId, NodeId> = HashMap::new();
    let mut fed = Vec::new();
    for &input in &node.inputs {
        if places.contains_key(&input) {
            continue;
        }
        let GraphNode { ty, at, .. } = *graph.node(input);
        let op: Op = match graph.constant(input) {
            Some(weight) => {
                alone.constants.push(weight.clone());
                Constant { index: alone.constants.len() as u64 - 1 }.into()
            }
            None => {
                fed.push(input);
                Var::leaf(ty, Role::Cut).op().clone()
            }
        };
        places.insert(input, NodeId(alone.nodes.len() as u32));
        alone.nodes.push(GraphNode { op, inputs: Vec::new(), ty, at });
    }
    let inputs = node.inputs.iter().map(|input| places[input]).collect();
    alone.outputs.push(NodeId(alone.nodes.len() as u32));
    alone.nodes.push(GraphNode { inputs, ..node.clone() });
    (alone, fed)
}
