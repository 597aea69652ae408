//! Narrow convolutions with few outputs per group, depthwise above all: one output row after the other.

use half::f16;

use super::PackedConv;
use super::image::Geometry;
use crate::epilogue::store_row;
use crate::order::NARROW_TAPS;
use crate::simd::{COLUMNS, Lanes, Real, Task, WIDTH, chunks};
use crate::{Epilogue, Kernels};

/// Multiplications that one thread does at a time.
const GRAIN: usize = 1 << 15;

pub(super) fn direct(
    kernels: &Kernels,
    image: &[f32],
    geometry: &Geometry,
    (weights, data): (&PackedConv, &[f32]),
    epilogue: &Epilogue<'_>,
    out: &mut [f16],
) {
    let pixels = geometry.pixels();
    let taps = weights.kernel[0] * weights.kernel[1] * weights.channels;
    let planes = (GRAIN / (pixels * taps).max(1)).max(1);
    chunks(&kernels.pool, out, planes * pixels, |start, out| {
        let first = start / pixels;
        kernels.simd.run(Direct { image, geometry, weights, data, epilogue, first, out: &mut *out });
        epilogue.after(kernels.simd, start, out);
    });
}

struct Direct<'a, 'b> {
    image: &'a [f32],
    geometry: &'a Geometry,
    weights: &'a PackedConv,
    data: &'a [f32],
    epilogue: &'a Epilogue<'b>,
    first: usize,
    out: &'a mut [f16],
}

impl Task for Direct<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Direct { image, geometry, weights, data, epilogue, first, out } = self;
        let [height, width] = weights.kernel;
        let taps = height * width * weights.channels;
        let row_len = geometry.out[1];
        for (index, plane) in out.chunks_exact_mut(geometry.pixels()).enumerate() {
            let output = first + index;
            let channel = output / weights.outputs_per_group() * weights.channels;
            let kernel = &data[output * taps..(output + 1) * taps];
            for (y, row) in plane.chunks_exact_mut(row_len).enumerate() {
                for (block, out) in row.chunks_mut(COLUMNS).enumerate() {
                    let x = block * COLUMNS;
                    let image = &image[geometry.row_offset(y) + x..];
                    let mut all = [0.0; COLUMNS];
                    let halves = all.as_chunks_mut::<WIDTH>().0;
                    for (half, target) in halves[..out.len().div_ceil(WIDTH)].iter_mut().enumerate() {
                        let image = &image[half * WIDTH..];
                        L::store(sums::<L>(image, geometry, weights, channel, kernel), target);
                    }
                    let pixel = y * row_len + x;
                    let at = output * geometry.pixels() + pixel;
                    store_row::<L>(epilogue, &all, (output, pixel), at, out);
                }
            }
        }
    }
}

/// The sums of 16 neighbouring outputs whose first reads from the start of `image`.
#[inline(always)]
fn sums<L: Lanes>(
    image: &[f32],
    geometry: &Geometry,
    weights: &PackedConv,
    first: usize,
    kernel: &[f32],
) -> L::Vector {
    let (width, channels) = (weights.kernel[1], weights.channels);
    let zero = <L::Vector as Real>::splat(0.0);
    let mut sums = zero;
    for (kh, kernel) in kernel.chunks_exact(width * channels).enumerate() {
        for (block, kernel) in kernel.chunks(NARROW_TAPS * channels).enumerate() {
            let mut chains = [zero; 2];
            for (tap, kernel) in kernel.chunks_exact(channels).enumerate() {
                let at = geometry.tap(kh, block * NARROW_TAPS + tap, first);
                for (channel, &weight) in kernel.iter().enumerate() {
                    let at = at + geometry.plane() * channel;
                    let values = image[at..].first_chunk().expect("invariant: slack behind the image");
                    let chain = &mut chains[channel % 2];
                    *chain = L::load(values).mul_add(<L::Vector as Real>::splat(weight), *chain);
                }
            }
            sums = sums + (chains[0] + chains[1]);
        }
    }
    sums
}
