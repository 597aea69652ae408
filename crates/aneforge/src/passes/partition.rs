//! Cutting a legal graph at its native layers, and where a program would have more weights than the system takes.
//!
//! A layer is a program of its own. What MIL computes between layers is grouped into regions: region `r` runs
//! once every layer of the rounds before `r` has, and before those of round `r`. A node goes into the region
//! of its first consumer, so that nothing is computed twice and no region exists that another could hold;
//! only truth values, which cannot cross between programs, are computed again where they are read.

use crate::ir::attr::Real;
use crate::ir::graph::{Graph, GraphNode, InputInfo, NodeId};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::leaf::{Constant, Input, Role};
use crate::ir::var::dims;
use crate::passes::ceiling::{exceeds, pieces};
use crate::passes::legal::{Fault, LegalError};
use crate::rewrite::Event;
use aneforge_tensor::DType;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Where a value that goes into a segment, or out of a plan, comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The feed of this number.
    Feed(usize),
    /// A result of an earlier segment.
    Segment {
        /// Which segment.
        segment: usize,
        /// Which of its outputs.
        output: usize,
    },
}

/// A part that becomes one program.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its nodes, with a leaf for every value that comes from outside.
    pub graph: Graph,
    /// Where each of its feeds comes from, in feed order.
    pub inputs: Vec<Source>,
    /// Whether it is one native layer.
    pub native: bool,
}

/// The parts of a legal graph in the order in which they run, one per segment, and where each of its outputs comes from.
/// `feeds` are those of the graph as written, of which passes may have left out some; no program has a weight file of more
/// than `ceiling` bytes, and `events` tells of every cut that this takes.
pub fn partition(
    graph: &Graph,
    feeds: &[InputInfo],
    ceiling: u64,
    events: &mut Vec<Event>,
) -> Result<(Vec<Part>, Vec<Source>), LegalError> {
    if !graph.nodes.iter().any(is_native) && !exceeds(graph, graph.nodes.iter(), ceiling) {
        let inputs = graph.feed_types().iter().map(|f| feed(feeds, f.leaf)).collect();
        let outputs =
            (0..graph.outputs().len()).map(|output| Source::Segment { segment: 0, output }).collect();
        return Ok((vec![Part { graph: graph.clone(), inputs, native: false }], outputs));
    }
    let rounds = Rounds::of(graph);
    let mut regions: Vec<Vec<BTreeSet<NodeId>>> = Vec::new();
    for round in 0..=rounds.last {
        regions.push(pieces(graph, &rounds.region(graph, round), ceiling, events)?);
    }
    let next_leaf = graph.feed_types().iter().map(|f| f.leaf + 1).max().unwrap_or(0);
    let mut cutter = Cutter { graph, feeds, made: HashMap::new(), parts: Vec::new(), next_leaf };
    let crossing = crossing(graph, &regions);
    for (round, pieces) in regions.into_iter().enumerate() {
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            let outputs: Vec<NodeId> = piece.iter().copied().filter(|id| crossing.contains(id)).collect();
            let outputs = outputs.into_iter().filter(|id| !cutter.made.contains_key(id)).collect();
            cutter.part(piece.into_iter().collect(), outputs, false);
        }
        for (id, node) in graph.nodes() {
            if rounds.of[id.index()] == round && is_native(node) {
                cutter.part(vec![id], vec![id], true);
            }
        }
    }
    cutter.parts.iter().try_for_each(fed)?;
    let outputs = graph.outputs().iter().map(|id| cutter.made[id]).collect();
    Ok((cutter.parts, outputs))
}

fn feed(feeds: &[InputInfo], leaf: u64) -> Source {
    Source::Feed(feeds.iter().position(|f| f.leaf == leaf).expect("invariant: leaves are fed"))
}

/// Values that one program computes and another reads, or that are returned.
fn crossing(graph: &Graph, regions: &[Vec<BTreeSet<NodeId>>]) -> HashSet<NodeId> {
    let mut crossing: HashSet<NodeId> = graph.outputs().iter().copied().collect();
    for region in regions.iter().flatten() {
        let read = region.iter().flat_map(|id| &graph.node(*id).inputs);
        crossing.extend(read.filter(|input| !region.contains(input)));
    }
    crossing.extend(graph.nodes.iter().filter(|n| is_native(n)).flat_map(|n| &n.inputs));
    crossing
}

fn is_native(node: &GraphNode) -> bool {
    matches!(node.op.mil(), Mil::Native(_))
}

/// A program needs something to be fed with, and its ports need axes.
fn fed(part: &Part) -> Result<(), LegalError> {
    let feeds = part.graph.feeds();
    let ports = feeds.iter().chain(part.graph.outputs()).map(|&id| part.graph.node(id));
    if let Some(node) = ports.into_iter().find(|node| node.ty.shape.rank() == 0) {
        let why = "has no axes where it crosses between programs; reshape it to [1] before".into();
        return Err(LegalError { op: node.op.name(), why, at: node.at, fault: Fault::Graph });
    }
    if !part.inputs.is_empty() {
        return Ok(());
    }
    let node = part.graph.node(part.graph.outputs()[0]);
    let why = "is computed from constants alone, in a program of its own, and is too large to be folded; \
               compute it beforehand and pass it as a constant";
    Err(LegalError { op: node.op.name(), why: why.into(), at: node.at, fault: Fault::Graph })
}

