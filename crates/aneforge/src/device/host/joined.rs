//! Products of one value whose results attention reads as heads: one product with all their weights, whose result is read
//! where it lies.

use crate::device::host::planner::Planner;
use crate::device::host::whole::{Computes, Found};
use crate::ir::form::{Form, Move, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::ops::concat::Concat;
use crate::ir::ops::leaf::Constant;
use crate::ir::ops::slice::Split;
use crate::ir::types::{Caller, TensorType};
use aneforge_tensor::{Tensor, Weight, f16};
use std::collections::HashMap;

/// A product with a constant weight, and the sum with a bias that follows it.
struct Part {
    product: NodeId,
    weight: NodeId,
    sum: Option<(NodeId, NodeId)>,
}

impl Part {
    /// The node whose value is read.
    fn last(&self) -> NodeId {
        self.sum.map_or(self.product, |(sum, _)| sum)
    }
}

impl Planner<'_> {
    /// The nodes of constants that one weight consists of, one after another.
    pub(super) fn parts_of_weight(&self, id: NodeId) -> Option<&[NodeId]> {
        let dense = |&part: &NodeId| self.graph.constant(part).is_some_and(|weight| weight.dense().is_some());
        let parts = &self.graph.node(id).inputs[..];
        (*self.form(id) == Form::Move(Move::Concat(0)) && parts.iter().all(dense)).then_some(parts)
    }

    /// Whether a value is the weight of one product and consists of several, which are packed as one.
    pub(super) fn is_joined_weight(&self, id: NodeId) -> bool {
        let of_product = |product: NodeId| {
            *self.form(product) == Form::Product(Product::Linear) && self.graph.node(product).inputs[1] == id
        };
        self.parts_of_weight(id).is_some() && self.only_consumer(id).is_some_and(of_product)
    }

    /// The product that attention alone reads as this operand.
    fn part(&self, found: &Found, operand: NodeId) -> Option<Part> {
        let last = self.root(operand);
        let mut read = last;
        while !found.nodes.contains(&read) {
            read = self.only_consumer(read)?;
        }
        let linear = |&id: &NodeId| *self.form(id) == Form::Product(Product::Linear);
        let product = [Some(last), self.graph.node(last).inputs.first().copied()].into_iter().flatten();
        let product = product.into_iter().find(linear)?;
        let sum = if product == last { None } else { Some(self.bias_after(product)?) };
        let weight = self.graph.node(product).inputs[1];
        let dense = self.graph.constant(weight).is_some_and(|weight| weight.dense().is_some());
        let part = Part { product, weight, sum };
        (dense && part.last() == last).then_some(part)
    }

    /// Products of one value, of as many columns each, that may be one.
    fn mergeable(&self) -> Vec<Vec<Part>> {
        let mut groups = Vec::new();
        for found in self.found().0 {
            let Computes::Attention(_) = found.computes else { continue };
            let mut alike: Vec<(_, Vec<Part>)> = Vec::new();
            for part in found.inputs[..3].iter().filter_map(|&operand| self.part(&found, operand)) {
                let x = self.graph.node(part.product).inputs[0];
                let bias = part.sum.map(|(_, bias)| self.ty(bias).shape);
                let key = (x, self.ty(part.product).shape, bias);
                match alike.iter_mut().find(|(other, _)| *other == key) {
                    Some((_, parts)) => parts.push(part),
                    None => alike.push((key, vec![part])),
                }
            }
            groups.extend(alike.into_iter().map(|(_, parts)| parts).filter(|parts| parts.len() > 1));
        }
        groups.iter_mut().for_each(|parts| parts.sort_by_key(|part| part.product));
        groups
    }

    /// The same graph with one product in the place of several, where there are such.
    pub(super) fn joined(&self) -> Option<Joined> {
        let groups = self.mergeable();
        let mut joined = Joined::default();
        joined.graph.constants.clone_from(&self.graph.constants);
        let firsts: HashMap<NodeId, &[Part]> =
            groups.iter().map(|parts| (parts[0].product, &parts[..])).collect();
        let gone = |id: NodeId| groups.iter().flatten().any(|part| id == part.product || id == part.last());
        for (id, node) in self.graph.nodes() {
            if let Some(parts) = firsts.get(&id) {
                joined.join(self.graph, parts);
            } else if !gone(id) {
                joined.keep(id, node);
            }
        }
        joined.graph.outputs = self.graph.outputs.iter().map(|id| joined.now[id]).collect();
        (!groups.is_empty()).then_some(joined)
    }
}

/// A graph with products in the place of several.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) graph: Graph,
    /// For each of these, the lines that built those, and the sums that follow them.
    pub(super) parts: HashMap<NodeId, Vec<[Caller; 2]>>,
    /// What the nodes of the other graph are in this one.
    now: HashMap<NodeId, NodeId>,
}

impl Joined {
    fn push(&mut self, node: GraphNode) -> NodeId {
        self.graph.nodes.push(node);
        NodeId(self.graph.nodes.len() as u32 - 1)
    }

    /// A node as it is, unless it is here already.
    fn keep(&mut self, id: NodeId, node: &GraphNode) {
        if !self.now.contains_key(&id) {
            let inputs = node.inputs.iter().map(|input| self.now[input]).collect();
            let kept = self.push(GraphNode { inputs, ..node.clone() });
            self.now.insert(id, kept);
        }
    }

    /// One product in the place of some.
    fn join(&mut self, graph: &Graph, parts: &[Part]) {
        let (first, count) = (graph.node(parts[0].product), parts.len());
        let wide = |ty: TensorType, axis: usize| {
            let shape = ty.shape.with(axis, count * ty.shape[axis]);
            TensorType { shape, ..ty }
        };
        parts.iter().for_each(|part| self.keep(part.weight, graph.node(part.weight)));
        let weights = parts.iter().map(|part| self.now[&part.weight]).collect();
        let at = first.at;
        let ty = wide(graph.node(parts[0].weight).ty, 0);
        let weight = self.push(GraphNode { op: Concat { axis: 0 }.into(), inputs: weights, ty, at });
        let axis = first.ty.shape.rank() - 1;
        let ty = wide(first.ty, axis);
        let mut last =
            self.push(GraphNode { inputs: vec![self.now[&first.inputs[0]], weight], ty, ..first.clone() });
        let lines = |part: &Part| [part.product, part.last()].map(|node| graph.node(node).at);
        self.parts.insert(last, parts.iter().map(lines).collect());
        if let Some((sum, bias)) = parts[0].sum {
            let of = |bias: NodeId| graph.constant(bias).map_or_else(Vec::new, Weight::to_f16);
            let values: Vec<f16> =
                parts.iter().filter_map(|part| part.sum).flat_map(|(_, bias)| of(bias)).collect();
            let (sum, bias) = (graph.node(sum), graph.node(bias));
            let biases = wide(TensorType::f16(bias.ty.shape), bias.ty.shape.rank() - 1);
            let values =
                Tensor::from_slice(biases.shape, &values).expect("invariant: a bias for each column");
            let op = Constant { index: self.graph.constants.len() as u64 }.into();
            self.graph.constants.push(values.into());
            let bias = self.push(GraphNode { op, inputs: Vec::new(), ty: biases, at: bias.at });
            last = self.push(GraphNode { inputs: vec![last, bias], ty, ..sum.clone() });
        }
        for (index, part) in parts.iter().enumerate() {
            let op = Split { num_splits: count as i64, axis: axis as i64, index: index as i64 }.into();
            let node = graph.node(part.last());
            let split = self.push(GraphNode { op, inputs: vec![last], ..node.clone() });
            self.now.insert(part.last(), split);
        }
    }
}
