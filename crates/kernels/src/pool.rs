//! Pooling over windows of NCHW images.

use half::f16;

use crate::Kernels;
use crate::order::{LANES, tree};
use crate::reduce::{Fold, Lane, fold_lanes};
use crate::simd::{Lanes, Task, WIDTH, chunks};

/// Window cells that one thread visits at a time.
const GRAIN: usize = 1 << 15;
/// Up to so many neighbouring windows are summed one by one.
const FEW: usize = 3;
/// Most columns of the input, and most windows, that are reduced at a time.
const SPAN: usize = 512;
const WINDOWS: usize = 128;
/// Rows of the input that are kept for the next row of windows.
const RING: usize = 8;

/// Size, stride and padding of pooling windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Padding around the image: top, bottom, left, right. Bottom and right only say what the caller's output
    /// size assumes (`ceil_mode`); windows may reach further.
    pub pad: [usize; 4],
}

/// The part of one axis' windows that lies in the image: cells `first..last` of the window, from input `start`.
#[derive(Clone, Copy)]
struct Cells {
    first: usize,
    last: usize,
    start: usize,
}

impl Cells {
    fn count(&self) -> usize {
        self.last - self.first
    }
}

impl Window {
    #[inline(always)]
    fn cells(&self, axis: usize, position: usize, size: usize) -> Cells {
        let (origin, pad) = (position * self.stride[axis], self.pad[2 * axis]);
        let first = pad.saturating_sub(origin).min(self.kernel[axis]);
        let last = (size + pad).saturating_sub(origin).clamp(first, self.kernel[axis]);
        Cells { first, last, start: (origin + first).saturating_sub(pad).min(size) }
    }

    /// The rows and the columns of window `at`.
    fn both(&self, at: usize, out: [usize; 2], size: [usize; 2]) -> [Cells; 2] {
        [self.cells(0, at / out[1], size[0]), self.cells(1, at % out[1], size[1])]
    }

    fn grain(&self, out: [usize; 2]) -> usize {
        let plane = out[0] * out[1];
        (GRAIN / (plane * self.kernel[0] * self.kernel[1]).max(1)).max(1) * plane
    }
}

fn check(input: [usize; 4], x: &[f16], window: &Window, out_size: [usize; 2], out: &[f16]) {
    assert_eq!(x.len(), input.iter().product::<usize>(), "pool: input is not {input:?}");
    assert_eq!(
        out.len(),
        input[0] * input[1] * out_size[0] * out_size[1],
        "pool: output is not {out_size:?}"
    );
    assert!(window.stride.iter().all(|&stride| stride > 0), "pool: stride {:?}", window.stride);
}

/// The largest value of each window; padding does not take part, and NaN wins. A window without cells gives -inf.
///
/// `input` is the shape `[n, c, h, w]` of `x`; `out` is `[n, c]` and `out_size`.
///
/// # Panics
/// When a slice's length differs from its shape's.
pub fn max_pool(
    kernels: &Kernels,
    x: &[f16],
    input: [usize; 4],
    window: &Window,
    out_size: [usize; 2],
    out: &mut [f16],
) {
    check(input, x, window, out_size, out);
    let size = [input[2], input[3]];
    let x: &[u16] = bytemuck::cast_slice(x);
    chunks(&kernels.pool, bytemuck::cast_slice_mut(out), window.grain(out_size), |start, out| {
        let first = start / (out_size[0] * out_size[1]).max(1);
        kernels.simd.run(MaxTask { x, size, window, out_size, first, out });
    });
}

struct MaxTask<'a> {
    x: &'a [u16],
    size: [usize; 2],
    window: &'a Window,
    out_size: [usize; 2],
    first: usize,
    out: &'a mut [u16],
}

/// The bits of an `f16` as an integer of the same order; NaN is above everything.
#[inline(always)]
fn key(bits: u16) -> i16 {
    let ordered = (bits ^ (((bits as i16) >> 15) as u16 & 0x7fff)) as i16;
    if bits & 0x7fff > 0x7c00 { i16::MAX } else { ordered }
}

#[inline(always)]
fn from_key(key: i16) -> u16 {
    key as u16 ^ ((key >> 15) as u16 & 0x7fff)
}

/// The key of -inf, below every value.
const LOWEST: i16 = 0x83ff_u16 as i16;