/// When every node runs. The parts of a graph run as region 0, the layers whose operands it completes, region 1, the layers
/// whose operands that completes, and so on.
struct Rounds {
    /// Of each node: the region that computes it. Of a layer: the region after which it runs.
    of: Vec<usize>,
    last: usize,
}

impl Rounds {
    fn of(graph: &Graph) -> Rounds {
        let mut earliest = vec![0; graph.len()];
        for (id, node) in graph.nodes() {
            let after = |i: &NodeId| earliest[i.index()] + usize::from(is_native(graph.node(*i)));
            earliest[id.index()] = node.inputs.iter().map(after).max().unwrap_or(0);
        }
        let last = earliest.iter().copied().max().unwrap_or(0);
        let regions = graph.nodes().filter(|(_, n)| !is_native(n)).map(|(id, _)| earliest[id.index()]);
        let last_region = regions.max().unwrap_or(0);
        let mut latest = vec![usize::MAX; graph.len()];
        for output in graph.outputs() {
            latest[output.index()] = last_region;
        }
        for (id, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
            if is_native(node) {
                latest[id.index()] = earliest[id.index()];
            }
            for input in &node.inputs {
                latest[input.index()] = latest[input.index()].min(latest[id.index()]);
            }
        }
        Rounds { of: latest, last }
    }

    /// What MIL computes in a round.
    fn region(&self, graph: &Graph, round: usize) -> BTreeSet<NodeId> {
        let computed = |node: &GraphNode| !is_native(node) && !matches!(node.op.mil(), Mil::Leaf);
        let here = |(id, node): &(NodeId, &GraphNode)| self.of[id.index()] == round && computed(node);
        let mut members: BTreeSet<NodeId> = graph.nodes().filter(here).map(|(id, _)| id).collect();
        // Truth values of earlier regions that are read here are computed here as well.
        let mut pending: Vec<NodeId> = members.iter().copied().collect();
        while let Some(id) = pending.pop() {
            for &input in &graph.node(id).inputs {
                if graph.node(input).ty.dtype == DType::Bool && members.insert(input) {
                    pending.push(input);
                }
            }
        }
        members
    }
}

struct Cutter<'a> {
    graph: &'a Graph,
    feeds: &'a [InputInfo],
    made: HashMap<NodeId, Source>,
    parts: Vec<Part>,
    next_leaf: u64,
}

impl Cutter<'_> {
    /// Adds a part of these nodes, in topological order.
    fn part(&mut self, members: Vec<NodeId>, outputs: Vec<NodeId>, native: bool) {
        let mut local: HashMap<NodeId, NodeId> = HashMap::new();
        let mut sources: HashMap<u64, Source> = HashMap::new();
        let mut part = Graph::default();
        for id in members.iter().copied() {
            for &input in &self.graph.node(id).inputs {
                local.entry(input).or_insert_with(|| {
                    let node = self.outside(input, &mut part, &mut sources);
                    push(&mut part, node)
                });
            }
            let mut node = self.graph.node(id).clone();
            node.inputs.iter_mut().for_each(|i| *i = local[i]);
            local.insert(id, push(&mut part, node));
        }
        part.outputs = outputs.iter().map(|id| local[id]).collect();
        let inputs = part.feed_types().iter().map(|f| sources[&f.leaf]).collect();
        for (output, id) in outputs.into_iter().enumerate() {
            self.made.insert(id, Source::Segment { segment: self.parts.len(), output });
        }
        self.parts.push(Part { graph: part, inputs, native });
    }

    /// The leaf that stands in a part for a value from outside.
    fn outside(&mut self, id: NodeId, part: &mut Graph, sources: &mut HashMap<u64, Source>) -> GraphNode {
        let node = self.graph.node(id);
        let (leaf, source) = match &node.op {
            Op::Constant(_) => {
                part.constants
                    .push(self.graph.constant(id).expect("invariant: constants are in the table").clone());
                let op = Constant { index: part.constants.len() as u64 - 1 }.into();
                return GraphNode { op, ..node.clone() };
            }
            Op::Input(leaf) => (leaf.clone(), feed(self.feeds, leaf.id)),
            _ => {
                let leaf = Input {
                    id: self.next_leaf,
                    dtype: node.ty.dtype,
                    shape: dims(node.ty.shape),
                    role: Role::Cut,
                    max_abs: Real(f64::INFINITY),
                    name: String::new(),
                };
                self.next_leaf += 1;
                (leaf, self.made[&id])
            }
        };
        sources.insert(leaf.id, source);
        GraphNode { op: leaf.into(), inputs: Vec::new(), ..node.clone() }
    }
}

fn push(graph: &mut Graph, node: GraphNode) -> NodeId {
    graph.nodes.push(node);
    NodeId(graph.nodes.len() as u32 - 1)
}
