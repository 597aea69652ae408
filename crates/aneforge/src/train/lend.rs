//! What others see of a training: its weights, and for several workers its gradients.

use super::trainer::{Trainer, place, set};
use super::{Report, TrainError};
use crate::device::Feed;
use crate::ir::var::Var;
use crate::{Buffer, RunError, Session, Shape, State, Tensor};
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

    /// The gradients of one batch, times the scale, in the order of the parameters, for a [split](super::Options::split)
    /// trainer.
    pub fn gradients(&mut self, batch: &[(&Var, Feed<'_>)]) -> Result<(f32, Vec<Tensor>), TrainError> {
        self.feed(batch)?;
        let Some(adds) = self.control.adds.clone() else {
            return Err(TrainError::Options("gradients need a trainer with `split`".into()));
        };
        set(&mut self.step, &adds, 0.0)?;
        self.step.execute()?;
        let mut loss = [0.0];
        self.step.read(0, &mut loss);
        let sums = self.kept.iter().filter_map(|kept| kept.states.last());
        Ok((loss[0], sums.map(State::read).collect::<Result<_, RunError>>()?))
    }

    /// Makes a step along these gradients, which have the scale: of [`Trainer::gradients`], averaged.
    pub fn apply(&mut self, gradients: &[Tensor]) -> Result<Report, TrainError> {
        if self.update.is_none() {
            return Err(TrainError::Options("apply needs a trainer with `split`".into()));
        }
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
        for (kept, gradient) in self.kept.iter().zip(gradients) {
            let sum = kept.states.last().expect("invariant: a step in parts has sums");
            sum.write(Feed::F32(&gradient.to_f32()))?;
        }
        let mut report = Report { scale: self.scale, lr: self.lr(), ..Report::default() };
        self.follow(&mut report, &Arc::new(AtomicBool::new(false)))?;
        report.updates = self.updates;
        Ok(report)
    }
}
