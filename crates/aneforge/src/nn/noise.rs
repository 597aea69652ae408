//! Random numbers inside a program: what dropout needs.
//!
//! A program has no bits to shift, but half precision computes exactly with whole numbers up to 2,048, and that is enough for
//! three generators modulo 23, 29 and 41: each element has three numbers of its own in each, a constant of the program; a clock
//! of three numbers goes on by one in each step; and `x <- (a + clock b) mod p; x <- (x^3 + c) mod p` mixes them, where the cube
//! exchanges all numbers below `p`, as 3 has no common factor with `p - 1`. The three in parts of their modulus, added, are
//! uniform modulo 1 (Wichmann and Hill, Applied Statistics 31, 1982). The clock repeats after 27,347 steps.
//!
//! A fourth number of the clock says whether there is noise at all. A [trainer](crate::train) sets it; where nobody does, as in an
//! evaluation of the same values, state is zeros, and dropout hands on what it gets.

use crate::ir::ops::leaf::Role;
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::Var;
use aneforge_tensor::random::word;
use aneforge_tensor::{Shape, Tensor, f16, round_f16};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The moduli.
const MODULI: [u32; 3] = [23, 29, 41];
/// Where the clock says whether there is noise.
const ON: usize = MODULI.len();

/// Where the layers of a network take their random numbers from.
///
/// ```
/// use aneforge::nn::Noise;
/// use aneforge::{Shape, Var};
/// let x = Var::input(Shape::new(&[4, 8])?);
/// let noise = Noise::new(5);
/// assert_eq!(noise.dropout(&x, 0.1).check()?.shape, x.shape());
/// assert_eq!(Noise::off().dropout(&x, 0.1).id(), x.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Noise(Option<Arc<Source>>);

#[derive(Debug)]
struct Source {
    seed: u64,
    clock: Var,
    streams: AtomicU64,
}

impl Noise {
    /// A source for training.
    #[track_caller]
    pub fn new(seed: u64) -> Noise {
        let ty = TensorType::f16(Shape::new(&[MODULI.len() + 1]).expect("invariant: one axis"));
        let clock = Var::described_leaf(ty, Role::State, f64::from(MODULI[2]), "noise.clock");
        Noise(Some(Arc::new(Source { seed, clock, streams: AtomicU64::new(0) })))
    }

    /// None: for evaluation, where dropout does nothing.
    pub fn off() -> Noise {
        Noise(None)
    }

    /// The clock, a state, and what it is in the next step.
    pub fn clock(&self) -> Option<(Var, Var)> {
        let clock = &self.0.as_ref()?.clock;
        let constant = |values: [f32; 4]| Var::constant(row(&values));
        let [a, b, c] = MODULI.map(|p| p as f32);
        let next = clock + constant([1.0, 1.0, 1.0, 0.0]);
        Some((clock.clone(), next.less(&constant([a, b, c, 2.0])).select(&next, &Var::scalar(0.0))))
    }

    /// What the clock begins with, where there is to be noise.
    pub const BEGIN: [f32; 4] = [0.0, 0.0, 0.0, 1.0];

    /// What the clock is after so many steps more.
    pub(crate) fn after(clock: &[f32], steps: u64) -> Vec<f32> {
        let mut then = clock.to_vec();
        for (value, p) in then.iter_mut().zip(MODULI) {
            *value = ((*value as u64 + steps) % u64::from(p)) as f32;
        }
        then
    }

    /// Numbers that are uniform in `[0, 1)`, other ones in every step and for every call.
    #[track_caller]
    pub fn uniform(&self, shape: Shape) -> Var {
        Caller::here().scope(|| {
            let Some(source) = &self.0 else {
                return Var::poisoned("uniform", "this noise is off; make one with a seed");
            };
            let stream = source.streams.fetch_add(1, Ordering::Relaxed);
            let parts = MODULI.iter().enumerate().map(|(at, &p)| {
                let numbers = |which: u64| {
                    let seed = word(source.seed, 64 * stream + 8 * at as u64 + which);
                    let draw = |i: u64| (word(seed, i) % u64::from(p)) as f32;
                    let values: Vec<f32> = (0..shape.count() as u64).map(draw).collect();
                    Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one per element"))
                };
                let clock = source.clock.narrow(0, at, at + 1);
                let x = modulo(&(numbers(0) + clock * numbers(1)), p);
                let cube = modulo(&(modulo(&x.square(), p) * &x), p);
                modulo(&(cube + numbers(2)), p).muls(1.0 / f64::from(p))
            });
            let sum = parts.reduce(|a, b| a + b).expect("invariant: three parts");
            &sum - sum.floor()
        })
    }

    /// Zero where a number is below `rate`, and `x / (1 - rate)` elsewhere (Srivastava et al., JMLR 2014).
    #[track_caller]
    pub fn dropout(&self, x: &Var, rate: f64) -> Var {
        if !(0.0..1.0).contains(&rate) {
            return Var::poisoned("dropout", format!("rate must be at least 0 and less than 1, got {rate}"));
        }
        if rate == 0.0 || x.check().is_err() {
            return x.clone();
        }
        let Some(source) = &self.0 else { return x.clone() };
        Caller::here().scope(|| {
            let on = source.clock.narrow(0, ON, ON + 1);
            let stays = self.uniform(x.shape()).greater_equal(&on.muls(rate));
            let grown = on.muls(1.0 / (1.0 - rate) - 1.0).adds(1.0);
            stays.select(&(x * grown), &Var::scalar(0.0))
        })
    }
}

/// `x` modulo `p`, for whole numbers up to `p^2`.
fn modulo(x: &Var, p: u32) -> Var {
    // Less than 1 / p, so that the quotient is never too large: at most one too small.
    let whole = x.muls(below_inverse(p)).floor();
    let rest = x - whole.muls(f64::from(p));
    let less = rest.adds(-f64::from(p));
    rest.less(&Var::scalar(f64::from(p))).select(&rest, &less)
}

/// The half-precision number before `1 / p`.
fn below_inverse(p: u32) -> f64 {
    let nearest = round_f16(1.0 / f64::from(p));
    f64::from(f16::from_bits(nearest.to_bits() - 1))
}

fn row(values: &[f32]) -> Tensor {
    let shape = Shape::new(&[values.len()]).expect("invariant: one axis");
    Tensor::from_slice(shape, values).expect("invariant: one value per element")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(x: f64) -> f64 {
        f64::from(round_f16(x))
    }

    /// The remainder as a program has it, in half precision.
    fn rounded_modulo(x: u32, p: u32) -> f64 {
        let whole = half(half(f64::from(x)) * below_inverse(p)).floor();
        let p = f64::from(p);
        let rest = half(f64::from(x) - half(whole * p));
        if rest < p { rest } else { half(rest - p) }
    }

    #[test]
    fn remainders_are_exact_for_all_numbers_that_are_met() {
        for p in MODULI {
            for x in 0..=p * p {
                assert_eq!(rounded_modulo(x, p), f64::from(x % p), "{x} mod {p}");
            }
        }
    }
}
