//! Samplers: from noise to latents, by what the U-Net says of each time. All of it is in double precision on the host.
//!
//! DDIM (Song et al., ICLR 2021), Euler's method over standard deviations (Karras et al., NeurIPS 2022), and PNDM (Liu et al., ICLR
//! 2022), as `scheduler_config.json` sets them.

use super::error::DiffusionError;
use super::pndm::Multistep;
use super::schedule::{Prediction, Schedule};

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// DDIM.
    Ddim,
    /// Euler's method.
    Euler,
    /// PNDM, with or without its steps of Runge and Kutta.
    Pndm,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Sampler; 3] = [Sampler::Ddim, Sampler::Euler, Sampler::Pndm];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Sampler::Ddim => "ddim",
            Sampler::Euler => "euler",
            Sampler::Pndm => "pndm",
        }
    }

    /// The sampler of this name.
    pub fn named(name: &str) -> Option<Sampler> {
        Sampler::ALL.into_iter().find(|sampler| sampler.name() == name)
    }

    /// What `diffusers` calls it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Sampler::Ddim => "DDIMScheduler",
            Sampler::Euler => "EulerDiscreteScheduler",
            Sampler::Pndm => "PNDMScheduler",
        }
    }
}

/// The steps of one drawing.
#[derive(Clone, Debug)]
pub struct Steps {
    schedule: Schedule,
    sampler: Sampler,
    times: Vec<f64>,
    /// Of Euler's method: the standard deviation at each time, and behind the last.
    sigmas: Vec<f64>,
    eta: f64,
    /// Of DDIM and PNDM: how far a time is from the next.
    ratio: usize,
    multistep: Multistep,
}

impl Steps {
    /// So many steps; `eta`, from 0 to 1, is how much new noise each of DDIM's adds.
    pub fn new(
        schedule: &Schedule,
        sampler: Sampler,
        steps: usize,
        eta: f64,
    ) -> Result<Steps, DiffusionError> {
        let asked = |why: String| Err(DiffusionError::Asked(why));
        let most = schedule.alphas.len();
        if !(1..=most).contains(&steps) {
            return asked(format!(
                "{steps} steps; there must be from 1 to {most}, the times that the model knows"
            ));
        }
        if !(0.0..=1.0).contains(&eta) {
            return asked(format!("eta is {eta}; it must be from 0 to 1"));
        }
        if eta > 0.0 && sampler != Sampler::Ddim {
            return asked(format!("eta is {eta}, and {} adds no noise; use ddim", sampler.name()));
        }
        let spaced = schedule.times(sampler, steps);
        let ratio = most / steps;
        let multistep = Multistep::new(&spaced, ratio, schedule.runge_kutta && sampler == Sampler::Pndm)?;
        let times = if sampler == Sampler::Pndm { multistep.times() } else { spaced };
        if let Some(time) = times.iter().find(|&&time| time < 0.0 || time > (most - 1) as f64) {
            return asked(format!(
                "{steps} steps begin at time {time}, and the model knows 0 to {}; take fewer",
                most - 1
            ));
        }
        let mut sigmas: Vec<f64> = times.iter().map(|&time| schedule.sigma(time)).collect();
        sigmas.push(if schedule.ends_at_least { schedule.sigma(0.0) } else { 0.0 });
        Ok(Steps { schedule: schedule.clone(), sampler, times, sigmas, eta, ratio, multistep })
    }

    /// The time of each step. A step is one forward of the network.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// What noise is multiplied with to begin with.
    pub fn initial_scale(&self) -> f64 {
        match self.sampler {
            Sampler::Euler if self.schedule.is_leading(self.sampler) => self.largest().hypot(1.0),
            Sampler::Euler => self.largest(),
            _ => 1.0,
        }
    }

    fn largest(&self) -> f64 {
        self.sigmas.iter().copied().fold(0.0, f64::max)
    }

    /// What the network is given of `latents` at step `at`.
    pub fn input(&self, at: usize, latents: &[f64]) -> Vec<f64> {
        match self.sampler {
            Sampler::Euler => latents.iter().map(|v| v / self.sigmas[at].hypot(1.0)).collect(),
            _ => latents.to_vec(),
        }
    }

    /// The latents behind step `at`, of those before and of what the network made of them. `noise` is asked for as many numbers as
    /// there are latents, where the step adds some.
    pub fn step(
        &mut self,
        at: usize,
        made: &[f64],
        latents: &[f64],
        noise: &mut dyn FnMut(usize) -> Vec<f64>,
    ) -> Vec<f64> {
        match self.sampler {
            Sampler::Ddim => self.ddim(at, made, latents, noise),
            Sampler::Euler => self.euler(at, made, latents),
            Sampler::Pndm => self.multistep.step(&self.schedule, self.times[at], self.ratio, made, latents),
        }
    }

    fn ddim(
        &self,
        at: usize,
        made: &[f64],
        latents: &[f64],
        noise: &mut dyn FnMut(usize) -> Vec<f64>,
    ) -> Vec<f64> {
        let time = self.times[at];
        let (now, before) = (self.schedule.alpha(time), self.schedule.alpha(time - self.ratio as f64));
        let variance = (1.0 - before) / (1.0 - now) * (1.0 - now / before);
        let deviation = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - before - deviation * deviation).max(0.0).sqrt();
        let next = |(made, x): (&f64, &f64)| {
            let (start, epsilon) = self.split(*made, *x, now);
            let start = self.schedule.clip.map_or(start, |range| start.clamp(-range, range));
            before.sqrt() * start + direction * epsilon
        };
        let next: Vec<f64> = made.iter().zip(latents).map(next).collect();
        if self.eta == 0.0 {
            return next;
        }
        let added = noise(next.len());
        next.iter().zip(added).map(|(v, noise)| v + deviation * noise).collect()
    }

    /// What latents are without noise, and the noise, by what the network made of them.
    fn split(&self, made: f64, x: f64, alpha: f64) -> (f64, f64) {
        let (a, b) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        match self.schedule.prediction {
            Prediction::Noise => ((x - b * made) / a, made),
            Prediction::Velocity => (a * x - b * made, a * made + b * x),
            Prediction::Sample => (made, (x - a * made) / b),
        }
    }

    fn euler(&self, at: usize, made: &[f64], latents: &[f64]) -> Vec<f64> {
        let (sigma, next) = (self.sigmas[at], self.sigmas[at + 1]);
        let moved = |(made, x): (&f64, &f64)| {
            let start = match self.schedule.prediction {
                Prediction::Noise => x - sigma * made,
                Prediction::Velocity => x / (sigma * sigma + 1.0) - made * sigma / sigma.hypot(1.0),
                Prediction::Sample => *made,
            };
            x + (x - start) / sigma * (next - sigma)
        };
        made.iter().zip(latents).map(moved).collect()
    }
}
