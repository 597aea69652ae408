//! Functions that the engine has and computes wrongly for some operands: written around them.

use crate::ir::op::Op;
use crate::ir::ops::unary::{NativeRound, NativeSoftplus};
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss};
use crate::target::functions::{ROUND_BELOW, SOFTPLUS_UP_TO};

/// A square is a product.
///
/// Evidence: ANEForge 0.4.0; the engine's own op with a function after it fails where the width modulo 128 is above 64.
pub(super) fn square_product(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Square(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let x = m.var(x);
    Ok(&x * &x)
}

/// `softplus(x)` is `softplus(min(x, 10)) + relu(x - 10)`, which is off by `ln(1 + exp(-10))` at most.
pub(super) fn softplus_split(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Softplus(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let x = m.var(x);
    let small = Var::apply(NativeSoftplus {}, &[&x.minimum(&Var::from(SOFTPLUS_UP_TO))]);
    Ok(small + x.adds(f64::from(-SOFTPLUS_UP_TO)).relu())
}

/// Magnitudes that are integers already are not rounded.
pub(super) fn round_small(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Round(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let x = m.var(x);
    let small = x.abs().less(&Var::from(ROUND_BELOW));
    Ok(small.select(&Var::apply(NativeRound {}, &[&x]), &x))
}
