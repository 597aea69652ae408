//! A network in training: its programs, its state, and what a step says.

use super::kept::Kept;
use super::program::{Builder, Control, Leaves, Part, Parts};
use super::{Options, Report, Scaling, TrainError};
use crate::artifact::NOTES;
use crate::device::{Device, Feed};
use crate::grad::Rules;
use crate::ir::graph::InputInfo;
use crate::ir::op::Op;
use crate::ir::text::print;
use crate::ir::var::Var;
use crate::nn::{Loss, Noise, Parameter, Scope};
use crate::optim::{Settings, Weights};
use crate::profile::Profile;
use crate::{Graph, Plan, RunError, Session, State, compile_graph};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Steps in a row that may be skipped before that is an error.
const MOST_SKIPPED: u64 = 100;

/// A network in training on a device.
pub struct Trainer {
    pub(super) device: Arc<dyn Device>,
    pub(super) options: Options,
    pub(super) kept: Vec<Kept>,
    pub(super) frozen: Vec<(Parameter, State)>,
    pub(super) control: Control,
    /// Of the control, and the clock.
    pub(super) states: Vec<State>,
    /// Loss and gradients, and with `update` missing also the update.
    pub(super) step: Session,
    pub(super) update: Option<Session>,
    pub(super) unreached: Vec<String>,
    /// What tells the graph of the loss from others.
    pub(super) network: String,
    pub(super) updates: u64,
    /// Batches since the last update.
    pub(super) batches: usize,
    pub(super) skipped: u64,
    /// Steps in a row that were good, where the host keeps the scale.
    pub(super) held: u32,
    pub(super) scale: f64,
    /// Calls in which nodes overflowed, so far.
    pub(super) calls: u64,
    pub(super) flags: Vec<f32>,
}

impl Trainer {
    /// Compiles the step of `loss`, which has one element, and loads it: the parameters of `scope` are trained, but for those
    /// that are frozen, and `noise` is what dropout in it uses.
    pub fn new(
        device: Arc<dyn Device>,
        loss: impl Into<Loss>,
        scope: &Scope,
        noise: &Noise,
        options: Options,
    ) -> Result<Trainer, TrainError> {
        Trainer::by_rules(device, loss, scope, noise, options, &mut |_, _| None)
    }

    /// The same by rules of the caller's for gradients, where there are; see [`grad::gradients_by`](crate::grad::gradients_by).
    pub fn by_rules(
        device: Arc<dyn Device>,
        loss: impl Into<Loss>,
        scope: &Scope,
        noise: &Noise,
        options: Options,
        rules: &mut Rules<'_>,
    ) -> Result<Trainer, TrainError> {
        options.check().map_err(TrainError::Options)?;
        let loss = loss.into();
        let (trained, frozen) = trainable(&loss, scope)?;
        let network = fingerprint(&loss.value)?;
        let control = Control::new(&options);
        let leaves: Vec<Leaves> = trained.iter().map(|p| Leaves::new(p, &options)).collect();
        let builder = Builder { options: &options, leaves: &leaves, control: &control };
        let Parts { step, update, unreached } = builder.parts(&loss, noise, rules)?;
        let unreached: Vec<String> = unreached.iter().map(|&at| trained[at].name.clone()).collect();
        if !unreached.is_empty() {
            tracing::warn!("the loss does not depend on {}: their gradients are zeros", unreached.join(", "));
        }
        let session = |part: Part| -> Result<Session, TrainError> {
            let plan: Plan = compile_graph(&part.graph()?, &options.compile)?;
            Ok(Session::new(plan, &device)?)
        };
        let (step, update) = (session(step)?, update.map(session).transpose()?);
        let clock = noise.clock().map(|(clock, _)| clock);
        let shared = control.scale.iter().flatten().chain(&clock);
        let states = shared.map(|leaf| State::of(&device, leaf)).collect::<Result<Vec<_>, RunError>>()?;
        let pairs = trained.into_iter().zip(leaves);
        let kept = pairs.map(|(parameter, leaves)| Kept::new(&device, parameter, leaves, &options));
        let frozen = frozen.into_iter().map(|p| Ok((p.clone(), State::of(&device, &p.var)?)));
        let mut trainer = Trainer {
            kept: kept.collect::<Result<_, RunError>>()?,
            frozen: frozen.collect::<Result<_, RunError>>()?,
            device,
            control,
            states,
            step,
            update,
            unreached,
            network,
            updates: 0,
            batches: 0,
            skipped: 0,
            held: 0,
            scale: 1.0,
            calls: 0,
            flags: Vec::new(),
            options,
        };
        trainer.complete()?;
        trainer.bind()?;
        trainer.reset()?;
        Ok(trainer)
    }

