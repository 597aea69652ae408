//! What a network is trained to make small.

use crate::ir::types::Caller;
use crate::ir::var::Var;
use crate::optim::Scale;

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

/// The mean over rows of `-sum(target * log(softmax(logits)))`: the cross entropy of `target` and the softmax of `logits`, both
/// `[N, K]`. Rows of `target` that sum to another number than 1 are rows with that weight. Its value is `[1, 1]`.
///
/// Its gradient is written as what it comes to, `(softmax(logits) * sum(target) - target) / N`.
#[track_caller]
pub fn softmax_cross_entropy(logits: &Var, target: &Var) -> Loss {
    Caller::here().scope(|| {
        let broken = [logits, target].into_iter().find(|var| var.check().is_err());
        if let Some(broken) = broken {
            return Loss::from(broken);
        }
        if logits.shape().rank() != 2 || logits.shape() != target.shape() {
            let (logits, target) = (logits.shape(), target.shape());
            let why = format!("needs logits and targets [N, K] of one shape, got {logits} and {target}");
            return Loss::from(Var::poisoned("softmax_cross_entropy", why));
        }
        // From the greatest of each row on, so that the sum of products stays small however large logits are.
        let apart = logits - logits.amax(&[1]);
        let weight = target.sum(&[1]);
        let rows = apart.reduce_log_sum_exp(&[1]) * &weight - (target * &apart).sum(&[1]);
        let written = Written {
            root: logits.clone(),
            cotangent: logits.softmax(1) * weight - target,
            share: 1.0 / logits.shape()[0] as f64,
        };
        Loss { value: rows.mean(&[0, 1]), written: Some(written) }
    })
}

/// What a network is trained to make small, with its gradient where that is known in a better form than the value's.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The loss, of one element.
    pub value: Var,
    written: Option<Written>,
}

/// A gradient that is written down: `share` of `cotangent`, at `root`.
#[derive(Clone, Debug)]
struct Written {
    root: Var,
    cotangent: Var,
    share: f64,
}

impl Loss {
    /// Where the walk back begins, and with which cotangent, multiplied with `scale`.
    #[track_caller]
    pub fn seed(&self, scale: &Scale) -> (Var, Var) {
        Caller::here().scope(|| match (&self.written, scale) {
            (None, Scale::Fixed(scale)) => (self.value.clone(), Var::full(self.value.shape(), *scale)),
            (None, Scale::Value(scale)) => (self.value.clone(), scale.reshape_to(self.value.shape())),
            (Some(Written { root, cotangent, share }), Scale::Fixed(scale)) => {
                (root.clone(), cotangent.muls(scale * share))
            }
            (Some(Written { root, cotangent, share }), Scale::Value(scale)) => {
                (root.clone(), cotangent * scale.muls(*share))
            }
        })
    }
}

impl From<&Var> for Loss {
    fn from(value: &Var) -> Loss {
        Loss { value: value.clone(), written: None }
    }
}

impl From<Var> for Loss {
    fn from(value: Var) -> Loss {
        Loss { value, written: None }
    }
}

impl From<&Loss> for Loss {
    fn from(loss: &Loss) -> Loss {
        loss.clone()
    }
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
