//! The network of the demo learns to read digits.

use crate::context::Context;
use crate::digits::{CLASSES, Digits, Network, SIDE};
use aneforge::ir::types::Caller;
use aneforge::nn::{Noise, Scope, one_hot, softmax_cross_entropy};
use aneforge::optim::{Optimizer, Schedule};
use aneforge::train::{Batches, Options, Trainer};
use aneforge::{Device, Feed, Session, Shape, Tensor, Var};
use aneforge_tensor::random::word;
use anyhow::{Context as _, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Images per step.
pub const BATCH: usize = 32;
/// Steps between two looks at the held-out images.
const LOOK: u64 = 45;
/// All that is random follows from it.
const SEED: u64 = 7;
/// The greatest learning rate.
const RATE: f64 = 3e-3;
/// How fast weights shrink.
const DECAY: f64 = 2e-2;
/// How much of a label is spread over all classes.
const SMOOTHING: f32 = 0.1;

/// How the training stood after a step.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub step: u64,
    /// The mean loss since the point before.
    pub loss: f32,
    /// How many held-out images were read correctly.
    pub correct: usize,
}

/// What came of it.
pub struct Lesson {
    pub steps: u64,
    pub examples: usize,
    /// From the first step to the last, looks at held-out images included.
    pub time: Duration,
    /// Of that, steps alone.
    pub stepping: Duration,
    pub curve: Vec<Point>,
    /// The names and values of weights.
    pub weights: Vec<(String, Tensor)>,
    /// How many ops the program of a step has, and how many states stay on the device.
    pub ops: usize,
    pub states: usize,
}

impl Lesson {
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.stepping.as_secs_f64()
    }

    /// The network as it was learned, on `batch` images: a probability per class.
    pub fn network(&self, batch: usize) -> Result<Var> {
        demo().scope(|| {
            let network = Network::fixed(&Scope::new(SEED), &self.weights);
            Ok(network.logits(&images(batch)?).softmax(-1))
        })
    }
}

/// Where everything is said to be built.
fn demo() -> Caller {
    Caller::new("<demo>", 0)
}

fn images(batch: usize) -> Result<Var> {
    Ok(Var::input(Shape::new(&[batch, 1, SIDE, SIDE])?))
}

/// Trains the network for so many steps, and shows on standard error how it goes. Held-out images are looked at, but nothing
/// follows from what is seen.
pub fn train(digits: &Digits, steps: u64, context: &Context, device: &Arc<dyn Device>) -> Result<Lesson> {
    let (scope, x) = (Scope::new(SEED), images(BATCH)?);
    let target = Var::input(Shape::new(&[BATCH, CLASSES])?);
    let options = Options {
        schedule: Schedule::Cosine { warmup: 0, total: steps, least: 0.0 },
        compile: context.options(),
        ..Options::new(Optimizer::adamw(DECAY), RATE)
    };
    let (mut trainer, look) = demo().scope(|| -> Result<_> {
        let _spinner = context.spinner("compiling");
        let network = Network::new(&scope);
        let loss = softmax_cross_entropy(&network.logits(&x), &target);
        let trainer = Trainer::new(device.clone(), &loss, &scope, &Noise::off(), options)?;
        let seen = network.logits(&images(digits.held_out().count())?);
        let look = trainer.evaluator(&[seen], false)?;
        Ok((trainer, look))
    })?;
    let mut look = Look::new(digits, look)?;
    let known: Vec<usize> = digits.trained_on().collect();
    let mut batches = Batches::new(known.len(), BATCH, SEED).context("invariant: there are enough digits")?;
    let live = context.live(steps);
    let (mut curve, mut sum, mut since, mut stepping) = (Vec::new(), 0.0, 0, Duration::ZERO);
    let start = Instant::now();
    for step in 1..=steps {
        let begin = Instant::now();
        let chosen: Vec<usize> = batches.next_batch().iter().map(|&at| known[at]).collect();
        let pixels = shifted(digits, &chosen, step);
        let labels: Vec<usize> = chosen.iter().map(|&index| digits.label(index)).collect();
        let rows = one_hot(&labels, CLASSES, SMOOTHING);
        sum += trainer.step(&[(&x, Feed::F32(&pixels)), (&target, Feed::F32(&rows))])?.loss;
        since += 1;
        stepping += begin.elapsed();
        live.step(step);
        if step % LOOK == 0 || step == steps {
            let point = Point { step, loss: sum / since as f32, correct: look.correct()? };
            let percent = 100.0 * point.correct as f64 / look.labels.len() as f64;
            live.say(step, &format!("loss {:.3}  held-out digits read {percent:>5.1} %", point.loss));
            curve.push(point);
            (sum, since) = (0.0, 0);
        }
    }
    let time = start.elapsed();
    let (ops, states) = (trainer.session().plan().n_ops, trainer.session().plan().carries.len());
    let (weights, examples) = (trainer.weights()?, known.len());
    Ok(Lesson { steps, examples, time, stepping, curve, weights, ops, states })
}

