//! Attention of given queries, keys and values.

use crate::ir::attr::Real;
use crate::ir::ops::native::Sdpa;
use crate::ir::ops::native::attention::{causal_mask, is_native};
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::Var;

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
/// which the engine's own layer is reliable this is that layer; beyond it, products and a softmax that take
/// `max(1, (Sq + 256) / 512)` parts of the queries one after the other.
///
/// ```
/// use aneforge::nn::{Attention, sdpa};
/// use aneforge::{Shape, Var};
///
/// let x = Var::input(Shape::new(&[1, 4, 16, 8])?);
/// let causal = Attention { causal: true, ..Attention::default() };
/// assert_eq!(sdpa(&x, &x, &x, &causal).op().name(), "sdpa");
/// let long = Var::input(Shape::new(&[1, 4, 600, 8])?);
/// assert_eq!(sdpa(&long, &long, &long, &causal).op().name(), "bmm");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn sdpa(query: &Var, key: &Var, value: &Var, options: &Attention<'_>) -> Var {
    let operands: Vec<&Var> = [query, key, value].into_iter().chain(options.mask).collect();
    if let Some(bad) = operands.iter().find(|v| v.check().is_err()) {
        return (*bad).clone();
    }
    let features = query.shape().dims().last().copied().unwrap_or(1);
    let scale = options.scale.unwrap_or((features as f64).powf(-0.5));
    let op = Sdpa { scale: Real(scale), causal: options.causal };
    let types: Vec<TensorType> = operands.iter().map(|v| v.ty()).collect();
    match op.lengths(&types) {
        Err(why) => Var::poisoned("sdpa", why),
        Ok([queries, keys]) if is_native(queries, keys) => Var::apply(op, &operands),
        Ok([queries, keys]) => Caller::here().scope(|| tiled(&op, &operands, queries, keys)),
    }
}

/// Attention written with products and a softmax, some queries at a time.
fn tiled(op: &Sdpa, x: &[&Var], queries: usize, keys: usize) -> Var {
    let rows = queries.div_ceil(((queries + 256) / 512).max(1));
    let transposed = x[1].swap_last();
    let mut parts = Vec::new();
    for start in (0..queries).step_by(rows) {
        let end = (start + rows).min(queries);
        let part = |v: &Var| if rows < queries { v.narrow(2, start, end) } else { v.clone() };
        let mut scores = part(x[0]).matmul_value(&transposed).muls(op.scale.0);
        if op.causal {
            scores = scores + causal_mask(start, end - start, keys);
        }
        if let Some(mask) = x.get(3) {
            scores = scores + part(mask);
        }
        parts.push(scores.softmax(-1).matmul_value(x[2]));
    }
    match &parts[..] {
        [only] => only.clone(),
        _ => Var::concat(&parts.iter().collect::<Vec<_>>(), 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::precision::{Array, Precision};
    use crate::{Graph, Numerics, Shape};
    use aneforge_tensor::random;

    /// Attention in tiles is attention: compared with the layer's own definition, which has no bound.
    #[test]
    fn tiles_change_no_bit() {
        let shape = Shape::new(&[1, 1, 800, 4]).unwrap();
        let x = Var::input(shape);
        for causal in [false, true] {
            let op = Sdpa { scale: Real(0.5), causal };
            let whole = {
                let mut scores = x.matmul_value(&x.swap_last()).muls(0.5);
                if causal {
                    scores = scores + causal_mask(0, 800, 800);
                }
                scores.softmax(-1).matmul_value(&x)
            };
            let feed = Array::from_fn(shape, |i| f64::from(random::uniform(3, i as u64)));
            let value = |y: Var| {
                let graph = Graph::freeze(&[y]).unwrap();
                let values = graph.eval(std::slice::from_ref(&feed), Precision::F16(Numerics::Ieee));
                values[graph.outputs()[0].index()].clone()
            };
            let tiles = tiled(&op, &[&x, &x, &x], 800, 800);
            assert_eq!(tiles.op().name(), "concat");
            assert_eq!(value(tiles), value(whole));
        }
    }
}
