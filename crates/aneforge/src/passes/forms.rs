//! Of several spellings that MIL's op definitions allow, the one that programs known to be accepted use.

use crate::ir::graph::NodeId;
use crate::ir::op::{Mil, Op};
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use aneforge_mil::spec::{self, ResultRule};
use aneforge_tensor::{DType, MAX_RANK, Shape};

/// The rules of legalization that change how a statement is written, and nothing of what it computes.
pub static FORMS: &[Rule] = &[Rule { name: "operand_rank", apply: operand_rank }];

/// Whether the op is one statement whose operands broadcast.
pub(crate) fn broadcasts(op: &Op) -> bool {
    let Mil::Stmt(spelling) = op.mil() else { return false };
    spec::find(spelling.op).is_some_and(|row| matches!(row.result, ResultRule::Broadcast(_)))
}

/// Operands of a statement that broadcasts have the rank of its result, but for scalar constants.
///
/// Evidence: the public package's history of `layer_norm`; a parameter that landed on the channel axis failed
/// to compile from 1,024 elements on, and has had the value's rank since.
fn operand_rank(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    let rank = node.ty.shape.rank();
    let short = |&id: &NodeId| {
        let ty = m.var(id).ty();
        let scalar = ty.shape.rank() == 0 && m.constant(id).is_some();
        ty.shape.rank() < rank && ty.dtype == DType::F16 && !scalar
    };
    if !broadcasts(&node.op) || !node.inputs.iter().any(short) {
        return Err(Miss::Other);
    }
    let wide = |id: &NodeId| if short(id) { widened(m, *id, rank) } else { m.var(*id) };
    let operands: Vec<Var> = node.inputs.iter().map(wide).collect();
    Ok(Var::apply(node.op.clone(), &operands.iter().collect::<Vec<_>>()))
}

/// A value with axes of size one in front, up to this rank. A constant stays a constant.
fn widened(m: &Match<'_>, id: NodeId, rank: usize) -> Var {
    let var = m.var(id);
    let ones = Shape::new(&[1; MAX_RANK][..rank]).and_then(|ones| ones.broadcast(var.shape()));
    let shape = ones.expect("invariant: axes of size one fit every shape");
    match m.constant(id) {
        Some(tensor) => {
            let wide = tensor.reshape(shape).expect("invariant: axes of size one hold no elements");
            Var::rebuilt_constant(wide, var.caller())
        }
        None => var.reshape_to(shape),
    }
}
