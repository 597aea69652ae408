//! Pooling of images that lie pixel after pixel: lanes are channels.

use half::f16;

use super::{Cells, LOWEST, Window, from_key, key};
use crate::Kernels;
use crate::conv::Nhwc;
use crate::order::LANES;
use crate::simd::{Cuts, Grid, Lanes, Real, Task, Tile, WIDTH, tiles};

/// Cells that one thread visits at a time.
const GRAIN: usize = 1 << 15;
/// Channels that are compared together.
const CHANNELS: usize = 64;

/// [`max_pool`](super::max_pool) of images that lie where `from` says, into images that lie where `to` says.
///
/// `input` is the shape `[n, c, h, w]` of the images in `x`, `out_size` the height and width of those in `out`.
///
/// # Panics
/// When images do not lie in their slice, or pixels of `to` overlap.
pub fn max_pool_nhwc(
    kernels: &Kernels,
    (x, from): (&[f16], &Nhwc),
    input: [usize; 4],
    window: &Window,
    out_size: [usize; 2],
    (out, to): (&mut [f16], &Nhwc),
) {
    let x: &[u16] = bytemuck::cast_slice(x);
    let images = Images { from, input, window, out_size };
    images.pool(kernels, x, (bytemuck::cast_slice_mut(out), to), |tile| {
        kernels.simd.run(Greatest { x, images: &images, tile });
    });
}

/// [`avg_pool`](super::avg_pool) of images that lie where `from` says, into images that lie where `to` says.
///
/// `input` is the shape `[n, c, h, w]` of the images in `x`, `out_size` the height and width of those in `out`.
///
/// # Panics
/// When images do not lie in their slice, or pixels of `to` overlap.
pub fn avg_pool_nhwc(
    kernels: &Kernels,
    (x, from): (&[f16], &Nhwc),
    input: [usize; 4],
    window: &Window,
    exclude_padding: bool,
    out_size: [usize; 2],
    (out, to): (&mut [f16], &Nhwc),
) {
    let images = Images { from, input, window, out_size };
    images.pool(kernels, x, (out, to), |tile| {
        kernels.simd.run(Means { x, images: &images, exclude_padding, tile });
    });
}

/// What is pooled.
#[derive(Clone, Copy)]
struct Images<'a> {
    from: &'a Nhwc,
    input: [usize; 4],
    window: &'a Window,
    out_size: [usize; 2],
}

impl Images<'_> {
    /// Calls `body` for parts of the result.
    fn pool<T: Send>(
        &self,
        kernels: &Kernels,
        x: &[T],
        (out, to): (&mut [T], &Nhwc),
        body: impl Fn(&mut Tile<'_, T>) + Sync,
    ) {
        let ([images, channels, height, width], window) = (self.input, self.window);
        assert!(window.stride.iter().all(|&stride| stride > 0), "pool: stride {:?}", window.stride);
        let pixels = self.out_size[0] * self.out_size[1];
        if images * pixels * channels == 0 {
            return;
        }
        self.from.check([height, width], channels, images, x.len());
        to.check(self.out_size, channels, images, out.len());
        let work = (pixels * channels).saturating_mul(window.kernel[0] * window.kernel[1]);
        let parts = (work / GRAIN).clamp(1, 8 * kernels.pool.threads()).min(pixels);
        let place = to.place(self.out_size);
        let grid = Grid {
            batches: images,
            rows: Cuts::new(pixels, 1, parts),
            columns: Cuts::new(channels, 1, 1),
            place,
            columns_first: false,
        };
        tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| body(tile));
    }

    /// Numbers of the cells of window `at` that lie in the image, and for each the place of its first channel.
    #[inline(always)]
    fn cells(
        &self,
        image: usize,
        [rows, columns]: [Cells; 2],
    ) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (from, kernel) = (*self.from, self.window.kernel[1]);
        let start = from.start + image * from.image + rows.start * from.row + columns.start * from.pixel;
        (rows.first..rows.last).flat_map(move |kh| {
            let row = start + (kh - rows.first) * from.row;
            (columns.first..columns.last)
                .map(move |kw| (kh * kernel + kw, row + (kw - columns.first) * from.pixel))
        })
    }
}

struct Greatest<'a, 't, 'o> {
    x: &'a [u16],
    images: &'a Images<'a>,
    tile: &'t mut Tile<'o, u16>,
}

impl Task for Greatest<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Greatest { x, images, tile } = self;
        let [_, channels, height, width] = images.input;
        for at in tile.rows() {
            let cells = images.cells(tile.batch(), images.window.both(at, images.out_size, [height, width]));
            for first in (0..channels).step_by(CHANNELS) {
                let last = (first + CHANNELS).min(channels);
                let mut greatest = [LOWEST; CHANNELS];
                let greatest = &mut greatest[..last - first];
                for (_, start) in cells.clone() {
                    for (greatest, bits) in greatest.iter_mut().zip(&x[start + first..start + last]) {
                        *greatest = key(*bits).max(*greatest);
                    }
                }
                for (out, greatest) in tile.row(at, first..last).iter_mut().zip(greatest) {
                    *out = from_key(*greatest);
                }
            }
        }
    }
}

struct Means<'a, 't, 'o> {
    x: &'a [f16],
    images: &'a Images<'a>,
    exclude_padding: bool,
    tile: &'t mut Tile<'o, f16>,
}

impl Task for Means<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Means { x, images, exclude_padding, tile } = self;
        let ([_, channels, height, width], window) = (images.input, images.window);
        let zero = <L::Vector as Real>::splat(0.0);
        for at in tile.rows() {
            let [rows, columns] = window.both(at, images.out_size, [height, width]);
            let count = <L::Vector as Real>::splat(window.divisor(rows, columns, exclude_padding));
            for first in (0..channels).step_by(WIDTH) {
                let last = (first + WIDTH).min(channels);
                let mut lanes = [zero; LANES];
                for (cell, start) in images.cells(tile.batch(), [rows, columns]) {
                    let lane = &mut lanes[cell % LANES];
                    *lane = *lane + L::read_some(&x[start + first..start + last]);
                }
                let mut half = LANES / 2;
                while half > 0 {
                    for lane in 0..half {
                        lanes[lane] = lanes[lane] + lanes[lane + half];
                    }
                    half /= 2;
                }
                L::write_some(lanes[0] / count, tile.row(at, first..last));
            }
        }
    }
}
