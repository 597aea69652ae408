//! What others see of a training: its weights, and for several workers its gradients.

use super::kept::Kept;
use super::trainer::{Trainer, place, set};
use super::{Report, TrainError};
use crate::device::Feed;
use crate::ir::var::Var;
use crate::nn::Noise;
use crate::{Buffer, DType, RunError, Session, Shape, Tensor, f16};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

impl Trainer {
    /// A program on the weights as they are, and as they become: nothing is copied. `averaged` takes the average over steps.
    pub fn evaluator(&self, outputs: &[Var], averaged: bool) -> Result<Session, TrainError> {
        let plan = crate::compile(outputs, &self.options.compile)?;
        let mut session = Session::new(plan, &self.device)?;
        self.lend(&mut session, averaged)?;
        Ok(session)
    }

    /// The same for a program that is there.
    pub fn lend(&self, session: &mut Session, averaged: bool) -> Result<(), TrainError> {
        for (var, buffer) in self.buffers(averaged)? {
            if let Some(at) = place(session, &var) {
                session.bind_input(at, &buffer)?;
            }
        }
        Ok(())
    }

    /// What the next gradients are multiplied with.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Updates, void steps in a row, and batches of a step that is not whole: every batch that is taken changes one of them.
    pub fn place(&self) -> [u64; 3] {
        [self.updates, self.skipped, self.batches as u64]
    }

    /// The inputs of the loss, by their leaves' numbers.
    pub fn inputs(&self) -> impl Iterator<Item = u64> {
        let own = self.control.fed();
        let feeds = self.step.plan().feeds.iter();
        feeds
            .filter(move |feed| !feed.role.is_kept() && !own.contains(&Some(feed.leaf)))
            .map(|feed| feed.leaf)
    }

    /// All weights, in single precision and with all their digits, frozen ones too.
    pub fn weights(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        let mut all = Vec::new();
        for kept in &self.kept {
            all.push((kept.parameter.name.clone(), kept.value()?));
        }
        for (parameter, state) in &self.frozen {
            all.push((parameter.name.clone(), state.read()?));
        }
        Ok(all)
    }

