//! Pooling over windows of NCHW images.

use half::f16;

mod columns;
mod mean;
mod pixels;

use crate::Kernels;
use crate::simd::{Lanes, Task, chunks};
use columns::{Inside, Phases, RING, ROOM, Ring, WINDOWS};
pub use mean::avg_pool;
pub use pixels::{avg_pool_nhwc, max_pool_nhwc};

/// Window cells that one thread visits at a time.
const GRAIN: usize = 1 << 15;
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

impl Window {
    /// Whether every window of an image of this size has a cell in it.
    #[must_use]
    pub fn has_cells(&self, image: [usize; 2], out: [usize; 2]) -> bool {
        (0..2).all(|axis| {
            let (before, last) = (self.pad[2 * axis], out[axis].saturating_sub(1) * self.stride[axis]);
            before < self.kernel[axis] && last < image[axis] + before
        })
    }
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

    /// Rows of the next windows that are kept ahead, so that reads do not wait for writes.
    fn rows_ahead(&self) -> usize {
        if self.kernel[0] + self.stride[0] <= RING { self.stride[0] } else { 0 }
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
        let (mut ring, mut filled) = (Ring::new(LOWEST), Inside::default());
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
                if inside != filled {
                    (ring, filled) = (Ring::new(LOWEST), inside);
                }
                ring.forget();
                for (y, out) in out.chunks_exact_mut(self.out_size[1]).enumerate() {
                    let out = &mut out[first..];
                    let count = out.len().min(phases.windows);
                    max_block((x, width), (window, phases, inside), y, &mut ring, &mut out[..count]);
                }
            }
        }
    }
}

/// Neighbouring windows of one output row.
#[inline(always)]
fn max_block(
    (x, width): (&[u16], usize),
    (window, phases, inside): (&Window, Phases, Inside),
    y: usize,
    ring: &mut Ring<i16>,
    out: &mut [u16],
) {
    let mut largest = [LOWEST; WINDOWS];
    let largest = &mut largest[..phases.windows];
    let height = x.len() / width.max(1);
    let rows = window.cells(0, y, height);
    let (end, ahead) = (rows.start + rows.count(), window.rows_ahead());
    for first in (rows.start..end).step_by(RING) {
        let group = first..(first + RING).min(end);
        for row in group.start..(group.end + ahead).min(height) {
            if let Some(target) = ring.missing(row) {
                split_keys(phases, &x[row * width..][..width], inside, target);
            }
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

/// Writes the keys of the columns of `row` by phase.
#[inline(always)]
fn split_keys(phases: Phases, row: &[u16], inside: Inside, target: &mut [i16; ROOM]) {
    let Inside { source, target: first, count } = inside;
    let row = &row[source..source + count];
    match phases.stride {
        1 => {
            for (target, bits) in target[first..].iter_mut().zip(row) {
                *target = key(*bits);
            }
        }
        2 => {
            let (one, other) = phases.two(first, target);
            let (pairs, rest) = row.as_chunks::<2>();
            for ((one, other), pair) in one.iter_mut().zip(other).zip(pairs) {
                (*one, *other) = (key(pair[0]), key(pair[1]));
            }
            if let Some(bits) = rest.first() {
                one[pairs.len()] = key(*bits);
            }
        }
        stride => {
            for (column, bits) in (first..).zip(row) {
                target[column % stride * phases.pitch + column / stride] = key(*bits);
            }
        }
    }
}

/// One window of a row too long for [`Phases`].
fn wide_max(x: &[u16], width: usize, cells: Cells) -> u16 {
    let rows = x.chunks_exact(width.max(1));
    let values = rows.flat_map(|row| &row[cells.start..cells.start + cells.last - cells.first]);
    from_key(values.fold(LOWEST, |largest, &bits| largest.max(key(bits))))
}
