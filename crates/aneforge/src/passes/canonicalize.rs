//! Removing what changes nothing: every rule leaves every bit of the result as it was.

use crate::ir::op::Op;
use crate::ir::ops::shape::Transpose;
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use aneforge_tensor::DType;

/// The rules, none of which computes anything.
pub static CANONICALIZE: &[Rule] = &[
    Rule { name: "cast_same", apply: cast_same },
    Rule { name: "reshape_same", apply: reshape_same },
    Rule { name: "reshape_chain", apply: reshape_chain },
    Rule { name: "transpose_chain", apply: transpose_chain },
    Rule { name: "mul_one", apply: mul_one },
    Rule { name: "not_not", apply: not_not },
    Rule { name: "split_one", apply: split_one },
    Rule { name: "slice_all", apply: slice_all },
    Rule { name: "no_axes", apply: no_axes },
];

/// `cast(x)` of half precision is `x`.
fn cast_same(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Cast(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let x = m.var(x);
    if x.ty().dtype == DType::F16 { Ok(x) } else { Err(Miss::Because("the source is bytes")) }
}

/// `reshape(x)` to its own shape is `x`.
fn reshape_same(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Reshape(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let x = m.var(x);
    if x.shape() == m.node().ty.shape { Ok(x) } else { Err(Miss::Other) }
}

/// `reshape(reshape(x))` is one reshape of `x`.
fn reshape_chain(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Reshape(_), Some(inner)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (Op::Reshape(_), &[x]) = m.op(inner) else { return Err(Miss::Other) };
    Ok(m.var(x).reshape_to(m.node().ty.shape))
}

/// `transpose(transpose(x))` is one transpose, or none when they cancel.
fn transpose_chain(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Transpose(Transpose { perm }), Some(inner)) = (&m.node().op, m.input(0)) else {
        return Err(Miss::Other);
    };
    let identity = |perm: &[i64]| perm.iter().enumerate().all(|(i, &p)| i as i64 == p);
    if identity(perm) {
        return Ok(m.var(inner));
    }
    let (Op::Transpose(first), &[x]) = m.op(inner) else { return Err(Miss::Other) };
    let both: Vec<i64> = perm.iter().map(|&p| first.perm[p as usize]).collect();
    Ok(if identity(&both) { m.var(x) } else { m.var(x).transpose(&both) })
}

/// `x * 1.0` is `x`.
fn mul_one(m: &Match<'_>) -> Result<Var, Miss> {
    match (&m.node().op, m.input(0)) {
        (Op::Muls(op), Some(x)) if op.k.0 == 1.0 => Ok(m.var(x)),
        _ => Err(Miss::Other),
    }
}

/// `not not x` is `x`.
fn not_not(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::LogicalNot(_), Some(inner)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (Op::LogicalNot(_), &[x]) = m.op(inner) else { return Err(Miss::Other) };
    Ok(m.var(x))
}

/// The only part of `x` is `x`.
fn split_one(m: &Match<'_>) -> Result<Var, Miss> {
    match (&m.node().op, m.input(0)) {
        (Op::Split(op), Some(x)) if op.num_splits == 1 => Ok(m.var(x)),
        _ => Err(Miss::Other),
    }
}

/// The window that is all of `x` is `x`.
fn slice_all(m: &Match<'_>) -> Result<Var, Miss> {
    match (&m.node().op, m.input(0)) {
        (Op::SliceBySize(_), Some(x)) if m.var(x).shape() == m.node().ty.shape => Ok(m.var(x)),
        _ => Err(Miss::Other),
    }
}

/// Squeezing, expanding or reversing no axis at all is `x`: MIL has no empty list of axes.
fn no_axes(m: &Match<'_>) -> Result<Var, Miss> {
    let axes = match &m.node().op {
        Op::Squeeze(op) => &op.axes,
        Op::ExpandDims(op) => &op.axes,
        Op::Reverse(op) => &op.axes,
        _ => return Err(Miss::Other),
    };
    match m.input(0) {
        Some(x) if axes.is_empty() => Ok(m.var(x)),
        _ => Err(Miss::Other),
    }
}
