//! Which part of a graph the compiler refuses.
//!
//! Every trial runs in another process, as a failed compile may end it. That a compiler takes anything is looked at
//! first. Ops are tried alone then; where each compiles, the shortest
//! beginning of the program that does not is looked for, and then as much of its beginning is left out as can be.

use super::Ane;
use super::folder::Folder;
use crate::device::DeviceError;
use crate::emit::emit;
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::leaf::{Constant, Input};
use crate::ir::var::Var;
use crate::plan::Segment;
use aneforge_kernels::threads::stopped;
use aneforge_tensor::Shape;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The most compiles that are tried.
const MOST: usize = 64;
/// How long is looked: every failed trial is followed by the rest that the compiler needs.
const LONGEST: Duration = Duration::from_secs(180);

/// The same error, with the smallest part of the segment that it comes of, where that is found.
pub(super) fn named(ane: &Ane, segment: &Segment, error: DeviceError) -> DeviceError {
    let DeviceError::Refused { why } = &error else { return error };
    let blamed = match segment.netplist() {
        Some(netplist) => Some(Blamed::Part(format!("the native layer {}", netplist.layer.kind))),
        None => found(ane, &segment.graph),
    };
    match blamed {
        None => error,
        Some(Blamed::Part(part)) => {
            DeviceError::Refused { why: format!("{why}\nthe smallest part that does not compile: {part}") }
        }
        // Another target would not help.
        Some(Blamed::Everything) => DeviceError::Prepare {
            stage: "compiling",
            why: format!(
                "{why}\neven a program of one op does not compile, so that it is the system's compiler, and not this program"
            ),
        },
    }
}

/// What does not compile.
enum Blamed {
    /// A part of the graph.
    Part(String),
    /// Anything at all.
    Everything,
}

fn found(ane: &Ane, graph: &Graph) -> Option<Blamed> {
    if !ane.options.blame {
        return None;
    }
    let command = ane.options.worker.as_deref()?;
    let (mut left, begin) = (MOST, Instant::now());
    let mut fails = |part: &Graph| -> Option<bool> {
        left = left.checked_sub(1)?;
        if stopped() || begin.elapsed() > LONGEST {
            return None;
        }
        let (program, blob) = emit(part);
        let folder = Folder::write(&ane.folder.path, ane.framework.system(), part, &program, &blob).ok()?;
        let (libraries, limit) = (&ane.options.libraries, ane.options.compile_limit);
        Some(
            ane.paced(|| aneforge_ane::worker::try_compile(command, libraries, &folder.source(), limit))
                .is_err(),
        )
    };
    let ops: Vec<NodeId> = graph.nodes().filter(|(_, node)| is_op(node)).map(|(id, _)| id).collect();
    // What failed may have been something else than the program.
    if !fails(graph)? {
        return None;
    }
    // A compiler that takes nothing is no matter of the graph.
    if fails(&plain(graph)?)? {
        return Some(Blamed::Everything);
    }
    let mut tried = HashSet::new();
    for &id in &ops {
        let node = graph.node(id);
        let types: Vec<_> = node.inputs.iter().map(|&input| graph.node(input).ty).collect();
        if !tried.insert((node.op.clone(), types)) {
            continue;
        }
        if fails(&part(graph, id, &[id].into())?)? {
            return Some(Blamed::Part(told(graph, &[id])));
        }
    }
    // The shortest beginning that fails; that the whole does is known.
    let before = |end: usize| ops[..=end].iter().copied().collect::<HashSet<_>>();
    let (mut low, mut high) = (0, ops.len().checked_sub(1)?);
    while low < high {
        let middle = low.midpoint(high);
        if fails(&part(graph, ops[middle], &before(middle))?)? { high = middle } else { low = middle + 1 }
    }
    let end = high;
    let (mut first, mut beyond) = (0, end);
    while first + 1 < beyond {
        let middle = first.midpoint(beyond);
        let inside = ops[middle..=end].iter().copied().collect();
        if fails(&part(graph, ops[end], &inside)?)? { first = middle } else { beyond = middle }
    }
    Some(Blamed::Part(told(graph, &ops[first..=end])))
}

/// A program of one op, of a kind that the graph does not have where there is one, which every compiler takes that takes anything.
fn plain(graph: &Graph) -> Option<Graph> {
    let x = Var::input(Shape::new(&[64]).ok()?);
    let kinds = [x.relu(), &x + &x, &x * &x, x.sigmoid()];
    let has = |var: &Var| graph.nodes().any(|(_, node)| node.op.name() == var.op().name());
    let chosen = kinds.iter().find(|var| !has(var)).unwrap_or(&kinds[0]);
    Graph::freeze(std::slice::from_ref(chosen)).ok()
}

fn is_op(node: &GraphNode) -> bool {
    !matches!(node.op, Op::Input(_) | Op::Constant(_)) && !matches!(node.op.mil(), Mil::Native(_))
}

/// The graph that computes `end`, in which what is not `inside` is fed. None where a part cannot stand alone.
fn part(graph: &Graph, end: NodeId, inside: &HashSet<NodeId>) -> Option<Graph> {
    let mut made: HashMap<NodeId, Var> = HashMap::new();
    for (id, node) in graph.nodes().take(end.index() + 1) {
        let var = match &node.op {
            Op::Constant(Constant { .. }) => Var::constant(graph.constant(id)?.clone()),
            Op::Input(Input { .. }) => Var::input_of(node.ty),
            op if inside.contains(&id) => {
                let inputs: Vec<&Var> =
                    node.inputs.iter().map(|input| made.get(input)).collect::<Option<_>>()?;
                Var::try_apply(op.clone(), &inputs).ok()?
            }
            _ => Var::input_of(node.ty),
        };
        made.insert(id, var);
    }
    Graph::freeze(&[made.remove(&end)?]).ok()
}

fn told(graph: &Graph, ops: &[NodeId]) -> String {
    let one = |id: &NodeId| {
        let node = graph.node(*id);
        let inputs: Vec<String> = node.inputs.iter().map(|&input| graph.node(input).ty.to_string()).collect();
        format!("{}({}) -> {} (at {})", node.op.name(), inputs.join(", "), node.ty, node.at)
    };
    match ops {
        [only] => one(only),
        [first, .., last] => format!("{} ops, from {} to {}", ops.len(), one(first), one(last)),
        [] => String::new(),
    }
}
