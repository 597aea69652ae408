//! A region whose weights are more than one program may have becomes several, cut where the fewest bytes cross.
//!
//! The nodes stay in their order, and each program has those of a stretch of it. Of all ways with the fewest programs under the
//! ceiling, the one is taken where the fewest bytes cross, and of those, one whose largest weight file is smallest. What
//! cannot cross, or need not, is computed again where it is read: truth values, values without axes, and what is made of
//! constants alone.

use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Op;
use crate::passes::legal::{Fault, LegalError};
use crate::rewrite::Event;
use aneforge_mil::{BlobLayout, blob};
use aneforge_tensor::{DType, Encoding, Weight};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// Bytes that a constant takes in a weight file at most: its records, with what aligns them. A scalar is in the program.
fn bytes(weight: &Weight) -> u64 {
    let record = |bytes: usize| blob::DESCRIPTOR_LEN + (bytes as u64).next_multiple_of(blob::ALIGNMENT);
    match weight.encoding() {
        _ if weight.shape().rank() == 0 => 0,
        Encoding::Dense => record(2 * weight.shape().count()),
        _ => weight.parts().iter().map(|part| record(part.bytes().len())).sum(),
    }
}

/// Nodes that are looked at for the sake of others, beyond which a graph is not cut: time and memory grow with them.
const MOST_STEPS: usize = 1 << 22;

/// Too much would be computed again.
fn entangled(node: &GraphNode) -> LegalError {
    let why = "the weights are more than one program has, and too many values that would be computed again lie between (made \
               of constants alone, without axes, or truth values); compute constants beforehand, or store weights in \
               fewer bytes (compress)";
    LegalError { op: node.op.name(), why: why.into(), at: node.at, fault: Fault::Target }
}

/// Nodes of a region in their order, with what each needs through what is computed again.
struct Units<'a> {
    graph: &'a Graph,
    ids: Vec<NodeId>,
    /// Constants that each reads.
    constants: Vec<Vec<NodeId>>,
    /// What is computed again for each.
    again: Vec<Vec<NodeId>>,
    /// Bytes that cross where the region is cut before each.
    crossing: Vec<u64>,
    /// Bytes of each constant.
    bytes: HashMap<NodeId, u64>,
}

