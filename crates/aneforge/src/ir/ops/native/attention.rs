//! Fused attention.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{through, written};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Constant, Layer, RESULT, Symbol, Value};
use aneforge_mil::program::DType;
use aneforge_tensor::{Shape, Tensor, f16};

/// The layer is reliable while the shorter of queries and keys is below this: measured cosine 0.67 beyond.
pub const NATIVE_MIN_BOTH: usize = 512;
/// The layer is reliable while the longer is at most this: measured error 3e-3 up to it, about 1 at 4096.
pub const NATIVE_MAX_SEQ: usize = 2048;
/// What hides a key: half precision has no use for minus infinity, and softmax with one is unmeasured.
pub const HIDDEN: f64 = -1e4;

op! {
    /// Attention of all heads as one layer: `softmax(query @ key^T * scale + mask) @ value`.
    ///
    /// `query` is `[1, H, Sq, D]`, `key` and `value` `[1, H, Skv, D]`, `mask` `[1, 1, Sq, Skv]`, added to the
    /// scores of every head; the result is `[1, H, Sq, D]`. A causal mask hides later keys with -1e4 and
    /// needs `Sq = Skv`. The layer is reliable for `min(Sq, Skv) < 512` and `max(Sq, Skv) <= 2048`; `sdpa` in
    /// Python and `nn::sdpa` write longer ones with other ops. Every step of the formula rounds.
    pub struct Sdpa = "sdpa"("query", "key", "value", "mask?") {
        /// The factor of the scores, by convention `1 / sqrt(D)`.
        scale: Real,
        /// Whether query `i` sees keys `0..=i` only.
        causal: bool = false,
    }
}

/// Whether the layer is reliable for these lengths.
pub fn is_native(queries: usize, keys: usize) -> bool {
    queries.min(keys) < NATIVE_MIN_BOTH && queries.max(keys) <= NATIVE_MAX_SEQ
}

/// `[1, 1, rows, keys]`, where query `first + i` sees keys `0..=first + i`.
pub(crate) fn causal_mask(first: usize, rows: usize, keys: usize) -> Var {
    let hidden = f16::from_f64(HIDDEN);
    let at = |i: usize| if i % keys > first + i / keys { hidden } else { f16::ZERO };
    let values: Vec<f16> = (0..rows * keys).map(at).collect();
    let shape = Shape::new(&[1, 1, rows, keys]).expect("invariant: four axes");
    Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one value per element"))
}

/// The extents `[1, heads, length, features]` of an operand.
fn operand(name: &str, ty: &TensorType) -> Result<[usize; 3], String> {
    half_only(ty)?;
    match ty.shape.dims() {
        [1, heads, length, features] => Ok([*heads, *length, *features]),
        [n, _, _, _] => Err(format!("takes batch 1, {name} has {n}; call it per item and concat")),
        _ => Err(format!("{name} must be [1, heads, length, features], got {}", ty.shape)),
    }
}

const WRITE: Decompose = |op, x| {
    let Op::Sdpa(Sdpa { scale, causal }) = op else { unreachable!("called on its own op") };
    let mut scores = x[0].matmul_value(&x[1].swap_last()).muls(scale.0);
    let (rows, keys) = (scores.shape()[2], scores.shape()[3]);
    if *causal {
        scores = scores + causal_mask(0, rows, keys);
    }
    if let Some(mask) = x.get(3) {
        scores = scores + mask;
    }
    scores.softmax(-1).matmul_value(&x[2])
};

impl Sdpa {
    /// How many queries and keys there are, if all but the range in which the layer is reliable is right.
    pub(crate) fn lengths(&self, x: &[TensorType]) -> Result<[usize; 2], String> {
        self.scale.check()?;
        let [heads, queries, features] = operand("query", &x[0])?;
        let [k_heads, keys, k_features] = operand("key", &x[1])?;
        operand("value", &x[2])?;
        if x[1].shape != x[2].shape {
            return Err(format!("key and value must have one shape, got {} and {}", x[1].shape, x[2].shape));
        }
        if (heads, features) != (k_heads, k_features) {
            return Err(format!("query {} and key {} differ in heads or features", x[0].shape, x[1].shape));
        }
        if self.causal && queries != keys {
            return Err(format!("causal attention needs as many queries as keys, got {queries} and {keys}"));
        }
        let Some(mask) = x.get(3) else { return Ok([queries, keys]) };
        if self.causal {
            return Err("takes a causal mask or one of yours, not both; add the causal one to yours".into());
        }
        half_only(mask)?;
        if mask.shape.dims() != [1, 1, queries, keys] {
            return Err(format!(
                "mask must be [1, 1, {queries}, {keys}], one for all heads, got {}; use matmul and softmax for \
                 a mask per head",
                mask.shape
            ));
        }
        Ok([queries, keys])
    }
}

impl Operator for Sdpa {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let [queries, keys] = self.lengths(x)?;
        if !is_native(queries, keys) {
            return Err(format!(
                "{queries} queries and {keys} keys are beyond the layer's reliable range (shorter below \
                 {NATIVE_MIN_BOTH}, longer at most {NATIVE_MAX_SEQ}); use matmul and softmax, or nn::sdpa"
            ));
        }
        Ok(x[0])
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
        Mil::Native(Native {
            layer: |op, x| {
                let Op::Sdpa(Sdpa { scale, .. }) = op else { unreachable!("called on its own op") };
                let (q, k) = (x[0].shape, x[1].shape);
                let (heads, queries, keys, features) = (q[1], q[2], k[2], q[3]);
                // The sequence lies in channels, heads in height, features in width.
                let lie = |name, length| Symbol::permuted(name, [1, length, heads, features], &[0, 2, 1, 3]);
                let mut feeds = vec![lie("query", queries), lie("key", keys), lie("value", keys)];
                if x.len() > 3 {
                    feeds.push(Symbol::dense("mask", [1, queries, 1, keys]));
                }
                let subtract_max = [("SubtractMax", Value::Bool(true))];
                let layer = Layer::new("SDPA", subtract_max, feeds, lie(RESULT, queries));
                // The scale must be flagged constant, which only the list of constants does.
                let bytes = f16::from_f64(scale.0).to_le_bytes();
                Layer {
                    constant: Some(Constant { name: "scale", operand: 3, dtype: DType::Fp16, bytes }),
                    unit_channels: Some(keys),
                    output_channels: (queries != keys).then_some(queries),
                    ..layer
                }
            },
            written: Some(WRITE),
            // A mask keeps the layer: with one it is the reference's choice on every shape.
            route: |op, x| x.len() == 3 && !matches!(op, Op::Sdpa(Sdpa { causal: true, .. })),
        })
    }
    fn cases() -> Vec<Case> {
        let tolerance =
            Tolerance { ulp: 6.0, absolute: 4e-3, reason: "scores, probabilities and results each round" };
        let on = |[h, q, k, d]: [usize; 4], causal: bool, masked: bool| {
            let (query, key, mask) = ([1, h, q, d], [1, h, k, d], [1, 1, q, k]);
            let shapes: &[&[usize]] = &[&query, &key, &key, &mask];
            let op = Sdpa { scale: Real(1.0 / (d as f64).sqrt()), causal };
            Case::new(op, if masked { shapes } else { &shapes[..3] }, (-2.0, 2.0), tolerance)
        };
        vec![
            on([2, 5, 5, 8], false, false),
            on([1, 1, 7, 4], false, false),
            on([2, 6, 6, 4], true, false),
            on([3, 4, 6, 8], false, true),
        ]
    }
}
