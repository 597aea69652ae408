//! Layer, RMS, group and instance normalisation in one pass over memory, rounded where the chains of simpler ops
//! round.

use half::f16;

use crate::Kernels;
use crate::epilogue::kept;
use crate::order;
use crate::reduce::{Fold, Reduction, across_lanes, add_terms, first_lanes};
use crate::simd::{Lanes, Real, Task, WIDTH, chunks};

/// Elements that one thread normalises at a time.
const GRAIN: usize = 1 << 13;

/// What a row is normalised by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// By mean and variance: `m = mean(x)`, `d = x - m`, `v = mean(d d)`, `r = 1 / sqrt(v + eps)`, `d r`; every one
    /// of these seven operations rounds to `f16`.
    Variance {
        /// Added to the variance.
        eps: f16,
    },
    /// By length: `l = sqrt(sum of x x)`, `l' = max(l, floor)`, `x / l'`; each of the three rounds to `f16`.
    Length {
        /// The smallest length.
        floor: f16,
    },
}

/// What follows a norm: value `i` of the whole array is multiplied by `gamma[i / span % gamma.len()]`, rounded, and
/// then `beta` of the same place is added, rounded.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// The factors.
    pub gamma: &'a [f16],
    /// The summands, as many.
    pub beta: Option<&'a [f16]>,
    /// Neighbouring elements that share a factor: 1 for a layer norm, the pixels of a channel for a group or
    /// instance norm.
    pub span: usize,
}

impl Affine<'_> {
    /// Whether each row of `size` elements has a factor and a summand per element.
    fn is_row(&self, size: usize) -> bool {
        self.span == 1 && self.gamma.len() == size && self.beta.is_some()
    }
}

/// A norm with what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// The norm.
    pub norm: Norm,
    /// Scale and shift.
    pub affine: Option<Affine<'a>>,
    /// NaN becomes +0 wherever an op of the chain would store it.
    pub flush_nan: bool,
}

impl Normalize<'_> {
    /// The scalar definition for one row, whose first element is element `start` of the array.
    #[must_use]
    pub fn eval(&self, x: &[f16], start: usize) -> Vec<f16> {
        let store = |value: f32| {
            let value = f16::from_f32(value);
            if self.flush_nan && value.is_nan() { f16::ZERO } else { value }
        };
        let (wide, count) = (|value: &f16| value.to_f32(), x.len() as f32);
        let mut out: Vec<f16> = match self.norm {
            Norm::Variance { eps } => {
                let mean = store(order::sum(x.iter().map(wide)) / count).to_f32();
                let centred: Vec<f16> = x.iter().map(|x| store(x.to_f32() - mean)).collect();
                let squares = centred.iter().map(|d| store(d.to_f32() * d.to_f32()).to_f32());
                let variance = store(order::sum(squares) / count);
                let root = store(1.0 / store(variance.to_f32() + eps.to_f32()).to_f32().sqrt()).to_f32();
                centred.iter().map(|d| store(d.to_f32() * root)).collect()
            }
            Norm::Length { floor } => {
                let length = store(order::sum(x.iter().map(|x| x.to_f32() * x.to_f32())).sqrt());
                let length = store(crate::math::maximum(length.to_f32(), floor.to_f32())).to_f32();
                x.iter().map(|x| store(x.to_f32() / length)).collect()
            }
        };
        if let Some(Affine { gamma, beta, span }) = self.affine {
            for (index, out) in out.iter_mut().enumerate() {
                let at = (start + index) / span % gamma.len();
                *out = store(out.to_f32() * gamma[at].to_f32());
                if let Some(beta) = beta {
                    *out = store(out.to_f32() + beta[at].to_f32());
                }
            }
        }
        out
    }
}

/// Normalises every row of `size` neighbouring elements of `x`: [`Normalize::eval`] of each. A layer norm's row is
/// the last axis, a group norm's the channels of a group with their pixels.
///
/// # Panics
/// When the lengths differ, rows of `size` do not divide them, `beta` is not as long as `gamma`, or a span or
/// `gamma` is empty.
pub fn normalize(kernels: &Kernels, x: &[f16], size: usize, parameters: &Normalize<'_>, out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "normalize: lengths differ");
    if let Some(Affine { gamma, beta, span }) = parameters.affine {
        assert!(span > 0 && !gamma.is_empty(), "normalize: no factors");
        assert!(beta.is_none_or(|beta| beta.len() == gamma.len()), "normalize: as many summands as factors");
    }
    if out.is_empty() {
        return;
    }
    assert!(size > 0 && x.len().is_multiple_of(size), "normalize: {} elements in rows of {size}", x.len());
    let grain = (GRAIN / size).max(1) * size;
    chunks(&kernels.pool, out, grain, |start, out| {
        let x = &x[start..start + out.len()];
        kernels.simd.run(Rows { x, size, start, parameters, out });
    });
}

