//! Functions with parameters per channel: of an array `[batch, channels, ...]`, whose axes from the third on
//! have `inner` elements together.

use std::ops::Range;

use half::f16;

use crate::Kernels;
use crate::math::real::pow;
use crate::order::{LANES, tree};
use crate::simd::{Lanes, Real, Task, WIDTH, chunks};

/// Elements that one thread computes at a time.
const GRAIN: usize = 1 << 14;
/// Elements converted at a time; a multiple of [`LANES`].
const BLOCK: usize = 256;

/// `out = f16(x > 0 ? x : alpha x)`, with the `alpha` of the element's channel.
///
/// # Panics
/// When a length does not fit.
pub fn prelu(kernels: &Kernels, x: &[f16], inner: usize, alpha: &[f16], out: &mut [f16]) {
    per_channel(kernels, x, [alpha.len(), inner], out, |channel, values| {
        let slope = alpha[channel].to_f32();
        values.iter_mut().for_each(|x| *x = if *x > 0.0 { *x } else { slope * *x });
    });
}

/// Parameters of a normalisation, one of each per channel.
#[derive(Clone, Copy, Debug)]
pub struct PerChannel<'a> {
    /// Factors.
    pub gamma: &'a [f16],
    /// Summands.
    pub beta: &'a [f16],
}

/// `(x - mean) * scale + beta`, and the scale that belongs to a variance: the definition of both norms, in
/// `f32`, before the rounding to `f16`.
#[must_use]
#[inline(always)]
pub fn normalized(x: f32, mean: f32, scale: f32, beta: f32) -> f32 {
    (x - mean) * scale + beta
}

/// `gamma / sqrt(variance + eps)`.
#[must_use]
#[inline(always)]
pub fn scale(gamma: f32, variance: f32, eps: f32) -> f32 {
    gamma / (variance + eps).sqrt()
}

/// [`normalized`] with given statistics per channel.
///
/// # Panics
/// When a length does not fit.
pub fn batch_norm(
    kernels: &Kernels,
    x: &[f16],
    inner: usize,
    affine: PerChannel<'_>,
    [mean, variance]: [&[f16]; 2],
    eps: f32,
    out: &mut [f16],
) {
    per_channel(kernels, x, [mean.len(), inner], out, |channel, values| {
        let [gamma, beta, mean, variance] =
            [affine.gamma, affine.beta, mean, variance].map(|of| of[channel].to_f32());
        let scale = scale(gamma, variance, eps);
        values.iter_mut().for_each(|x| *x = normalized(*x, mean, scale, beta));
    });
}

/// [`normalized`] with the statistics of each plane of `inner` elements: the sums in the order of
/// [`crate::order::LaneSum`], the variance that of the population.
///
/// # Panics
/// When a length does not fit.
pub fn instance_norm(
    kernels: &Kernels,
    x: &[f16],
    inner: usize,
    affine: PerChannel<'_>,
    eps: f32,
    out: &mut [f16],
) {
    assert_eq!(x.len(), out.len(), "instance_norm: lengths differ");
    if out.is_empty() {
        return;
    }
    let channels = affine.gamma.len();
    assert!(
        x.len().is_multiple_of(inner * channels),
        "instance_norm: planes of {inner} do not fill the input"
    );
    chunks(&kernels.pool, out, (GRAIN / inner).max(1) * inner, |start, out| {
        let planes = x[start..start + out.len()].chunks_exact(inner).zip(out.chunks_exact_mut(inner));
        for (plane, (x, out)) in planes.enumerate() {
            let channel = (start / inner + plane) % channels;
            let [gamma, beta] = [affine.gamma, affine.beta].map(|of| of[channel].to_f32());
            kernels.simd.run(PlaneTask { x, gamma, beta, eps, out });
        }
    });
}

struct PlaneTask<'a> {
    x: &'a [f16],
    gamma: f32,
    beta: f32,
    eps: f32,
    out: &'a mut [f16],
}

impl Task for PlaneTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let count = self.x.len() as f32;
        let mean = sum::<L>(self.x, |x| x) / count;
        let variance = sum::<L>(self.x, |x| (x - mean) * (x - mean)) / count;
        let scale = scale(self.gamma, variance, self.eps);
        map::<L>(self.x, self.out, |values| {
            values.iter_mut().for_each(|x| *x = normalized(*x, mean, scale, self.beta));
        });
    }
}

/// What [`response_norm`] divides by: a power of the squares of neighbouring channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Response {
    /// How many channels count as neighbours.
    pub size: usize,
    /// The weight of the mean square.
    pub alpha: f32,
    /// The power.
    pub beta: f32,
    /// The summand.
    pub k: f32,
}

