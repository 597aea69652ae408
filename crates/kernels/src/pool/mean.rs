//! Means of windows.

use half::f16;

use super::columns::{Inside, Phases, RING, Ring, WINDOWS};
use super::{Cells, Window, check};
use crate::Kernels;
use crate::order::{LANES, tree};
use crate::reduce::{Fold, Lane, fold_lanes};
use crate::simd::{Lanes, Real, Task, WIDTH, chunks};
use crate::softmax::quotient;

/// Up to so many neighbouring windows are summed one by one.
const FEW: usize = 3;

/// The mean of each window.
///
/// Cell `i` of the window, in row-major order over all its cells, goes to lane `i % 16` of
/// [`crate::order::LaneSum`]; cells in the padding are passed over. The sum is divided once: by the number of
/// cells in the image with `exclude_padding`, else by the number of all cells. A window without cells gives 0.
///
/// `input` is the shape `[n, c, h, w]` of `x`; `out` is `[n, c]` and `out_size`.
///
/// # Panics
/// When a slice's length differs from its shape's.
pub fn avg_pool(
    kernels: &Kernels,
    x: &[f16],
    input: [usize; 4],
    window: &Window,
    exclude_padding: bool,
    out_size: [usize; 2],
    out: &mut [f16],
) {
    check(input, x, window, out_size, out);
    let size = [input[2], input[3]];
    chunks(&kernels.pool, out, window.grain(out_size), |start, out| {
        let first = start / (out_size[0] * out_size[1]).max(1);
        kernels.simd.run(MeanTask { x, size, window, exclude_padding, out_size, first, out });
    });
}

struct MeanTask<'a> {
    x: &'a [f16],
    size: [usize; 2],
    window: &'a Window,
    exclude_padding: bool,
    out_size: [usize; 2],
    first: usize,
    out: &'a mut [f16],
}

impl Task for MeanTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ([height, width], window) = (self.size, self.window);
        let plane = self.out_size[0] * self.out_size[1];
        let phases = Phases::new(window, self.out_size[1]).filter(|_| self.out_size[1] > FEW);
        let (mut ring, mut lanes) = (Ring::new(0.0), [Lane([0.0; WINDOWS]); LANES]);
        let mut divisors = Divisors::new();
        let mut filled = Inside::default();
        for (index, out) in self.out.chunks_exact_mut(plane.max(1)).enumerate() {
            let x = &self.x[(self.first + index) * height * width..][..height * width];
            let Some(phases) = phases else {
                for (at, out) in out.iter_mut().enumerate() {
                    let [rows, columns] = window.both(at, self.out_size, self.size);
                    let sum = wide_sum::<L>(x, width, window.kernel[1], rows, columns);
                    let cells = window.divisor(rows, columns, self.exclude_padding);
                    L::narrow(&[sum / cells], std::slice::from_mut(out));
                }
                continue;
            };
            for first in (0..self.out_size[1]).step_by(phases.windows) {
                let inside = phases.inside(first, width);
                if inside != filled {
                    ring = Ring::new(0.0);
                    filled = inside;
                }
                ring.forget();
                let place = (window, phases, inside);
                for (y, out) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                    let (rows, out) = (window.cells(0, y, height), &mut out[first..]);
                    let count = out.len().min(phases.windows);
                    divisors.set(window, rows, (first, width), self.exclude_padding);
                    sums::<L>((x, width), place, rows, &mut ring, &mut lanes);
                    divisors.divide::<L>(&lanes[0], &mut out[..count]);
                }
            }
        }
    }
}

impl Window {
    /// What the sum of a window with these cells in the image is divided by.
    #[inline(always)]
    pub(super) fn divisor(&self, rows: Cells, columns: Cells, exclude_padding: bool) -> f32 {
        let cells =
            if exclude_padding { rows.count() * columns.count() } else { self.kernel[0] * self.kernel[1] };
        cells.max(1) as f32
    }
}

/// What the sums of neighbouring windows are divided by.
struct Divisors {
    cells: Lane<WINDOWS>,
    inverses: Lane<WINDOWS>,
    /// For which rows and first window.
    set_for: (usize, usize),
}

impl Divisors {
    fn new() -> Divisors {
        Divisors { cells: Lane([1.0; WINDOWS]), inverses: Lane([1.0; WINDOWS]), set_for: (usize::MAX, 0) }
    }

    /// Those of the windows from `first` on.
    fn set(&mut self, window: &Window, rows: Cells, (first, width): (usize, usize), exclude_padding: bool) {
        if self.set_for == (rows.count(), first) {
            return;
        }
        self.set_for = (rows.count(), first);
        for (at, (cells, inverse)) in self.cells.0.iter_mut().zip(&mut self.inverses.0).enumerate() {
            *cells = window.divisor(rows, window.cells(1, first + at, width), exclude_padding);
            *inverse = 1.0 / *cells;
        }
    }

