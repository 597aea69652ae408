//! Softmax along one axis.

use half::f16;

use crate::Kernels;
use crate::math::exp;
use crate::order::{LANES, tree};
use crate::reduce::{Fold, add_block, tree_across};
use crate::simd::{Lanes, Task, chunks};

/// Elements that one thread computes at a time.
const GRAIN: usize = 1 << 13;
/// Elements converted at a time; a multiple of [`LANES`].
const BLOCK: usize = 1024;
/// Neighbouring positions that are computed together when the axis is not the innermost.
const WIDTH: usize = 32;

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
    let slab = size * inner;
    let grain = (GRAIN / slab).max(1) * slab;
    chunks(&kernels.pool, out, grain, |start, out| {
        let x = &x[start..start + out.len()];
        kernels.simd.run(SoftmaxTask { x, size, inner, out });
    });
}

struct SoftmaxTask<'a> {
    x: &'a [f16],
    size: usize,
    inner: usize,
    out: &'a mut [f16],
}

impl Task for SoftmaxTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let slab = self.size * self.inner;
        for (x, out) in self.x.chunks_exact(slab).zip(self.out.chunks_exact_mut(slab)) {
            if self.inner == 1 {
                row::<L>(x, out);
                continue;
            }
            for first in (0..self.inner).step_by(WIDTH) {
                let width = WIDTH.min(self.inner - first);
                across::<L>(x, self.inner, (first, width), out);
            }
        }
    }
}

#[inline(always)]
fn exponentials<L: Lanes>(x: &[f16], largest: f32, target: &mut [f32]) {
    L::widen(x, target);
    for value in target {
        *value = exp(*value - largest);
    }
}

#[inline(always)]
fn row<L: Lanes>(x: &[f16], out: &mut [f16]) {
    let mut block = [0.0; BLOCK];
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in x.chunks(BLOCK) {
        L::widen(x, &mut block[..x.len()]);
        add_block(Fold::Max, &mut lanes, &block[..x.len()]);
    }
    let largest = tree(lanes, |a, b| Fold::Max.combine(a, b));
    let mut lanes = [0.0; LANES];
    for x in x.chunks(BLOCK) {
        exponentials::<L>(x, largest, &mut block[..x.len()]);
        add_block(Fold::Sum, &mut lanes, &block[..x.len()]);
    }
    let sum = tree(lanes, |a, b| a + b);
    let single = x.len() <= BLOCK;
    for (x, out) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let block = &mut block[..x.len()];
        if !single {
            exponentials::<L>(x, largest, block);
        }
        for value in block.iter_mut() {
            *value /= sum;
        }
        L::narrow(block, out);
    }
}

/// Up to [`WIDTH`] neighbouring positions of one slab `[size, inner]`.
#[inline(always)]
fn across<L: Lanes>(x: &[f16], inner: usize, (first, width): (usize, usize), out: &mut [f16]) {
    let mut values = [0.0; WIDTH];
    let mut largest = [f32::NEG_INFINITY; WIDTH];
    for x in x.chunks_exact(inner) {
        L::widen(&x[first..first + width], &mut values[..width]);
        for (largest, value) in largest.iter_mut().zip(&values) {
            *largest = Fold::Max.combine(*largest, *value);
        }
    }
    let mut lanes = [[0.0; WIDTH]; LANES];
    for (index, x) in x.chunks_exact(inner).enumerate() {
        L::widen(&x[first..first + width], &mut values[..width]);
        for ((lane, value), largest) in lanes[index % LANES].iter_mut().zip(&values).zip(&largest) {
            *lane += exp(*value - *largest);
        }
    }
    let sums = tree_across(Fold::Sum, lanes);
    for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
        L::widen(&x[first..first + width], &mut values[..width]);
        for ((value, largest), sum) in values.iter_mut().zip(&largest).zip(&sums) {
            *value = exp(*value - *largest) / *sum;
        }
        L::narrow(&values[..width], &mut out[first..first + width]);
    }
}
