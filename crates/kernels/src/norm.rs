//! Layer, RMS, group and instance normalisation, reading and writing memory once, rounded where the chains of simpler
//! ops round.

use half::f16;

use crate::order;
use crate::reduce::{Fold, across_lanes};
use crate::simd::{HALVES, HalfTask, Halves, Lanes, Real, WIDTH, chunks};
use crate::stores::{OVERFLOW, Stores, kept};
use crate::{Kernels, Watch};

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
pub struct ScaleShift<'a> {
    /// The factors.
    pub gamma: &'a [f16],
    /// The summands, as many.
    pub beta: Option<&'a [f16]>,
    /// Neighbouring elements that share a factor: 1 for a layer norm, the pixels of a channel for a group or
    /// instance norm.
    pub span: usize,
}

impl ScaleShift<'_> {
    /// Whether each row of `size` elements has a factor per element.
    fn is_row(&self, size: usize) -> bool {
        self.span == 1 && self.gamma.len() == size
    }
}

/// A norm with what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// The norm.
    pub norm: Norm,
    /// Scale and shift.
    pub affine: Option<ScaleShift<'a>>,
    /// NaN becomes +0 wherever an op of the chain would store it.
    pub flush_nan: bool,
    /// Told where an op of the chain stores an infinity or NaN, which may well vanish in the ops after it; but not where
    /// one is among the operands alone.
    pub watch: Option<&'a Watch>,
}

impl Normalize<'_> {
    /// Whether scale and shift per element of a row leave all that the norm gives finite.
    ///
    /// A normalised value is at most the root of the row's length, or 1; and half as much again, as a variance among the
    /// subnormal halves may be rounded by a third. The sums are no less than their greatest term.
    fn is_tame(&self, size: usize) -> bool {
        const ROUNDINGS: f32 = 1.5;
        let most = match self.norm {
            Norm::Variance { .. } => (size as f32).sqrt().max(1.0),
            Norm::Length { .. } => 1.0,
        };
        let (gamma, beta) = self
            .affine
            .map_or((1.0, 0.0), |affine| (greatest(affine.gamma), affine.beta.map_or(0.0, greatest)));
        (ROUNDINGS * most).mul_add(gamma, beta) < OVERFLOW
    }

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
        if let Some(ScaleShift { gamma, beta, span }) = self.affine {
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
    if let Some(ScaleShift { gamma, beta, span }) = parameters.affine {
        assert!(span > 0 && !gamma.is_empty(), "normalize: no factors");
        assert!(beta.is_none_or(|beta| beta.len() == gamma.len()), "normalize: as many summands as factors");
    }
    if out.is_empty() {
        return;
    }
    assert!(size > 0 && x.len().is_multiple_of(size), "normalize: {} elements in rows of {size}", x.len());
    let grain = (GRAIN / size).max(1) * size;
    let tame = parameters.watch.is_none() || parameters.is_tame(size);
    chunks(&kernels.pool, out, grain, |start, out| {
        let x = &x[start..start + out.len()];
        kernels.simd.run_halves(Rows { x, size, start, parameters, tame, out });
    });
}

/// The greatest magnitude; NaN where one is among the values.
fn greatest(values: &[f16]) -> f32 {
    // As integers, which every processor compares many at a time.
    let bits = values.iter().fold(0, |most: i16, value| most.max(value.to_bits() as i16 & i16::MAX));
    f16::from_bits(bits as u16).to_f32()
}

struct Rows<'a> {
    x: &'a [f16],
    size: usize,
    start: usize,
    parameters: &'a Normalize<'a>,
    /// Whether no value is to be looked at for being finite.
    tame: bool,
    out: &'a mut [f16],
}

impl HalfTask for Rows<'_> {
    #[inline(always)]
    fn run<L: Lanes, H: Halves<L>>(self) {
        let watch = self.parameters.watch;
        let finite =
            if self.parameters.flush_nan { self.each::<L, H, true>() } else { self.each::<L, H, false>() };
        if !finite {
            watch.inspect(|watch| watch.note());
        }
    }
}

/// Rows that are computed side by side, so that their sums do not wait for each other.
const TOGETHER: usize = 4;

impl Rows<'_> {
    /// Whether no op of the chain has stored an infinity or NaN.
    #[inline(always)]
    fn each<L: Lanes, H: Halves<L>, const FLUSH: bool>(self) -> bool {
        let Rows { x, size, start, parameters, tame, out } = self;
        let affine = parameters.affine.filter(|affine| affine.is_row(size));
        let (mut x, mut out, mut at, mut finite) = (x, out, start, true);
        while !out.is_empty() {
            let count = if out.len() >= TOGETHER * size { TOGETHER * size } else { size };
            let (source, target);
            (source, x) = x.split_at(count);
            (target, out) = out.split_at_mut(count);
            if count > size {
                finite &=
                    some::<L, H, FLUSH, TOGETHER>(source, size, parameters.norm, (affine, tame), target);
            } else {
                finite &= some::<L, H, FLUSH, 1>(source, size, parameters.norm, (affine, tame), target);
            }
            if let (Some(affine), None) = (&parameters.affine, affine) {
                scale::<L>(affine, at, Stores { flush_nan: FLUSH, watch: parameters.watch }, target);
            }
            at += count;
        }
        finite
    }
}