impl Task for MaxTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ([height, width], window) = (self.size, self.window);
        let plane = self.out_size[0] * self.out_size[1];
        let phases = Phases::new(window, self.out_size[1]);
        let mut ring = Ring::new(LOWEST);
        for (index, out) in self.out.chunks_exact_mut(plane.max(1)).enumerate() {
            let x = &self.x[(self.first + index) * height * width..][..height * width];
            let Some(phases) = phases else {
                for (at, out) in out.iter_mut().enumerate() {
                    let [rows, columns] = window.both(at, self.out_size, self.size);
                    *out = wide_max(&x[rows.start * width..][..rows.count() * width], width, columns);
                }
                continue;
            };
            for first in (0..self.out_size[1]).step_by(phases.windows) {
                let inside = phases.inside(first, width);
                ring.clear(LOWEST);
                for (y, out) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                    let out = &mut out[first..];
                    let count = out.len().min(phases.windows);
                    max_block(x, width, (window, phases, inside), y, &mut ring, &mut out[..count]);
                }
            }
        }
    }
}

/// Neighbouring windows of one output row.
#[inline(always)]
fn max_block(
    x: &[u16],
    width: usize,
    (window, phases, inside): (&Window, Phases, Inside),
    y: usize,
    ring: &mut Ring<i16>,
    out: &mut [u16],
) {
    let mut largest = [LOWEST; WINDOWS];
    let largest = &mut largest[..phases.windows];
    let rows = window.cells(0, y, x.len() / width.max(1));
    let keys = |row: &[u16], columns: &mut [i16]| {
        for (column, &bits) in columns.iter_mut().zip(row) {
            *column = key(bits);
        }
    };
    for first in (rows.start..rows.start + rows.count()).step_by(RING) {
        let group = first..(first + RING).min(rows.start + rows.count());
        for row in group.clone() {
            ring.keep(row, &x[row * width..][..width], (phases, inside), keys);
        }
        for row in group {
            for kw in 0..window.kernel[1] {
                for (largest, value) in largest.iter_mut().zip(phases.tap(ring.row(row), kw)) {
                    *largest = (*value).max(*largest);
                }
            }
        }
    }
    for (out, largest) in out.iter_mut().zip(largest) {
        *out = from_key(*largest);
    }
}

/// How the input columns of neighbouring windows are split by stride phase, so that those of one tap are
/// neighbours.
#[derive(Clone, Copy)]
struct Phases {
    stride: usize,
    pad: usize,
    /// Windows of one block, whole vectors.
    windows: usize,
    /// Columns of one phase.
    len: usize,
}

/// Where `count` input columns from `source` on lie among the columns of a block of windows.
#[derive(Clone, Copy)]
struct Inside {
    source: usize,
    target: usize,
    count: usize,
}

/// Rows of the columns of a block of windows, split by phase. Splitting several before any is read keeps reads
/// from waiting for writes.
#[repr(align(64))]
struct Ring<T> {
    /// A row in order.
    columns: [T; SPAN],
    rows: [[T; SPAN]; RING],
    /// Which row of the image each of `rows` is.
    holds: [usize; RING],
}

impl<T: Copy> Ring<T> {
    fn new(padding: T) -> Ring<T> {
        Ring { columns: [padding; SPAN], rows: [[padding; SPAN]; RING], holds: [usize::MAX; RING] }
    }

    /// Forgets the rows, for another image or block.
    fn clear(&mut self, padding: T) {
        self.columns.fill(padding);
        self.holds.fill(usize::MAX);
    }

    /// Makes row `index` of the image, `row`, one of the rows; `convert` writes its elements.
    #[inline(always)]
    fn keep<S>(
        &mut self,
        index: usize,
        row: &[S],
        (phases, inside): (Phases, Inside),
        convert: impl Fn(&[S], &mut [T]),
    ) {
        let Inside { source, target, count } = inside;
        if self.holds[index % RING] != index {
            self.holds[index % RING] = index;
            convert(&row[source..source + count], &mut self.columns[target..target + count]);
            phases.split(&self.columns, &mut self.rows[index % RING]);
        }
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &[T; SPAN] {
        &self.rows[index % RING]
    }
}

impl Phases {
    /// For rows of `windows` windows; `None` when a vector of windows needs more than [`SPAN`] columns.
    fn new(window: &Window, windows: usize) -> Option<Phases> {
        let (stride, more) = (window.stride[1], window.kernel[1] / window.stride[1]);
        let most = (SPAN / stride).saturating_sub(more).min(WINDOWS) / WIDTH * WIDTH;
        let windows = windows.next_multiple_of(WIDTH).min(most);
        (windows > 0).then_some(Phases { stride, pad: window.pad[2], windows, len: windows + more })
    }

