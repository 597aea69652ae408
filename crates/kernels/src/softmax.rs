//! Softmax along one axis.

use half::f16;

use crate::Kernels;
use crate::math::{exp, real};
use crate::order::LANES;
use crate::reduce::{Fold, Lane, Reduction, across_lanes, add_terms, first_lanes, fold_lanes};
use crate::simd::{Cuts, Grid, Lanes, Real, Task, Tile, WIDTH, chunks, tiles};

/// Elements that one thread computes at a time.
const GRAIN: usize = 1 << 13;
/// Exponentials that are kept.
const KEPT: usize = 2048;
/// Rows that are computed side by side, where they are short enough, so that they do not wait for their sums.
const TOGETHER: usize = 4;
/// Neighbouring positions that are computed together when the axis is not the innermost.
const SPAN: usize = 64;

/// The scalar definition along one axis: `e_i = exp(x_i - max)`, `out_i = f16(e_i / sum of e)`, the sum in the
/// order of [`crate::order::LaneSum`].
pub fn softmax_row(x: &[f16], out: &mut [f16]) {
    let largest = x.iter().fold(f32::NEG_INFINITY, |largest, x| Fold::Max.combine(largest, x.to_f32()));
    let sum = crate::order::sum(x.iter().map(|x| exp(x.to_f32() - largest)));
    for (out, x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(exp(x.to_f32() - largest) / sum);
    }
}

/// Softmax of `x`, a row-major array of shape `shape`, along axis `axis`; [`softmax_row`] for every position of
/// the other axes. Where NaN is flushed, infinity minus infinity is 0, so that infinite elements share the whole.
///
/// # Panics
/// When a slice's length differs from the shape's, or there is no such axis.
pub fn softmax(kernels: &Kernels, x: &[f16], shape: &[usize], axis: usize, flush_nan: bool, out: &mut [f16]) {
    assert_eq!(x.len(), shape.iter().product::<usize>(), "softmax: input is not {shape:?}");
    assert_eq!(x.len(), out.len(), "softmax: lengths differ");
    if out.is_empty() {
        return;
    }
    let size = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let simd = kernels.simd;
    if inner == 1 {
        let grain = (GRAIN / size).max(1) * size;
        return chunks(&kernels.pool, out, grain, |start, out| {
            simd.run(Rows { x: &x[start..start + out.len()], size, flush_nan, out });
        });
    }
    let spans = inner.div_ceil(SPAN);
    let grid = Grid::new(x.len() / (size * inner), Cuts::new(size, 1, 1), Cuts::new(inner, SPAN, spans));
    tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| {
        let x = &x[tile.batch() * size * inner..][..size * inner];
        simd.run(Across { x, inner, flush_nan, tile });
    });
}

/// Exponentials of rows.
type Kept = [[f32; WIDTH]; KEPT / WIDTH];
/// No exponentials.
const NO_KEPT: Kept = [[0.0; WIDTH]; KEPT / WIDTH];

/// Rows of `size` neighbouring elements that start `pitch` elements apart, from `x` to `out`.
#[inline(always)]
pub(crate) fn rows<L: Lanes>(x: &[f16], (size, pitch): (usize, usize), flush_nan: bool, out: &mut [f16]) {
    let mut kept = NO_KEPT;
    let together = if size.div_ceil(WIDTH) <= KEPT / WIDTH / TOGETHER { TOGETHER } else { 1 };
    for (x, out) in x.chunks(together * pitch).zip(out.chunks_mut(together * pitch)) {
        if x.len() >= (TOGETHER - 1) * pitch + size && together == TOGETHER {
            some::<L, TOGETHER>(x, (size, pitch), flush_nan, &mut kept, out);
        } else {
            for (x, out) in x.chunks(pitch).zip(out.chunks_mut(pitch)) {
                some::<L, 1>(x, (size, pitch), flush_nan, &mut kept, out);
            }
        }
    }
}