struct Rows<'a> {
    x: &'a [f16],
    size: usize,
    start: usize,
    parameters: &'a Normalize<'a>,
    out: &'a mut [f16],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Rows { x, size, start, parameters, out } = self;
        let flush = parameters.flush_nan;
        for (index, (x, out)) in x.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
            match parameters.norm {
                Norm::Variance { eps } => {
                    let affine = parameters.affine.filter(|affine| affine.is_row(size));
                    variance::<L>(x, eps.to_f32(), flush, affine, out);
                    if affine.is_some() {
                        continue;
                    }
                }
                Norm::Length { floor } => length::<L>(x, floor.to_f32(), flush, out),
            }
            if let Some(affine) = &parameters.affine {
                scale::<L>(affine, start + index * size, flush, out);
            }
        }
    }
}

/// A number as an op would store it.
#[inline(always)]
fn stored<L: Lanes>(value: f32, flush: bool) -> f32 {
    let value = kept::<L>(flush, L::rounded(<L::Vector as Real>::splat(value)));
    let mut all = [0.0; WIDTH];
    L::store(value, &mut all);
    all[0]
}

#[inline(always)]
fn total<L: Lanes>(reduction: Reduction, x: &[f16]) -> f32 {
    let lanes = add_terms::<L>(reduction, 0.0, <L::Vector as Real>::splat(0.0), x);
    across_lanes::<L>(Fold::Sum, lanes)
}

/// The norm by variance, with the scale and shift where there is one factor per element of a row.
#[inline(always)]
fn variance<L: Lanes>(x: &[f16], eps: f32, flush: bool, affine: Option<Affine<'_>>, out: &mut [f16]) {
    let count = x.len() as f32;
    let mean = stored::<L>(total::<L>(Reduction::Sum, x) / count, flush);
    let mean = <L::Vector as Real>::splat(mean);
    let mut lanes = <L::Vector as Real>::splat(0.0);
    let (whole, rest) = x.as_chunks::<WIDTH>();
    let (targets, target) = out.as_chunks_mut::<WIDTH>();
    for (x, out) in whole.iter().zip(targets) {
        let centred = kept::<L>(flush, L::rounded(L::read(x) - mean));
        lanes = lanes + kept::<L>(flush, L::rounded(centred * centred));
        L::write(centred, out);
    }
    if !rest.is_empty() {
        let centred = kept::<L>(flush, L::rounded(L::read_some(rest) - mean));
        let square = kept::<L>(flush, L::rounded(centred * centred));
        lanes = lanes + first_lanes::<L>(square, rest.len(), 0.0);
        L::write_some(centred, target);
    }
    let variance = stored::<L>(across_lanes::<L>(Fold::Sum, lanes) / count, flush);
    let sum = stored::<L>(variance + eps, flush);
    let root = <L::Vector as Real>::splat(stored::<L>(1.0 / sum.sqrt(), flush));
    let Some(Affine { gamma, beta: Some(beta), .. }) = affine else {
        for out in out.chunks_mut(WIDTH) {
            L::write_some(kept::<L>(flush, L::read_some(out) * root), out);
        }
        return;
    };
    let (targets, target) = out.as_chunks_mut::<WIDTH>();
    let ((gammas, gamma), (betas, beta)) = (gamma.as_chunks::<WIDTH>(), beta.as_chunks::<WIDTH>());
    for ((out, gamma), beta) in targets.iter_mut().zip(gammas).zip(betas) {
        let unit = kept::<L>(flush, L::rounded(L::read(out) * root));
        let scaled = kept::<L>(flush, L::rounded(unit * L::read(gamma)));
        L::write(kept::<L>(flush, scaled + L::read(beta)), out);
    }
    if !target.is_empty() {
        let unit = kept::<L>(flush, L::rounded(L::read_some(target) * root));
        let scaled = kept::<L>(flush, L::rounded(unit * L::read_some(gamma)));
        L::write_some(kept::<L>(flush, scaled + L::read_some(beta)), target);
    }
}

#[inline(always)]
fn length<L: Lanes>(x: &[f16], floor: f32, flush: bool, out: &mut [f16]) {
    let length = stored::<L>(total::<L>(Reduction::SumSquare, x).sqrt(), flush);
    let length = stored::<L>(crate::math::maximum(length, floor), flush);
    let length = <L::Vector as Real>::splat(length);
    for (x, out) in x.chunks(WIDTH).zip(out.chunks_mut(WIDTH)) {
        L::write_some(kept::<L>(flush, L::read_some(x) / length), out);
    }
}

/// Scales and shifts a row that is the elements of the array from `start` on.
#[inline(always)]
fn scale<L: Lanes>(affine: &Affine<'_>, start: usize, flush: bool, out: &mut [f16]) {
    let Affine { gamma, beta, span } = *affine;
    let mut done = 0;
    while done < out.len() {
        let at = (start + done) / span % gamma.len();
        // A run of elements with one factor, or of neighbouring factors.
        let run = if span == 1 { gamma.len() - at } else { span - (start + done) % span };
        let run = run.min(out.len() - done);
        for (index, out) in out[done..done + run].chunks_mut(WIDTH).enumerate() {
            let from = at + index * WIDTH;
            let factors = |values: &[f16]| match span {
                1 => L::read_some(&values[from..values.len().min(from + WIDTH)]),
                _ => L::read(&[values[at]; WIDTH]),
            };
            let mut value = kept::<L>(flush, L::read_some(out) * factors(gamma));
            if let Some(beta) = beta {
                value = kept::<L>(flush, L::rounded(value) + factors(beta));
            }
            L::write_some(value, out);
        }
        done += run;
    }
}
