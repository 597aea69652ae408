//! What is kept of one parameter, on the device and on the host.

use super::Options;
use super::program::Leaves;
use crate::device::{Device, Feed};
use crate::ir::var::Var;
use crate::nn::Parameter;
use crate::optim::{Masters, Settings, Weights};
use crate::{RunError, Shape, State, Tensor, f16};
use std::sync::Arc;

/// What is kept of a parameter.
pub(super) struct Kept {
    pub parameter: Parameter,
    pub leaves: Leaves,
    pub weight: State,
    /// In the order of [`Leaves::kept`].
    pub states: Vec<State>,
    pub masters: Option<Masters>,
    /// What those become in a step, until it is known that no parameter leaves half precision.
    next: Option<Masters>,
    /// Working memory of masters: the gradient, and the average over steps.
    pub gradient: Vec<f32>,
    pub average: Option<(Vec<f32>, State)>,
}

impl Kept {
    pub fn new(
        device: &Arc<dyn Device>,
        parameter: Parameter,
        leaves: Leaves,
        options: &Options,
    ) -> Result<Kept, RunError> {
        let weight = State::of(device, &parameter.var)?;
        let states = leaves.kept().map(|leaf| State::of(device, leaf)).collect::<Result<_, _>>()?;
        let host = options.weights == Weights::Masters;
        let count = if host { parameter.var.shape().count() } else { 0 };
        let averages = host && options.average.is_some();
        let average = averages.then(|| State::new(device, "", parameter.var.shape())).transpose()?;
        let masters = host.then(|| Masters::new(vec![0.0; count], &options.optimizer));
        Ok(Kept {
            next: masters.clone(),
            masters,
            gradient: vec![0.0; count],
            average: average.map(|state| (vec![0.0; count], state)),
            parameter,
            leaves,
            weight,
            states,
        })
    }