/// `R` rows; whether no op of the chain has stored an infinity or NaN.
#[inline(always)]
fn some<L: Lanes, H: Halves<L>, const FLUSH: bool, const R: usize>(
    x: &[f16],
    size: usize,
    norm: Norm,
    after: (Option<ScaleShift<'_>>, bool),
    out: &mut [f16],
) -> bool {
    match norm {
        Norm::Variance { eps } => variance::<L, H, FLUSH, R>(x, size, eps.to_f32(), after, out),
        Norm::Length { floor } => length::<L, H, FLUSH, R>(x, size, floor.to_f32(), after, out),
    }
}

/// A number as an op would store it.
#[inline(always)]
fn stored<L: Lanes, const FLUSH: bool>(value: f32) -> f16 {
    let mut all = [f16::ZERO; WIDTH];
    L::write(kept::<L>(FLUSH, <L::Vector as Real>::splat(value)), &mut all);
    all[0]
}

/// [`Halves::without_nan`], where that is asked for.
#[inline(always)]
fn clean<L: Lanes, H: Halves<L>, const FLUSH: bool>(value: H) -> H {
    if FLUSH { value.without_nan() } else { value }
}

/// The places of a row, 32 at a time.
fn places(size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..size).step_by(HALVES).map(move |start| start..(start + HALVES).min(size))
}

