//! Layers as ordinary functions over values.
//!
//! They build the ops of [`ir`](crate::ir) and add none. Like every method of [`Var`] they never panic: a
//! mistake stays in the result, with the line that made it.

mod layer;
mod loss;
mod noise;
mod scope;
mod sdpa;
mod strided;

pub use layer::{Conv2d, Embedding, GroupNorm, Linear, Lora, MultiHeadAttention, Norm, causal_mask};
pub use loss::{Loss, mse, one_hot, softmax_cross_entropy};
pub use noise::Noise;
pub use scope::{Init, Parameter, Scope};
pub use sdpa::{Attention, sdpa};

use crate::ir::attr::Real;
use crate::ir::ops::attention;
use crate::ir::types::Caller;
use crate::ir::var::Var;
use crate::target::layers;

/// The weights of an attention: four projections `[out, in]` and their biases `[out]`.
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// Projects to queries.
    pub wq: Var,
    /// Bias of the queries.
    pub bq: Option<Var>,
    /// Projects to keys.
    pub wk: Var,
    /// Bias of the keys.
    pub bk: Option<Var>,
    /// Projects to values.
    pub wv: Var,
    /// Bias of the values.
    pub bv: Option<Var>,
    /// Projects the heads' results, side by side.
    pub wo: Var,
    /// Bias of the result.
    pub bo: Option<Var>,
}

impl AttentionWeights {
    fn all(&self) -> impl Iterator<Item = &Var> {
        let biases = [&self.bq, &self.bk, &self.bv, &self.bo];
        [&self.wq, &self.wk, &self.wv, &self.wo].into_iter().chain(biases.into_iter().flatten())
    }
}

/// Multi-head self-attention: `softmax(q k^T / sqrt(d) + mask) v` per head, heads merged and projected.
///
/// `x` is `[S, D]`; the result is `[S, out]`. `mask` is added to the scores of head, query and key, and is
/// `[S, S]`, `[1, S, S]` or `[H, S, S]`; a key is hidden by -1e4, as half precision has no use for -inf.
/// Queries are taken in [`attention_tiles`] parts, which bounds the scores and changes no result;
/// [`mha_in_parts`] takes another number.
///
/// ```
/// use aneforge::nn::{AttentionWeights, mha};
/// use aneforge::{Shape, Var};
///
/// let square = || Var::full(Shape::new(&[8, 8]).unwrap(), 0.1);
/// let (wq, wk, wv, wo) = (square(), square(), square(), square());
/// let weights = AttentionWeights { wq, bq: None, wk, bk: None, wv, bv: None, wo, bo: None };
/// let x = Var::input(Shape::new(&[5, 8])?);
/// assert_eq!(mha(&x, &weights, 2, None).check()?.shape.dims(), [5, 8]);
/// let error = mha(&x, &weights, 3, None).check().unwrap_err().to_string();
/// assert!(error.starts_with("mha: 8 features do not divide into 3 heads"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn mha(x: &Var, weights: &AttentionWeights, n_heads: usize, mask: Option<&Var>) -> Var {
    mha_in_parts(x, weights, n_heads, mask, attention_tiles(length(x)))
}

/// [`mha`] with queries in `parts` parts.
#[track_caller]
pub fn mha_in_parts(
    x: &Var,
    weights: &AttentionWeights,
    n_heads: usize,
    mask: Option<&Var>,
    parts: usize,
) -> Var {
    Caller::here().scope(|| attention("mha", [x, x], weights, n_heads, mask, parts))
}

/// In how many parts attention takes `queries`: `max(1, (queries + 256) / 512)`, rounded down.
pub fn attention_tiles(queries: usize) -> usize {
    layers::attention_parts(queries)
}

/// The rows of a matrix.
fn length(x: &Var) -> usize {
    x.shape().dims().first().copied().unwrap_or(1)
}

/// Multi-head attention of `x` `[S, D]` to `context` `[T, E]`; the result is `[S, out]`.
///
/// Queries are taken in parts, as in [`mha`], from 768 queries and 512 keys on.
#[track_caller]
pub fn cross_attention(x: &Var, context: &Var, weights: &AttentionWeights, n_heads: usize) -> Var {
    let (queries, keys) = (length(x), length(context));
    let parts = if layers::cuts_cross_attention(queries, keys) { attention_tiles(queries) } else { 1 };
    cross_attention_in_parts(x, context, weights, n_heads, parts)
}

