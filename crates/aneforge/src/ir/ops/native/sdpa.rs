//! Attention as a layer.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::attention::Attention;
use crate::ir::ops::native::{through, written};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Constant, Layer, RESULT, Symbol, Value};
use aneforge_mil::program::DType;
use aneforge_tensor::round_f16;

op! {
    /// Attention of all heads as one layer: `softmax(query @ key^T * scale + mask) @ value`.
    ///
    /// `query` is `[1, H, Sq, D]`, `key` and `value` `[1, H, Skv, D]`, `mask` `[1, 1, Sq, Skv]`, added to the
    /// scores of every head; the result is `[1, H, Sq, D]`. A causal mask hides later keys with -1e4 and
    /// needs `Sq = Skv`. The layer is reliable for `min(Sq, Skv) < 512` and `max(Sq, Skv) <= 2048`, and refused
    /// beyond; `sdpa` in Python and `nn::sdpa` write longer ones with other ops. Every step of the formula rounds.
    /// In Python, `af.sdpa(query, key, value)`.
    pub struct Sdpa = "sdpa"("query", "key", "value", "mask?") {
        /// The factor of the scores, by convention `1 / sqrt(D)`.
        scale: Real,
        /// Whether query `i` sees keys `0..=i` only.
        causal: bool = false,
    }
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
    Attention { scale: *scale, causal: *causal, parts: 1, layer: false }.write(x)
};

impl Operator for Sdpa {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
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
        let Some(mask) = x.get(3) else { return Ok(x[0]) };
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
                let bytes = round_f16(scale.0).to_le_bytes();
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
