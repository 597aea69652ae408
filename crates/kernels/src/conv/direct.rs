//! Convolutions with few channels and few outputs per group, depthwise above all: lanes are outputs.

use half::f16;

use super::pixels::Pixels;
use super::{PackedConv, Target};
use crate::gemm::Sink;
use crate::order::NARROW_TAPS;
use crate::simd::{COLUMNS, Cuts, Lanes, Real, Spaced, Task, WIDTH, tiles};
use crate::{Epilogue, Kernels};

/// Multiplications that one thread does at a time.
const GRAIN: usize = 1 << 15;
/// Outputs of one channel that share a load of their weight.
const TOGETHER: usize = 7;
/// Pixels whose sums go together: as many as fill whole parts of a line.
const GROUP: usize = COLUMNS / TOGETHER * TOGETHER;

/// `pixels` have a value for every output, the first channel of its group, then one for every second channel, and so
/// on; `data` is `[kh][kw][channel][outputs]` with the outputs padded to whole vectors.
pub(super) fn direct(
    kernels: &Kernels,
    pixels: &Pixels<'_>,
    (weights, data): (&PackedConv, &[f32]),
    epilogue: &Epilogue<'_>,
    target: &Target,
    out: &mut [f16],
) {
    let (count, outputs, simd) = (target.pixels(), weights.outputs, kernels.simd);
    let work = count * outputs * data.len() / outputs.next_multiple_of(WIDTH);
    let parts = (work / GRAIN).clamp(1, 4 * kernels.pool.threads());
    let rows = Cuts::new(count, TOGETHER, parts.min(count.div_ceil(TOGETHER)));
    let (grid, turned) = target.grid(rows, Cuts::new(outputs, COLUMNS, 1), 0);
    let epilogue = &target.epilogue(epilogue, 0, outputs);
    tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| {
        let (rows, most) = if turned { (tile.columns(), COLUMNS) } else { (tile.rows(), GROUP) };
        let mut sink = Sink { simd, epilogue, out: tile, turned };
        let mut sums = [[0.0; COLUMNS]; COLUMNS];
        for first in rows.clone().step_by(most) {
            let rows = first..(first + most).min(rows.end);
            for start in (0..outputs).step_by(COLUMNS) {
                let columns = start..(start + COLUMNS).min(outputs);
                let sums = &mut sums[..rows.len()];
                simd.run(Sums { pixels, weights, data, first, columns: (start, columns.end), sums });
                sink.store(sums, rows.clone(), columns);
            }
        }
    });
}

/// The sums of some pixels from `first` on, for some outputs.
struct Sums<'a> {
    pixels: &'a Pixels<'a>,
    weights: &'a PackedConv,
    data: &'a [f32],
    first: usize,
    columns: (usize, usize),
    sums: &'a mut [[f32; COLUMNS]],
}

impl Task for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Sums { pixels, weights, data, first, columns: (start, end), mut sums } = self;
        let (mut pixel, strides) = (first, pixels.strides());
        while !sums.is_empty() {
            // Pixels of one line.
            let count = TOGETHER.min(pixels.width - pixel % pixels.width).min(sums.len());
            let (own, others) = sums.split_at_mut(count);
            let at = pixels.at(pixel);
            for (half, output) in (start..end).step_by(WIDTH).enumerate() {
                let vectors = match (weights.channels, weights.kernel[1], strides) {
                    (1, 3, Some(1)) => sliding::<L, 3, 1, { reads(3, 1) }>(pixels, weights, data, at, output),
                    (1, 3, Some(2)) => sliding::<L, 3, 2, { reads(3, 2) }>(pixels, weights, data, at, output),
                    (1, 5, Some(1)) => sliding::<L, 5, 1, { reads(5, 1) }>(pixels, weights, data, at, output),
                    (1, 5, Some(2)) => sliding::<L, 5, 2, { reads(5, 2) }>(pixels, weights, data, at, output),
                    (1, ..) => alone::<L>(pixels, weights, data, pixels.from(at, count), output),
                    _ => together::<L>(pixels, weights, data, pixels.from(at, count), output),
                };
                for (sums, vector) in own.iter_mut().zip(vectors) {
                    L::store(vector, &mut sums.as_chunks_mut().0[half]);
                }
            }
            (sums, pixel) = (others, pixel + count);
        }
    }
}

impl Pixels<'_> {
    /// Taps from one output of a line to the next.
    fn strides(&self) -> Option<usize> {
        let (step, tap) = (self.step[1], usize::try_from(self.tap[1]).ok()?);
        step.is_multiple_of(tap.max(1)).then(|| step / tap.max(1))
    }

    /// Where `count` outputs of a line begin, the first of them at `at`, and for the others that one again.
    fn from(&self, at: usize, count: usize) -> [usize; TOGETHER] {
        std::array::from_fn(|index| if index < count { at + index * self.step[1] } else { at })
    }
}

/// Values of a row that [`TOGETHER`] neighbouring outputs read.
const fn reads(width: usize, stride: usize) -> usize {
    (TOGETHER - 1) * stride + width
}