/// `R` rows.
#[inline(always)]
fn some<L: Lanes, const R: usize>(
    x: &[f16],
    (size, pitch): (usize, usize),
    flush_nan: bool,
    kept: &mut Kept,
    out: &mut [f16],
) {
    let (vectors, zero) = (size.div_ceil(WIDTH), <L::Vector as Real>::splat(0.0));
    let mut shifts = [0.0; R];
    for (shift, x) in shifts.iter_mut().zip(x.chunks(pitch)) {
        *shift = largest::<L>(&x[..size]);
    }
    if vectors > kept.len() {
        for ((shift, x), out) in shifts.into_iter().zip(x.chunks(pitch)).zip(out.chunks_mut(pitch)) {
            long::<L>(&x[..size], shift, &mut out[..size]);
            if flush_nan && shift.is_infinite() {
                shared(&x[..size], shift, &mut out[..size]);
            }
        }
        return;
    }
    let mut lanes = [zero; R];
    for (((lanes, shift), x), kept) in
        lanes.iter_mut().zip(shifts).zip(x.chunks(pitch)).zip(kept.chunks_mut(vectors.max(1)))
    {
        let shift = <L::Vector as Real>::splat(shift);
        let (whole, rest) = x[..size].as_chunks::<WIDTH>();
        for (x, kept) in whole.iter().zip(kept.iter_mut()) {
            let value = real::exp(L::read(x) - shift);
            L::store(value, kept);
            *lanes = *lanes + value;
        }
        if !rest.is_empty() {
            let value = first_lanes::<L>(real::exp(L::read_some(rest) - shift), rest.len(), 0.0);
            L::store(value, &mut kept[whole.len()]);
            *lanes = *lanes + value;
        }
    }
    let mut sums = [0.0; R];
    for (sum, lanes) in sums.iter_mut().zip(lanes) {
        *sum = across_lanes::<L>(Fold::Sum, lanes);
    }
    for ((sum, kept), out) in sums.into_iter().zip(kept.chunks(vectors.max(1))).zip(out.chunks_mut(pitch)) {
        let inverse = <L::Vector as Real>::splat(1.0 / sum);
        let sum = <L::Vector as Real>::splat(sum);
        let (targets, target) = out[..size].as_chunks_mut::<WIDTH>();
        for (kept, out) in kept.iter().zip(targets.iter_mut()) {
            L::write(quotient(L::load(kept), sum, inverse), out);
        }
        if !target.is_empty() {
            L::write_some(quotient(L::load(&kept[targets.len()]), sum, inverse), target);
        }
    }
    for (shift, (x, out)) in shifts.into_iter().zip(x.chunks(pitch).zip(out.chunks_mut(pitch))) {
        if flush_nan && shift.is_infinite() {
            shared(&x[..size], shift, &mut out[..size]);
        }
    }
}

/// A row whose greatest element is infinite, where infinity minus infinity is 0: all that are as great share the whole.
#[cold]
fn shared(x: &[f16], largest: f32, out: &mut [f16]) {
    let infinite = x.iter().filter(|x| x.to_f32() == largest).count();
    let share = f16::from_f32(1.0 / infinite as f32);
    for (x, out) in x.iter().zip(out) {
        *out = if x.to_f32() == largest { share } else { f16::ZERO };
    }
}

/// A row whose exponentials are computed twice.
#[inline(always)]
fn long<L: Lanes>(x: &[f16], largest: f32, out: &mut [f16]) {
    let shift = <L::Vector as Real>::splat(largest);
    let lanes = add_terms::<L>(Reduction::LogSumExp, largest, <L::Vector as Real>::splat(0.0), x);
    let sum = across_lanes::<L>(Fold::Sum, lanes);
    let inverse = <L::Vector as Real>::splat(1.0 / sum);
    let sum = <L::Vector as Real>::splat(sum);
    for (x, out) in x.chunks(WIDTH).zip(out.chunks_mut(WIDTH)) {
        L::write_some(quotient(real::exp(L::read_some(x) - shift), sum, inverse), out);
    }
}

/// The largest number of a row; where it has none, minus infinity. One NaN makes every result NaN, and a zero is a
/// zero, so neither they nor the order matter here.
#[inline(always)]
fn largest<L: Lanes>(x: &[f16]) -> f32 {
    const CHAINS: usize = 4;
    let lowest = <L::Vector as Real>::splat(f32::NEG_INFINITY);
    let mut chains = [lowest; CHAINS];
    let (blocks, rest) = x.as_chunks::<{ CHAINS * WIDTH }>();
    for block in blocks {
        for (chain, x) in chains.iter_mut().zip(block.as_chunks::<WIDTH>().0) {
            *chain = L::read(x).at_least(*chain);
        }
    }
    let (vectors, rest) = rest.as_chunks::<WIDTH>();
    for (chain, x) in chains.iter_mut().zip(vectors) {
        *chain = L::read(x).at_least(*chain);
    }
    if !rest.is_empty() {
        let last = first_lanes::<L>(L::read_some(rest), rest.len(), f32::NEG_INFINITY);
        chains[3] = last.at_least(chains[3]);
    }
    let [a, b, c, d] = chains;
    across_lanes::<L>(Fold::Max, a.at_least(b).at_least(c.at_least(d)))
}