/// [`cross_attention`] with queries in `parts` parts.
#[track_caller]
pub fn cross_attention_in_parts(
    x: &Var,
    context: &Var,
    weights: &AttentionWeights,
    n_heads: usize,
    parts: usize,
) -> Var {
    Caller::here().scope(|| attention("cross_attention", [x, context], weights, n_heads, None, parts))
}

/// `value * gelu(gate)` where `x @ weight^T + bias` is `value` and `gate` side by side.
///
/// `weight` is `[2F, D]`, its first half for the value; the result is `[..., F]`. Each half is a layer of its
/// own: the product is never cut along its last axis, where older engines saturate.
#[track_caller]
pub fn geglu(x: &Var, weight: &Var, bias: Option<&Var>) -> Var {
    Caller::here().scope(|| {
        let rows = weight.split(2, 0);
        let biases = bias.map(|bias| bias.split(2, -1));
        let half = |i: usize| x.linear(&rows[i], biases.as_ref().map(|parts| &parts[i]));
        half(0) * half(1).gelu()
    })
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`: the approximation that GPT-2 was trained with.
#[track_caller]
pub fn gelu_tanh(x: &Var) -> Var {
    Caller::here().scope(|| {
        let cubed = x.square() * x;
        let inner = (x + cubed.muls(0.044715)).muls((2.0 / std::f64::consts::PI).sqrt());
        x.muls(0.5) * inner.tanh().adds(1.0)
    })
}

/// Attention of `x` to `context`, with queries in `parts` parts.
fn attention(
    name: &str,
    [x, context]: [&Var; 2],
    weights: &AttentionWeights,
    n_heads: usize,
    mask: Option<&Var>,
    parts: usize,
) -> Var {
    let operands = [x, context].into_iter().chain(weights.all()).chain(mask);
    for operand in operands {
        if operand.check().is_err() {
            return operand.clone();
        }
    }
    if x.shape().rank() != 2 || context.shape().rank() != 2 {
        let why = format!("needs [rows, features], got {} and {}", x.shape(), context.shape());
        return Var::poisoned(name, why);
    }
    let q = x.linear(&weights.wq, weights.bq.as_ref());
    let k = context.linear(&weights.wk, weights.bk.as_ref());
    let v = context.linear(&weights.wv, weights.bv.as_ref());
    if let Some(bad) = [&q, &k, &v].into_iter().find(|p| p.check().is_err()) {
        return bad.clone();
    }
    if let Err(why) = fits([&q, &k, &v], n_heads, mask) {
        return Var::poisoned(name, why);
    }
    let merged = attend(&heads(&q, n_heads), &heads(&k, n_heads), &heads(&v, n_heads), mask, parts);
    merged.linear(&weights.wo, weights.bo.as_ref())
}

/// Whether projections divide into heads, and the mask fits their scores.
fn fits([q, k, v]: [&Var; 3], n_heads: usize, mask: Option<&Var>) -> Result<(), String> {
    let width = q.shape()[1];
    if n_heads == 0 || width % n_heads != 0 {
        return Err(format!("{width} features do not divide into {n_heads} heads"));
    }
    if k.shape()[1] != width || v.shape()[1] % n_heads != 0 {
        let (k, v) = (k.shape()[1], v.shape()[1]);
        return Err(format!("queries have {width} features, keys {k}, values {v}; heads need equal ones"));
    }
    let Some(mask) = mask else { return Ok(()) };
    let scores = [q.shape()[0], k.shape()[0]];
    match mask.shape().dims() {
        [s, t] if [*s, *t] == scores => Ok(()),
        [h, s, t] if [*s, *t] == scores && (*h == 1 || *h == n_heads) => Ok(()),
        other => {
            let [s, t] = scores;
            Err(format!("mask must be [{s}, {t}], [1, {s}, {t}] or [{n_heads}, {s}, {t}], got {other:?}"))
        }
    }
}

/// `[S, H * d]` as `[H, S, d]`.
fn heads(x: &Var, n: usize) -> Var {
    let [rows, width] = [x.shape()[0], x.shape()[1]];
    x.reshape(&[rows as i64, n as i64, (width / n) as i64]).transpose(&[1, 0, 2])
}

/// The heads' results side by side, `[S, H * d]`, of queries, keys and values `[H, S, d]`.
fn attend(q: &Var, k: &Var, v: &Var, mask: Option<&Var>, parts: usize) -> Var {
    let queries = q.shape()[1];
    let scale = (q.shape()[2] as f64).powf(-0.5);
    let parts = parts.clamp(1, queries) as i64;
    let op = attention::Attention { scale: Real(scale), causal: false, parts, layer: false };
    let merged = Var::apply(op, &[q, k, v].into_iter().chain(mask).collect::<Vec<_>>());
    let width = merged.shape().dims().iter().product::<usize>() / queries;
    merged.transpose(&[1, 0, 2]).reshape(&[queries as i64, width as i64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CompileOptions, DType, Session, Shape, Tensor, compile, device};
    use aneforge_tensor::random::{normal, normal_tensor};

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    fn weights(d: usize) -> AttentionWeights {
        let w = |seed| Var::constant(normal_tensor(seed, shape(&[d, d]), 0.3));
        let b = |seed| Some(Var::constant(normal_tensor(seed, shape(&[d]), 0.3)));
        let (wq, wk, wv, wo) = (w(1), w(2), w(3), w(4));
        AttentionWeights { wq, bq: b(5), wk, bk: b(6), wv, bv: b(7), wo, bo: b(8) }
    }

    fn run(y: Var, feeds: &[Tensor]) -> Vec<f32> {
        let plan = compile(&[y], &CompileOptions::default()).unwrap();
        let mut session = Session::new(plan, device::named("host").unwrap()).unwrap();
        session.run(feeds).unwrap()[0].to_f32()
    }

    /// Attention in double precision, straight from its definition.
    fn definition(
        x: &[f32],
        s: usize,
        d: usize,
        h: usize,
        mask: impl Fn(usize, usize, usize) -> f64,
    ) -> Vec<f64> {
        let project = |seed: u64, x: &[f64]| -> Vec<f64> {
            let w = |n, k| f64::from(normal(seed, (n * d + k) as u64) * 0.3);
            let cell = |i: usize| (0..d).map(|k| x[i / d * d + k] * w(i % d, k)).sum::<f64>();
            (0..s * d).map(|i| cell(i) + f64::from(normal(seed + 4, (i % d) as u64) * 0.3)).collect()
        };
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let (q, k, v) = (project(1, &x), project(2, &x), project(3, &x));
        let dh = d / h;
        let mut merged = vec![0.0; s * d];
        for head in 0..h {
            for i in 0..s {
                let score = |j: usize| {
                    let dot: f64 = (0..dh).map(|c| q[i * d + head * dh + c] * k[j * d + head * dh + c]).sum();
                    (dot / (dh as f64).sqrt() + mask(head, i, j)).exp()
                };
                let scores: Vec<f64> = (0..s).map(score).collect();
                let total: f64 = scores.iter().sum();
                for c in 0..dh {
                    merged[i * d + head * dh + c] =
                        (0..s).map(|j| scores[j] / total * v[j * d + head * dh + c]).sum();
                }
            }
        }
        project(4, &merged)
    }

    fn close(got: &[f32], want: &[f64]) {
        for (g, w) in got.iter().zip(want) {
            assert!((f64::from(*g) - w).abs() < 0.01 + 0.01 * w.abs(), "{g} {w}");
        }
    }

    #[test]
    fn attention_is_its_definition_under_every_mask() {
        let (s, d, h) = (6, 8, 2);
        let feed = normal_tensor(9, shape(&[s, d]), 1.0);
        let hidden =
            |head: usize, i: usize, j: usize| if (i + j + head).is_multiple_of(3) { -1e4 } else { 0.0 };
        for dims in [vec![], vec![s, s], vec![1, s, s], vec![h, s, s]] {
            let lead = if dims.len() == 3 { dims[0] } else { 1 };
            let values: Vec<f32> =
                (0..lead * s * s).map(|i| hidden(i / (s * s), i / s % s, i % s) as f32).collect();
            let mask =
                (!dims.is_empty()).then(|| Var::constant(Tensor::from_slice(shape(&dims), &values).unwrap()));
            let x = Var::input(shape(&[s, d]));
            let got = run(mha(&x, &weights(d), h, mask.as_ref()), std::slice::from_ref(&feed));
            let want = definition(&feed.to_f32(), s, d, h, |head, i, j| match (&mask, lead) {
                (None, _) => 0.0,
                (_, 1) => hidden(0, i, j),
                _ => hidden(head, i, j),
            });
            close(&got, &want);
        }
    }

    #[test]
    fn taking_queries_in_parts_changes_no_bit() {
        let (s, d, h) = (21, 8, 2);
        let feed = normal_tensor(9, shape(&[s, d]), 1.0);
        let mask = Var::constant(normal_tensor(10, shape(&[1, s, s]), 1.0));
        let x = Var::input(shape(&[s, d]));
        let with = |parts| {
            let y = attention("mha", [&x, &x], &weights(d), h, Some(&mask), parts);
            run(y, std::slice::from_ref(&feed))
        };
        let whole = with(1);
        assert_eq!(with(2), whole);
        assert_eq!(with(5), whole);
        assert_eq!(with(100), whole);
    }

    #[test]
    fn long_sequences_are_taken_in_parts() {
        let count = |s: usize| {
            let x = Var::input(shape(&[s, 8]));
            let graph = crate::Graph::freeze(&[mha(&x, &weights(8), 2, None)]).unwrap();
            layers::written_out(&graph).nodes().filter(|(_, n)| n.op.name() == "softmax").count()
        };
        assert_eq!([16, 767, 768, 1280].map(count), [1, 1, 2, 3]);
        let cut = |queries, keys| layers::cuts_cross_attention(queries, keys);
        assert_eq!([cut(767, 512), cut(768, 511), cut(768, 512)], [false, false, true]);
    }

    #[test]
    fn attention_to_a_context_has_its_queries_rows() {
        let (x, context) = (Var::input(shape(&[3, 8])), Var::input(shape(&[5, 8])));
        assert_eq!(cross_attention(&x, &context, &weights(8), 4).check().unwrap().shape, shape(&[3, 8]));
    }

    #[test]
    fn mistakes_stay_in_the_result_and_name_the_line() {
        let x = Var::input(shape(&[5, 8]));
        let why = |y: Var| y.check().unwrap_err().to_string();
        let w = weights(8);
        let line = line!() + 1;
        let message = why(mha(&x, &w, 3, None));
        let place = format!("(at {}:{line})", file!());
        assert_eq!(message, format!("mha: 8 features do not divide into 3 heads {place}"));
        assert!(why(mha(&x, &w, 0, None)).contains("into 0 heads"));
        assert!(why(mha(&Var::input(shape(&[8])), &w, 2, None)).contains("needs [rows, features], got [8]"));
        assert!(why(mha(&Var::input(shape(&[5, 7])), &w, 2, None)).contains("inner sizes differ, 7 and 8"));
        let mask = Var::input(shape(&[2, 5, 4]));
        let want = "mask must be [5, 5], [1, 5, 5] or [4, 5, 5], got [2, 5, 4]";
        assert!(why(mha(&x, &w, 4, Some(&mask))).contains(want));
        let poisoned = Var::poisoned("feed", "is missing");
        for y in [
            mha(&poisoned, &w, 2, None),
            mha(&x, &AttentionWeights { bo: Some(poisoned.clone()), ..w.clone() }, 2, None),
            mha(&x, &w, 2, Some(&poisoned)),
            cross_attention(&x, &poisoned, &w, 2),
            geglu(&poisoned, &w.wq, None),
            gelu_tanh(&poisoned),
        ] {
            assert!(why(y).starts_with("feed: is missing"));
        }
        assert!(why(geglu(&x, &Var::input(shape(&[3, 8])), None)).contains("does not divide into 2"));
        let bytes = Var::input_of(crate::TensorType { dtype: DType::U8, shape: shape(&[5, 8]) });
        assert!(why(mha(&bytes, &w, 2, None)).contains("takes fp16, got uint8"));
    }

    #[test]
    fn gated_units_take_the_value_from_the_first_half() {
        let x = Var::input(shape(&[1, 1]));
        let weight = Tensor::from_slice(shape(&[2, 1]), &[3.0f32, 0.5]).unwrap();
        let got = run(
            geglu(&x, &Var::constant(weight), None),
            &[Tensor::from_slice(shape(&[1, 1]), &[2.0f32]).unwrap()],
        );
        assert!((got[0] - 6.0 * 0.841_344_7).abs() < 5e-3, "{got:?}");
    }

    #[test]
    fn the_tanh_form_is_close_to_its_definition() {
        let values: Vec<f32> = (-40..=40).map(|i| i as f32 / 8.0).collect();
        let x = Var::input(shape(&[values.len()]));
        let got = run(gelu_tanh(&x), &[Tensor::from_slice(shape(&[values.len()]), &values).unwrap()]);
        let exact = |&v: &f32| {
            let v = f64::from(v);
            0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
        };
        close(&got, &values.iter().map(exact).collect::<Vec<_>>());
    }
}
