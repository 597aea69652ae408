//! Softmax along one axis.

use half::f16;

use crate::Kernels;
use crate::math::{exp, real};
use crate::order::LANES;
use crate::reduce::{Fold, Reduction, across_lanes, add_terms, first_lanes, tree_across};
use crate::simd::{Cuts, Grid, Lanes, Real, Task, Tile, WIDTH, chunks, tiles};

/// Elements that one thread computes at a time.
const GRAIN: usize = 1 << 13;
/// Longest row whose exponentials are kept.
const KEPT: usize = 2048;
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
/// the other axes.
///
/// # Panics
/// When a slice's length differs from the shape's, or there is no such axis.
pub fn softmax(kernels: &Kernels, x: &[f16], shape: &[usize], axis: usize, out: &mut [f16]) {
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
            simd.run(Rows { x: &x[start..start + out.len()], size, out });
        });
    }
    let spans = inner.div_ceil(SPAN);
    let grid = Grid::new(x.len() / (size * inner), Cuts::new(size, 1, 1), Cuts::new(inner, SPAN, spans));
    tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| {
        let x = &x[tile.batch() * size * inner..][..size * inner];
        simd.run(Across { x, inner, tile });
    });
}

/// Exponentials of a row.
pub(crate) type Kept = [[f32; WIDTH]; KEPT / WIDTH];
/// No exponentials.
pub(crate) const NO_KEPT: Kept = [[0.0; WIDTH]; KEPT / WIDTH];

/// One row, from `x` to `out`; `kept` is overwritten.
#[inline(always)]
pub(crate) fn row<L: Lanes>(x: &[f16], kept: &mut Kept, out: &mut [f16]) {
    let lowest = <L::Vector as Real>::splat(f32::NEG_INFINITY);
    let lanes = add_terms::<L>(Reduction::Max, 0.0, lowest, x);
    let largest = across_lanes::<L>(Fold::Max, lanes);
    let shift = <L::Vector as Real>::splat(largest);
    if x.len() > KEPT {
        let lanes = add_terms::<L>(Reduction::LogSumExp, largest, <L::Vector as Real>::splat(0.0), x);
        let sum = <L::Vector as Real>::splat(across_lanes::<L>(Fold::Sum, lanes));
        for (x, out) in x.chunks(WIDTH).zip(out.chunks_mut(WIDTH)) {
            L::write_some(real::exp(L::read_some(x) - shift) / sum, out);
        }
        return;
    }
    let mut lanes = <L::Vector as Real>::splat(0.0);
    let (whole, rest) = x.as_chunks::<WIDTH>();
    for (x, kept) in whole.iter().zip(kept.iter_mut()) {
        let value = real::exp(L::read(x) - shift);
        L::store(value, kept);
        lanes = lanes + value;
    }
    if !rest.is_empty() {
        let value = first_lanes::<L>(real::exp(L::read_some(rest) - shift), rest.len(), 0.0);
        L::store(value, &mut kept[whole.len()]);
        lanes = lanes + value;
    }
    let sum = across_lanes::<L>(Fold::Sum, lanes);
    let inverse = <L::Vector as Real>::splat(1.0 / sum);
    let sum = <L::Vector as Real>::splat(sum);
    for (kept, out) in kept.iter().zip(out.chunks_mut(WIDTH)) {
        L::write_some(quotient(L::load(kept), sum, inverse), out);
    }
}

/// `e / sum` for `e <= 1 <= sum` (or NaN), where `inverse` is `1 / sum`, rounded.
///
/// Each step takes off an exact remainder. The first leaves an error below one unit in the last place; then, by
/// Markstein's theorem, the second rounds correctly, because `inverse` is itself correctly rounded. Where `e` is so
/// small that a remainder underflows, the result is far below half of the smallest `f16`.
#[inline(always)]
fn quotient<V: Real>(e: V, sum: V, inverse: V) -> V {
    let step = |q: V| q.neg().mul_add(sum, e).mul_add(inverse, q);
    step(step(e * inverse))
}

struct Rows<'a> {
    x: &'a [f16],
    size: usize,
    out: &'a mut [f16],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut kept = NO_KEPT;
        for (x, out) in self.x.chunks_exact(self.size).zip(self.out.chunks_exact_mut(self.size)) {
            row::<L>(x, &mut kept, out);
        }
    }
}

/// Neighbouring positions of one slab `[size, inner]`.
struct Across<'a, 'b> {
    x: &'a [f16],
    inner: usize,
    tile: &'a mut Tile<'b, f16>,
}

impl Task for Across<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Across { x, inner, tile } = self;
        let columns = tile.columns();
        let at = |row: &[f16], vector: usize| {
            let start = columns.start + vector * WIDTH;
            L::read_some(&row[start..columns.end.min(start + WIDTH)])
        };
        let vectors = columns.len().div_ceil(WIDTH);
        let mut largest = [<L::Vector as Real>::splat(f32::NEG_INFINITY); SPAN / WIDTH];
        for row in x.chunks_exact(inner) {
            for (vector, largest) in largest[..vectors].iter_mut().enumerate() {
                *largest = Fold::Max.combine(*largest, at(row, vector));
            }
        }
        let mut lanes = [[0.0; SPAN]; LANES];
        for (index, row) in x.chunks_exact(inner).enumerate() {
            let lanes = lanes[index % LANES].as_chunks_mut::<WIDTH>().0;
            for (vector, (lane, largest)) in lanes[..vectors].iter_mut().zip(&largest).enumerate() {
                let value = real::exp(at(row, vector) - *largest);
                L::store(L::load(lane) + value, lane);
            }
        }
        let sums = tree_across::<L, SPAN>(Fold::Sum, lanes);
        let sums = sums.as_chunks::<WIDTH>().0;
        let mut inverses = sums.iter().map(|sum| <L::Vector as Real>::splat(1.0) / L::load(sum));
        let inverses: [L::Vector; SPAN / WIDTH] =
            std::array::from_fn(|_| inverses.next().expect("invariant: as many sums"));
        for (index, row) in x.chunks_exact(inner).enumerate() {
            let out = tile.row(index, columns.clone());
            for (vector, out) in out.chunks_mut(WIDTH).enumerate() {
                let value = real::exp(at(row, vector) - largest[vector]);
                L::write_some(quotient(value, L::load(&sums[vector]), inverses[vector]), out);
            }
        }
    }
}