    /// What the device keeps of it, by name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &State)> {
        let beside = self.states.iter().map(|state| (state.name(), state));
        beside.chain([(self.parameter.name.as_str(), &self.weight)])
    }

    /// The state of a leaf that is kept.
    pub fn state(&self, var: &Var) -> Option<&State> {
        self.states.iter().find(|state| state.var().id() == var.id())
    }

    pub fn average(&self) -> Option<&State> {
        let on_host = self.average.as_ref().map(|(_, state)| state);
        on_host.or_else(|| self.state(&self.leaves.average.as_ref()?[0]))
    }

    pub fn low(&self) -> Option<&State> {
        self.state(self.leaves.low.as_ref()?)
    }

    pub fn reset(&mut self, options: &Options) -> Result<(), RunError> {
        let values = self.parameter.value.to_f32();
        for state in &self.states {
            state.write(Feed::F32(&vec![0.0; values.len()]))?;
        }
        self.weight.write(Feed::F32(&values))?;
        // What rounding takes from the beginning.
        let rounded = self.weight.read()?.to_f32();
        let lost: Vec<f32> = values.iter().zip(&rounded).map(|(value, half)| value - half).collect();
        if let Some(low) = self.low() {
            low.write(Feed::F32(&lost))?;
        }
        if let Some([high, low]) = &self.leaves.average {
            for (leaf, values) in [(high, &values), (low, &lost)] {
                let state = self.state(leaf).expect("invariant: it is kept");
                state.write(Feed::F32(values))?;
            }
        }
        if self.masters.is_some() {
            self.masters = Some(Masters::new(values.clone(), &options.optimizer));
        }
        if let Some((average, state)) = &mut self.average {
            average.copy_from_slice(&values);
            state.write(Feed::F32(average))?;
        }
        Ok(())
    }

    /// One step of weights that the host keeps, which [`Kept::take`] makes true; whether they, and what their rule keeps, stay
    /// finite, the weights in half precision.
    pub fn follow(&mut self, options: &Options, settings: Settings) -> bool {
        let (Some(masters), Some(next)) = (&self.masters, &mut self.next) else { return true };
        next.weight.copy_from_slice(&masters.weight);
        for (slot, before) in next.slots.iter_mut().zip(&masters.slots) {
            slot.copy_from_slice(before);
        }
        next.step(&self.gradient, &options.optimizer, settings);
        let inside = next.weight.iter().all(|w| f16::from_f32(*w).is_finite());
        inside && next.slots.iter().flatten().all(|value| value.is_finite())
    }

    /// Takes the step of [`Kept::follow`].
    pub fn take(&mut self, options: &Options) -> Result<(), RunError> {
        std::mem::swap(&mut self.masters, &mut self.next);
        if let (Some(masters), Some((average, _)), Some(keep)) =
            (&self.masters, &mut self.average, options.average)
        {
            for (mean, weight) in average.iter_mut().zip(&masters.weight) {
                *mean += (1.0 - keep) as f32 * (weight - *mean);
            }
        }
        self.publish()
    }

    /// Brings weights that the host keeps to the device.
    pub fn publish(&self) -> Result<(), RunError> {
        if let Some(masters) = &self.masters {
            self.weight.write(Feed::F32(&masters.weight))?;
        }
        if let Some((average, state)) = &self.average {
            state.write(Feed::F32(average))?;
        }
        Ok(())
    }

    /// Gives the weight another value, with all its digits; what the rule keeps of it stays.
    pub fn set_value(&mut self, values: &[f32]) -> Result<(), RunError> {
        self.weight.write(Feed::F32(values))?;
        if let Some(low) = self.low() {
            let rounded = self.weight.read()?.to_f32();
            let lost: Vec<f32> = values.iter().zip(&rounded).map(|(value, half)| value - half).collect();
            low.write(Feed::F32(&lost))?;
        }
        if let Some(masters) = &mut self.masters {
            masters.weight.copy_from_slice(values);
        }
        Ok(())
    }

    /// The weight with all its digits.
    pub fn value(&self) -> Result<Tensor, RunError> {
        let high = self.weight.read()?.to_f32();
        let values = match (&self.masters, self.low()) {
            (Some(masters), _) => masters.weight.clone(),
            (None, Some(low)) => {
                high.iter().zip(low.read()?.to_f32()).map(|(high, low)| high + low).collect()
            }
            (None, None) => high,
        };
        let shape: Shape = self.parameter.var.shape();
        Ok(Tensor::from_slice(shape, &values).expect("invariant: one value per element"))
    }

    /// What the host keeps of it, by name.
    pub fn on_host<'a>(&'a self, options: &Options) -> Vec<(String, &'a [f32])> {
        let named = |what: &str| format!("{}:{what}", self.parameter.name);
        let mut all = Vec::new();
        if let Some(masters) = &self.masters {
            all.push((named("master"), &masters.weight[..]));
            let slots = options.optimizer.slots().iter().zip(&masters.slots);
            all.extend(slots.map(|(name, values)| (named(name), &values[..])));
            all.push((named("gradient"), &self.gradient[..]));
        }
        if let Some((average, _)) = &self.average {
            all.push((named("average"), &average[..]));
        }
        all
    }

    pub fn on_host_mut<'a>(&'a mut self, options: &Options) -> Vec<(String, &'a mut [f32])> {
        let named = |what: &str| format!("{}:{what}", self.parameter.name);
        let mut all: Vec<(String, &mut [f32])> = Vec::new();
        if let Some(masters) = &mut self.masters {
            all.push((named("master"), &mut masters.weight[..]));
            let slots = options.optimizer.slots().iter().zip(&mut masters.slots);
            all.extend(slots.map(|(name, values)| (named(name), &mut values[..])));
            all.push((named("gradient"), &mut self.gradient[..]));
        }
        if let Some((average, _)) = &mut self.average {
            all.push((named("average"), &mut average[..]));
        }
        all
    }
}
