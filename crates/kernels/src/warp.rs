//! Images seen through an affine map of their coordinates.

use half::f16;

use crate::Kernels;
use crate::simd::{Cuts, Grid, Lanes, Real, Task, WIDTH, tiles};

/// Pixels of one channel that one thread computes at a time.
const GRAIN: usize = 1 << 12;
/// Pixels whose places are computed once for all channels; a multiple of [`WIDTH`].
const BLOCK: usize = 64;
/// Pixels that a place lies between.
const CORNERS: usize = 4;

/// One axis of an image and of what is seen of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Pixels of the image.
    pub size: usize,
    /// The coordinate of every pixel of the result.
    pub coordinates: Vec<f64>,
    /// The place of a coordinate of the image, in pixels, is `slope * coordinate + offset`.
    pub slope: f64,
    /// See [`Axis::slope`].
    pub offset: f64,
}

impl Axis {
    /// The pixels before and after a place, those that the image has, and the share of each.
    #[inline(always)]
    fn near(&self, coordinate: f64) -> [Option<(usize, f64)>; 2] {
        let place = coordinate * self.slope + self.offset;
        [place.floor(), place.floor() + 1.0].map(|pixel| {
            let inside = (0.0..self.size as f64).contains(&pixel);
            inside.then(|| (pixel as usize, 1.0 - (place - pixel).abs()))
        })
    }
}

/// Every plane of `x`, whose axes are `rows` and `columns`, seen through its image's map: `maps` holds `a0, a1, a2, b0, b1,
/// b2` for every image, or once for all. The pixel at the coordinates `(u, v)`, across and down, is mixed of the four
/// around `(a0 u + a1 v + a2, b0 u + b1 v + b2)`; around the plane are zeros. Places and shares are computed in `f64`, a
/// share is rounded to `f32`, and pixels are summed in `f32`, from the top left to the bottom right.
///
/// # Panics
/// When a length does not fit.
pub fn affine(
    kernels: &Kernels,
    x: &[f16],
    channels: usize,
    maps: &[f16],
    [rows, columns]: &[Axis; 2],
    out: &mut [f16],
) {
    let (plane, places) = (rows.size * columns.size, rows.coordinates.len() * columns.coordinates.len());
    let images = x.len().checked_div(channels * plane).unwrap_or(0);
    assert_eq!(x.len(), images * channels * plane, "affine: input length");
    assert_eq!(out.len(), images * channels * places, "affine: output length");
    assert!(maps.len() == 6 || maps.len() == 6 * images, "affine: {} numbers of maps", maps.len());
    if out.is_empty() {
        return;
    }
    let parts = (channels * places).div_ceil(GRAIN).min(places.div_ceil(BLOCK));
    let grid = Grid::new(images, Cuts::new(channels, 1, 1), Cuts::new(places, BLOCK, parts));
    tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| {
        let map = maps.chunks_exact(6).nth(if maps.len() == 6 { 0 } else { tile.batch() });
        let map = std::array::from_fn(|i| map.expect("invariant: a map per image")[i].to_f64());
        let (image, range) = (&x[tile.batch() * channels * plane..][..channels * plane], tile.columns());
        let mut corners = [Corner { at: [0; BLOCK], share: [0.0; BLOCK] }; CORNERS];
        for first in range.clone().step_by(BLOCK) {
            let pixels = first..(first + BLOCK).min(range.end);
            kernels.simd.run(Find { map, rows, columns, first, count: pixels.len(), corners: &mut corners });
            for (channel, plane) in image.chunks_exact(plane).enumerate() {
                let out = tile.row(channel, pixels.clone());
                kernels.simd.run(Mix { plane, corners: &corners, out });
            }
        }
    });
}

/// One of the pixels around each place.
#[derive(Clone, Copy)]
struct Corner {
    /// Where it lies in a plane; behind its end if the image has no such pixel.
    at: [usize; BLOCK],
    /// Its share; 0 if there is none.
    share: [f32; BLOCK],
}

/// Finds the corners of `count` pixels from `first` on.
struct Find<'a> {
    map: [f64; 6],
    rows: &'a Axis,
    columns: &'a Axis,
    first: usize,
    count: usize,
    corners: &'a mut [Corner; CORNERS],
}

impl Task for Find<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Find { map: [a0, a1, a2, b0, b1, b2], rows, columns, first, count, corners } = self;
        let width = columns.coordinates.len();
        let (mut row, mut column) = (first / width, first % width);
        for index in 0..count {
            let (u, v) = (columns.coordinates[column], rows.coordinates[row]);
            let across = columns.near(a0 * u + a1 * v + a2);
            let down = rows.near(b0 * u + b1 * v + b2);
            for (corner, target) in corners.iter_mut().enumerate() {
                let pixel = down[corner / 2].zip(across[corner % 2]);
                (target.at[index], target.share[index]) = match pixel {
                    Some(((y, down), (x, across))) => (y * columns.size + x, (down * across) as f32),
                    None => (usize::MAX, 0.0),
                };
            }
            column += 1;
            if column == width {
                (row, column) = (row + 1, 0);
            }
        }
    }
}

/// Mixes the pixels of one plane.
struct Mix<'a> {
    plane: &'a [f16],
    corners: &'a [Corner; CORNERS],
    out: &'a mut [f16],
}

impl Task for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (block, out) in self.out.chunks_mut(WIDTH).enumerate() {
            let mut sum = L::Vector::splat(0.0);
            for corner in self.corners {
                let (at, share) = (corner.at.as_chunks().0[block], &corner.share.as_chunks().0[block]);
                let pixels: [f16; WIDTH] = at.map(|at| self.plane.get(at).copied().unwrap_or(f16::ZERO));
                sum = sum + L::read(&pixels) * L::load(share);
            }
            L::write_some(sum, out);
        }
    }
}
