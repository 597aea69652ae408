//! Replacing nodes: type-checked rules, run to a fixpoint, with reasons for what they leave alone.

mod sums;

pub use sums::reduce_sum_to_matmul;

use crate::ir::form::{Facts, Form};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::ir::var::{BuildError, Var};
use aneforge_tensor::Weight;
use std::fmt;

/// Why a rule left a node alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The node is not what the rule is about.
    Other,
    /// It is, but the rule must not fire; the text says why.
    Because(&'static str),
}

/// A directional replacement of one node.
pub struct Rule {
    /// What it makes or undoes.
    pub name: &'static str,
    /// The replacement, of the same type, or why there is none.
    pub apply: fn(&Match<'_>) -> Result<Var, Miss>,
}

/// A node under a rule's eyes: the old graph around it, and the new values built so far.
pub struct Match<'a> {
    graph: &'a Graph,
    at: NodeId,
    vars: &'a [Var],
}

impl<'a> Match<'a> {
    /// The node itself.
    pub fn node(&self) -> &'a GraphNode {
        self.graph.node(self.at)
    }

    /// What the node does to its operands.
    pub fn form(&self) -> Form {
        self.graph.form(self.at)
    }

    /// What is known of the node's results.
    pub fn facts(&self) -> Facts {
        self.graph.facts(self.at)
    }

    /// An input of the node, in the old graph.
    pub fn input(&self, index: usize) -> Option<NodeId> {
        self.node().inputs.get(index).copied()
    }

    /// The op and inputs of another node of the old graph.
    pub fn op(&self, id: NodeId) -> (&'a Op, &'a [NodeId]) {
        let node = self.graph.node(id);
        (&node.op, &node.inputs)
    }

    /// The contents of a node, if it is a constant.
    pub fn constant(&self, id: NodeId) -> Option<&'a Weight> {
        self.graph.constant(id)
    }

    /// The new value that stands for an old node.
    pub fn var(&self, id: NodeId) -> Var {
        self.vars[id.index()].clone()
    }

    /// The new values of the node's inputs.
    pub fn inputs(&self) -> Vec<Var> {
        self.node().inputs.iter().map(|&i| self.var(i)).collect()
    }
}

/// One firing, or one refusal with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The rule.
    pub rule: &'static str,
    /// The op it looked at, and where that was built.
    pub node: String,
    /// Why it refused; `None` when it fired.
    pub refused: Option<&'static str>,
    /// What it did, with the numbers, where its name does not say it; else empty.
    pub said: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.rule, self.node)?;
        match self.refused {
            Some(why) => write!(f, ", left alone: {why}"),
            None if self.said.is_empty() => Ok(()),
            None => write!(f, ": {}", self.said),
        }
    }
}

impl Event {
    /// A rule that fired at a node.
    pub fn fired(rule: &'static str, node: &GraphNode) -> Event {
        Event {
            rule,
            node: format!("{} (at {})", node.op.name(), node.at),
            refused: None,
            said: String::new(),
        }
    }
}

/// Rules went wrong. A bug of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Rules kept firing.
    #[error("rule {0} still fires after {MOST_SWEEPS} sweeps; please report this graph")]
    NoFixpoint(&'static str),
    /// A rule built something invalid.
    #[error("rule {rule} built an invalid node: {error}; please report this graph")]
    Invalid {
        /// The rule.
        rule: &'static str,
        /// What was invalid.
        error: BuildError,
    },
    /// A rule changed a type.
    #[error("rule {rule} made {got} of {want}; please report this graph")]
    Type {
        /// The rule.
        rule: &'static str,
        /// The type it replaced.
        want: String,
        /// The type it made.
        got: String,
    },
}

/// Sweeps after which rules are taken to run in circles. Chains shrink by half per sweep, so this is far
/// beyond any graph that fits in memory.
const MOST_SWEEPS: usize = 64;

