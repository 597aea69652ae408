//! Pooling over windows of NCHW images.

use half::f16;

use crate::Kernels;
use crate::order::{LANES, tree};
use crate::simd::{COLUMNS, Lanes, Task, chunks};

/// Window cells that one thread visits at a time.
const GRAIN: usize = 1 << 15;
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
    let (kernel, stride) = (window.kernel[1], window.stride[1]);
    let mut columns = [LOWEST; SPAN];
    let mut done = 0;
    while done < out.len() {
        let first = window.cells(1, done, width);
        let count = (SPAN.saturating_sub(kernel) / stride + 1).min(out.len() - done);
        let end = (window.cells(1, done + count - 1, width)).start + kernel;
        let span = end.min(width).saturating_sub(first.start);
        if span > SPAN {
            out[done] = wide_max(x, width, first);
            done += 1;
            continue;
        }
        let columns = &mut columns[..span];
        columns.fill(LOWEST);
        for row in x.chunks_exact(width.max(1)) {
            for (column, &bits) in columns.iter_mut().zip(&row[first.start..]) {
                *column = key(bits).max(*column);
            }
        }
        for (x, out) in (done..).zip(&mut out[done..done + count]) {
            let cells = window.cells(1, x, width);
            let from = (cells.start - first.start).min(columns.len());
            let across = &columns[from..(from + cells.last - cells.first).min(columns.len())];
            *out = from_key(across.iter().fold(LOWEST, |largest, &value| largest.max(value)));
        }
        done += count;
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
    let mut lanes = [[0.0_f32; LANES]; COLUMNS];
    for kh in rows.first..rows.last {
        let row = &x[(rows.start + kh - rows.first) * width..][..width];
        for (index, lanes) in lanes[..out.len()].iter_mut().enumerate() {
            let cells = window.cells(1, first + index, width);
            let mut at = cells.start;
            let mut cell = cells.first;
            let mut wide = [0.0; LANES];
            while cell < cells.last {
                let count = LANES.min(cells.last - cell);
                L::widen(&row[at..at + count], &mut wide[..count]);
                for (offset, value) in wide[..count].iter().enumerate() {
                    lanes[(kh * window.kernel[1] + cell + offset) % LANES] += value;
                }
                (at, cell) = (at + count, cell + count);
            }
        }
    }
    let mut means = [0.0; COLUMNS];
    for (index, mean) in means[..out.len()].iter_mut().enumerate() {
        let cells = window.cells(1, first + index, width);
        let inside = (rows.last - rows.first) * (cells.last - cells.first);
        let count = if exclude_padding { inside } else { window.kernel[0] * window.kernel[1] };
        let sum = tree(lanes[index], |a, b| a + b);
        *mean = if inside == 0 { 0.0 } else { sum / count as f32 };
    }
    L::narrow(&means[..out.len()], out);
}
