//! Attention and gated units, composed by the library.

use crate::caller::attributed;
use crate::error::checked;
use crate::tensor::Tensor;
use aneforge::Var;
use aneforge::nn::{self, Attention, AttentionWeights};
use aneforge::target::layers;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Weight<'py> = Bound<'py, Tensor>;
/// Projections to queries, keys, values, and of the result.
type Projections<'py> = [Weight<'py>; 4];
/// Their biases.
type Biases<'py> = [Option<Weight<'py>>; 4];

fn weights([wq, wk, wv, wo]: &Projections<'_>, biases: &Biases<'_>) -> AttentionWeights {
    let var = |tensor: &Weight<'_>| tensor.get().var.clone();
    let [bq, bk, bv, bo] = biases.each_ref().map(|bias| bias.as_ref().map(var));
    AttentionWeights { wq: var(wq), bq, wk: var(wk), bk, wv: var(wv), bv, wo: var(wo), bo }
}

/// In how many parts attention takes its queries when nothing was measured.
#[pyfunction]
pub fn attention_tiles(queries: usize) -> usize {
    nn::attention_tiles(queries)
}

/// Whether attention to a context takes its queries in parts at all.
#[pyfunction]
pub fn cuts_cross_attention(queries: usize, keys: usize) -> bool {
    layers::cuts_cross_attention(queries, keys)
}

/// Sums over one axis as products with ones: all, or the one at a place of the graph.
#[pyfunction]
#[pyo3(signature = (x, only = None))]
pub fn reduce_sum_to_matmul(py: Python<'_>, x: &Bound<'_, Tensor>, only: Option<usize>) -> PyResult<Tensor> {
    let var = attributed(py, || aneforge::rewrite::reduce_sum_to_matmul(&x.get().var, only))?;
    Ok(Tensor { var: checked(var)? })
}

/// Multi-head attention of `x` to itself, or to `context`, with the queries in `parts` parts.
#[pyfunction]
#[pyo3(signature = (x, context, projections, biases, n_heads, parts, mask = None))]
#[expect(clippy::too_many_arguments, reason = "what Python passes")]
pub fn attention(
    py: Python<'_>,
    x: &Bound<'_, Tensor>,
    context: Option<&Bound<'_, Tensor>>,
    projections: Projections<'_>,
    biases: Biases<'_>,
    n_heads: i64,
    parts: usize,
    mask: Option<&Bound<'_, Tensor>>,
) -> PyResult<Tensor> {
    let heads = usize::try_from(n_heads)
        .map_err(|_| PyValueError::new_err(format!("n_heads must be at least 1, got {n_heads}")))?;
    let weights = weights(&projections, &biases);
    let x = &x.get().var;
    let mask: Option<&Var> = mask.map(|mask| &mask.get().var);
    let var = attributed(py, || match context {
        Some(context) => nn::cross_attention_in_parts(x, &context.get().var, &weights, heads, parts),
        None => nn::mha_in_parts(x, &weights, heads, mask, parts),
    })?;
    Ok(Tensor { var: checked(var)? })
}

/// `value * gelu(gate)`, where `x @ weight^T + bias` is `value` and `gate` side by side.
#[pyfunction]
#[pyo3(signature = (x, weight, bias = None))]
pub fn geglu(
    py: Python<'_>,
    x: &Bound<'_, Tensor>,
    weight: &Bound<'_, Tensor>,
    bias: Option<&Bound<'_, Tensor>>,
) -> PyResult<Tensor> {
    let bias: Option<&Var> = bias.map(|bias| &bias.get().var);
    let var = attributed(py, || nn::geglu(&x.get().var, &weight.get().var, bias))?;
    Ok(Tensor { var: checked(var)? })
}

/// Attention of given queries, keys and values: the engine's layer where it is reliable.
#[pyfunction]
#[pyo3(signature = (query, key, value, scale = None, causal = false, mask = None))]
pub fn sdpa(
    py: Python<'_>,
    query: &Bound<'_, Tensor>,
    key: &Bound<'_, Tensor>,
    value: &Bound<'_, Tensor>,
    scale: Option<f64>,
    causal: bool,
    mask: Option<&Bound<'_, Tensor>>,
) -> PyResult<Tensor> {
    let options = Attention { scale, causal, mask: mask.map(|mask| &mask.get().var) };
    let [query, key, value] = [query, key, value].map(|operand| &operand.get().var);
    let var = attributed(py, || nn::sdpa(query, key, value, &options))?;
    Ok(Tensor { var: checked(var)? })
}
