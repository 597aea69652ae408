//! Of several spellings that MIL's op definitions allow, the one that programs known to be accepted use.

use super::rank::{matmul_rank, transpose_rank};
use crate::ir::graph::NodeId;
use crate::ir::op::{Mil, Op};
use crate::ir::ops::conv::zero_pad;
use crate::ir::ops::pool::{AvgPool, MaxPool, Window};
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use aneforge_mil::spec::{self, ResultRule};
use aneforge_mil::verify::MAX_DIM;
use aneforge_tensor::{DType, MAX_RANK, Shape};

/// The rules of legalization that change how a statement is written, and nothing of what it computes.
pub static FORMS: &[Rule] = &[
    Rule { name: "constant_second", apply: constant_second },
    Rule { name: "transpose_rank", apply: transpose_rank },
    Rule { name: "matmul_rank", apply: matmul_rank },
    Rule { name: "operand_rank", apply: operand_rank },
    Rule { name: "select_extent", apply: select_extent },
    Rule { name: "matmul_row", apply: matmul_row },
    Rule { name: "stack_scalars", apply: stack_scalars },
    Rule { name: "prelu_rank", apply: prelu_rank },
    Rule { name: "pool_padding", apply: pool_padding },
];

/// Whether the op is one statement whose operands broadcast.
fn broadcasts(op: &Op) -> bool {
    let Mil::Stmt(spelling) = op.mil() else { return false };
    spec::find(spelling.op).is_some_and(|row| matches!(row.result, ResultRule::Broadcast(_)))
}

/// Of two operands that can change places, a constant is the second: no program known to be accepted has one
/// as `x`.
fn constant_second(m: &Match<'_>) -> Result<Var, Miss> {
    let &[x, y] = &m.node().inputs[..] else { return Err(Miss::Other) };
    if m.constant(x).is_none() || m.constant(y).is_some() {
        return Err(Miss::Other);
    }
    let (x, y) = (m.var(x), m.var(y));
    Ok(match m.node().op {
        Op::Add(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_) | Op::Equal(_) | Op::NotEqual(_) => {
            Var::apply(m.node().op.clone(), &[&y, &x])
        }
        Op::Greater(_) => y.less(&x),
        Op::GreaterEqual(_) => y.less_equal(&x),
        Op::Less(_) => y.greater(&x),
        Op::LessEqual(_) => y.greater_equal(&x),
        _ => return Err(Miss::Other),
    })
}

/// Operands of a statement that broadcasts, and of a product, have the rank of its result, but for scalar
/// constants.
///
/// Evidence: ANEForge 0.4.0's history of `layer_norm`; a parameter that landed on the channel axis failed
/// to compile from 1,024 elements on, and has had the value's rank since.
fn operand_rank(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    let rank = node.ty.shape.rank();
    let short = |id: NodeId| {
        let ty = m.var(id).ty();
        let scalar = ty.shape.rank() == 0 && m.constant(id).is_some();
        ty.shape.rank() < rank && ty.dtype == DType::F16 && !scalar
    };
    if !(broadcasts(&node.op) || matches!(node.op, Op::Bmm(_))) || !node.inputs.iter().any(|&id| short(id)) {
        return Err(Miss::Other);
    }
    let wide = |&id: &NodeId| if short(id) { widened(&m.var(id), rank) } else { m.var(id) };
    let operands: Vec<Var> = node.inputs.iter().map(wide).collect();
    Ok(Var::apply(node.op.clone(), &operands.iter().collect::<Vec<_>>()))
}

/// What `select` chooses from has the result's extents without help from the condition: numbers become constants
/// that repeat along the axes still missing, shared out so that both stay small, and other values are tiled.
///
/// Evidence: the op's definition in coremltools, which infers the result from `a` and `b`.
fn select_extent(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Select(op), &[cond, a, b]) = (&m.node().op, &m.node().inputs[..]) else {
        return Err(Miss::Other);
    };
    let out = m.node().ty.shape;
    let given = m.var(a).shape().broadcast(m.var(b).shape()).map_err(|_| Miss::Other)?;
    let extent = |axis: usize| (axis + given.rank()).checked_sub(out.rank()).map_or(1, |at| given[at]);
    let mut missing: Vec<usize> = (0..out.rank()).filter(|&axis| extent(axis) != out[axis]).collect();
    if missing.is_empty() && given.rank() == out.rank() {
        return Err(Miss::Other);
    }
    let number = |id: NodeId| m.constant(id).filter(|t| t.shape().count() == 1).map(|t| t.to_f32()[0]);
    let (numbers, mut sides) = ([number(a), number(b)], [vec![1; out.rank()], vec![1; out.rank()]]);
    missing.sort_by_key(|&axis| std::cmp::Reverse(out[axis]));
    for axis in missing {
        let size = |side: usize| sides[side].iter().product::<usize>();
        let side = match numbers {
            [Some(_), Some(_)] => usize::from(size(1) < size(0)),
            [None, Some(_)] => 1,
            _ => 0,
        };
        sides[side][axis] = out[axis];
    }
    let choice = |side: usize, id: NodeId| match numbers[side] {
        Some(k) => Var::full(Shape::new(&sides[side]).expect("invariant: part of a shape"), f64::from(k)),
        None if sides[side].iter().all(|&r| r == 1) => widened(&m.var(id), out.rank()),
        None => widened(&m.var(id), out.rank()).tile(&sides[side]),
    };
    Ok(Var::apply(op.clone(), &[&m.var(cond), &choice(0, a), &choice(1, b)]))
}

