//! Several nodes that one kernel computes as a whole, and the same node by node, for those who look into overflows.

use crate::device::host::attention::Attention;
use crate::device::host::memory::room;
use crate::device::host::norms::Rows;
use crate::device::host::packs::Packs;
use crate::device::host::plan::{Fused, HostPlan};
use crate::device::host::planner::{self, Draft, Planner};
use crate::device::host::routine::Call;
use crate::device::host::run::Program;
use crate::device::{Buffer, DeviceError, Loaded, Port};
use crate::ir::attr::Real;
use crate::ir::form::{Form, Norm};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::ir::ops::leaf::{Constant, Input, Role};
use aneforge_kernels::{Layout, norm};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What the kernel computes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Computes {
    /// Rows brought to a common scale, which then may be scaled and shifted.
    Rows(Rows),
    /// Attention of all heads.
    Attention(Attention),
}

/// Nodes that one kernel computes.
#[derive(Debug)]
pub struct Whole {
    pub(super) computes: Computes,
    /// The nodes by themselves.
    graph: Graph,
    /// The operands of the step that are fed to them.
    fed: Vec<usize>,
    /// Which each of them is in the graph that they are from.
    nodes: Vec<NodeId>,
    /// A step for each.
    apart: HostPlan,
}

impl Whole {
    /// What the step does, as a form.
    pub(super) fn form(&self) -> Form {
        match self.computes {
            Computes::Rows(Rows { norm: norm::Norm::Variance { eps }, size, .. }) => {
                Form::Normalise(Norm::Centred { terms: size, eps: eps.to_f64() })
            }
            Computes::Rows(Rows { norm: norm::Norm::Length { .. }, size, .. }) => {
                Form::Normalise(Norm::Length { terms: size })
            }
            Computes::Attention(Attention { scale, .. }) => {
                Form::Attention { scale: scale.map_or(1.0, |scale| scale.to_f64()), causal: false }
            }
        }
    }

    /// How many infinities and NaN each node makes of finite operands, found by computing the step again, node by node.
    pub(super) fn made(
        &self,
        call: &Call<'_, '_>,
    ) -> Result<Vec<(NodeId, &'static str, usize)>, DeviceError> {
        let packs = Packs::default();
        let mut program = Program::new(&self.graph, self.apart.clone(), call.kernels.clone(), &packs)?;
        let buffer = |ty: crate::TensorType| {
            Ok(Buffer::new(ty, Layout::row_major(ty.shape.dims()), room(ty.bytes())?, None))
        };
        let inputs = &call.step.inputs;
        for (port, &at) in self.fed.iter().enumerate() {
            let fed = buffer(inputs[at].ty)?;
            fed.lock_mut().copy_from_slice(call.bytes(at));
            program.bind(Port::Input(port), &fed)?;
        }
        program.bind(Port::Output(0), &buffer(call.step.output.ty)?)?;
        program.execute()?;
        let made =
            program.made().map(|(node, overflow)| (self.nodes[node.index()], overflow.op, overflow.values));
        Ok(made.collect())
    }
}

impl Planner<'_> {
    /// All that one kernel computes as a whole, by the last of its nodes, and whether each node is part of such.
    pub(super) fn wholes(&self) -> (HashMap<NodeId, Draft>, Vec<bool>) {
        let (found, covered) = self.found();
        let wholes = found.into_iter().map(|found| (found.last, self.whole(found))).collect();
        (wholes, covered)
    }

    /// The same, as nodes.
    pub(super) fn found(&self) -> (Vec<Found>, Vec<bool>) {
        let mut covered = vec![false; self.graph.len()];
        let mut all = Vec::new();
        for (id, _) in self.graph.nodes() {
            let Some(found) = self.norm(id).or_else(|| self.attention(id, &covered)) else { continue };
            let part = found.nodes.iter().chain(&found.folded);
            if part.clone().any(|node| covered[node.index()]) {
                continue;
            }
            part.for_each(|node| covered[node.index()] = true);
            all.push(found);
        }
        (all, covered)
    }

    fn whole(&self, found: Found) -> Draft {
        let Found { nodes, last, inputs, computes, folded: _ } = found;
        let first = nodes[0];
        let later = nodes[1..].iter().map(|&id| (id, self.graph.node(id).op.name())).collect();
        let (graph, nodes) = part(self.graph, &inputs, last);
        let apart = planner::plan(&graph, self.numerics, false);
        // What an operand is a transpose of is read by the kernel, but not node by node where the transpose is an operand too.
        let read = |&at: &usize| nodes.contains(&inputs[at]) && !inputs[..at].contains(&inputs[at]);
        let fed = (0..inputs.len()).filter(read).collect();
        let whole = Some(Arc::new(Whole { computes, graph, fed, nodes, apart }));
        let fused = Fused { nodes: later, whole, ..Fused::default() };
        Draft { last, inputs, fused, ..Draft::new(first, Vec::new()) }
    }
}

/// Nodes that a kernel computes as a whole.
pub(super) struct Found {
    /// In their order.
    pub(super) nodes: Vec<NodeId>,
    /// Nodes before these that need no step, as the kernel reads their operands.
    pub(super) folded: Vec<NodeId>,
    /// The one whose value is stored.
    pub(super) last: NodeId,
    pub(super) inputs: Vec<NodeId>,
    pub(super) computes: Computes,
}

/// What leads from `inputs` to `last`, as a graph that the inputs are fed to; and which nodes these are.
fn part(graph: &Graph, inputs: &[NodeId], last: NodeId) -> (Graph, Vec<NodeId>) {
    let mut members = BTreeSet::from([last]);
    let mut pending = vec![last];
    while let Some(id) = pending.pop() {
        let operands = graph.node(id).inputs.iter().filter(|_| !inputs.contains(&id));
        pending.extend(operands.copied().filter(|&operand| members.insert(operand)));
    }
    let nodes: Vec<NodeId> = members.into_iter().collect();
    let local: HashMap<NodeId, NodeId> =
        nodes.iter().enumerate().map(|(at, &id)| (id, NodeId(at as u32))).collect();
    let mut part = Graph { outputs: vec![local[&last]], ..Graph::default() };
    for &id in &nodes {
        let mut node = graph.node(id).clone();
        if let Some(at) = inputs.iter().position(|&input| input == id) {
            node = GraphNode { op: fed(at, node.ty).into(), inputs: Vec::new(), ..node };
        } else if let Some(weight) = graph.constant(id) {
            node.op = Op::from(Constant { index: part.constants.len() as u64 });
            part.constants.push(weight.clone());
        }
        node.inputs.iter_mut().for_each(|input| *input = local[input]);
        part.nodes.push(node);
    }
    (part, nodes)
}

fn fed(at: usize, ty: crate::TensorType) -> Input {
    Input {
        id: at as u64,
        dtype: ty.dtype,
        shape: ty.shape.dims().iter().map(|&extent| extent as i64).collect(),
        role: Role::Cut,
        max_abs: Real(f64::INFINITY),
        name: String::new(),
    }
}