impl Response {
    /// The neighbours of a channel: as many before it as after it, or one more after it, as far as they exist.
    #[must_use]
    pub fn neighbours(&self, channel: usize, channels: usize) -> Range<usize> {
        let end = channel.saturating_add(self.size / 2 + 1).min(channels);
        channel.saturating_sub((self.size - 1) / 2)..end
    }

    /// `x / (k + alpha / size * total)^beta`, where `total` is the sum of the squares: the definition, in `f32`, before the
    /// rounding to `f16`.
    #[must_use]
    pub fn of(&self, x: f32, total: f32) -> f32 {
        self.divided(x, total)
    }

    #[inline(always)]
    fn divided<V: Real>(&self, x: V, total: V) -> V {
        let share = V::splat(self.alpha / self.size as f32);
        x / pow(V::splat(self.k) + share * total, V::splat(self.beta))
    }
}

/// [`Response::of`] every element and the squares of its neighbours, which are summed in the order of
/// [`crate::order::LaneSum`].
///
/// # Panics
/// When a length does not fit, or no channel counts as a neighbour.
pub fn response_norm(
    kernels: &Kernels,
    x: &[f16],
    [channels, inner]: [usize; 2],
    response: Response,
    out: &mut [f16],
) {
    assert_eq!(x.len(), out.len(), "response_norm: lengths differ");
    assert!(response.size > 0, "response_norm: no neighbours");
    if out.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(channels * inner), "response_norm: [{channels}, {inner}] do not fill it");
    chunks(&kernels.pool, out, GRAIN / 4, |start, out| {
        kernels.simd.run(ResponseTask { x, start, channels, inner, response, out });
    });
}

struct ResponseTask<'a> {
    x: &'a [f16],
    /// The place of the first result in the whole array.
    start: usize,
    channels: usize,
    inner: usize,
    response: Response,
    out: &'a mut [f16],
}

impl Task for ResponseTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ResponseTask { x, mut start, channels, inner, response, mut out } = self;
        while !out.is_empty() {
            let (run, rest) = out.split_at_mut((inner - start % inner).min(out.len()));
            let channel = start / inner % channels;
            for (at, out) in (start..).step_by(WIDTH).zip(run.chunks_mut(WIDTH)) {
                let read = |at: usize| L::read_some(&x[at..at + out.len()]);
                let mut lanes = [L::Vector::splat(0.0); LANES];
                for (index, neighbour) in response.neighbours(channel, channels).enumerate() {
                    let (lane, x) =
                        (&mut lanes[index % LANES], read(at + neighbour * inner - channel * inner));
                    *lane = *lane + x * x;
                }
                let total = tree(lanes, |a, b| a + b);
                L::write_some(response.divided(read(at), total), out);
            }
            start += run.len();
            out = rest;
        }
    }
}

/// The sum of `function` of all elements.
#[inline(always)]
fn sum<L: Lanes>(x: &[f16], function: impl Fn(f32) -> f32) -> f32 {
    let (mut lanes, mut buffer) = ([0.0; LANES], [0.0; BLOCK]);
    for x in x.chunks(BLOCK) {
        let values = &mut buffer[..x.len()];
        L::widen(x, values);
        for group in values.chunks(LANES) {
            lanes.iter_mut().zip(group).for_each(|(lane, x)| *lane += function(*x));
        }
    }
    tree(lanes, |a, b| a + b)
}

/// `out = f16(function(x))`, in blocks.
#[inline(always)]
fn map<L: Lanes>(x: &[f16], out: &mut [f16], function: impl Fn(&mut [f32])) {
    let mut buffer = [0.0; BLOCK];
    for (x, out) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let values = &mut buffer[..x.len()];
        L::widen(x, values);
        function(values);
        L::narrow(values, out);
    }
}

/// `out = f16(function(channel, x))` for every run of elements of one channel.
fn per_channel(
    kernels: &Kernels,
    x: &[f16],
    [channels, inner]: [usize; 2],
    out: &mut [f16],
    function: impl Fn(usize, &mut [f32]) + Sync,
) {
    assert_eq!(x.len(), out.len(), "per channel: lengths differ");
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        let x = &x[start..start + out.len()];
        kernels.simd.run(RunsTask { x, start, channels, inner, function: &function, out });
    });
}

struct RunsTask<'a, F> {
    x: &'a [f16],
    /// The place of the first element in the whole array.
    start: usize,
    channels: usize,
    inner: usize,
    function: &'a F,
    out: &'a mut [f16],
}

impl<F: Fn(usize, &mut [f32])> Task for RunsTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut done = 0;
        while done < self.out.len() {
            let at = self.start + done;
            let end = (done + self.inner - at % self.inner).min(self.out.len());
            let channel = at / self.inner % self.channels;
            map::<L>(&self.x[done..end], &mut self.out[done..end], |values| (self.function)(channel, values));
            done = end;
        }
    }
}
