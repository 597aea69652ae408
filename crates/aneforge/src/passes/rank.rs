//! Transposes and matrix products of rank 5 and above, which the engine computes up to rank 4 only.
//!
//! Evidence: the public guide to the engine (arXiv 2606.22283, chapter 4) has the backend reject a product of
//! rank 5 on M1, and ANEForge 0.4.0's documentation gives rank 4 as the limit of both.

use crate::ir::op::Op;
use crate::ir::ops::matmul::lead;
use crate::ir::ops::shape::Transpose;
use crate::ir::ops::tile::Tile;
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss};
use aneforge_mil::verify::MAX_RANK;

/// A transpose of five axes or more is one of fewer where axes stay neighbours or have one element, else several: each
/// brings the next axis to its place, past axes that move as one.
pub(super) fn transpose_rank(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Transpose(Transpose { perm }), Some(x)) = (&m.node().op, m.input(0)) else {
        return Err(Miss::Other);
    };
    if perm.len() < MAX_RANK {
        return Err(Miss::Other);
    }
    let x = m.var(x);
    let runs = runs(&x, perm);
    if runs.len() < 2 {
        return Ok(x.reshape_to(m.node().ty.shape));
    }
    let sizes: Vec<i64> = runs.iter().map(|run| extent(&x, run)).collect();
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|&run| runs[run][0]);
    if runs.len() < MAX_RANK {
        let dims: Vec<i64> = order.iter().map(|&run| sizes[run]).collect();
        let place = |run: usize| order.iter().position(|&at| at == run).map_or(0, |at| at as i64);
        let perm: Vec<i64> = (0..runs.len()).map(place).collect();
        return Ok(x.reshape(&dims).transpose(&perm).reshape_to(m.node().ty.shape));
    }
    let mut y = x;
    for place in 0..order.len() {
        let from = order.iter().position(|&run| run == place).expect("invariant: a permutation");
        let size = |runs: &[usize]| runs.iter().map(|&run| sizes[run]).product::<i64>();
        let parts = [&order[..place], &order[place..from], &order[from..=from], &order[from + 1..]].map(size);
        if from > place {
            y = y.reshape(&parts).transpose(&[0, 2, 1, 3]);
        }
        let moved = order.remove(from);
        order.insert(place, moved);
    }
    Ok(y.reshape_to(m.node().ty.shape))
}

/// The axes of `x`, but for those of one element, in the order of the result, neighbours together.
fn runs(x: &Var, perm: &[i64]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let wide = |axis: &usize| x.shape()[*axis] > 1;
    let next = |axis: usize| (axis + 1..x.shape().rank()).find(wide);
    for axis in perm.iter().map(|&p| p as usize).filter(wide) {
        match runs.last_mut() {
            Some(run) if next(run[run.len() - 1]) == Some(axis) => run.push(axis),
            _ => runs.push(vec![axis]),
        }
    }
    runs
}

fn extent(x: &Var, axes: &[usize]) -> i64 {
    axes.iter().map(|&axis| x.shape()[axis] as i64).product()
}

/// A product with three batch axes or more has two of them joined, repeated first where they would broadcast apart.
pub(super) fn matmul_rank(m: &Match<'_>) -> Result<Var, Miss> {
    let shape = m.node().ty.shape;
    if shape.rank() < MAX_RANK {
        return Err(Miss::Other);
    }
    let product = match (&m.node().op, &m.inputs()[..]) {
        (Op::Matmul(op), [x, weight]) => Var::apply(op.clone(), &[&joined(x, 0), weight]),
        (Op::Bmm(_), [a, b]) => {
            let [a, b] = [a, b].map(|v| super::forms::widened(v, shape.rank()));
            let extents = |axis: usize| (a.shape()[axis], b.shape()[axis]);
            let alike = |axis: usize| {
                let ((p, q), (r, s)) = (extents(axis), extents(axis + 1));
                (p == q && r == s) || (p == 1 && r == 1) || (q == 1 && s == 1)
            };
            match [0, 1].into_iter().find(|&axis| alike(axis)) {
                Some(axis) => joined(&a, axis).matmul_value(&joined(&b, axis)),
                None => {
                    let full = lead(shape);
                    let [a, b] = [&a, &b].map(|v| joined(&repeated(v, full.dims()), 0));
                    a.matmul_value(&b)
                }
            }
        }
        _ => return Err(Miss::Other),
    };
    Ok(product.reshape_to(shape))
}

/// With `axis` and the next as one.
fn joined(v: &Var, axis: usize) -> Var {
    let mut dims: Vec<i64> = v.shape().dims().iter().map(|&d| d as i64).collect();
    let next = dims.remove(axis + 1);
    dims[axis] *= next;
    v.reshape(&dims)
}

/// With the first two axes repeated to these extents.
fn repeated(v: &Var, full: &[usize]) -> Var {
    let mut reps = vec![1; v.shape().rank()];
    for axis in 0..2 {
        reps[axis] = (full[axis] / v.shape()[axis]) as i64;
    }
    if reps.iter().all(|&r| r == 1) { v.clone() } else { Var::apply(Tile { reps }, &[v]) }
}
