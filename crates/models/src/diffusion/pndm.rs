//! PNDM (Liu et al., ICLR 2022): steps that remember what the network made before.

use super::error::DiffusionError;
use super::schedule::{Prediction, Schedule};

/// Forwards in one step of Runge and Kutta, and as many steps to begin with.
const ORDER: usize = 4;

/// What is remembered from step to step.
#[derive(Clone, Debug)]
pub(super) struct Multistep {
    /// Times of the steps of Runge and Kutta, and of the others behind them.
    runge_kutta: Vec<f64>,
    others: Vec<f64>,
    done: usize,
    /// What the network made, the newest last; four at most.
    made: Vec<Vec<f64>>,
    /// Of a step of Runge and Kutta: the sum so far.
    sum: Vec<f64>,
    /// Latents that a step of several forwards began with.
    began: Option<Vec<f64>>,
}

impl Multistep {
    /// `spaced` are times, the latest first.
    pub(super) fn new(spaced: &[f64], ratio: usize, runge_kutta: bool) -> Result<Multistep, DiffusionError> {
        let mut others = spaced.to_vec();
        let mut first = Vec::new();
        if runge_kutta {
            if spaced.len() < ORDER {
                let why = format!(
                    "{} steps, and PNDM begins with {ORDER} of Runge and Kutta; take more",
                    spaced.len()
                );
                return Err(DiffusionError::Asked(why));
            }
            let half = (ratio / 2) as f64;
            // Of each of the four latest but the first, and then of the latest, a time and one half a step later; from the second to the
            // last but one, each twice.
            let doubled: Vec<f64> =
                spaced[..ORDER].iter().rev().flat_map(|time| [*time, time + half]).collect();
            let twice: Vec<f64> =
                doubled[..doubled.len() - 1].iter().flat_map(|time| [*time, *time]).collect();
            first = twice[1..twice.len() - 1].iter().rev().copied().collect();
            others = spaced[ORDER - 1..].to_vec();
        } else if let Some(second) = spaced.get(1) {
            // The second time comes twice.
            others.insert(1, *second);
        }
        Ok(Multistep { runge_kutta: first, others, done: 0, made: Vec::new(), sum: Vec::new(), began: None })
    }

    pub(super) fn times(&self) -> Vec<f64> {
        self.runge_kutta.iter().chain(&self.others).copied().collect()
    }

    pub(super) fn step(
        &mut self,
        schedule: &Schedule,
        time: f64,
        ratio: usize,
        made: &[f64],
        latents: &[f64],
    ) -> Vec<f64> {
        let next = match self.done < self.runge_kutta.len() {
            true => self.of_runge_kutta(schedule, time, ratio, made, latents),
            false => self.of_several(schedule, time, ratio, made, latents),
        };
        self.done += 1;
        next
    }

    fn of_runge_kutta(
        &mut self,
        schedule: &Schedule,
        time: f64,
        ratio: usize,
        made: &[f64],
        latents: &[f64],
    ) -> Vec<f64> {
        let part = self.done % ORDER;
        let to = time - if self.done % 2 == 1 { 0.0 } else { (ratio / 2) as f64 };
        let from = self.runge_kutta[self.done - part];
        if part == 0 {
            self.remember(made);
            self.began = Some(latents.to_vec());
            self.sum = vec![0.0; made.len()];
        }
        let weight = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0][part];
        self.sum.iter_mut().zip(made).for_each(|(sum, made)| *sum += weight * made);
        let used = if part + 1 == ORDER { self.sum.clone() } else { made.to_vec() };
        let began = self.began.clone().unwrap_or_else(|| latents.to_vec());
        moved(schedule, [from, to], &used, &began)
    }

    fn of_several(
        &mut self,
        schedule: &Schedule,
        time: f64,
        ratio: usize,
        made: &[f64],
        latents: &[f64],
    ) -> Vec<f64> {
        let ratio = ratio as f64;
        let second = self.done == 1;
        let [from, to] = if second { [time + ratio, time] } else { [time, time - ratio] };
        if !second {
            self.remember(made);
        }
        let mut began = latents.to_vec();
        let used = match (&self.made[..], second) {
            // The first step is gone again, with the mean of its two ends.
            ([only], true) => {
                began = self.began.take().unwrap_or(began);
                weighted(&[(0.5, made), (0.5, only)])
            }
            ([only], false) => {
                self.began = Some(began.clone());
                only.clone()
            }
            ([b, a], _) => weighted(&[(1.5, a), (-0.5, b)]),
            ([c, b, a], _) => weighted(&[(23.0 / 12.0, a), (-16.0 / 12.0, b), (5.0 / 12.0, c)]),
            (made, _) => {
                let last = |back: usize| &made[made.len() - back][..];
                let weights = [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0];
                let terms: Vec<(f64, &[f64])> =
                    weights.into_iter().zip(1..).map(|(w, back)| (w, last(back))).collect();
                weighted(&terms)
            }
        };
        moved(schedule, [from, to], &used, &began)
    }

    fn remember(&mut self, made: &[f64]) {
        if self.made.len() == ORDER {
            self.made.remove(0);
        }
        self.made.push(made.to_vec());
    }
}

fn weighted(terms: &[(f64, &[f64])]) -> Vec<f64> {
    let count = terms.first().map_or(0, |(_, values)| values.len());
    (0..count).map(|i| terms.iter().map(|(weight, values)| weight * values[i]).sum()).collect()
}

/// Formula 9 of the paper: latents at another time.
fn moved(schedule: &Schedule, [from, to]: [f64; 2], made: &[f64], latents: &[f64]) -> Vec<f64> {
    let (now, then) = (schedule.alpha(from), schedule.alpha(to));
    let scale = (then / now).sqrt();
    let divisor = now * (1.0 - then).sqrt() + (now * (1.0 - now) * then).sqrt();
    let next = |(made, x): (&f64, &f64)| {
        let noise = match schedule.prediction {
            Prediction::Velocity => now.sqrt() * made + (1.0 - now).sqrt() * x,
            _ => *made,
        };
        scale * x - (then - now) * noise / divisor
    };
    made.iter().zip(latents).map(next).collect()
}