impl<'a> Units<'a> {
    fn of(graph: &'a Graph, region: &BTreeSet<NodeId>) -> Result<Units<'a>, LegalError> {
        let mut fixed = vec![true; graph.len()];
        for (id, node) in graph.nodes() {
            let fed = matches!(node.op, Op::Input(_));
            fixed[id.index()] = !fed && node.inputs.iter().all(|i| fixed[i.index()]);
        }
        let again = |id: NodeId| {
            let ty = graph.node(id).ty;
            region.contains(&id) && (fixed[id.index()] || ty.dtype == DType::Bool || ty.shape.rank() == 0)
        };
        let ids: Vec<NodeId> = region.iter().copied().filter(|&id| !again(id)).collect();
        let place: HashMap<NodeId, usize> = ids.iter().enumerate().map(|(at, &id)| (id, at)).collect();
        let mut units = Units {
            graph,
            constants: vec![Vec::new(); ids.len()],
            again: vec![Vec::new(); ids.len()],
            crossing: Vec::new(),
            bytes: HashMap::new(),
            ids,
        };
        let (mut last_read, mut steps) = (vec![0; units.ids.len()], 0);
        // What is computed again and wanted elsewhere goes with the last.
        let elsewhere =
            graph.nodes().filter(|(id, _)| !region.contains(id)).flat_map(|(_, node)| &node.inputs);
        let wanted: HashSet<NodeId> =
            elsewhere.chain(graph.outputs()).copied().filter(|&id| again(id)).collect();
        for at in 0..units.ids.len() {
            let mut pending = graph.node(units.ids[at]).inputs.clone();
            if at + 1 == units.ids.len() {
                pending.extend(&wanted);
            }
            let mut seen = HashSet::new();
            while let Some(id) = pending.pop() {
                if !seen.insert(id) {
                    continue;
                }
                steps += 1;
                if steps > MOST_STEPS {
                    return Err(entangled(graph.node(units.ids[at])));
                }
                if let Some(weight) = graph.constant(id) {
                    units.constants[at].push(id);
                    units.bytes.entry(id).or_insert_with(|| bytes(weight));
                } else if again(id) {
                    units.again[at].push(id);
                    pending.extend(&graph.node(id).inputs);
                } else if let Some(&read) = place.get(&id) {
                    last_read[read] = last_read[read].max(at);
                }
            }
        }
        units.crossing = crossing(graph, &units.ids, &last_read);
        Ok(units)
    }

    /// Where programs begin that have at most so many bytes each, and how many they are and how many bytes cross; `None`
    /// where one node has more.
    fn cuts(&self, most: u64) -> Option<((u64, u64), Vec<usize>)> {
        let mut window = Window { first: 0, bytes: BlobLayout::default().file_len(), reads: HashMap::new() };
        let mut best = vec![((0, 0), 0)];
        // Places to begin a program, the cheapest first, and the later the more expensive.
        let mut begins: VecDeque<(usize, (u64, u64))> = VecDeque::new();
        for end in 1..=self.ids.len() {
            let (programs, crossed) = best[end - 1].0;
            let cost = (programs + 1, crossed + self.crossing[end - 1]);
            while begins.back().is_some_and(|&(_, dearer)| dearer >= cost) {
                begins.pop_back();
            }
            begins.push_back((end - 1, cost));
            window.add(self, end - 1);
            while window.bytes > most {
                if window.first + 1 == end {
                    return None;
                }
                window.drop_first(self);
            }
            while begins.front().is_some_and(|&(begin, _)| begin < window.first) {
                begins.pop_front();
            }
            let &(begin, cost) = begins.front().expect("invariant: the last place is in the window");
            best.push((cost, begin));
        }
        let mut cuts = Vec::new();
        let mut end = self.ids.len();
        while end > 0 {
            end = best[end].1;
            cuts.push(end);
        }
        cuts.reverse();
        Some((best[self.ids.len()].0, cuts))
    }

    /// The cheapest cuts under the ceiling, with the smallest largest program.
    fn balanced(&self, ceiling: u64) -> Option<Vec<usize>> {
        let (cost, mut found) = self.cuts(ceiling)?;
        let (mut low, mut high) = (0, ceiling);
        while low + 1 < high {
            let most = low + (high - low) / 2;
            match self.cuts(most) {
                Some((same, cuts)) if same == cost => (high, found) = (most, cuts),
                _ => low = most,
            }
        }
        Some(found)
    }

    /// The node whose weights alone are more than one program may have.
    fn too_large(&self, ceiling: u64) -> LegalError {
        let head = BlobLayout::default().file_len();
        let total = |at: &usize| head + self.constants[*at].iter().map(|id| self.bytes[id]).sum::<u64>();
        let at = (0..self.ids.len()).find(|at| total(at) > ceiling).expect("invariant: one is too large");
        let largest =
            self.constants[at].iter().max_by_key(|id| self.bytes[id]).expect("invariant: it has weights");
        let node: &GraphNode = self.graph.node(self.ids[at]);
        let why = format!(
            "its weights take {} bytes, the largest of them {} {} bytes, and one program has at most {ceiling}; store it in \
             fewer bytes (compress), or split it into parts",
            total(&at),
            self.graph.node(*largest).ty.shape,
            self.bytes[largest],
        );
        LegalError { op: node.op.name(), why, at: node.at, fault: Fault::Target }
    }
}

/// Bytes that cross where a program begins with each node, and behind the last, by where each is read last.
fn crossing(graph: &Graph, ids: &[NodeId], last_read: &[usize]) -> Vec<u64> {
    let mut changes = vec![0i128; ids.len() + 1];
    for (at, (&id, &last)) in ids.iter().zip(last_read).enumerate().filter(|(at, (_, last))| *last > at) {
        let bytes = graph.node(id).ty.bytes() as i128;
        changes[at + 1] += bytes;
        changes[last + 1] -= bytes;
    }
    let mut open = 0;
    let cross = |change: i128| {
        open += change;
        u64::try_from(open).expect("invariant: no more ends than began")
    };
    changes.into_iter().map(cross).collect()
}

/// A stretch of units, and the weight file of a program that has it.
struct Window {
    first: usize,
    bytes: u64,
    /// How many units read each constant.
    reads: HashMap<NodeId, usize>,
}

impl Window {
    fn add(&mut self, units: &Units<'_>, at: usize) {
        for id in &units.constants[at] {
            let reads = self.reads.entry(*id).or_default();
            *reads += 1;
            self.bytes += if *reads == 1 { units.bytes[id] } else { 0 };
        }
    }

    fn drop_first(&mut self, units: &Units<'_>) {
        for id in &units.constants[self.first] {
            let reads = self.reads.get_mut(id).expect("invariant: what is dropped was added");
            *reads -= 1;
            self.bytes -= if *reads == 0 { units.bytes[id] } else { 0 };
        }
        self.first += 1;
    }
}

/// Whether the weights of these nodes may be more than one program has.
pub(super) fn exceeds<'a>(graph: &Graph, nodes: impl Iterator<Item = &'a GraphNode>, ceiling: u64) -> bool {
    let constants: HashSet<NodeId> = nodes.flat_map(|node| node.inputs.iter().copied()).collect();
    let held = constants.iter().filter_map(|&id| graph.constant(id)).map(bytes);
    BlobLayout::default().file_len() + held.sum::<u64>() > ceiling
}

/// The programs that a region becomes, in order, and an event for each cut.
pub(super) fn pieces(
    graph: &Graph,
    region: &BTreeSet<NodeId>,
    ceiling: u64,
    events: &mut Vec<Event>,
) -> Result<Vec<BTreeSet<NodeId>>, LegalError> {
    if !exceeds(graph, region.iter().map(|&id| graph.node(id)), ceiling) {
        return Ok(vec![region.clone()]);
    }
    let units = Units::of(graph, region)?;
    if units.ids.is_empty() {
        return Ok(vec![region.clone()]);
    }
    let cuts = units.balanced(ceiling).ok_or_else(|| units.too_large(ceiling))?;
    let total: u64 = units.bytes.values().sum();
    for &begin in &cuts[1..] {
        let said = format!(
            "the weights take {total} bytes, and one program has at most {ceiling}; another begins here, where {} bytes cross",
            units.crossing[begin]
        );
        events.push(Event { said, ..Event::fired("split_program", graph.node(units.ids[begin])) });
    }
    let ends = cuts[1..].iter().copied().chain([units.ids.len()]);
    let piece = |(&begin, end): (&usize, usize)| {
        let again = units.again[begin..end].iter().flatten();
        units.ids[begin..end].iter().chain(again).copied().collect()
    };
    Ok(cuts.iter().zip(ends).map(piece).collect())
}
