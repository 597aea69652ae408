//! Functions of elements that a caller brings: of one half, as a table, and of two that broadcast.

use half::f16;

use super::GRAIN;
use crate::Kernels;
use crate::broadcast::View;
use crate::simd::chunks;

/// Every half.
pub const HALVES: usize = 1 << 16;

/// `out[i] = table[bits of x[i]]`.
///
/// # Panics
/// When the lengths differ, or the table has not an entry for every half.
pub fn look_up(kernels: &Kernels, table: &[f16], x: &[f16], out: &mut [f16]) {
    let table: &[f16; HALVES] = table.try_into().expect("look_up: an entry for every half");
    assert_eq!(x.len(), out.len(), "look_up: lengths differ");
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        let x = &x[start..start + out.len()];
        out.iter_mut().zip(x).for_each(|(out, x)| *out = table[usize::from(x.to_bits())]);
    });
}

/// `out[i] = f(a, b)` of the elements that broadcast to element `i` of an array of shape `shape`.
///
/// # Panics
/// When `out` is not of that shape, or an operand does not broadcast to it.
pub fn zip_with(
    kernels: &Kernels,
    [a, b]: [View<'_, f16>; 2],
    shape: &[usize],
    f: impl Fn(f32, f32) -> f16 + Sync,
    out: &mut [f16],
) {
    assert_eq!(out.len(), shape.iter().product::<usize>(), "zip_with: output is not {shape:?}");
    let row = shape.last().copied().unwrap_or(1).max(1);
    let [first, second] = [a, b].map(|view| Steps::new(view.shape, shape));
    chunks(&kernels.pool, out, GRAIN.div_ceil(row) * row, |start, out| {
        for (at, out) in out.chunks_mut(row).enumerate() {
            let index = start / row + at;
            let (x, y) = (&a.data[first.of(index)..], &b.data[second.of(index)..]);
            for (place, out) in out.iter_mut().enumerate() {
                *out = f(x[place * first.last].to_f32(), y[place * second.last].to_f32());
            }
        }
    });
}

/// Where rows of an operand begin that broadcasts.
struct Steps {
    /// Of each axis but the last, innermost first: rows of the result, and elements of the operand from one to the next.
    axes: Vec<(usize, usize)>,
    /// The same of the last.
    last: usize,
}

impl Steps {
    fn new(from: &[usize], to: &[usize]) -> Steps {
        let (mut axes, mut stride) = (Vec::new(), 1);
        for back in 1..=to.len() {
            let extent = if back <= from.len() { from[from.len() - back] } else { 1 };
            let size = to[to.len() - back];
            assert!(extent == 1 || extent == size, "zip_with: {from:?} does not broadcast to {to:?}");
            axes.push((size, if extent > 1 { stride } else { 0 }));
            stride *= extent;
        }
        let last = if axes.is_empty() { 0 } else { axes.remove(0).1 };
        Steps { axes, last }
    }

    fn of(&self, mut row: usize) -> usize {
        let mut at = 0;
        for &(size, stride) in &self.axes {
            at += row % size * stride;
            row /= size;
        }
        at
    }
}