    /// Binds every state to the programs that read or change it.
    fn bind(&mut self) -> Result<(), RunError> {
        let kept = self.kept.iter().flat_map(|kept| kept.states.iter().chain([&kept.weight]));
        let all = kept.chain(self.frozen.iter().map(|(_, state)| state)).chain(&self.states);
        for state in all {
            for session in [Some(&mut self.step), self.update.as_mut()].into_iter().flatten() {
                if place(session, state.var()).is_some() {
                    session.bind_state(state)?;
                }
            }
        }
        self.flags = vec![0.0; self.kept.len()];
        Ok(())
    }

    /// That nothing which a step reads stays what a device begins with, because nobody knows of it.
    fn complete(&self) -> Result<(), TrainError> {
        let kept = self.kept.iter().flat_map(|kept| kept.states.iter().chain([&kept.weight]));
        let all = kept.chain(self.frozen.iter().map(|(_, state)| state)).chain(&self.states);
        let known: Vec<u64> = all.filter_map(|state| leaf(state.var())).collect();
        let stranger = |feed: &&InputInfo| feed.role.is_kept() && !known.contains(&feed.leaf);
        let Some(feed) = self.step.plan().feeds.iter().find(stranger) else { return Ok(()) };
        let name = if feed.name.is_empty() { feed.ty.to_string() } else { format!("`{}`", feed.name) };
        Err(TrainError::Options(match feed.name.as_str() {
            "noise.clock" => "the network has dropout; give its noise".into(),
            _ => format!(
                "the loss reads the parameter or state {name}, which is not among those given; freeze what is not trained"
            ),
        }))
    }

    /// Gives everything the values that it begins with.
    pub fn reset(&mut self) -> Result<(), TrainError> {
        for (parameter, state) in &self.frozen {
            state.write(Feed::F32(&parameter.value.to_f32()))?;
        }
        for kept in &mut self.kept {
            kept.reset(&self.options)?;
        }
        for state in &self.states {
            // Those of the scale have one element, and that of the clock has more.
            let begin: &[f32] = if state.var().shape().count() == 1 { &[0.0] } else { &Noise::BEGIN };
            state.write(Feed::F32(begin))?;
        }
        (self.updates, self.batches, self.skipped, self.held) = (0, 0, 0, 0);
        let (Scaling::Fixed(initial) | Scaling::Dynamic { initial, .. }) = self.options.scaling;
        self.set_scale(initial)?;
        Ok(())
    }

    fn set_scale(&mut self, scale: f64) -> Result<(), RunError> {
        self.scale = scale;
        if self.control.scale.is_some() {
            self.states[0].write(Feed::F32(&[scale as f32]))?;
        }
        Ok(())
    }