/// A value with axes of size one in front, up to this rank. A constant stays a constant, where its encoding goes with that shape.
pub(super) fn widened(v: &Var, rank: usize) -> Var {
    let ones = Shape::new(&[1; MAX_RANK][..rank]).and_then(|ones| ones.broadcast(v.shape()));
    let shape = ones.expect("invariant: axes of size one fit every shape");
    if shape == v.shape() {
        return v.clone();
    }
    match v.data().and_then(|weight| weight.reshape(shape).ok()) {
        Some(wide) => Var::rebuilt_constant(wide, v.caller()),
        None => v.reshape_to(shape),
    }
}

/// A vector times a weight is a matrix of one row times it.
fn matmul_row(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Matmul(op), &[x, weight]) = (&m.node().op, &m.node().inputs[..]) else {
        return Err(Miss::Other);
    };
    if m.node().ty.shape.rank() != 1 {
        return Err(Miss::Other);
    }
    let row = widened(&m.var(x), 2);
    Ok(Var::apply(op.clone(), &[&row, &m.var(weight)]).reshape_to(m.node().ty.shape))
}

/// Scalars side by side are vectors of one element, one after another.
fn stack_scalars(m: &Match<'_>) -> Result<Var, Miss> {
    if !matches!(m.node().op, Op::Stack(_)) || m.node().ty.shape.rank() != 1 {
        return Err(Miss::Other);
    }
    let lines: Vec<Var> = m.inputs().iter().map(|v| widened(v, 1)).collect();
    Ok(Var::concat(&lines.iter().collect::<Vec<_>>(), 0))
}

/// Slopes that differ between channels need an image.
///
/// Evidence: the op's definition in coremltools: with `x` of rank 3 or 5, all of `alpha` must be equal.
fn prelu_rank(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Prelu(op), &[x, alpha]) = (&m.node().op, &m.node().inputs[..]) else { return Err(Miss::Other) };
    let shape = m.node().ty.shape;
    let slopes = m.constant(alpha).map(|slopes| slopes.to_f16()).unwrap_or_default();
    if shape.rank() == 4 || slopes.windows(2).all(|pair| pair[0] == pair[1]) {
        return Err(Miss::Other);
    }
    let d = shape.dims();
    let image = match shape.rank() {
        3 => [d[0], d[1], 1, d[2]],
        _ => [d[0], d[1], d[2], d[3] * d[4]],
    };
    let image = m.var(x).reshape(&image.map(|d| d as i64));
    Ok(Var::apply(op.clone(), &[&image, &m.var(alpha)]).reshape_to(shape))
}

/// A partial last window beside unequal padding is written without one of the two.
///
/// Evidence: the op's definition in coremltools: `ceil_mode` takes the same padding on both sides of an axis.
fn pool_padding(m: &Match<'_>) -> Result<Var, Miss> {
    let (x, out) = (m.input(0), m.node().ty.shape);
    let unequal = |w: &Window| w.ceil && (w.pad[0] != w.pad[1] || w.pad[2] != w.pad[3]);
    let long = |pad: [i64; 4]| pad.iter().any(|&p| p as u64 > MAX_DIM);
    match (&m.node().op, x.map(|x| m.var(x))) {
        // Padding counts for nothing here, so there may be more of it.
        (Op::MaxPool(op), Some(x)) if unequal(&op.window()) => {
            let (pad, _) = op.window().covering_pad(x.shape(), out);
            Ok(Var::apply(MaxPool { pad, ceil_mode: false, ..op.clone() }, &[&x]))
        }
        (Op::AvgPool(op), Some(x)) if unequal(&op.window()) && op.exclude_pad => {
            let (pad, _) = op.window().covering_pad(x.shape(), out);
            Ok(Var::apply(AvgPool { pad, ceil_mode: false, ..op.clone() }, &[&x]))
        }
        (Op::AvgPool(op), Some(_)) if unequal(&op.window()) && long(op.pad) => {
            Err(Miss::Because("the padded image is longer than any engine takes"))
        }
        (Op::AvgPool(op), Some(x)) if unequal(&op.window()) => {
            // Windows in the padding alone are no windows, but look like some once it is part of the image.
            let means = Var::apply(AvgPool { pad: [0; 4], ..op.clone() }, &[&zero_pad(&x, op.pad)]);
            Ok(if means.shape() == out { means } else { means.slice_by_size(&[0; 4], out.dims()) })
        }
        _ => Err(Miss::Other),
    }
}
