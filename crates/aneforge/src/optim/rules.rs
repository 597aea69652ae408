//! The rules.

use super::{LARGEST, LEAST, Scale};
use crate::ir::types::Caller;
use crate::ir::var::Var;
use std::fmt;

/// How a weight follows its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `v <- momentum v + g`, and the weight goes along `-v`, or with `nesterov` along `-(g + momentum v)` (Sutskever et al.,
    /// ICML 2013, as PyTorch writes it).
    Sgd {
        /// How much of the last step is kept; 0 for none, which keeps no state either.
        momentum: f64,
        /// Whether the gradient is taken as if the step were made.
        nesterov: bool,
    },
    /// `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`, and the weight goes along `-m / (sqrt(v) + eps)`, both moments freed
    /// of their bias (Kingma and Ba, ICLR 2015). What is kept is `sqrt(v)`.
    Adam {
        /// How much of the first moment is kept.
        beta1: f64,
        /// How much of the second one is kept.
        beta2: f64,
        /// What the root is moved away from 0 by.
        eps: f64,
    },
    /// The weight goes along `-sign(b1 m + (1 - b1) g)`, then `m <- b2 m + (1 - b2) g` (Chen et al., NeurIPS 2023).
    Lion {
        /// How much of the moment is in a step.
        beta1: f64,
        /// How much of it is kept.
        beta2: f64,
    },
}

/// A rule, and what else pulls at weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// How fast weights shrink: `weight_decay` times the rate, per step.
    pub weight_decay: f64,
    /// Whether the shrinking goes by the rule's own statistics, as a part of the gradient, instead of beside them (Loshchilov
    /// and Hutter, ICLR 2019).
    pub coupled: bool,
}

impl Optimizer {
    /// Gradient descent.
    pub fn sgd() -> Optimizer {
        Optimizer::of(Rule::Sgd { momentum: 0.0, nesterov: false })
    }

    /// Gradient descent with momentum.
    pub fn momentum(momentum: f64) -> Optimizer {
        Optimizer::of(Rule::Sgd { momentum, nesterov: false })
    }

    /// Gradient descent with Nesterov's momentum.
    pub fn nesterov(momentum: f64) -> Optimizer {
        Optimizer::of(Rule::Sgd { momentum, nesterov: true })
    }

