//! The same rules in single precision, for weights that a program of the host keeps.

use super::{Optimizer, Rule};

/// A weight in single precision, with what its rule keeps of it.
#[derive(Clone, Debug)]
pub struct Masters {
    /// The weight.
    pub weight: Vec<f32>,
    /// What is kept, in the order of [`Optimizer::slots`]. Adam keeps the second moment itself here: single precision has the
    /// range for it.
    pub slots: Vec<Vec<f32>>,
}

/// What a step goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The learning rate.
    pub lr: f64,
    /// The number of the step, the first being 1.
    pub t: u64,
}

impl Masters {
    /// A weight before its first step.
    pub fn new(weight: Vec<f32>, optimizer: &Optimizer) -> Masters {
        let slots = optimizer.slots().iter().map(|_| vec![0.0; weight.len()]).collect();
        Masters { weight, slots }
    }

    /// One step along a gradient that is multiplied with nothing.
    ///
    /// # Panics
    /// If `gradient` has another length than the weight.
    pub fn step(&mut self, gradient: &[f32], optimizer: &Optimizer, settings: Settings) {
        assert_eq!(gradient.len(), self.weight.len(), "one gradient per element");
        let rate = optimizer.rate(settings.lr, settings.t);
        // What eps is beside a root that has its bias; see `Optimizer::rate`.
        let bias = match optimizer.rule {
            Rule::Adam { beta2, .. } => (1.0 - beta2.powf(settings.t as f64)).sqrt(),
            _ => 1.0,
        };
        let shrink = optimizer.weight_decay;
        let mut kept = self.slots.iter_mut();
        let (mut first, mut second) = (kept.next(), kept.next());
        for (at, (w, g)) in self.weight.iter_mut().zip(gradient).enumerate() {
            let (x, mut g) = (f64::from(*w), f64::from(*g));
            if optimizer.coupled {
                g += shrink * x;
            }
            let mut slots = [first.as_mut().map(|s| &mut s[at]), second.as_mut().map(|s| &mut s[at])];
            let change = along(optimizer.rule, g, &mut slots, rate, bias);
            let beside = if optimizer.coupled { 0.0 } else { settings.lr * shrink * x };
            *w = (x - change - beside) as f32;
        }
    }
}

/// What is to be taken from a weight with this gradient.
fn along(rule: Rule, g: f64, slots: &mut [Option<&mut f32>; 2], rate: f64, bias: f64) -> f64 {
    let mut blend = |at: usize, keep: f64, x: f64| {
        let slot = slots[at].as_deref_mut().expect("invariant: the rule keeps it");
        let before = f64::from(*slot);
        *slot = (keep * before + x) as f32;
        (before, f64::from(*slot))
    };
    match rule {
        Rule::Sgd { momentum: 0.0, .. } => rate * g,
        Rule::Sgd { momentum, nesterov } => {
            let (_, velocity) = blend(0, momentum, g);
            rate * if nesterov { g + momentum * velocity } else { velocity }
        }
        Rule::Adam { beta1, beta2, eps } => {
            let (_, mean) = blend(0, beta1, (1.0 - beta1) * g);
            let (_, moment) = blend(1, beta2, (1.0 - beta2) * g * g);
            rate * mean / (moment.sqrt() + eps * bias)
        }
        Rule::Lion { beta1, beta2 } => {
            let (before, _) = blend(0, beta2, (1.0 - beta2) * g);
            let along = beta1 * before + (1.0 - beta1) * g;
            rate * if along == 0.0 { 0.0 } else { along.signum() }
        }
    }
}