/// `e / sum` for finite numbers (or NaN) whose quotient does not overflow, where `inverse` is `1 / sum`, rounded. A
/// zero comes out as +0.
///
/// Each step takes off an exact remainder. The first leaves an error below one unit in the last place; then, by
/// Markstein's theorem, the second rounds correctly, because `inverse` is itself correctly rounded. Where `e` is so
/// small that a remainder underflows, the result is far below half of the smallest `f16`.
#[inline(always)]
pub(crate) fn quotient<V: Real>(e: V, sum: V, inverse: V) -> V {
    let first = e * inverse;
    let second = first.neg().mul_add(sum, e).mul_add(inverse, first);
    second.neg().mul_add(sum, e).mul_add(inverse, second)
}

struct Rows<'a> {
    x: &'a [f16],
    size: usize,
    flush_nan: bool,
    out: &'a mut [f16],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        rows::<L>(self.x, (self.size, self.size), self.flush_nan, self.out);
    }
}

/// Neighbouring positions of one slab `[size, inner]`.
struct Across<'a, 'b> {
    x: &'a [f16],
    inner: usize,
    flush_nan: bool,
    tile: &'a mut Tile<'b, f16>,
}

impl Task for Across<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Across { x, inner, flush_nan, tile } = self;
        let columns = tile.columns();
        let vectors = columns.len().div_ceil(WIDTH);
        let (size, zero) = (x.len() / inner, <L::Vector as Real>::splat(0.0));
        let mut largest = [<L::Vector as Real>::splat(f32::NEG_INFINITY); SPAN / WIDTH];
        for row in x.chunks_exact(inner) {
            for (part, largest) in row[columns.clone()].chunks(WIDTH).zip(&mut largest) {
                *largest = Fold::Max.combine(*largest, L::read_some(part));
            }
        }
        let mut kept = [[0.0; WIDTH]; SPAN * SPAN / WIDTH];
        let keep = size * vectors <= kept.len();
        let mut lanes = [Lane([0.0; SPAN]); LANES];
        for (index, row) in x.chunks_exact(inner).enumerate() {
            let lanes = lanes[index % LANES].0.as_chunks_mut::<WIDTH>().0;
            let parts = row[columns.clone()].chunks(WIDTH).zip(&largest);
            for (vector, (lane, (part, largest))) in lanes.iter_mut().zip(parts).enumerate() {
                let value = real::exp(L::read_some(part) - *largest);
                L::store(L::load(lane) + value, lane);
                if keep {
                    L::store(value, &mut kept[index * vectors + vector]);
                }
            }
        }
        fold_lanes::<L, SPAN>(Fold::Sum, &mut lanes, (size, columns.len()));
        let (mut sums, mut inverses) = ([zero; SPAN / WIDTH], [zero; SPAN / WIDTH]);
        for ((sum, inverse), total) in sums.iter_mut().zip(&mut inverses).zip(lanes[0].0.as_chunks().0) {
            *sum = L::load(total);
            *inverse = <L::Vector as Real>::splat(1.0) / *sum;
        }
        for (index, row) in x.chunks_exact(inner).enumerate() {
            let out = tile.row(index, columns.clone());
            let parts = row[columns.clone()].chunks(WIDTH);
            for (vector, (out, part)) in out.chunks_mut(WIDTH).zip(parts).enumerate() {
                let value = if keep {
                    L::load(&kept[index * vectors + vector])
                } else {
                    real::exp(L::read_some(part) - largest[vector])
                };
                L::write_some(quotient(value, sums[vector], inverses[vector]), out);
            }
        }
        if flush_nan {
            for (at, column) in columns.enumerate() {
                let elements = || x.iter().skip(column).step_by(inner).copied();
                let largest = elements().fold(f32::NEG_INFINITY, |largest, x| largest.max(x.to_f32()));
                if largest.is_infinite() {
                    let column: Vec<f16> = elements().collect();
                    let mut shares = vec![f16::ZERO; size];
                    shared(&column, largest, &mut shares);
                    for (row, share) in shares.into_iter().enumerate() {
                        let columns = tile.columns();
                        tile.row(row, columns)[at] = share;
                    }
                }
            }
        }
    }
}