    /// Adam with the usual numbers.
    pub fn adam() -> Optimizer {
        Optimizer::of(Rule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 })
    }

    /// Adam whose weights shrink beside it.
    pub fn adamw(weight_decay: f64) -> Optimizer {
        Optimizer { weight_decay, ..Optimizer::adam() }
    }

    /// Lion with the usual numbers.
    pub fn lion(weight_decay: f64) -> Optimizer {
        Optimizer { weight_decay, ..Optimizer::of(Rule::Lion { beta1: 0.9, beta2: 0.99 }) }
    }

    /// A rule alone.
    pub fn of(rule: Rule) -> Optimizer {
        Optimizer { rule, weight_decay: 0.0, coupled: false }
    }

    /// What is kept of each weight, by name.
    pub fn slots(&self) -> &'static [&'static str] {
        match self.rule {
            Rule::Sgd { momentum: 0.0, .. } => &[],
            Rule::Sgd { .. } => &["velocity"],
            Rule::Adam { .. } => &["mean", "root"],
            Rule::Lion { .. } => &["mean"],
        }
    }

    /// What the rate of step `t` is, the first being 1: freed of the bias that moments have which began as zeros.
    pub fn rate(&self, lr: f64, t: u64) -> f64 {
        let power = |b: f64| b.powf(t as f64);
        match self.rule {
            Rule::Adam { beta1, beta2, .. } => lr * (1.0 - power(beta2)).sqrt() / (1.0 - power(beta1)),
            _ => lr,
        }
    }

    /// Why it cannot be, if it cannot.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, b: f64| match (0.0..1.0).contains(&b) {
            true => Ok(()),
            false => Err(format!("{name} must be at least 0 and less than 1, got {b}")),
        };
        match self.rule {
            Rule::Sgd { momentum, nesterov } => {
                share("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err("nesterov needs a momentum; it must be more than 0".into());
                }
            }
            Rule::Adam { beta1, beta2, eps } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                if !(0.0..=1.0).contains(&eps) {
                    return Err(format!("eps must be from 0 to 1, got {eps}"));
                }
            }
            Rule::Lion { beta1, beta2 } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
            }
        }
        match (0.0..=1.0).contains(&self.weight_decay) {
            true => Ok(()),
            false => Err(format!("weight_decay must be from 0 to 1, got {}", self.weight_decay)),
        }
    }

    /// One step of a weight.
    ///
    /// `gradient` and `slots` are multiplied with the scale, `slots` are those of [`Optimizer::slots`], and the
    /// [change](Step::change) is to be taken from the weight. Where the step may be void, the gradient is to be 0 then.
    #[track_caller]
    pub fn step(&self, weight: &Var, gradient: &Var, slots: &[Var], rates: &Rates) -> Step {
        Caller::here().scope(|| {
            let pull = self.weight_decay != 0.0;
            let gradient = match pull && self.coupled {
                true => {
                    let share = rates.valid(&Var::scalar(self.weight_decay));
                    gradient + rates.scale.scaled(&(weight * share))
                }
                false => gradient.clone(),
            };
            let step = self.plain(&gradient, slots, rates);
            match (&rates.decay, pull && !self.coupled) {
                (Some(decay), true) => Step { change: step.change + weight * rates.valid(decay), ..step },
                _ => step,
            }
        })
    }

    /// The most that a step makes of values that are at most these, none of which is below 0.
    pub(crate) fn most(&self, weight: &Var, gradient: &Var, slots: &[Var], rates: &Rates) -> Step {
        let step = self.step(weight, gradient, slots, rates);
        let Rule::Adam { .. } = self.rule else { return step };
        // A quotient is not greatest where both of its parts are.
        let change = rates.rate.muls(self.longest());
        match &rates.decay {
            Some(decay) if self.weight_decay != 0.0 && !self.coupled => {
                Step { change: change + weight * decay, ..step }
            }
            _ => Step { change, ..step },
        }
    }

    /// What Adam's quotient is kept within: twice what it can be by the inequality of Cauchy and Schwarz, as both moments are of the
    /// same gradients; where there is no such bound, the largest number.
    fn longest(&self) -> f64 {
        match self.rule {
            Rule::Adam { beta1, beta2, .. } if beta1 * beta1 < beta2 && beta2 < 1.0 => {
                let most = (1.0 - beta1) / ((1.0 - beta2) * (1.0 - beta1 * beta1 / beta2)).sqrt();
                (2.0 * most).min(LARGEST)
            }
            _ => LARGEST,
        }
    }

    fn plain(&self, gradient: &Var, slots: &[Var], rates: &Rates) -> Step {
        let rate = &rates.valid(&rates.rate);
        let (kept, new) =
            (|x: &Var, share| rates.kept(x, share, 1), |x: &Var, share| rates.fresh(x, share, 1));
        match (self.rule, slots) {
            (Rule::Sgd { momentum, nesterov }, [velocity]) => {
                let velocity = kept(velocity, momentum) + new(gradient, 1.0);
                let along = match nesterov {
                    true => new(gradient, 1.0) + velocity.muls(momentum),
                    false => velocity.clone(),
                };
                Step { change: rates.after().unscaled(&(along * rate)), slots: vec![velocity] }
            }
            (Rule::Sgd { .. }, _) => {
                Step { change: rates.scale.unscaled(&(gradient * rate)), slots: Vec::new() }
            }
            (Rule::Adam { beta1, beta2, eps }, [mean, root]) => {
                let mean = kept(mean, beta1) + new(gradient, 1.0 - beta1);
                let root = root_of_mean(root, gradient, beta2, rates);
                let quotient = &mean / (&root + rates.after().times(eps));
                let quotient = quotient.clip(-self.longest(), self.longest());
                Step { change: quotient * rate, slots: vec![mean, root] }
            }
            (Rule::Lion { beta1, beta2 }, [mean]) => {
                let along = mean.muls(beta1) + gradient.muls(1.0 - beta1);
                let mean = kept(mean, beta2) + new(gradient, 1.0 - beta2);
                Step { change: along.sign() * rate, slots: vec![mean] }
            }
            (rule, slots) => {
                let why =
                    format!("{rule:?} keeps {:?} of each weight, got {} values", self.slots(), slots.len());
                Step { change: Var::poisoned("optimizer", why), slots: slots.to_vec() }
            }
        }
    }
}

