//! Pooling over windows of NCHW images.

use half::f16;

use crate::Kernels;
use crate::order::{LANES, tree};
use crate::reduce::{Fold, tree_across};
use crate::simd::{COLUMNS, Lanes, Task, chunks};

/// Window cells that one thread visits at a time.
const GRAIN: usize = 1 << 15;
/// Up to so many neighbouring windows are summed one by one.
const FEW: usize = 3;
/// Columns of the input that are reduced at a time.
const SPAN: usize = 512;

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

impl Window {
    #[inline(always)]
    fn cells(&self, axis: usize, position: usize, size: usize) -> Cells {
        let (origin, pad) = (position * self.stride[axis], self.pad[2 * axis]);
        let first = pad.saturating_sub(origin).min(self.kernel[axis]);
        let last = (size + pad).saturating_sub(origin).clamp(first, self.kernel[axis]);
        Cells { first, last, start: (origin + first).saturating_sub(pad).min(size) }
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
        let [height, width] = self.size;
        let plane = self.out_size[0] * self.out_size[1];
        for (index, out) in self.out.chunks_exact_mut(plane.max(1)).enumerate() {
            let x = &self.x[(self.first + index) * height * width..][..height * width];
            for (y, row) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                let rows = self.window.cells(0, y, height);
                let x = &x[rows.start * width..][..(rows.last - rows.first) * width];
                max_row(x, width, self.window, row);
            }
        }
    }
}

/// One output row from the rows of `x` that its windows cover: first down the columns, then across.
#[inline(always)]
fn max_row(x: &[u16], width: usize, window: &Window, out: &mut [u16]) {
    let stride = window.stride[1];
    let Some(phases) = Phases::new(window) else {
        for (at, out) in out.iter_mut().enumerate() {
            *out = wide_max(x, width, window.cells(1, at, width));
        }
        return;
    };
    for (block, out) in out.chunks_mut(COLUMNS).enumerate() {
        let span = phases.inside(block * COLUMNS, width);
        let mut columns = [LOWEST; SPAN];
        let inside = &mut columns[span.target..span.target + span.count];
        for row in x.chunks_exact(width.max(1)) {
            for (column, &bits) in inside.iter_mut().zip(&row[span.source..span.source + span.count]) {
                *column = key(bits).max(*column);
            }
        }
        let mut split = [LOWEST; SPAN];
        phases.split(&columns, &mut split);
        let mut largest = [LOWEST; COLUMNS];
        for kw in 0..window.kernel[1] {
            let at = kw % stride * phases.len + kw / stride;
            for (largest, value) in largest.iter_mut().zip(&split[at..at + COLUMNS]) {
                *largest = (*value).max(*largest);
            }
        }
        for (out, largest) in out.iter_mut().zip(&largest) {
            *out = from_key(*largest);
        }
    }
}

/// How the input columns of [`COLUMNS`] neighbouring windows are split by stride phase, so that those of one tap
/// are neighbours.
#[derive(Clone, Copy)]
struct Phases {
    stride: usize,
    pad: usize,
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

impl Phases {
    /// `None` when a block needs more than [`SPAN`] columns.
    fn new(window: &Window) -> Option<Phases> {
        let stride = window.stride[1];
        let len = COLUMNS + window.kernel[1] / stride;
        (len * stride <= SPAN).then_some(Phases { stride, pad: window.pad[2], len })
    }

    /// The columns of the image that windows from `first` on read.
    fn inside(&self, first: usize, width: usize) -> Inside {
        let origin = first * self.stride;
        let target = self.pad.saturating_sub(origin).min(SPAN);
        let source = (origin + target).saturating_sub(self.pad).min(width);
        let count = (width - source).min((self.len * self.stride).saturating_sub(target));
        Inside { source, target, count }
    }

    #[inline(always)]
    fn split<T: Copy>(&self, columns: &[T; SPAN], target: &mut [T; SPAN]) {
        let Phases { stride, len, .. } = *self;
        match stride {
            1 => *target = *columns,
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
        let [height, width] = self.size;
        let plane = self.out_size[0] * self.out_size[1];
        for (index, out) in self.out.chunks_exact_mut(plane.max(1)).enumerate() {
            let x = &self.x[(self.first + index) * height * width..][..height * width];
            for (y, row) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                let rows = self.window.cells(0, y, height);
                for (block, out) in row.chunks_mut(COLUMNS).enumerate() {
                    mean_block::<L>(
                        x,
                        width,
                        self.window,
                        rows,
                        (block * COLUMNS, self.exclude_padding),
                        out,
                    );
                }
            }
        }
    }
}

/// Up to 32 neighbouring means, from window `first` on.
#[inline(always)]
fn mean_block<L: Lanes>(
    x: &[f16],
    width: usize,
    window: &Window,
    rows: Cells,
    (first, exclude_padding): (usize, bool),
    out: &mut [f16],
) {
    let mut means = match Phases::new(window).filter(|_| out.len() > FEW) {
        Some(phases) => sums_across::<L>(x, width, (window, phases), rows, first),
        None => std::array::from_fn(|index| {
            let cells = window.cells(1, first + index, width);
            if index < out.len() { wide_sum::<L>(x, width, window.kernel[1], rows, cells) } else { 0.0 }
        }),
    };
    let all = window.kernel[0] * window.kernel[1];
    for (index, mean) in means[..out.len()].iter_mut().enumerate() {
        let count = if exclude_padding {
            let cells = window.cells(1, first + index, width);
            ((rows.last - rows.first) * (cells.last - cells.first)).max(1)
        } else {
            all
        };
        *mean /= count as f32;
    }
    L::narrow(&means[..out.len()], out);
}

/// The sums of [`COLUMNS`] neighbouring windows; padding adds zeros, which change no bit.
#[inline(always)]
fn sums_across<L: Lanes>(
    x: &[f16],
    width: usize,
    (window, phases): (&Window, Phases),
    rows: Cells,
    first: usize,
) -> [f32; COLUMNS] {
    let (kernel, stride) = (window.kernel[1], window.stride[1]);
    let span = phases.inside(first, width);
    let mut lanes = [[0.0_f32; COLUMNS]; LANES];
    let (mut columns, mut split) = ([0.0_f32; SPAN], [0.0_f32; SPAN]);
    for kh in rows.first..rows.last {
        let start = (rows.start + kh - rows.first) * width + span.source;
        L::widen(&x[start..start + span.count], &mut columns[span.target..span.target + span.count]);
        phases.split(&columns, &mut split);
        for kw in 0..kernel {
            let at = kw % stride * phases.len + kw / stride;
            let lane = &mut lanes[(kh * kernel + kw) % LANES];
            for (lane, value) in lane.iter_mut().zip(&split[at..at + COLUMNS]) {
                *lane += value;
            }
        }
    }
    tree_across::<L, COLUMNS>(Fold::Sum, lanes)
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
