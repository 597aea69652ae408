//! Where a program may hold a weight in an encoding. Every family takes each of them and computes the same from it; which
//! it streams and which it decodes when it loads the program is a matter of speed.

use crate::ir::op::Op;
use crate::ir::var::Var;
use aneforge_tensor::{Encoding, Weight};

/// Why an op does not take an encoded weight as this operand, if it does not.
///
/// Evidence: ANEForge 0.4.0 emits encoded weights for linear layers and convolutions, and but for sparse ones for
/// products with a matrix per batch; its device tests have a block-wise weight, to which it adds zero, as a matrix only.
/// It gives the halves of a byte to one row.
pub fn refusal(op: &Op, operand: usize, weight: &Weight) -> Option<&'static str> {
    let (encoding, shape) = (weight.encoding(), weight.shape());
    let takes = match (op, operand) {
        _ if encoding == Encoding::Dense => return None,
        (Op::Matmul(_), 1) => true,
        (Op::Conv(_), 1) => encoding != Encoding::Blockwise,
        (Op::Bmm(_) | Op::BmmW(_), 1) => {
            matches!(encoding, Encoding::Int8 | Encoding::Lut4) && shape.rank() == 3
        }
        _ => false,
    };
    if !takes {
        return Some("the weight of a linear layer or convolution may be encoded so, or a matrix per batch");
    }
    let row = shape.count() / shape[0];
    (encoding == Encoding::Lut4 && !row.is_multiple_of(2))
        .then_some("a row of four-bit indices has an even length")
}

/// A constant in full.
pub(super) fn decoded(var: &Var) -> Var {
    match var.data() {
        Some(weight) if weight.encoding() != Encoding::Dense => {
            Var::rebuilt_constant(weight.to_dense(), var.caller())
        }
        _ => var.clone(),
    }
}
