//! Which elementwise nodes are one step: it goes through blocks of elements, and what lies between its nodes is never
//! stored.

use crate::device::host::elementwise::OPERANDS;
use crate::device::host::plan::{Finish, Fused, Link};
use crate::device::host::planner::{Draft, Planner};
use crate::ir::form::Form;
use crate::ir::graph::NodeId;
use aneforge_kernels::map::{self, Argument, Function};
use std::collections::HashMap;

/// The most nodes of a chain: each may need a block of working memory, and they are to fit the second level of the cache.
const LINKS: usize = 64;

/// What a node of this form does to elements, if it is a function of those at the same place alone.
pub(super) fn function(form: &Form) -> Option<Function> {
    match *form {
        Form::Map(function) => Some(Function::Unary(function)),
        Form::Zip(function) => Some(Function::Binary(function)),
        Form::Compare(function) => Some(Function::Compare(function)),
        Form::Not => Some(Function::Not),
        Form::Select => Some(Function::Select),
        _ => None,
    }
}

/// A set of nodes whose last one alone is read by others, so that none is computed twice, and whatever one of them
/// reads is there before the last one runs.
#[derive(Default)]
struct Group {
    /// Last first.
    nodes: Vec<NodeId>,
    operands: Vec<NodeId>,
}

impl Planner<'_> {
    /// Joins drafts of elementwise nodes: one that only nodes of one group read joins it, if its result has the shape of
    /// theirs.
    pub(super) fn chained(&self, drafts: Vec<Draft>) -> Vec<Draft> {
        let mut groups: Vec<Group> = Vec::new();
        let mut of: Vec<Option<usize>> = vec![None; self.graph.len()];
        // Last first, so that whoever reads a value has a group.
        for draft in drafts.iter().rev().filter(|draft| !draft.links.is_empty()) {
            let id = draft.last;
            let joined = self.only_reader(id, &of).filter(|&group| self.fits(id, &groups[group]));
            let group = joined.unwrap_or_else(|| {
                groups.push(Group::default());
                groups.len() - 1
            });
            of[id.index()] = Some(group);
            groups[group].nodes.push(id);
            groups[group].operands = self.operands_with(id, &groups[group]);
        }
        let chain = |draft: Draft| match of[draft.last.index()] {
            None => Some(draft),
            Some(group) if groups[group].nodes[0] == draft.last => {
                let nodes = groups[group].nodes.iter().rev().copied().collect();
                Some(self.chain(nodes, |id| of[id.index()] == Some(group)))
            }
            Some(_) => None,
        };
        drafts.into_iter().filter_map(chain).collect()
    }

    /// The group of all that read a value, if it is one and the value is not returned.
    fn only_reader(&self, id: NodeId, of: &[Option<usize>]) -> Option<usize> {
        let readers = self.readers(id)?;
        let group = of[readers.first()?.index()]?;
        readers.iter().all(|reader| of[reader.index()] == Some(group)).then_some(group)
    }

    fn fits(&self, id: NodeId, group: &Group) -> bool {
        let shape = self.ty(group.nodes[0]).shape;
        let short = group.nodes.len() < LINKS && self.operands_with(id, group).len() <= OPERANDS;
        short && self.ty(id).shape == shape
    }

    /// The operands of a group with one more node.
    fn operands_with(&self, id: NodeId, group: &Group) -> Vec<NodeId> {
        let mut operands = group.operands.clone();
        operands.retain(|&operand| operand != id);
        for &input in &self.graph.node(id).inputs {
            if !operands.contains(&input) {
                operands.push(input);
            }
        }
        operands
    }

    /// The draft of nodes in their order.
    fn chain(&self, nodes: Vec<NodeId>, inside: impl Fn(NodeId) -> bool) -> Draft {
        let mut inputs = Vec::new();
        for input in nodes.iter().flat_map(|&id| &self.graph.node(id).inputs) {
            if !inside(*input) && !inputs.contains(input) {
                inputs.push(*input);
            }
        }
        let later = nodes[1..].iter().map(|&id| (id, self.graph.node(id).op.name())).collect();
        Draft {
            last: nodes[nodes.len() - 1],
            inputs,
            fused: Fused { nodes: later, ..Fused::default() },
            ..Draft::new(nodes[0], nodes)
        }
    }

    /// The links of a draft.
    pub(super) fn links(&self, draft: &Draft) -> Vec<Link> {
        if draft.links.is_empty() {
            return Vec::new();
        }
        let operands = draft.inputs.iter().enumerate().map(|(at, &id)| (id, Argument::Operand(at)));
        let links = draft.links.iter().enumerate().map(|(at, &id)| (id, Argument::Link(at)));
        let sources: HashMap<NodeId, Argument> = operands.chain(links).collect();
        let link = |&id: &NodeId| {
            let node = self.graph.node(id);
            let Finish { flush_nan, watched, .. } = self.finish(id, id);
            let function = function(self.form(id)).expect("invariant: links are functions of elements");
            let sources = node.inputs.iter().map(|input| sources[input]).collect();
            Link { node: id, op: node.op.name(), does: map::Link { function, sources, flush_nan, watched } }
        };
        draft.links.iter().map(link).collect()
    }
}