/// The held-out images, and a program that reads them with the weights as they are.
struct Look {
    session: Session,
    labels: Vec<usize>,
    logits: Vec<f32>,
}

impl Look {
    fn new(digits: &Digits, mut session: Session) -> Result<Look> {
        let labels: Vec<usize> = digits.held_out().map(|index| digits.label(index)).collect();
        let pixels: Vec<f32> = digits.held_out().flat_map(|index| digits.image(index)).copied().collect();
        let at = session.plan().feeds.iter().position(|feed| !feed.role.is_kept());
        let at = at.context("invariant: the program reads images")?;
        session.set(at, Feed::F32(&pixels), &[labels.len(), 1, SIDE, SIDE])?;
        Ok(Look { session, logits: vec![0.0; labels.len() * CLASSES], labels })
    }

    /// How many are read correctly.
    fn correct(&mut self) -> Result<usize> {
        self.session.execute()?;
        self.session.read(0, &mut self.logits);
        let read = self.logits.chunks_exact(CLASSES).map(best);
        Ok(read.zip(&self.labels).filter(|(read, label)| read == *label).count())
    }
}

/// The greatest of several numbers.
pub fn best(values: &[f32]) -> usize {
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(at, _)| at)
}

/// The images, each moved by up to one pixel each way, so that the network learns strokes and not places.
fn shifted(digits: &Digits, chosen: &[usize], step: u64) -> Vec<f32> {
    let mut all = vec![0.0; chosen.len() * SIDE * SIDE];
    for (at, (&index, to)) in chosen.iter().zip(all.chunks_exact_mut(SIDE * SIDE)).enumerate() {
        let (from, draw) = (digits.image(index), word(word(SEED, step), at as u64));
        let (down, right) = ((draw % 3) as usize, (draw / 3 % 3) as usize);
        for row in 0..SIDE {
            // By one less than was drawn.
            let Some(source) = (row + 1).checked_sub(down).filter(|row| *row < SIDE) else { continue };
            for column in 0..SIDE {
                if let Some(c) = (column + 1).checked_sub(right).filter(|column| *column < SIDE) {
                    to[row * SIDE + column] = from[source * SIDE + c];
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_moved_and_not_changed() {
        let digits = Digits::embedded().unwrap();
        let chosen: Vec<usize> = (1..5).cycle().take(64).collect();
        let moved = shifted(&digits, &chosen, 1);
        assert_eq!(moved, shifted(&digits, &chosen, 1));
        let mut places = std::collections::HashSet::new();
        for (&index, image) in chosen.iter().zip(moved.chunks_exact(SIDE * SIDE)) {
            let from = digits.image(index);
            let fits = |down: usize, right: usize| {
                (0..SIDE * SIDE).all(|at| {
                    let (row, column) =
                        ((at / SIDE + 1).wrapping_sub(down), (at % SIDE + 1).wrapping_sub(right));
                    let inside = row < SIDE && column < SIDE;
                    image[at] == if inside { from[row * SIDE + column] } else { 0.0 }
                })
            };
            let place = (0..9).find(|place| fits(place / 3, place % 3));
            places.insert(place.expect("moved by at most one pixel"));
        }
        assert!(places.len() > 5, "{places:?}");
    }
}