/// As messages call it; two that differ are called differently.
///
/// ```
/// use aneforge::optim::Optimizer;
/// let told = Optimizer::adamw(0.01).to_string();
/// assert_eq!(told, "adam with betas 0.9 and 0.999 and eps 1e-8, weight decay 0.01");
/// ```
impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Rule::Sgd { momentum: 0.0, .. } => write!(f, "sgd")?,
            Rule::Sgd { momentum, nesterov: false } => write!(f, "sgd with momentum {momentum}")?,
            Rule::Sgd { momentum, nesterov: true } => write!(f, "sgd with Nesterov's momentum {momentum}")?,
            Rule::Adam { beta1, beta2, eps } => {
                write!(f, "adam with betas {beta1} and {beta2} and eps {eps:e}")?;
            }
            Rule::Lion { beta1, beta2 } => write!(f, "lion with betas {beta1} and {beta2}")?,
        }
        match (self.weight_decay, self.coupled) {
            (0.0, _) => Ok(()),
            (decay, false) => write!(f, ", weight decay {decay}"),
            (decay, true) => write!(f, ", weight decay {decay} in the gradient"),
        }
    }
}

/// `sqrt(b root^2 + (1 - b) g^2)`, in parts of the greater of the two, so that no square leaves half precision.
fn root_of_mean(root: &Var, gradient: &Var, beta: f64, rates: &Rates) -> Var {
    let size = gradient.abs();
    let most = root.maximum(&size).maximum(&Var::scalar(LEAST));
    let (old, new) = (root / &most, size / &most);
    most * (rates.kept(&old.square(), beta, 2) + rates.fresh(&new.square(), 1.0 - beta, 2)).sqrt()
}

/// What a step goes by.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The [rate](Optimizer::rate), of one element.
    pub rate: Var,
    /// The learning rate times the weight decay, of one element, where weights shrink beside the rule.
    pub decay: Option<Var>,
    /// What gradients and slots are multiplied with.
    pub scale: Scale,
    /// Where a step may be void, or the scale may change: what comes of it.
    pub outcome: Option<Outcome>,
}

/// What comes of a step.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the step counts, a truth value of one element. One that does not changes nothing but the scale.
    pub good: Var,
    /// The scale of the next step.
    pub scale: Scale,
    /// That in parts of this one's, of one element: a power of two. `None` where it stays.
    pub ratio: Option<Var>,
}

impl Rates {
    /// The scale of what a step leaves.
    fn after(&self) -> &Scale {
        self.outcome.as_ref().map_or(&self.scale, |outcome| &outcome.scale)
    }

    /// A rate, which is 0 where the step is void.
    fn valid(&self, rate: &Var) -> Var {
        match &self.outcome {
            Some(outcome) => outcome.good.select(rate, &Var::scalar(0.0)),
            None => rate.clone(),
        }
    }

    /// `share` of `x`, and all of it where the step is void, times this power of the scale's ratio.
    fn kept(&self, x: &Var, share: f64, power: u32) -> Var {
        let Some(outcome) = &self.outcome else { return x.muls(share) };
        let share = outcome.good.select(&Var::scalar(share), &Var::scalar(1.0));
        x * self.ratio(power).map_or_else(|| share.clone(), |ratio| &share * ratio)
    }

    /// `share` of `x`, which is 0 where the step is void, times this power of the scale's ratio.
    fn fresh(&self, x: &Var, share: f64, power: u32) -> Var {
        match self.ratio(power) {
            Some(ratio) => x * ratio.muls(share),
            None if share == 1.0 => x.clone(),
            None => x.muls(share),
        }
    }

    fn ratio(&self, power: u32) -> Option<Var> {
        let ratio = self.outcome.as_ref()?.ratio.as_ref()?;
        Some(if power == 2 { ratio.square() } else { ratio.clone() })
    }
}

/// What a step makes.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is to be taken from the weight.
    pub change: Var,
    /// What is kept for the next step, multiplied with its scale.
    pub slots: Vec<Var>,
}

