//! Where the engine's native layers can be relied on, and what stands in a program for ops that may become one.

use crate::ir::form::Form;
use crate::ir::graph::Graph;
use crate::ir::op::{Composed, Mil, Op};
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::Var;
use std::collections::HashMap;

/// The attention layer is reliable while the shorter of queries and keys is below this.
///
/// Its authors measured a cosine of 0.67 once both reach it.
/// Evidence: ANEForge 0.4.0's guard of its layer, chip not said (measured).
pub const ATTENTION_SHORTER: usize = 512;
/// The attention layer is reliable while the longer of queries and keys is at most this.
///
/// They measured an error of 3e-3 up to it, and of about 1 at 4096.
/// Evidence: ANEForge 0.4.0's guard of its layer, chip not said (measured).
pub const ATTENTION_LONGER: usize = 2048;
/// About how many queries attention takes at a time where it is written with products, which bounds the scores.
///
/// Evidence: ANEForge 0.4.0's own choice where nothing was measured, any chip (assumed).
pub const ATTENTION_QUERIES: usize = 512;

/// In how many parts of about [`ATTENTION_QUERIES`] attention takes its queries.
pub fn attention_parts(queries: usize) -> usize {
    (queries.saturating_add(ATTENTION_QUERIES / 2) / ATTENTION_QUERIES).max(1)
}

/// Whether attention to a context takes its queries in parts at all: of that many, from 768 queries on, and with at least as
/// many keys as a part has queries.
///
/// Evidence: ANEForge 0.4.0's own choice.
pub fn cuts_cross_attention(queries: usize, keys: usize) -> bool {
    attention_parts(queries) > 1 && keys >= ATTENTION_QUERIES
}

/// Why a layer of this form is not to be relied on for operands of these types.
pub fn unreliable(form: &Form, x: &[TensorType]) -> Option<String> {
    let Form::Attention { .. } = form else { return None };
    let [queries, keys] = [0, 1].map(|i| x[i].shape[x[i].shape.rank() - 2]);
    let reliable = queries.min(keys) < ATTENTION_SHORTER && queries.max(keys) <= ATTENTION_LONGER;
    (!reliable).then(|| {
        format!(
            "{queries} queries and {keys} keys are beyond the layer's reliable range (shorter below \
             {ATTENTION_SHORTER}, longer at most {ATTENTION_LONGER}); use matmul and softmax, or nn::sdpa"
        )
    })
}

/// What stands in a program for a composed op: its layer where one is wanted and reliable, else its nodes. Nothing for
/// other ops, and where a mistake was made on the way here.
pub fn stand_in(op: &Op, x: &[Var]) -> Option<Var> {
    let Mil::Composed(Composed { write, layer }) = op.mil() else { return None };
    let types: Vec<TensorType> = x.iter().map(|v| v.check().ok()).collect::<Option<_>>()?;
    op.infer(&types).ok()?;
    let reliable = |layer: &Op| {
        let out = layer.infer(&types).expect("invariant: a layer takes what its op takes");
        unreliable(&layer.form(&types, &out), &types).is_none()
    };
    Some(match layer(op, &types).filter(reliable) {
        Some(layer) => Var::apply(layer, &x.iter().collect::<Vec<_>>()),
        None => write(op, x),
    })
}

/// A graph with what stands for its composed ops in their place: the nodes that the reference builds.
pub fn written_out(graph: &Graph) -> Graph {
    let composed = |op: &Op| matches!(op.mil(), Mil::Composed(_));
    let lines: Vec<Caller> = graph.nodes().filter(|(_, n)| composed(&n.op)).map(|(_, n)| n.at).collect();
    if lines.is_empty() {
        return graph.clone();
    }
    let mut shared = Shared::default();
    let vars = graph.to_vars(|id, vars| {
        let node = graph.node(id);
        let inputs: Vec<Var> = node.inputs.iter().map(|i| vars[i.index()].clone()).collect();
        if let Some(written) = node.at.scope(|| stand_in(&node.op, &inputs)) {
            return Some(shared.written(&written, &inputs));
        }
        let built = || match graph.constant(id) {
            Some(tensor) => Var::rebuilt_constant(tensor.clone(), node.at),
            None => Var::rebuilt(node.op.clone(), inputs, node.ty, node.at),
        };
        lines.contains(&node.at).then(|| shared.given(built()))
    });
    let outputs: Vec<Var> = graph.outputs().iter().map(|o| vars[o.index()].clone()).collect();
    Graph::freeze(&outputs).expect("invariant: the nodes of an op can be built")
}

/// Nodes that composed ops and their gradients both need. A gradient is that of the nodes, and has built those whose
/// values it needs on the line of the op.
#[derive(Default)]
struct Shared {
    /// By op and inputs, the first such node, and whether a composed op has it.
    nodes: HashMap<(Op, Vec<u64>), (Var, bool)>,
    /// Constants of composed ops.
    constants: Vec<Var>,
}

impl Shared {
    fn key(var: &Var) -> (Op, Vec<u64>) {
        (var.op().clone(), var.inputs().iter().map(Var::id).collect())
    }

    /// A node of the graph, or that of a composed op which it is.
    fn given(&mut self, var: Var) -> Var {
        let same = |other: &&Var| other.caller() == var.caller();
        if let Some(data) = var.data() {
            let known = self.constants.iter().filter(same).find(|known| known.data() == Some(data));
            return known.unwrap_or(&var).clone();
        }
        let (known, composed) = self.nodes.entry(Shared::key(&var)).or_insert((var.clone(), false));
        if *composed && same(&&*known) { known.clone() } else { var }
    }

    /// The last of a composed op's nodes, which begin at `inputs`, with those that are in the graph already.
    fn written(&mut self, last: &Var, inputs: &[Var]) -> Var {
        let mut done: HashMap<u64, Var> = inputs.iter().map(|v| (v.id(), v.clone())).collect();
        let mut stack = vec![(last.clone(), 0)];
        while let Some((var, next)) = stack.pop() {
            match var.inputs().get(next) {
                _ if done.contains_key(&var.id()) => {}
                Some(input) => {
                    let input = input.clone();
                    stack.push((var, next + 1));
                    stack.push((input, 0));
                }
                None => {
                    let new = self.own(&var, var.inputs().iter().map(|v| done[&v.id()].clone()).collect());
                    done.insert(var.id(), new);
                }
            }
        }
        done[&last.id()].clone()
    }

    fn own(&mut self, var: &Var, inputs: Vec<Var>) -> Var {
        if var.data().is_some() {
            self.constants.push(var.clone());
            return var.clone();
        }
        let new = Var::rebuilt(var.op().clone(), inputs, var.ty(), var.caller());
        let (known, composed) = self.nodes.entry(Shared::key(&new)).or_insert((new.clone(), false));
        if std::mem::replace(composed, true) || known.caller() != new.caller() { new } else { known.clone() }
    }
}