    /// Runs one batch: a value for every input of the loss. Weights follow, unless the step has more batches to come, or
    /// gradients are not finite.
    pub fn step(&mut self, batch: &[(&Var, Feed<'_>)]) -> Result<Report, TrainError> {
        self.step_until(batch, &Arc::new(AtomicBool::new(false)))
    }

    /// The same, unless and until `stop` is set, from another thread; then no weight has changed, and where a step has several
    /// batches, those of a step that was stopped in its update are left out.
    pub fn step_until(
        &mut self,
        batch: &[(&Var, Feed<'_>)],
        stop: &Arc<AtomicBool>,
    ) -> Result<Report, TrainError> {
        self.feed(batch)?;
        let adds = self.batches > 0;
        if let Some(leaf) = self.control.adds.clone() {
            set(&mut self.step, &leaf, f64::from(u8::from(adds)))?;
        }
        let lr = self.lr();
        if self.update.is_none() {
            self.set_rates(lr)?;
        }
        self.step.execute_until(stop)?;
        let mut loss = [0.0];
        self.step.read(0, &mut loss);
        let mut report = Report { loss: loss[0], scale: self.scale, lr, ..Report::default() };
        self.batches += 1;
        let whole = self.batches >= self.options.accumulate;
        let done = match (&self.update, self.options.weights) {
            (_, Weights::Masters) => self.masters(&mut report, whole),
            (None, _) => self.judge(&mut report, 1),
            (Some(_), _) if whole => self.follow(&mut report, stop),
            (Some(_), _) => Ok(()),
        };
        // Also where the update was stopped: its batches are left out, and the next one begins a new sum.
        if whole {
            self.batches = 0;
        }
        done?;
        self.told(report)
    }

    /// A report with all that is known of a step, or that there were too many void ones.
    pub(super) fn told(&mut self, mut report: Report) -> Result<Report, TrainError> {
        self.overflowed(&mut report);
        (report.updates, report.skipped) = (self.updates, self.skipped);
        match report.void().filter(|_| self.skipped >= MOST_SKIPPED) {
            Some(why) => Err(TrainError::Diverged { steps: self.skipped, why }),
            None => Ok(report),
        }
    }

    /// The learning rate of the next update.
    pub fn lr(&self) -> f64 {
        self.options.lr * self.options.schedule.at(self.updates + 1)
    }

    /// How it is trained. The rate and its schedule may change between steps; see [`Trainer::set_lr`].
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Another learning rate from the next step on.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), TrainError> {
        Options { lr, ..self.options.clone() }.check().map_err(TrainError::Options)?;
        self.options.lr = lr;
        Ok(())
    }

    /// How many updates there have been.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Parameters that the loss does not depend on, by name.
    pub fn unreached(&self) -> &[String] {
        &self.unreached
    }

    /// Where the time of a step goes, on the batch that was fed last. State is afterwards what it was before.
    pub fn profile(&mut self, calls: usize) -> Result<Profile, TrainError> {
        Ok(self.step.profile(calls)?)
    }

    /// The program of a step: loss and gradients, and the update where that is not a program of its own.
    pub fn session(&self) -> &Session {
        &self.step
    }

    /// Writes the batch's values to the inputs of the loss.
    pub(super) fn feed(&mut self, batch: &[(&Var, Feed<'_>)]) -> Result<(), TrainError> {
        let own = self.control.fed();
        let feeds = self.step.plan().feeds.iter();
        let wanted = feeds.filter(|feed| !feed.role.is_kept() && !own.contains(&Some(feed.leaf)));
        let given = |id: u64| batch.iter().any(|(var, _)| leaf(var) == Some(id));
        if let Some(missing) = wanted.clone().find(|feed| !given(feed.leaf)) {
            let name = if missing.name.is_empty() { missing.ty.to_string() } else { missing.name.clone() };
            return Err(TrainError::Batch(format!(
                "no values for the input {name}; give each input of the loss"
            )));
        }
        for (var, values) in batch {
            let shape = var.shape();
            let Some(at) = place(&self.step, var) else {
                return Err(TrainError::Batch(format!("the loss has no input {var:?}; leave it out")));
            };
            if values.len() != shape.count() {
                let (want, got) = (shape.count(), values.len());
                return Err(TrainError::Batch(format!(
                    "the input of shape {shape} takes {want} values, got {got}; programs have fixed shapes, so fill the last batch, or leave it out"
                )));
            }
            if let Some((at, value)) = not_finite(values) {
                return Err(TrainError::Batch(format!(
                    "value {at} of the input of shape {shape} is {value}; clean the data"
                )));
            }
            self.step.set(at, *values, shape.dims())?;
        }
        Ok(())
    }

    /// Feeds the rates to the program that updates.
    fn set_rates(&mut self, lr: f64) -> Result<(), RunError> {
        let rate = self.options.optimizer.rate(lr, self.updates + 1);
        let decay = self.control.decay.clone().map(|leaf| (leaf, lr * self.options.optimizer.weight_decay));
        let session = self.update.as_mut().unwrap_or(&mut self.step);
        for (leaf, value) in [(self.control.rate.clone(), rate)].into_iter().chain(decay) {
            set(session, &leaf, value)?;
        }
        Ok(())
    }

    /// Runs the update, where it is a program of its own.
    pub(super) fn follow(&mut self, report: &mut Report, stop: &Arc<AtomicBool>) -> Result<(), TrainError> {
        self.set_rates(report.lr)?;
        let update = self.update.as_mut().expect("invariant: the update is a program");
        update.execute_until(stop)?;
        self.judge(report, 0)
    }

    /// What the update says: outputs from `first` on.
    fn judge(&mut self, report: &mut Report, first: usize) -> Result<(), TrainError> {
        let session = self.update.as_ref().unwrap_or(&self.step);
        for (at, names) in [&mut report.overflowed, &mut report.beyond].into_iter().enumerate() {
            session.read(first + at, &mut self.flags);
            let bad = self.kept.iter().zip(&self.flags).filter(|(_, flag)| **flag < 0.5);
            names.extend(bad.map(|(kept, _)| kept.parameter.name.clone()));
        }
        if self.options.clip.is_some() {
            let mut length = [0.0];
            session.read(first + 2, &mut length);
            report.length = Some(length[0]);
        }
        self.count(report);
        if self.control.scale.is_some() {
            let mut scale = [0.0];
            self.states[0].buffer().read(&mut scale);
            self.scale = f64::from(scale[0]);
        }
        Ok(())
    }

    fn count(&mut self, report: &mut Report) {
        report.updated = report.overflowed.is_empty() && report.beyond.is_empty();
        if report.updated {
            self.updates += 1;
            self.skipped = 0;
        } else {
            self.skipped += 1;
        }
    }

    /// Reads gradients, and updates weights that the host keeps.
    fn masters(&mut self, report: &mut Report, whole: bool) -> Result<(), TrainError> {
        let share = 1.0 / self.options.accumulate as f32;
        let fresh = self.batches == 1;
        for (at, kept) in self.kept.iter_mut().enumerate() {
            let buffer = self.step.output(at + 1);
            let halves = buffer.iter().map(|value| value.to_f32() * share);
            for (sum, value) in kept.gradient.iter_mut().zip(halves) {
                *sum = if fresh { value } else { *sum + value };
            }
        }
        if whole { self.follow_masters(report) } else { Ok(()) }
    }

    /// Updates weights that the host keeps, all of them or none, by the gradients that it has, times the scale.
    pub(super) fn follow_masters(&mut self, report: &mut Report) -> Result<(), TrainError> {
        let bad = self.kept.iter().filter(|kept| kept.gradient.iter().any(|g| !g.is_finite()));
        report.overflowed.extend(bad.map(|kept| kept.parameter.name.clone()));
        if report.overflowed.is_empty() {
            let unscale = 1.0 / self.scale as f32;
            self.kept.iter_mut().flat_map(|kept| &mut kept.gradient).for_each(|g| *g *= unscale);
            self.shorten(report);
            let settings = Settings { lr: report.lr, t: self.updates + 1 };
            for kept in &mut self.kept {
                if !kept.follow(&self.options, settings) {
                    report.beyond.push(kept.parameter.name.clone());
                }
            }
        }
        self.count(report);
        if report.updated {
            self.kept.iter_mut().try_for_each(|kept| kept.take(&self.options))?;
        }
        self.next_scale(report.updated)?;
        Ok(())
    }

    /// Shortens gradients that the host has.
    fn shorten(&mut self, report: &mut Report) {
        let Some(most) = self.options.clip else { return };
        let squares = self.kept.iter().flat_map(|kept| &kept.gradient).map(|g| f64::from(*g) * f64::from(*g));
        let length = squares.sum::<f64>().sqrt();
        report.length = Some(length as f32);
        if length > most {
            let factor = (most / length) as f32;
            self.kept.iter_mut().flat_map(|kept| &mut kept.gradient).for_each(|g| *g *= factor);
        }
    }

    fn next_scale(&mut self, good: bool) -> Result<(), RunError> {
        let Scaling::Dynamic { patience, .. } = self.options.scaling else { return Ok(()) };
        self.held = if good { self.held + 1 } else { 0 };
        let scale = match (good, self.held >= patience) {
            (false, _) => (self.scale / 2.0).max(1.0),
            (true, true) => (self.scale * 2.0).min(32768.0),
            (true, false) => return Ok(()),
        };
        self.held = 0;
        self.set_scale(scale)
    }

    /// Nodes that overflowed in this call.
    fn overflowed(&mut self, report: &mut Report) {
        let sessions = || [Some(&self.step), self.update.as_ref()].into_iter().flatten();
        let calls = sessions().flat_map(Session::overflows).map(|overflow| overflow.calls).sum();
        if calls > self.calls {
            report.nodes = sessions().flat_map(Session::overflows).cloned().collect();
        }
        self.calls = calls;
    }
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trained, device) = (self.kept.len(), self.device.title());
        write!(f, "Trainer({trained} parameters, {} updates, on {device})", self.updates)
    }
}

/// The parameters that are trained, and those that are not, if the loss is one and there are some of the first.
fn trainable(loss: &Loss, scope: &Scope) -> Result<(Vec<Parameter>, Vec<Parameter>), TrainError> {
    loss.value.check()?;
    let shape = loss.value.shape();
    if shape.count() != 1 {
        let why = format!("the loss must have one element, got {shape}; take its mean");
        return Err(TrainError::Options(why));
    }
    let (trained, frozen): (Vec<Parameter>, Vec<Parameter>) =
        scope.parameters().into_iter().partition(|parameter| parameter.trained);
    if trained.is_empty() {
        let why = "there is nothing to train: the scope has no parameter that is not frozen";
        return Err(TrainError::Options(why.into()));
    }
    if trained.iter().chain(&frozen).any(|parameter| parameter.name == NOTES) {
        let why = format!("no parameter may be called `{NOTES}`: files keep their notes by that name");
        return Err(TrainError::Options(why));
    }
    Ok((trained, frozen))
}

/// A checksum of the nodes that a value is made from, of their attributes and types; not of what constants hold.
fn fingerprint(value: &Var) -> Result<String, TrainError> {
    let text = print(&Graph::freeze(std::slice::from_ref(value))?);
    let nodes: Vec<&str> = text.lines().filter(|line| line.starts_with('%')).collect();
    Ok(format!("{:08x}", crc32fast::hash(nodes.join("\n").as_bytes())))
}

/// The identity of a leaf.
fn leaf(var: &Var) -> Option<u64> {
    match var.op() {
        Op::Input(leaf) => Some(leaf.id),
        _ => None,
    }
}

/// Which feed of a program a leaf is.
pub(super) fn place(session: &Session, var: &Var) -> Option<usize> {
    let leaf = leaf(var)?;
    session.plan().feeds.iter().position(|feed| feed.leaf == leaf)
}

/// Feeds one number.
pub(super) fn set(session: &mut Session, leaf: &Var, value: f64) -> Result<(), RunError> {
    match place(session, leaf) {
        Some(at) => session.set(at, Feed::F32(&[value as f32]), &[1]),
        None => Ok(()),
    }
}

/// The first value that is not finite, and where it is.
fn not_finite(values: &Feed<'_>) -> Option<(usize, f64)> {
    let found = |at: usize, value: f64| (!value.is_finite()).then_some((at, value));
    match values {
        Feed::F32(values) => values.iter().enumerate().find_map(|(at, v)| found(at, f64::from(*v))),
        Feed::F64(values) => values.iter().enumerate().find_map(|(at, v)| found(at, *v)),
        Feed::F16(values) => values.iter().enumerate().find_map(|(at, v)| found(at, v.to_f64())),
        _ => None,
    }
}