    /// Gives a parameter another value; what the rule keeps of it stays.
    pub fn set_weight(&mut self, name: &str, value: &Tensor) -> Result<(), TrainError> {
        let shape = |want: Shape| match value.shape() == want && value.dtype().is_float() {
            true => Ok(()),
            false => {
                Err(TrainError::Batch(format!("`{name}` is {want}, got {}{}", value.dtype(), value.shape())))
            }
        };
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.parameter.name == name) {
            shape(kept.parameter.var.shape())?;
            return Ok(kept.set_value(&value.to_f32())?);
        }
        let Some((parameter, state)) = self.frozen.iter().find(|(parameter, _)| parameter.name == name)
        else {
            return Err(TrainError::Batch(format!("there is no parameter `{name}`")));
        };
        shape(parameter.var.shape())?;
        Ok(state.write(Feed::F32(&value.to_f32()))?)
    }

    /// The buffers of parameters, by their leaves; `averaged` takes the average over steps.
    pub fn buffers(&self, averaged: bool) -> Result<Vec<(Var, Buffer)>, TrainError> {
        let mut all = Vec::new();
        for kept in &self.kept {
            let state = match (averaged, kept.average()) {
                (false, _) => &kept.weight,
                (true, Some(average)) => average,
                (true, None) => {
                    let why = "no average is kept; set `average` in the options";
                    return Err(TrainError::Options(why.into()));
                }
            };
            all.push((kept.parameter.var.clone(), state.buffer().clone()));
        }
        let frozen =
            self.frozen.iter().map(|(parameter, state)| (parameter.var.clone(), state.buffer().clone()));
        all.extend(frozen);
        Ok(all)
    }

    /// The loss and the gradients of one batch, times the scale, in the order of the parameters, for a
    /// [split](super::Options::split) trainer: in half precision, or in single where the host keeps weights. Nothing moves but the clock of
    /// dropout.
    pub fn gradients(&mut self, batch: &[(&Var, Feed<'_>)]) -> Result<(f32, Vec<Tensor>), TrainError> {
        self.is_split("gradients")?;
        self.feed(batch)?;
        if let Some(adds) = self.control.adds.clone() {
            set(&mut self.step, &adds, 0.0)?;
        }
        self.step.execute()?;
        let mut loss = [0.0];
        self.step.read(0, &mut loss);
        let gradient = |(at, kept): (usize, &Kept)| match kept.leaves.sum {
            Some(_) => kept.states.last().expect("invariant: a step in parts has sums").read(),
            None => {
                let values: Vec<f32> = self.step.output(at + 1).iter().map(|g| g.to_f32()).collect();
                let shape = kept.parameter.var.shape();
                Ok(Tensor::from_slice(shape, &values).expect("invariant: one per element"))
            }
        };
        let gradients = self.kept.iter().enumerate().map(gradient).collect::<Result<_, RunError>>()?;
        Ok((loss[0], gradients))
    }

    /// Makes a step along these gradients, which have the scale: of [`Trainer::gradients`], [averaged](super::average).
    pub fn apply(&mut self, gradients: &[Tensor]) -> Result<Report, TrainError> {
        self.is_split("apply")?;
        if gradients.len() != self.kept.len() {
            let (want, got) = (self.kept.len(), gradients.len());
            return Err(TrainError::Batch(format!(
                "{want} gradients are needed, one for each parameter, got {got}"
            )));
        }
        for (kept, gradient) in self.kept.iter().zip(gradients) {
            let (want, got) = (kept.parameter.var.shape(), gradient.shape());
            if want != got || !gradient.dtype().is_float() {
                let (name, dtype) = (&kept.parameter.name, gradient.dtype());
                return Err(TrainError::Batch(format!(
                    "the gradient of `{name}` is {want}, got {dtype}{got}"
                )));
            }
        }
        let mut report = Report { scale: self.scale, lr: self.lr(), ..Report::default() };
        for (kept, gradient) in self.kept.iter_mut().zip(gradients) {
            match kept.leaves.sum {
                // What is no number makes the step void, as in a step of one worker; a buffer may make NaN something else.
                Some(_) => {
                    let number = |g: &f32| if g.is_nan() { f16::INFINITY } else { f16::from_f32(*g) };
                    let halves: Vec<f16> = gradient.to_f32().iter().map(number).collect();
                    let sum = kept.states.last().expect("invariant: a step in parts has sums");
                    sum.buffer().write(Feed::F16(&halves)).expect("invariant: its shape was looked at");
                }
                None => kept.gradient.copy_from_slice(&gradient.to_f32()),
            }
        }
        match self.update {
            Some(_) => self.follow(&mut report, &Arc::new(AtomicBool::new(false)))?,
            None => self.follow_masters(&mut report)?,
        }
        self.told(report)
    }

    /// Goes on with dropout as if so many batches had been taken: those of other workers. Without dropout it does nothing.
    pub fn pass(&mut self, batches: u64) -> Result<(), TrainError> {
        // The states of the scale have one element.
        for clock in self.states.iter().filter(|state| state.var().shape().count() > 1) {
            let now = clock.read()?.to_f32();
            clock.write(Feed::F32(&Noise::after(&now, batches)))?;
        }
        Ok(())
    }

    fn is_split(&self, what: &str) -> Result<(), TrainError> {
        match self.options.split {
            true => Ok(()),
            false => Err(TrainError::Options(format!("{what} needs a trainer with `split`"))),
        }
    }
}

/// The mean of what several workers [made](Trainer::gradients) of their batches, in their order: to the bit what one trainer sums with
/// [`accumulate`](super::Options::accumulate). Half precision is rounded after each product and sum, single as well.
///
/// ```
/// use aneforge::train::average;
/// use aneforge::{Shape, Tensor};
/// let worker = |value: f32| vec![Tensor::from_slice(Shape::new(&[2]).unwrap(), &[value, 4.0]).unwrap()];
/// assert_eq!(average(&[worker(1.0), worker(2.0)])?[0].to_f32(), [1.5, 4.0]);
/// # Ok::<(), aneforge::train::TrainError>(())
/// ```
pub fn average(workers: &[Vec<Tensor>]) -> Result<Vec<Tensor>, TrainError> {
    let Some(first) = workers.first() else {
        return Err(TrainError::Batch("there are no gradients to average".into()));
    };
    for (at, worker) in workers.iter().enumerate() {
        let alike = |(a, b): (&Tensor, &Tensor)| a.shape() == b.shape() && a.dtype() == b.dtype();
        if worker.len() != first.len() || !worker.iter().zip(first).all(alike) {
            return Err(TrainError::Batch(format!(
                "the gradients of worker {at} are not of the types and shapes of those of the first"
            )));
        }
        if let Some(odd) = worker.iter().find(|g| !matches!(g.dtype(), DType::F16 | DType::F32)) {
            let got = odd.dtype();
            return Err(TrainError::Batch(format!("gradients are in half or single precision, got {got}")));
        }
    }
    let mean = |at: usize| {
        let halves = first[at].dtype() == DType::F16;
        let round = |value: f32| if halves { f16::from_f32(value).to_f32() } else { value };
        let share = round(1.0 / workers.len() as f32);
        let mut sum: Vec<f32> = Vec::new();
        for worker in workers {
            let part = worker[at].to_f32().into_iter().map(|g| round(g * share));
            match sum.is_empty() {
                true => sum = part.collect(),
                false => sum.iter_mut().zip(part).for_each(|(sum, part)| *sum = round(*sum + part)),
            }
        }
        let shape = first[at].shape();
        let made = match halves {
            true => Tensor::from_slice(shape, &sum.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>()),
            false => Tensor::from_slice(shape, &sum),
        };
        made.expect("invariant: one value per element")
    };
    Ok((0..first.len()).map(mean).collect())
}