/// The norm by variance, with the scale and shift where there is one factor per element of a row.
#[inline(always)]
fn variance<L: Lanes, H: Halves<L>, const FLUSH: bool, const R: usize>(
    x: &[f16],
    size: usize,
    eps: f32,
    after: (Option<ScaleShift<'_>>, bool),
    out: &mut [f16],
) -> bool {
    let (count, zero) = (size as f32, <L::Vector as Real>::splat(0.0));
    // Memory is read in order; what follows finds the rows in the cache.
    let mut lanes = [zero; R];
    for (lanes, x) in lanes.iter_mut().zip(x.chunks_exact(size)) {
        for x in x.chunks(HALVES) {
            let [low, high] = H::read_some(x, f16::ZERO).wide();
            *lanes = *lanes + low + high;
        }
    }
    let mut means = [f16::ZERO; R];
    for (mean, lanes) in means.iter_mut().zip(lanes) {
        *mean = stored::<L, FLUSH>(across_lanes::<L>(Fold::Sum, lanes) / count);
    }
    let mut lanes = [zero; R];
    for place in places(size) {
        for ((lanes, mean), x) in lanes.iter_mut().zip(means).zip(x.chunks_exact(size)) {
            // Behind the end the mean stands, so that nothing is added there.
            let x = H::read_some(&x[place.clone()], mean);
            let centred = clean::<L, H, FLUSH>(x.sub(H::splat(mean)));
            let [low, high] = clean::<L, H, FLUSH>(centred.mul(centred)).wide();
            *lanes = *lanes + low + high;
        }
    }
    // A difference or a square that is not finite makes such a variance; and where the reciprocal root is finite, products
    // with it are, in rows of less than 2^32 elements.
    let mut finite = true;
    for (((lanes, mean), x), out) in
        lanes.into_iter().zip(means).zip(x.chunks_exact(size)).zip(out.chunks_exact_mut(size))
    {
        let variance = across_lanes::<L>(Fold::Sum, lanes) / count;
        let sum = stored::<L, FLUSH>(variance).to_f32() + eps;
        let root = 1.0 / stored::<L, FLUSH>(sum).to_f32().sqrt();
        finite &= [variance, sum, root].iter().all(|value| value.abs() < OVERFLOW);
        let unit = Unit::Centred(mean, H::splat(stored::<L, FLUSH>(root)));
        finite &= finish::<L, H, FLUSH>(x, unit, after, out);
    }
    finite
}

/// The norm by length, likewise.
#[inline(always)]
fn length<L: Lanes, H: Halves<L>, const FLUSH: bool, const R: usize>(
    x: &[f16],
    size: usize,
    floor: f32,
    after: (Option<ScaleShift<'_>>, bool),
    out: &mut [f16],
) -> bool {
    let mut lanes = [<L::Vector as Real>::splat(0.0); R];
    for (lanes, x) in lanes.iter_mut().zip(x.chunks_exact(size)) {
        for x in x.chunks(HALVES) {
            let [low, high] = H::read_some(x, f16::ZERO).wide();
            *lanes = *lanes + low * low + high * high;
        }
    }
    let rows = x.chunks_exact(size).zip(out.chunks_exact_mut(size));
    // A quotient by a finite length is finite, and so is the greater of two numbers.
    let mut finite = true;
    for (lanes, (x, out)) in lanes.into_iter().zip(rows) {
        let sum = across_lanes::<L>(Fold::Sum, lanes).sqrt();
        finite &= sum < OVERFLOW;
        let length = stored::<L, FLUSH>(sum).to_f32();
        let length = stored::<L, FLUSH>(crate::math::maximum(length, floor)).to_f32();
        let lengths = <L::Vector as Real>::splat(length);
        // Of a finite sum, all terms are.
        let unit = if sum.is_finite() && length > 0.0 && length.is_finite() {
            Unit::Over(lengths, <L::Vector as Real>::splat(1.0 / length))
        } else {
            finite = false;
            Unit::OverAny(lengths)
        };
        finite &= finish::<L, H, FLUSH>(x, unit, after, out);
    }
    finite
}

/// What turns a value into a normalised one.
#[derive(Clone, Copy)]
enum Unit<V, H> {
    /// The product of the difference from the first and the second.
    Centred(f16, H),
    /// A quotient, with the reciprocal of its finite, positive divisor.
    Over(V, V),
    /// A quotient.
    OverAny(V),
}

impl<V: Real, H> Unit<V, H> {
    /// What stands behind the end of a row, so that nothing comes of it.
    #[inline(always)]
    fn neutral(&self) -> f16 {
        match *self {
            Unit::Centred(mean, _) => mean,
            Unit::Over(..) | Unit::OverAny(_) => f16::ZERO,
        }
    }

    #[inline(always)]
    fn of<L: Lanes<Vector = V>, const FLUSH: bool>(&self, x: H) -> H
    where
        H: Halves<L>,
    {
        let [low, high] = x.wide();
        match *self {
            Unit::Centred(mean, factor) => clean::<L, H, FLUSH>(x.sub(H::splat(mean))).mul(factor),
            Unit::Over(divisor, inverse) => {
                H::narrow([ratio(low, divisor, inverse), ratio(high, divisor, inverse)])
            }
            Unit::OverAny(divisor) => H::narrow([low / divisor, high / divisor]),
        }
    }
}

/// `x / divisor` of two finite halves, the second positive, close enough to be rounded to a half; `inverse` is
/// `1 / divisor`, rounded.
///
/// The product with it is off by less than 2^-22 of itself; the remainder that this leaves is exact, and takes that error
/// below 2^-45 before the last rounding. A quotient of numbers of 11 bits is a number of 12 bits, where halves meet, or at
/// least 2^-23 of itself away from all of them: in the first case it is returned, in the second no such number is, nor lies
/// one between.
#[inline(always)]
fn ratio<V: Real>(x: V, divisor: V, inverse: V) -> V {
    let first = x * inverse;
    first.neg().mul_add(divisor, x).mul_add(inverse, first).copysign(x)
}

/// Every value normalised, scaled and shifted; whether all are finite.
#[inline(always)]
fn finish<L: Lanes, H: Halves<L>, const FLUSH: bool>(
    x: &[f16],
    unit: Unit<L::Vector, H>,
    after: (Option<ScaleShift<'_>>, bool),
    out: &mut [f16],
) -> bool {
    let ((affine, tame), nothing, neutral) = (after, &[][..], unit.neutral());
    let (gamma, beta) = affine.map_or((nothing, None), |affine| (affine.gamma, affine.beta));
    let mut finite = true;
    for (place, (x, out)) in places(x.len()).zip(x.chunks(HALVES).zip(out.chunks_mut(HALVES))) {
        let mut value = unit.of::<L, FLUSH>(H::read_some(x, neutral));
        if affine.is_some() {
            let gamma = H::read_some(&gamma[place.clone()], f16::ZERO);
            value = clean::<L, H, FLUSH>(value).mul(gamma);
        }
        if let Some(beta) = beta {
            value = clean::<L, H, FLUSH>(value).add(H::read_some(&beta[place], f16::ZERO));
        }
        finite &= tame || value.is_finite();
        clean::<L, H, FLUSH>(value).write_some(out);
    }
    finite
}

/// Scales and shifts a row that is the elements of the array from `start` on.
#[inline(always)]
fn scale<L: Lanes>(affine: &ScaleShift<'_>, start: usize, stores: Stores<'_>, out: &mut [f16]) {
    let ScaleShift { gamma, beta, span } = *affine;
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
            let mut value = L::read_some(out) * factors(gamma);
            if let Some(beta) = beta {
                value = L::rounded(kept::<L>(stores.flush_nan, value)) + factors(beta);
            }
            L::write_some(stores.vector::<L>(value), out);
        }
        done += run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_of_halves_is_their_quotient() {
        // Every two significands, with quotients that are ordinary, subnormal, and smaller than any half.
        for power in [0, 3, 14, 15, 20, 24, 26] {
            let scale = 2.0_f32.powi(power);
            for divisor in (1024_u16..2048).map(f32::from) {
                let inverse = 1.0 / (divisor * scale);
                for x in (0_u16..2048).map(f32::from) {
                    let want = f16::from_f32(x / (divisor * scale));
                    for (x, want) in [(x, want), (-x, -want)] {
                        let ratio = f16::from_f32(ratio(x, divisor * scale, inverse));
                        assert_eq!(ratio.to_bits(), want.to_bits(), "{x} / {divisor} 2^{power}");
                    }
                }
            }
        }
    }
}