/// 16 outputs from `output` on of [`TOGETHER`] neighbouring pixels, the first at `at`, for groups of one channel and kernels
/// `W` wide, with `S` taps from one output to the next: each value is read once for all outputs of a row that take it. The
/// chains are those of [`alone`]. `N` is [`reads`]; images have room behind them for pixels that there are not, as for tile
/// registers.
#[inline(always)]
fn sliding<L: Lanes, const W: usize, const S: usize, const N: usize>(
    pixels: &Pixels<'_>,
    weights: &PackedConv,
    data: &[f32],
    at: usize,
    output: usize,
) -> [L::Vector; TOGETHER] {
    let zero = <L::Vector as Real>::splat(0.0);
    let (padded, tap) = (weights.outputs.next_multiple_of(WIDTH), pixels.tap(0, 1));
    let mut sums = [zero; TOGETHER];
    for kh in 0..weights.kernel[0] {
        let mut factors = [zero; W];
        for (kw, factor) in factors.iter_mut().enumerate() {
            let factors = data[(kh * W + kw) * padded + output..].first_chunk();
            *factor = L::load(factors.expect("invariant: whole vectors of weights"));
        }
        let row = at.wrapping_add(pixels.tap(kh, 0)).wrapping_add(output);
        let row = Spaced::<N>::new(pixels.data, row, tap);
        let mut chains = [zero; TOGETHER];
        for column in 0..N {
            let value = row.read::<L>(column);
            for (index, chain) in chains.iter_mut().enumerate() {
                if (index * S..index * S + W).contains(&column) {
                    *chain = value.mul_add(factors[column - index * S], *chain);
                }
            }
        }
        for (sum, chain) in sums.iter_mut().zip(chains) {
            *sum = *sum + chain;
        }
    }
    sums
}

/// 16 outputs from `output` on of some pixels, for groups of one channel: per kernel row and block of taps, one chain,
/// which stays in registers. That of the odd channels would be zero, and add nothing.
#[inline(always)]
fn alone<L: Lanes>(
    pixels: &Pixels<'_>,
    weights: &PackedConv,
    data: &[f32],
    at: [usize; TOGETHER],
    output: usize,
) -> [L::Vector; TOGETHER] {
    let ([height, width], padded) = (weights.kernel, weights.outputs.next_multiple_of(WIDTH));
    let zero = <L::Vector as Real>::splat(0.0);
    let mut sums = [zero; TOGETHER];
    for kh in 0..height {
        for first in (0..width).step_by(NARROW_TAPS) {
            let mut chains = [zero; TOGETHER];
            for kw in first..(first + NARROW_TAPS).min(width) {
                let weight = data[(kh * width + kw) * padded + output..].first_chunk();
                let weight = L::load(weight.expect("invariant: whole vectors of weights"));
                let tap = pixels.tap(kh, kw).wrapping_add(output);
                for (chain, at) in chains.iter_mut().zip(at) {
                    *chain = read::<L>(pixels, at.wrapping_add(tap)).mul_add(weight, *chain);
                }
            }
            for (sum, chain) in sums.iter_mut().zip(chains) {
                *sum = *sum + chain;
            }
        }
    }
    sums
}

/// 16 outputs from `output` on of some pixels, for groups of several channels: per kernel row and block of taps, the even
/// channels and the odd ones in a chain each.
#[inline(always)]
fn together<L: Lanes>(
    pixels: &Pixels<'_>,
    weights: &PackedConv,
    data: &[f32],
    at: [usize; TOGETHER],
    output: usize,
) -> [L::Vector; TOGETHER] {
    let ([height, width], channels, outputs) = (weights.kernel, weights.channels, weights.outputs);
    let zero = <L::Vector as Real>::splat(0.0);
    let padded = outputs.next_multiple_of(WIDTH);
    let mut sums = [zero; TOGETHER];
    for kh in 0..height {
        for first in (0..width).step_by(NARROW_TAPS) {
            let (mut even, mut odd) = ([zero; TOGETHER], [zero; TOGETHER]);
            for kw in first..(first + NARROW_TAPS).min(width) {
                let tap = pixels.tap(kh, kw);
                for channel in 0..channels {
                    let place = ((kh * width + kw) * channels + channel) * padded + output;
                    let weight = data[place..].first_chunk().expect("invariant: whole vectors of weights");
                    let (weight, offset) = (L::load(weight), tap.wrapping_add(channel * outputs + output));
                    let chains = if channel % 2 == 0 { &mut even } else { &mut odd };
                    for (chain, at) in chains.iter_mut().zip(at) {
                        *chain = read::<L>(pixels, at.wrapping_add(offset)).mul_add(weight, *chain);
                    }
                }
            }
            for ((sum, even), odd) in sums.iter_mut().zip(even).zip(odd) {
                *sum = *sum + (even + odd);
            }
        }
    }
    sums
}

/// 16 values from `start` on. Images have room behind them for as many, see `Geometry::image_len` and
/// `Geometry::within`; those that are of no output are not used.
#[inline(always)]
fn read<L: Lanes>(pixels: &Pixels<'_>, start: usize) -> L::Vector {
    L::read(pixels.data[start..].first_chunk().expect("invariant: room behind the image"))
}
