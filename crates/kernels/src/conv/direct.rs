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
        let offsets = Offsets::new(geometry, weights);
        for (index, plane) in out.chunks_exact_mut(geometry.pixels()).enumerate() {
            let output = first + index;
            let channel = output / weights.outputs_per_group() * weights.channels;
            let kernel = &data[output * taps..(output + 1) * taps];
            let image = &image[channel * geometry.plane()..];
            for (y, row) in plane.chunks_exact_mut(row_len).enumerate() {
                for (block, out) in row.chunks_mut(COLUMNS).enumerate() {
                    let x = block * COLUMNS;
                    let image = &image[geometry.row_offset(y) + x..];
                    let mut all = [0.0; COLUMNS];
                    let halves = all.as_chunks_mut::<WIDTH>().0;
                    for (half, target) in halves[..out.len().div_ceil(WIDTH)].iter_mut().enumerate() {
                        let image = &image[half * WIDTH..];
                        let sums = if weights.channels == 1 && taps <= MOST_TAPS {
                            depthwise::<L>(image, weights.kernel, &offsets, kernel)
                        } else {
                            sums::<L>(image, geometry, weights, kernel)
                        };
                        L::store(sums, target);
                    }
                    let pixel = y * row_len + x;
                    let at = output * geometry.pixels() + pixel;
                    store_row::<L>(epilogue, &all, (output, pixel), at, out);
                }
            }
        }
    }
}

/// Most taps whose places are looked up.
const MOST_TAPS: usize = 128;

/// Where the taps of output (0, 0) lie in the first channel.
struct Offsets([usize; MOST_TAPS]);

impl Offsets {
    /// Of a kernel of one channel.
    fn new(geometry: &Geometry, weights: &PackedConv) -> Offsets {
        let ([height, width], mut offsets) = (weights.kernel, [0; MOST_TAPS]);
        let taps = (0..height).flat_map(|kh| (0..width).map(move |kw| (kh, kw)));
        offsets.iter_mut().zip(taps).for_each(|(offset, (kh, kw))| *offset = geometry.tap(kh, kw, 0));
        Offsets(offsets)
    }
}

/// The sums of 16 neighbouring outputs of one channel, the first of which reads from the start of `image`. The odd
/// places of its blocks are zeros.
#[inline(always)]
fn depthwise<L: Lanes>(
    image: &[f32],
    [height, width]: [usize; 2],
    offsets: &Offsets,
    kernel: &[f32],
) -> L::Vector {
    let zero = <L::Vector as Real>::splat(0.0);
    let mut sums = zero;
    for kh in 0..height {
        let row = kh * width..(kh + 1) * width;
        for (kernel, offsets) in
            kernel[row.clone()].chunks(NARROW_TAPS).zip(offsets.0[row].chunks(NARROW_TAPS))
        {
            let mut even = zero;
            for (&weight, &at) in kernel.iter().zip(offsets) {
                let values = image[at..].first_chunk().expect("invariant: slack behind the image");
                even = L::load(values).mul_add(<L::Vector as Real>::splat(weight), even);
            }
            sums = sums + (even + zero);
        }
    }
    sums
}

/// [`depthwise`] for several channels.
#[inline(always)]
fn sums<L: Lanes>(image: &[f32], geometry: &Geometry, weights: &PackedConv, kernel: &[f32]) -> L::Vector {
    let (width, channels) = (weights.kernel[1], weights.channels);
    let zero = <L::Vector as Real>::splat(0.0);
    let mut sums = zero;
    for (kh, kernel) in kernel.chunks_exact(width * channels).enumerate() {
        for (block, kernel) in kernel.chunks(NARROW_TAPS * channels).enumerate() {
            let (mut even, mut odd) = (zero, zero);
            for (tap, kernel) in kernel.chunks_exact(channels).enumerate() {
                let at = geometry.tap(kh, block * NARROW_TAPS + tap, 0);
                for (channel, &weight) in kernel.iter().enumerate() {
                    let at = at + geometry.plane() * channel;
                    let values = image[at..].first_chunk().expect("invariant: slack behind the image");
                    let (values, weight) = (L::load(values), <L::Vector as Real>::splat(weight));
                    if channel % 2 == 0 {
                        even = values.mul_add(weight, even);
                    } else {
                        odd = values.mul_add(weight, odd);
                    }
                }
            }
            sums = sums + (even + odd);
        }
    }
    sums
}
