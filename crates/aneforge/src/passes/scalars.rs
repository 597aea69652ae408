//! Chains of scalar factors or terms as one: fewer roundings, so not the same bits, and only where that is asked for.

use crate::ir::op::Op;
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use aneforge_tensor::round_f16;

/// The rules. What lies between may have other uses: it is computed for those either way.
pub static SCALARS: &[Rule] =
    &[Rule { name: "muls_chain", apply: muls_chain }, Rule { name: "adds_chain", apply: adds_chain }];

/// A scalar as programs hold it.
fn half(k: f64) -> f64 {
    round_f16(k).to_f64()
}

/// `(x * a) * b` is `x * (a b)`.
fn muls_chain(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Muls(outer), Some(middle)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (Op::Muls(inner), &[x]) = m.op(middle) else { return Err(Miss::Other) };
    let (a, b) = (half(inner.k.0), half(outer.k.0));
    let both = half(a * b);
    if !both.is_finite() {
        return Err(Miss::Because("the product of the factors is beyond half precision"));
    }
    if both.abs() < f64::from(aneforge_tensor::f16::MIN_POSITIVE) && a * b != 0.0 {
        return Err(Miss::Because("the product of the factors is too small for half precision"));
    }
    Ok(m.var(x).muls(both))
}

/// `(x + a) + b` is `x + (a + b)`.
fn adds_chain(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Adds(outer), Some(middle)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (Op::Adds(inner), &[x]) = m.op(middle) else { return Err(Miss::Other) };
    let (a, b) = (half(inner.k.0), half(outer.k.0));
    let both = half(a + b);
    if !both.is_finite() {
        return Err(Miss::Because("the sum of the terms is beyond half precision"));
    }
    if both.abs() < a.abs().max(b.abs()) {
        return Err(Miss::Because("the terms cancel, and the rounding between them may be what is wanted"));
    }
    Ok(m.var(x).adds(both))
}
