//! Attention of given queries, keys and values.

use crate::ir::attr::Real;
use crate::ir::op::Operator;
use crate::ir::ops::attention;
use crate::ir::ops::native::Sdpa;
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::target::layers;

/// What attention may see, and how scores are scaled.
#[derive(Clone, Debug, Default)]
pub struct Attention<'a> {
    /// The factor of the scores; by default `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// Whether query `i` sees keys `0..=i` only.
    pub causal: bool,
    /// Added to the scores, `[1, 1, Sq, Skv]`; a key is hidden by -1e4.
    pub mask: Option<&'a Var>,
}

/// `softmax(query @ key^T * scale + mask) @ value` per head.
///
/// `query` is `[1, H, Sq, D]`, `key` and `value` `[1, H, Skv, D]`; the result is `[1, H, Sq, D]`. In the range in
/// which the engine's own layer is reliable, compiling makes it that layer; beyond it, products and a softmax that
/// take `max(1, (Sq + 256) / 512)` parts of the queries one after the other.
///
/// ```
/// use aneforge::nn::{Attention, sdpa};
/// use aneforge::{CompileOptions, Shape, Var, compile};
///
/// let causal = Attention { causal: true, ..Attention::default() };
/// let plan = |length| {
///     let x = Var::input(Shape::new(&[1, 4, length, 8]).unwrap());
///     compile(&[sdpa(&x, &x, &x, &causal)], &CompileOptions::default())
/// };
/// assert!(plan(16)?.segments[0].netplist().is_some());
/// assert!(plan(600)?.segments[0].mil().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn sdpa(query: &Var, key: &Var, value: &Var, options: &Attention<'_>) -> Var {
    let operands: Vec<&Var> = [query, key, value].into_iter().chain(options.mask).collect();
    if let Some(bad) = operands.iter().find(|v| v.check().is_err()) {
        return (*bad).clone();
    }
    let features = query.shape().dims().last().copied().unwrap_or(1);
    let scale = Real(options.scale.unwrap_or((features as f64).powf(-0.5)));
    let (sdpa, types) = (Sdpa { scale, causal: options.causal }, operands.iter().map(|v| v.ty()));
    let types: Vec<TensorType> = types.collect();
    let out = match sdpa.infer(&types) {
        Ok(out) => out,
        Err(why) => return Var::poisoned("sdpa", why),
    };
    let parts = match layers::unreliable(&sdpa.form(&types, &out), &types) {
        Some(_) => layers::attention_parts(query.shape()[2]) as i64,
        None => 1,
    };
    Var::apply(attention::Attention { scale, causal: options.causal, parts, layer: true }, &operands)
}
