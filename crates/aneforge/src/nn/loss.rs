//! What a network is trained to make small.

use crate::ir::types::Caller;
use crate::ir::var::Var;

/// The mean of `(y - target)^2` over all elements: one element, with as many axes.
#[track_caller]
pub fn mse(y: &Var, target: &Var) -> Var {
    Caller::here().scope(|| {
        if y.check().is_ok() && target.check().is_ok() && y.shape() != target.shape() {
            let why = format!("must have one shape, got {} and {}", y.shape(), target.shape());
            return Var::poisoned("mse", why);
        }
        let axes: Vec<i64> = (0..y.shape().rank() as i64).collect();
        (y - target).square().mean(&axes)
    })
}

/// The mean over rows of `log(sum(exp(logits))) - sum(target * logits)`: the cross entropy of `target`, whose rows sum to 1, and
/// the softmax of `logits`, both `[N, K]`. One element, `[1, 1]`.
///
/// Its gradient is `(softmax(logits) - target) / N`, and takes no logarithm.
#[track_caller]
pub fn softmax_cross_entropy(logits: &Var, target: &Var) -> Var {
    Caller::here().scope(|| {
        if logits.check().is_err() {
            return logits.clone();
        }
        if target.check().is_err() {
            return target.clone();
        }
        if logits.shape().rank() != 2 || logits.shape() != target.shape() {
            let (logits, target) = (logits.shape(), target.shape());
            let why = format!("needs logits and targets [N, K] of one shape, got {logits} and {target}");
            return Var::poisoned("softmax_cross_entropy", why);
        }
        // From the greatest of each row on, so that the sum of products stays small however large logits are.
        let apart = logits - logits.amax(&[1]);
        let rows = apart.reduce_log_sum_exp(&[1]) - (target * &apart).sum(&[1]);
        rows.mean(&[0, 1])
    })
}

/// Labels `0..K` as targets `[N, K]`: `1 - smoothing` where a label is, and the rest in equal parts everywhere.
///
/// # Panics
/// If a label is not below `classes`.
pub fn one_hot(labels: &[usize], classes: usize, smoothing: f32) -> Vec<f32> {
    let mut rows = vec![smoothing / classes.max(1) as f32; labels.len() * classes];
    for (row, &label) in rows.chunks_exact_mut(classes.max(1)).zip(labels) {
        assert!(label < classes, "label {label} of {classes} classes");
        row[label] += 1.0 - smoothing;
    }
    rows
}
