//! Elements picked by a table per axis, and mixed with a neighbour along the last two.

use bytemuck::Pod;
use half::f16;

use crate::broadcast::row_major;
use crate::simd::{Lanes, Task, chunks};
use crate::{Kernels, View};

/// Elements that one thread writes at a time.
const GRAIN: usize = 1 << 14;
/// Elements rounded at a time.
const BLOCK: usize = 256;

/// `out[i, j, ...] = x[tables[0][i], tables[1][j], ...]`: one table of places per axis.
///
/// # Panics
/// When there is not one table per axis, a place is outside of its axis, or a length does not fit.
pub fn gather<T: Pod + Send + Sync>(kernels: &Kernels, x: View<'_, T>, tables: &[Vec<usize>], out: &mut [T]) {
    assert_eq!(tables.len(), x.shape.len(), "gather: {} tables for {:?}", tables.len(), x.shape);
    assert_eq!(out.len(), tables.iter().map(Vec::len).product::<usize>(), "gather: output length");
    let inside = tables.iter().zip(x.shape).all(|(table, &size)| table.iter().all(|&place| place < size));
    assert!(inside, "gather: a place is outside of {:?}", x.shape);
    let Some((columns, outer)) = tables.split_last() else { return out.copy_from_slice(x.data) };
    if out.is_empty() {
        return;
    }
    let strides = row_major(x.shape);
    let contiguous = columns.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let row = columns.len();
    chunks(&kernels.pool, out, (GRAIN / row).max(1) * row, |start, out| {
        for (index, out) in out.chunks_exact_mut(row).enumerate() {
            let (mut rest, mut at) = (start / row + index, 0);
            for (table, &stride) in outer.iter().zip(&strides).rev() {
                at += table[rest % table.len()] * stride as usize;
                rest /= table.len();
            }
            if contiguous {
                out.copy_from_slice(&x.data[at + columns[0]..][..row]);
                continue;
            }
            for (out, &column) in out.iter_mut().zip(columns) {
                *out = x.data[at + column];
            }
        }
    });
}

/// Where one place along an axis reads: two elements, and the share of the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap {
    /// The first element.
    pub low: usize,
    /// The second.
    pub high: usize,
    /// The second one's share, from 0 to 1.
    pub weight: f32,
}

/// `a (1 - weight) + b weight`; exactly `a`, whatever `b` is, when the weight is 0.
#[must_use]
#[inline(always)]
pub fn mix(a: f32, b: f32, weight: f32) -> f32 {
    if weight == 0.0 { a } else { a * (1.0 - weight) + b * weight }
}

/// Every plane of `x`, `height` by `width`, sampled at all `rows` and `columns`: first the two columns are
/// mixed in each of the two rows, then the rows, in `f32`; the result rounds once.
///
/// # Panics
/// When a tap is outside of a plane, or a length does not fit.
pub fn bilinear(
    kernels: &Kernels,
    x: &[f16],
    [height, width]: [usize; 2],
    rows: &[Tap],
    columns: &[Tap],
    out: &mut [f16],
) {
    let inside = |taps: &[Tap], size: usize| taps.iter().all(|tap| tap.low < size && tap.high < size);
    assert!(inside(rows, height) && inside(columns, width), "bilinear: a tap is outside of the plane");
    let planes = x.len().checked_div(height * width).unwrap_or(0);
    assert_eq!(x.len(), planes * height * width, "bilinear: input length");
    assert_eq!(out.len(), planes * rows.len() * columns.len(), "bilinear: output length");
    if out.is_empty() {
        return;
    }
    let size = columns.len();
    chunks(&kernels.pool, out, (GRAIN / size).max(1) * size, |start, out| {
        for (index, out) in out.chunks_exact_mut(size).enumerate() {
            let line = start / size + index;
            let plane = &x[line / rows.len() * height * width..][..height * width];
            let row = rows[line % rows.len()];
            let [top, bottom] = [row.low, row.high].map(|at| &plane[at * width..][..width]);
            kernels.simd.run(RowTask { top, bottom, weight: row.weight, columns, out });
        }
    });
}

struct RowTask<'a> {
    top: &'a [f16],
    bottom: &'a [f16],
    weight: f32,
    columns: &'a [Tap],
    out: &'a mut [f16],
}

impl Task for RowTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut buffer = [0.0; BLOCK];
        for (taps, out) in self.columns.chunks(BLOCK).zip(self.out.chunks_mut(BLOCK)) {
            let values = &mut buffer[..out.len()];
            for (value, tap) in values.iter_mut().zip(taps) {
                let across = |line: &[f16]| mix(line[tap.low].to_f32(), line[tap.high].to_f32(), tap.weight);
                *value = mix(across(self.top), across(self.bottom), self.weight);
            }
            L::narrow(values, out);
        }
    }
}
