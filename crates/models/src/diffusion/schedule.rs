//! How much of latents is noise at each time, as `scheduler_config.json` says.

use super::config::Described;
use super::error::DiffusionError;
use super::scheduler::Sampler;
use serde_json::Value;
use std::f64::consts::FRAC_PI_2;
use std::path::Path;

/// What the network says of latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// What is noise in them.
    Noise,
    /// A mixture of both (Salimans and Ho, ICLR 2022).
    Velocity,
    /// What they are without noise.
    Sample,
}

/// How times are spread over those that were trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spacing {
    Leading,
    Linspace,
    Trailing,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The sampler that it is written for.
    pub sampler: Sampler,
    /// The share of the variance that is no noise, at each time.
    pub(super) alphas: Vec<f64>,
    /// The same behind the last step.
    last: f64,
    pub(super) prediction: Prediction,
    /// Where nothing is said, samplers differ.
    spacing: Option<Spacing>,
    offset: f64,
    /// Within which range latents without noise are cut, if at all.
    pub(super) clip: Option<f64>,
    /// Whether PNDM begins with steps of Runge and Kutta.
    pub(super) runge_kutta: bool,
    /// Whether Euler's method ends at the least standard deviation that was trained with, and else at none.
    pub(super) ends_at_least: bool,
}

/// More times than any model is trained with.
const MOST_TIMES: usize = 100_000;
/// The largest share of noise that a step of the squared cosine adds.
const MOST_BETA: f64 = 0.999;

impl Schedule {
    /// Reads the file. `sampler` is the one that is wanted, where it is not that of the file: what differs by sampler where the file
    /// says nothing is as that one has it.
    pub fn read(path: &Path, sampler: Option<Sampler>) -> Result<Schedule, DiffusionError> {
        let file = Described::read(path.to_owned())?;
        let own =
            Sampler::ALL.into_iter().find(|known| file.get("_class_name").as_str() == Some(known.class()));
        let sampler = sampler.or(own).ok_or_else(|| {
            let known: Vec<&str> = Sampler::ALL.iter().map(|known| known.name()).collect();
            file.fail(format!(
                "its sampler is {}, which is not known; name one of {}",
                file.get("_class_name"),
                known.join(", ")
            ))
        })?;
        refuse(&file)?;
        let alphas = cumulative(&betas(&file)?);
        if alphas.iter().any(|alpha| !(*alpha > 0.0 && *alpha < 1.0)) {
            return Err(file
                .fail("its betas leave nothing or everything of a picture; they must lie between 0 and 1"));
        }
        let to_one = file.flag("set_alpha_to_one", sampler == Sampler::Ddim)?;
        let predictions = [
            ("epsilon", Prediction::Noise),
            ("v_prediction", Prediction::Velocity),
            ("sample", Prediction::Sample),
        ];
        let prediction = file.word("prediction_type", Prediction::Noise, &predictions)?;
        if prediction == Prediction::Sample && sampler == Sampler::Pndm {
            return Err(file.fail("prediction_type is sample, which PNDM does not take; use ddim or euler"));
        }
        let spacings = [
            ("leading", Some(Spacing::Leading)),
            ("linspace", Some(Spacing::Linspace)),
            ("trailing", Some(Spacing::Trailing)),
        ];
        let clips = file.flag("clip_sample", sampler == Sampler::Ddim)?;
        let range = file.number("clip_sample_range", Some(1.0), [0.0, 1e6])?;
        let ends = [("zero", false), ("sigma_min", true)];
        Ok(Schedule {
            sampler,
            last: if to_one { 1.0 } else { alphas[0] },
            prediction,
            spacing: file.word("timestep_spacing", None, &spacings)?,
            offset: file.number("steps_offset", Some(0.0), [0.0, MOST_TIMES as f64])?,
            clip: clips.then_some(range),
            runge_kutta: !file.flag("skip_prk_steps", false)?,
            ends_at_least: file.word("final_sigmas_type", false, &ends)?,
            alphas,
        })
    }

    /// The share at a time; before the first, that behind the last step.
    pub(super) fn alpha(&self, time: f64) -> f64 {
        match time < 0.0 {
            true => self.last,
            // Times of the samplers that ask are whole, and were looked at when steps were made.
            false => self.alphas[(time as usize).min(self.alphas.len() - 1)],
        }
    }