/// Applies `rules` until none fires; of several that match a node, the first.
pub fn run(graph: &Graph, rules: &[Rule], events: &mut Vec<Event>) -> Result<Graph, RewriteError> {
    let mut graph = graph.clone();
    let mut refusals = Vec::new();
    for _ in 0..MOST_SWEEPS {
        refusals.clear();
        let (next, fired) = sweep(&graph, rules, events, &mut refusals)?;
        graph = next;
        if fired.is_none() {
            events.append(&mut refusals);
            return Ok(graph);
        }
    }
    let last = events.last().map_or("", |e| e.rule);
    Err(RewriteError::NoFixpoint(last))
}

fn sweep(
    graph: &Graph,
    rules: &[Rule],
    events: &mut Vec<Event>,
    refusals: &mut Vec<Event>,
) -> Result<(Graph, Option<&'static str>), RewriteError> {
    let (mut fired, mut failed) = (None, None);
    let vars = graph.to_vars(|at, vars| {
        let node = graph.node(at);
        let found = Match { graph, at, vars };
        for rule in rules {
            let event = |refused| Event { refused, ..Event::fired(rule.name, node) };
            match node.at.scope(|| (rule.apply)(&found)) {
                Ok(var) => match checked(rule.name, node, &var) {
                    Ok(()) => {
                        events.push(event(None));
                        fired = Some(rule.name);
                        return Some(var);
                    }
                    Err(error) => failed = failed.take().or(Some(error)),
                },
                Err(Miss::Because(why)) => refusals.push(event(Some(why))),
                Err(Miss::Other) => {}
            }
        }
        None
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let outputs: Vec<Var> = graph.outputs().iter().map(|o| vars[o.index()].clone()).collect();
    let next = Graph::freeze(&outputs).map_err(|error| RewriteError::Invalid { rule: "freeze", error })?;
    Ok((next, fired))
}

/// A rule keeps the type of what it replaces.
fn checked(rule: &'static str, node: &GraphNode, var: &Var) -> Result<(), RewriteError> {
    let ty = var.check().map_err(|error| RewriteError::Invalid { rule, error })?;
    if ty == node.ty {
        return Ok(());
    }
    Err(RewriteError::Type { rule, want: node.ty.to_string(), got: ty.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::op::Op;
    use aneforge_tensor::Shape;

    fn relu() -> Graph {
        let x = Var::input(Shape::new(&[2, 3]).unwrap());
        Graph::freeze(&[x.relu()]).unwrap()
    }

    fn of_relu(m: &Match<'_>, rule: fn(&Var) -> Var) -> Result<Var, Miss> {
        match (&m.node().op, m.input(0)) {
            (Op::Relu(_), Some(x)) => Ok(rule(&m.var(x))),
            _ => Err(Miss::Other),
        }
    }

    fn error(apply: fn(&Match<'_>) -> Result<Var, Miss>) -> String {
        run(&relu(), &[Rule { name: "planted", apply }], &mut Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn rules_that_go_wrong_are_named() {
        let type_changed = error(|m| of_relu(m, |x| x.reshape(&[3, 2])));
        assert_eq!(type_changed, "rule planted made fp16[3, 2] of fp16[2, 3]; please report this graph");
        let circles = error(|m| of_relu(m, Var::relu));
        assert_eq!(circles, "rule planted still fires after 64 sweeps; please report this graph");
        let invalid = error(|m| of_relu(m, |x| x.softmax(7)));
        assert!(invalid.starts_with("rule planted built an invalid node: softmax: axis 7"), "{invalid}");
    }

    #[test]
    fn refusals_are_those_of_the_last_sweep_and_firings_of_all() {
        fn once(m: &Match<'_>) -> Result<Var, Miss> {
            match m.node().op {
                Op::Relu(_) => of_relu(m, Var::abs),
                Op::Abs(_) => Err(Miss::Because("it is done")),
                _ => Err(Miss::Other),
            }
        }
        let mut events = Vec::new();
        let after = run(&relu(), &[Rule { name: "planted", apply: once }], &mut events).unwrap();
        assert!(after.nodes().any(|(_, node)| matches!(node.op, Op::Abs(_))));
        let said: Vec<Option<&str>> = events.iter().map(|event| event.refused).collect();
        assert_eq!(said, [None, Some("it is done")]);
    }
}