    fn columns(&self) -> usize {
        self.len * self.stride
    }

    /// The columns of the image that windows from `first` on read.
    fn inside(&self, first: usize, width: usize) -> Inside {
        let origin = first * self.stride;
        let target = self.pad.saturating_sub(origin).min(self.columns());
        let source = (origin + target).saturating_sub(self.pad).min(width);
        let count = (width - source).min(self.columns() - target);
        Inside { source, target, count }
    }

    /// The columns by phase.
    #[inline(always)]
    fn split<T: Copy>(&self, columns: &[T; SPAN], target: &mut [T; SPAN]) {
        let Phases { stride, len, .. } = *self;
        match stride {
            1 => target[..len].copy_from_slice(&columns[..len]),
            2 => {
                let (even, odd) = target.split_at_mut(len);
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(columns.as_chunks::<2>().0) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
            }
            _ => {
                for (phase, target) in target.chunks_exact_mut(len).take(stride).enumerate() {
                    for (target, column) in target.iter_mut().zip(columns[phase..].iter().step_by(stride)) {
                        *target = *column;
                    }
                }
            }
        }
    }

    /// What every window of a block reads for its column `kw`.
    #[inline(always)]
    fn tap<'a, T>(&self, split: &'a [T; SPAN], kw: usize) -> &'a [T] {
        &split[kw % self.stride * self.len + kw / self.stride..][..self.windows]
    }
}

/// One window wider than [`SPAN`].
fn wide_max(x: &[u16], width: usize, cells: Cells) -> u16 {
    let rows = x.chunks_exact(width.max(1));
    let values = rows.flat_map(|row| &row[cells.start..cells.start + cells.last - cells.first]);
    from_key(values.fold(LOWEST, |largest, &bits| largest.max(key(bits))))
}

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
        for (index, out) in self.out.chunks_exact_mut(plane.max(1)).enumerate() {
            let x = &self.x[(self.first + index) * height * width..][..height * width];
            let Some(phases) = phases else {
                for (at, out) in out.iter_mut().enumerate() {
                    let [rows, columns] = window.both(at, self.out_size, self.size);
                    let mut sum = [wide_sum::<L>(x, width, window.kernel[1], rows, columns)];
                    window.divide(&mut sum, rows, (at % self.out_size[1], width), self.exclude_padding);
                    L::narrow(&sum, std::slice::from_mut(out));
                }
                continue;
            };
            for first in (0..self.out_size[1]).step_by(phases.windows) {
                let place = (window, phases, phases.inside(first, width));
                ring.clear(0.0);
                for (y, out) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                    let rows = window.cells(0, y, height);
                    sums_across::<L>(x, width, place, rows, &mut ring, &mut lanes);
                    let out = &mut out[first..];
                    let count = out.len().min(phases.windows);
                    let sums = &mut lanes[0].0[..count];
                    window.divide(sums, rows, (first, width), self.exclude_padding);
                    L::narrow(sums, &mut out[..count]);
                }
            }
        }
    }
}

impl Window {
    /// Divides the sums of the windows from `first` on.
    #[inline(always)]
    fn divide(&self, sums: &mut [f32], rows: Cells, (first, width): (usize, usize), exclude_padding: bool) {
        if exclude_padding {
            for (sum, at) in sums.iter_mut().zip(first..) {
                let cells = self.cells(1, at, width);
                *sum /= (rows.count() * cells.count()).max(1) as f32;
            }
        } else {
            let all = (self.kernel[0] * self.kernel[1]) as f32;
            sums.iter_mut().for_each(|sum| *sum /= all);
        }
    }
}

/// The sums of neighbouring windows, in the first of `lanes`; padding adds zeros, which change no bit.
#[inline(always)]
fn sums_across<L: Lanes>(
    x: &[f16],
    width: usize,
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
            ring.keep(row, &x[row * width..][..width], (phases, inside), L::widen);
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
