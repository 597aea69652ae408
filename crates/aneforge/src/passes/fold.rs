//! Computing constants before they are baked in.

use super::encoded::{decoded, refusal};
use crate::ir::form::{Form, Move};
use crate::ir::graph::NodeId;
use crate::ir::numerics::Numerics;
use crate::ir::precision::{Array, Precision};
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use aneforge_tensor::{Encoding, Tensor, Weight, round_f16};

/// A node whose inputs are constants is a constant; a weight is in full where nothing decodes it.
pub static FOLD: &[Rule] = &[
    Rule { name: "fold_constant", apply: fold_constant },
    Rule { name: "decode_weight", apply: decode_weight },
];

/// Arithmetic on more elements than this stays in the program, where it costs less than in the file.
const MOST_ELEMENTS: usize = 65_536;

/// Evaluates a node of constants as the engine would, in half precision without its cliffs. Moving
/// elements is folded at any size, arithmetic up to a limit, and an overflow never. Encoded constants stay so under views
/// that their encoding goes with; whatever else is done to one waits until [`decode_weight`] has said so.
fn fold_constant(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    if node.inputs.is_empty() || node.ty.dtype != aneforge_tensor::DType::F16 {
        return Err(Miss::Other);
    }
    let constants: Option<Vec<&Weight>> = node.inputs.iter().map(|&i| m.constant(i)).collect();
    let Some(constants) = constants else { return Err(Miss::Other) };
    let form = m.form();
    if form == Form::View {
        let same = constants[0].reshape(node.ty.shape);
        return same.map(|t| Var::rebuilt_constant(t, node.at)).map_err(|_| Miss::Other);
    }
    if constants.iter().any(|weight| weight.encoding() != Encoding::Dense) {
        return Err(Miss::Other);
    }
    let picks = matches!(form, Form::Move(Move::Transpose { .. } | Move::Slice { .. } | Move::Reverse(_)));
    if !picks && node.ty.shape.count() > MOST_ELEMENTS {
        return Err(Miss::Because("the result is large enough that computing it costs less than storing it"));
    }
    let precision = Precision::F16(Numerics::Ieee);
    let arrays: Vec<Array> = constants.iter().map(|t| Array::from_weight(t, precision)).collect();
    let value = node.op.eval(&arrays.iter().collect::<Vec<_>>(), &node.ty, precision);
    let halves: Vec<_> = value.data.iter().map(|&v| round_f16(v)).collect();
    if halves.iter().any(|v| !v.is_finite()) {
        return Err(Miss::Because("the result overflows half precision"));
    }
    let tensor = Tensor::from_slice(node.ty.shape, &halves).expect("invariant: eval fills the inferred type");
    Ok(Var::rebuilt_constant(tensor, node.at))
}

/// Encoded weights are decoded where an op could not take them as they are stored.
fn decode_weight(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    let refused = |(operand, &id): (usize, &NodeId)| refusal(&node.op, operand, m.constant(id)?);
    if !node.inputs.iter().enumerate().any(|at| refused(at).is_some()) {
        return Err(Miss::Other);
    }
    let dense = |at: (usize, &NodeId)| match refused(at) {
        Some(_) => decoded(&m.var(*at.1)),
        None => m.var(*at.1),
    };
    let operands: Vec<Var> = node.inputs.iter().enumerate().map(dense).collect();
    Ok(Var::rebuilt(node.op.clone(), operands, node.ty, node.at))
}
