//! Attention of queries to keys and values.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Composed, Decompose, Grad, Mil, Op, Operator, Tolerance};
use crate::ir::ops::matmul::Bmm;
use crate::ir::ops::native::{Sdpa, through, written};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Tensor, f16};

/// What hides a key: half precision has no use for minus infinity, and softmax with one is unmeasured.
pub const HIDDEN: f64 = -1e4;

/// Each part is five nodes; so many are beyond every use.
const MOST_PARTS: i64 = 4096;

op! {
    /// Attention: `softmax(query @ key^T * scale + mask) @ value`. Every step rounds.
    ///
    /// `query` is `[..., Sq, D]`, `key` `[..., Skv, D]`, `value` `[..., Skv, E]`; the result is `[..., Sq, E]`. Leading
    /// axes, such as heads, broadcast. So does `mask`, to the scores `[..., Sq, Skv]` that it is added to; a key is
    /// hidden by -1e4. A causal mask hides later keys likewise and needs `Sq = Skv`.
    /// In Python, `af.sdpa(query, key, value)`.
    pub struct Attention = "attention"("query", "key", "value", "mask?") {
        /// The factor of the scores, by convention `1 / sqrt(D)`.
        scale: Real,
        /// Whether query `i` sees keys `0..=i` only.
        causal: bool = false,
        /// In how many parts the queries are taken, which bounds the scores and changes no bit of the result.
        parts: i64 = 1,
        /// Whether the engine's own layer, `sdpa`, is wanted where it is reliable.
        layer: bool = false,
    }
}

/// `[..., rows, keys]` of this rank, where query `first + i` sees keys `0..=first + i`.
pub(crate) fn causal_mask(rank: usize, first: usize, rows: usize, keys: usize) -> Var {
    let hidden = f16::from_f64(HIDDEN);
    let at = |i: usize| if i % keys > first + i / keys { hidden } else { f16::ZERO };
    let values: Vec<f16> = (0..rows * keys).map(at).collect();
    let mut dims = vec![1; rank - 2];
    dims.extend([rows, keys]);
    let shape = Shape::new(&dims).expect("invariant: the rank of the scores");
    Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one value per element"))
}

const WRITE: Decompose = |op, x| {
    let Op::Attention(op) = op else { unreachable!("called on its own op") };
    op.write(x)
};

impl Attention {
    /// The chain of ops that it is defined as.
    pub(crate) fn write(&self, x: &[Var]) -> Var {
        let rows = x[0].shape().rank() - 2;
        let queries = x[0].shape()[rows];
        let size = queries.div_ceil(self.parts as usize);
        let keys = x[1].swap_last();
        let mut results = Vec::new();
        for start in (0..queries).step_by(size) {
            let end = (start + size).min(queries);
            let part = |v: &Var| match v.shape().rank().checked_sub(2) {
                Some(axis) if size < queries && v.shape()[axis] == queries => v.narrow(axis, start, end),
                _ => v.clone(),
            };
            let mut scores = part(&x[0]).matmul_value(&keys).muls(self.scale.0);
            if self.causal {
                scores = &scores + causal_mask(scores.shape().rank(), start, end - start, queries);
            }
            if let Some(mask) = x.get(3) {
                scores = scores + part(mask);
            }
            results.push(scores.softmax(-1).matmul_value(&x[2]));
        }
        match &results[..] {
            [only] => only.clone(),
            _ => Var::concat(&results.iter().collect::<Vec<_>>(), -2),
        }
    }
}

/// The type with the last two axes exchanged.
fn transposed(ty: &TensorType) -> TensorType {
    let [rows, columns] = [2, 1].map(|from_last| ty.shape.rank() - from_last);
    let shape = ty.shape.with(rows, ty.shape[columns]).with(columns, ty.shape[rows]);
    TensorType { shape, ..*ty }
}

impl Operator for Attention {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.scale.check()?;
        if !(1..=MOST_PARTS).contains(&self.parts) {
            return Err(format!("parts must be from 1 to {MOST_PARTS}, got {}", self.parts));
        }
        if let Some(flat) = x[..3].iter().find(|ty| ty.shape.rank() < 2) {
            return Err(format!("query, key and value must be [..., length, features], got {}", flat.shape));
        }
        let scores = Bmm {}.infer(&[x[0], transposed(&x[1])])?;
        let [queries, keys] = [2, 1].map(|from_last| scores.shape[scores.shape.rank() - from_last]);
        if self.causal && queries != keys {
            return Err(format!("causal attention needs as many queries as keys, got {queries} and {keys}"));
        }
        if let Some(mask) = x.get(3) {
            half_only(mask)?;
            if scores.shape.broadcast(mask.shape) != Ok(scores.shape) {
                return Err(format!(
                    "mask must broadcast to the scores {}, got {}",
                    scores.shape, mask.shape
                ));
            }
        }
        Bmm {}.infer(&[scores, x[2]])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Attention { scale: self.scale.0, causal: self.causal }
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        written(self.clone(), WRITE, x, p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(self.clone(), WRITE, x, dy)
    }
    fn mil() -> Mil {
        Mil::Composed(Composed {
            write: WRITE,
            layer: |op, x| {
                let Op::Attention(Attention { scale, causal, layer, .. }) = op else {
                    unreachable!("called on its own op")
                };
                let sdpa = Sdpa { scale: *scale, causal: *causal };
                (*layer && sdpa.infer(x).is_ok()).then(|| sdpa.into())
            },
        })
    }
    fn cases() -> Vec<Case> {
        let tolerance =
            Tolerance { ulp: 6.0, absolute: 4e-3, reason: "scores, probabilities and results each round" };
        let on = |causal: bool, parts: i64, shapes: &[&[usize]]| {
            let op = Attention { scale: Real(0.5), causal, parts, layer: false };
            Case::new(op, shapes, (-2.0, 2.0), tolerance)
        };
        let wanted = Attention { scale: Real(0.5), causal: false, parts: 1, layer: true };
        vec![
            Case::new(wanted, &[&[1, 2, 5, 4], &[1, 2, 5, 4], &[1, 2, 5, 4]], (-2.0, 2.0), tolerance),
            on(false, 1, &[&[2, 5, 4], &[2, 5, 4], &[2, 5, 4]]),
            on(false, 1, &[&[2, 5, 4], &[2, 5, 4], &[2, 5, 4], &[5, 5]]),
            on(false, 2, &[&[2, 5, 4], &[2, 3, 4], &[2, 3, 6], &[2, 5, 3]]),
            on(false, 3, &[&[5, 4], &[3, 4], &[3, 2], &[3]]),
            on(true, 2, &[&[1, 2, 5, 4], &[1, 1, 5, 4], &[1, 2, 5, 4], &[1, 1, 1, 5]]),
        ]
    }
}