/// Adam's step with the second moment itself, as ANEForge's `adam_step` has it: new weights, first and second moments.
///
/// `rate` is of one element and has the [bias correction](Optimizer::rate) in it. The moment is taken from `g sqrt(1 - b2)`, which
/// holds gradients up to 8,000 where `g^2` holds 255, and an `eps` that is 0 in half precision does not let 0 be divided by 0.
#[track_caller]
pub fn adam_step(
    [weight, mean, moment, gradient]: [&Var; 4],
    rate: &Var,
    [beta1, beta2]: [f64; 2],
    eps: f64,
) -> [Var; 3] {
    Caller::here().scope(|| {
        let mean = mean.muls(beta1) + gradient.muls(1.0 - beta1);
        let moment = moment.muls(beta2) + gradient.muls((1.0 - beta2).sqrt()).square();
        let root = moment.sqrt() + Var::scalar(eps.clamp(LEAST, LARGEST));
        let weight = weight - (rate * &mean) / root;
        [weight, mean, moment]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::numerics::Numerics;
    use crate::ir::precision::{Array, Precision};
    use crate::{Graph, Shape};
    use aneforge_tensor::{f16, random};

    const COUNT: usize = 64;

    /// Magnitudes of all sizes of half precision, the `most` first.
    fn magnitudes(seed: u64, most: f64) -> Vec<f64> {
        let size = |i| most * 2f64.powf(-30.0 * f64::from(random::uniform(seed, i)).powi(2));
        std::iter::once(most).chain((1..COUNT as u64).map(size)).collect()
    }

    fn shape(count: usize) -> Shape {
        Shape::new(&[count]).unwrap()
    }

    fn array(values: &[f64]) -> Array {
        Array::from_fn(shape(values.len()), |i| f16::from_f64(values[i]).to_f64())
    }

    /// The change and the slots of a step, or what bounds them.
    fn values(rule: &Optimizer, scale: f64, bound: bool, feeds: &[Array]) -> Vec<Array> {
        let leaves: Vec<Var> = feeds.iter().map(|feed| Var::input(feed.shape)).collect();
        let [rate, decay, weight, gradient, slots @ ..] = &leaves[..] else { unreachable!() };
        let decay = (rule.weight_decay != 0.0 && !rule.coupled).then(|| decay.clone());
        let rates = Rates { rate: rate.clone(), decay, scale: Scale::Fixed(scale), outcome: None };
        let made = if bound { Optimizer::most } else { Optimizer::step };
        let Step { change, slots } = made(rule, weight, gradient, slots, &rates);
        let outputs: Vec<Var> = std::iter::once(change).chain(slots).collect();
        let graph = Graph::freeze(&outputs).unwrap();
        let fed = |id| leaves.iter().position(|leaf| *leaf.op() == graph.node(id).op).unwrap();
        let feeds: Vec<Array> = graph.feeds().into_iter().map(|id| feeds[fed(id)].clone()).collect();
        let all = graph.eval(&feeds, Precision::F16(Numerics::Ieee));
        graph.outputs().iter().map(|id| all[id.index()].clone()).collect()
    }

    #[test]
    fn a_step_is_no_longer_than_what_bounds_it() {
        let rules = [
            Optimizer::sgd(),
            Optimizer { weight_decay: 0.1, coupled: true, ..Optimizer::momentum(0.9) },
            Optimizer::nesterov(0.95),
            Optimizer::adam(),
            Optimizer::adamw(0.1),
            Optimizer::of(Rule::Adam { beta1: 0.99, beta2: 0.9, eps: 1e-8 }),
            Optimizer::lion(0.1),
        ];
        for (trial, rule) in (0..40).flat_map(|trial| rules.iter().map(move |rule| (trial, rule))) {
            let draw = |what: u64| 65000.0 * 2f64.powf(-20.0 * f64::from(random::uniform(trial, what)));
            let slots = rule.slots().len() as u64;
            let sizes: Vec<f64> = (0..2 + slots).map(draw).collect();
            let most = sizes[2..].iter().copied().fold(0.0, f64::max);
            let numbers = [vec![draw(9) / 1e3], vec![draw(10) / 1e5]];
            let scale = [1.0, 1024.0][trial as usize % 2];
            let signed = |(at, &size): (usize, &f64)| -> Vec<f64> {
                let sign =
                    |i: usize| if at < 3 && random::uniform(trial + 7, i as u64) < 0.5 { -1.0 } else { 1.0 };
                magnitudes(trial * 8 + at as u64, size).iter().enumerate().map(|(i, v)| sign(i) * v).collect()
            };
            let elements: Vec<Vec<f64>> =
                numbers.iter().cloned().chain(sizes.iter().enumerate().map(signed)).collect();
            let bounds = sizes[..2].iter().copied().chain((0..slots).map(|_| most)).map(|size| vec![size]);
            let bounds: Vec<Vec<f64>> = numbers.iter().cloned().chain(bounds).collect();
            let [elements, bounds] =
                [elements, bounds].map(|all| all.iter().map(|v| array(v)).collect::<Vec<_>>());
            let got = values(rule, scale, false, &elements);
            let bound = values(rule, scale, true, &bounds);
            for (got, bound) in got.iter().zip(&bound) {
                let longest = got.data.iter().fold(0.0f64, |most, v| most.max(v.abs()));
                assert!(
                    longest <= bound.data[0] * (1.0 + 1.0 / 512.0) + 1e-7,
                    "{rule}: {longest} {}",
                    bound.data[0]
                );
            }
        }
    }
}
