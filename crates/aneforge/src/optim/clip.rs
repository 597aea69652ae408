//! Gradients that are kept from being too long.

use super::{LEAST, Scale};
use crate::ir::types::Caller;
use crate::ir::var::Var;

/// All gradients, shortened in the same way where together they are longer than `most`, and their length, of one element,
/// which is infinite where half precision does not hold it.
///
/// They are multiplied with `scale`; the length is not. Squares are taken of parts of the greatest element, so that they stay
/// in half precision, and sums as means.
#[track_caller]
pub fn clip_by_norm(gradients: &[Var], most: f64, scale: &Scale) -> (Vec<Var>, Var) {
    Caller::here().scope(|| {
        let all = |x: &Var| (0..x.shape().rank() as i64).collect::<Vec<_>>();
        let greatest: Vec<Var> = gradients.iter().map(|g| g.abs().amax(&all(g)).reshape(&[1])).collect();
        let greatest = joined(&greatest).amax(&[0]).maximum(&Var::scalar(LEAST));
        let total: usize = gradients.iter().map(|g| g.shape().count()).sum();
        let share = |g: &Var| {
            let mean = (g / &greatest).square().mean(&all(g)).reshape(&[1]);
            mean.muls(g.shape().count() as f64 / total as f64)
        };
        let shares: Vec<Var> = gradients.iter().map(share).collect();
        let root = joined(&shares).sum(&[0]).sqrt().muls((total as f64).sqrt());
        let length = scale.unscaled(&greatest) * root;
        let factor = (Var::scalar(most) / &length).minimum(&Var::scalar(1.0));
        (gradients.iter().map(|g| g * &factor).collect(), length)
    })
}

/// Values of one element as one of several.
pub(crate) fn joined(values: &[Var]) -> Var {
    match values {
        [one] => one.clone(),
        several => Var::concat(&several.iter().collect::<Vec<_>>(), 0),
    }
}