    #[inline(always)]
    fn divide<L: Lanes>(&self, sums: &Lane<WINDOWS>, out: &mut [f16]) {
        let (cells, inverses) = (self.cells.0.as_chunks::<WIDTH>().0, self.inverses.0.as_chunks::<WIDTH>().0);
        let divisors = cells.iter().zip(inverses);
        for ((out, sum), (cells, inverse)) in
            out.chunks_mut(WIDTH).zip(sums.0.as_chunks::<WIDTH>().0).zip(divisors)
        {
            let (sum, inverse) = (L::load(sum), L::load(inverse));
            let first = sum * inverse;
            let mean = quotient(sum, L::load(cells), inverse);
            // An infinite sum leaves no remainder.
            L::write_some(<L::Vector as Real>::select(mean.is_nan(), first, mean), out);
        }
    }
}

/// The sums of neighbouring windows, in the first of `lanes`.
#[inline(always)]
fn sums<L: Lanes>(
    (x, width): (&[f16], usize),
    (window, phases, inside): (&Window, Phases, Inside),
    rows: Cells,
    ring: &mut Ring<f32>,
    lanes: &mut [Lane<WINDOWS>; LANES],
) {
    let [height, kernel] = window.kernel;
    let cells = height * kernel;
    if cells > LANES || height > RING {
        sums_across::<L>((x, width), (window, phases, inside), rows, ring, lanes);
        return;
    }
    let row = |kh: usize| rows.start + kh - rows.first;
    let end = rows.start + rows.count() + window.rows_ahead();
    for (row, x) in x.chunks_exact(width.max(1)).enumerate().take(end).skip(rows.start) {
        if let Some(target) = ring.missing(row) {
            phases.split::<L>(x, inside, target);
        }
    }
    let zeros = [0.0; WINDOWS];
    let mut taps = [&zeros[..phases.windows]; LANES];
    for kh in rows.first..rows.last {
        for kw in 0..kernel {
            taps[kh * kernel + kw] = phases.tap(ring.row(row(kh)), kw);
        }
    }
    match cells {
        0..=4 => trees::<L, 4>(&taps, &mut lanes[0].0[..phases.windows]),
        5..=9 => trees::<L, 9>(&taps, &mut lanes[0].0[..phases.windows]),
        _ => trees::<L, LANES>(&taps, &mut lanes[0].0[..phases.windows]),
    }
}

/// [`tree`] for lanes of one term each, of which only the first `N` hold any.
#[inline(always)]
fn trees<L: Lanes, const N: usize>(taps: &[&[f32]; LANES], sums: &mut [f32]) {
    let zero = <L::Vector as Real>::splat(0.0);
    let mut vectors = [taps[0].as_chunks::<WIDTH>().0; N];
    for (vectors, tap) in vectors.iter_mut().zip(taps) {
        *vectors = &tap.as_chunks::<WIDTH>().0[..sums.len() / WIDTH];
    }
    for (at, sum) in sums.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        let mut lanes = [zero; N];
        for (lane, vectors) in lanes.iter_mut().zip(vectors) {
            *lane = L::load(&vectors[at]);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width.min(N.saturating_sub(width)) {
                lanes[lane] = lanes[lane] + lanes[lane + width];
            }
            width /= 2;
        }
        // A lane starts at +0, which only matters where all terms are -0.
        L::store(lanes[0] + zero, sum);
    }
}

/// The sums of neighbouring windows of any size; padding adds zeros, which change no bit.
#[inline(always)]
fn sums_across<L: Lanes>(
    (x, width): (&[f16], usize),
    (window, phases, inside): (&Window, Phases, Inside),
    rows: Cells,
    ring: &mut Ring<f32>,
    lanes: &mut [Lane<WINDOWS>; LANES],
) {
    let [height, kernel] = window.kernel;
    let cells = height * kernel;
    for lane in &mut lanes[..cells.min(LANES)] {
        lane.0[..phases.windows].fill(0.0);
    }
    for first in (rows.first..rows.last).step_by(RING) {
        let group = first..(first + RING).min(rows.last);
        let row = |kh: usize| rows.start + kh - rows.first;
        for row in group.clone().map(row) {
            if let Some(target) = ring.missing(row) {
                phases.split::<L>(&x[row * width..][..width], inside, target);
            }
        }
        for (kh, kw) in group.flat_map(|kh| (0..kernel).map(move |kw| (kh, kw))) {
            let lane = &mut lanes[(kh * kernel + kw) % LANES].0;
            for (lane, value) in lane.iter_mut().zip(phases.tap(ring.row(row(kh)), kw)) {
                *lane += value;
            }
        }
    }
    fold_lanes::<L, WINDOWS>(Fold::Sum, lanes, (cells, phases.windows));
}

/// The sum of one window of a row too long for [`Phases`].
#[inline(always)]
fn wide_sum<L: Lanes>(x: &[f16], width: usize, kernel: usize, rows: Cells, cells: Cells) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut wide = [0.0; LANES];
    for kh in rows.first..rows.last {
        let row = &x[(rows.start + kh - rows.first) * width..][..width];
        let inside = &row[cells.start..cells.start + cells.last - cells.first];
        let mut cell = kh * kernel + cells.first;
        for part in inside.chunks(LANES) {
            L::widen(part, &mut wide[..part.len()]);
            for value in &wide[..part.len()] {
                lanes[cell % LANES] += value;
                cell += 1;
            }
        }
    }
    tree(lanes, |a, b| a + b)
}