    /// The standard deviation of noise beside latents of their own size, also between two times.
    pub(super) fn sigma(&self, time: f64) -> f64 {
        let at = |time: usize| {
            let alpha = self.alphas[time.min(self.alphas.len() - 1)];
            ((1.0 - alpha) / alpha).sqrt()
        };
        let (whole, part) = (time.floor().max(0.0) as usize, time - time.floor());
        if part == 0.0 { at(whole) } else { at(whole) + part * (at(whole + 1) - at(whole)) }
    }

    fn spacing(&self, sampler: Sampler) -> Spacing {
        let usual = if sampler == Sampler::Euler { Spacing::Linspace } else { Spacing::Leading };
        self.spacing.unwrap_or(usual)
    }

    pub(super) fn is_leading(&self, sampler: Sampler) -> bool {
        self.spacing(sampler) == Spacing::Leading
    }

    /// The times of so many steps, the latest first.
    pub(super) fn times(&self, sampler: Sampler, steps: usize) -> Vec<f64> {
        let most = self.alphas.len();
        let mut times: Vec<f64> = match self.spacing(sampler) {
            Spacing::Leading => (0..steps).map(|i| (i * (most / steps)) as f64 + self.offset).collect(),
            Spacing::Linspace => {
                let apart = (most - 1) as f64 / (steps.max(2) - 1) as f64;
                let at =
                    |i: usize| if i + 1 == steps && i > 0 { (most - 1) as f64 } else { i as f64 * apart };
                // Euler's method takes times between those that were trained with.
                let kept = |v: f64| if sampler == Sampler::Euler { v } else { v.round_ties_even() };
                (0..steps).map(|i| kept(at(i))).collect()
            }
            Spacing::Trailing => {
                let apart = most as f64 / steps as f64;
                let at = |i: usize| (most as f64 - i as f64 * apart).round_ties_even() - 1.0;
                return (0..steps).map(at).collect();
            }
        };
        times.reverse();
        times
    }
}

/// Fails where something is asked for that is not done here.
fn refuse(file: &Described) -> Result<(), DiffusionError> {
    let no = Value::Bool(false);
    file.only(&[
        ("thresholding", no.clone()),
        ("rescale_betas_zero_snr", no.clone()),
        ("use_karras_sigmas", no.clone()),
        ("use_exponential_sigmas", no.clone()),
        ("use_beta_sigmas", no),
        ("interpolation_type", "linear".into()),
        ("timestep_type", "discrete".into()),
    ])
}

/// How much noise each time adds.
fn betas(file: &Described) -> Result<Vec<f64>, DiffusionError> {
    if let Some(trained) = file.get("trained_betas").as_array() {
        let betas: Option<Vec<f64>> = trained.iter().map(Value::as_f64).collect();
        return betas
            .filter(|betas| (1..=MOST_TIMES).contains(&betas.len()))
            .ok_or_else(|| file.fail("trained_betas must be a list of numbers"));
    }
    let count = file.count("num_train_timesteps", Some(1000), MOST_TIMES)?;
    let first = file.number("beta_start", Some(1e-4), [0.0, 1.0])?;
    let last = file.number("beta_end", Some(0.02), [0.0, 1.0])?;
    let spread =
        |from: f64, to: f64| move |i: usize| from + (to - from) * i as f64 / (count.max(2) - 1) as f64;
    let cosine = |part: f64| ((part + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    let ratio = |i: usize| cosine((i + 1) as f64 / count as f64) / cosine(i as f64 / count as f64);
    let kinds = [("linear", 0), ("scaled_linear", 1), ("squaredcos_cap_v2", 2)];
    Ok(match file.word("beta_schedule", 0, &kinds)? {
        0 => (0..count).map(spread(first, last)).collect(),
        1 => (0..count).map(spread(first.sqrt(), last.sqrt())).map(|root| root * root).collect(),
        _ => (0..count).map(|i| (1.0 - ratio(i)).min(MOST_BETA)).collect(),
    })
}

/// What is left behind each.
fn cumulative(betas: &[f64]) -> Vec<f64> {
    let mut left = 1.0;
    let behind = |beta: &f64| {
        left *= 1.0 - beta;
        left
    };
    betas.iter().map(behind).collect()
}
