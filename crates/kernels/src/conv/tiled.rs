//! Convolutions on tile registers: rows are output channels, columns are pixels gathered as pairs of terms.

use std::ops::Range;

use half::f16;

use super::image::{Geometry, PANEL_SLACK, Run, STEP, fill_image};
use super::{PackedConv, group_epilogue};
use crate::gemm::{Product, STRIP_SUMS, Sink, panel_pairs, strips};
use crate::order::{BLOCK, NARROW, NARROW_TAPS, conv_term};
use crate::simd::{
    COLUMNS, Cuts, Grid, Lanes, Lines, PRODUCT_ROWS, Simd, TILE_ROWS, Task, Tile, TileRows, Tiles, chunks,
    tiles,
};
use crate::{Epilogue, Kernels};

/// Pairs of all panels up to which they are gathered at once, for all threads.
const SHARED: usize = 384 << 10;

/// The weights of every group in tiles of 16 outputs, each `[block][16][32]`, padded with zeros.
pub(super) fn pack(conv: &PackedConv, weight: impl Fn(usize, [usize; 3]) -> f16) -> Lines {
    let (blocks, per_group) = (conv.terms() / BLOCK, conv.outputs_per_group());
    let tiles = per_group.div_ceil(TILE_ROWS);
    let mut data = Lines::zeroed(conv.groups * group_len(conv) / 2);
    for (index, rows) in data.halves_mut().chunks_exact_mut(TILE_ROWS * BLOCK).enumerate() {
        let (tile, block) = (index / blocks, index % blocks);
        let (group, tile) = (tile / tiles, tile % tiles);
        for (row, values) in rows.chunks_exact_mut(BLOCK).enumerate() {
            let output = tile * TILE_ROWS + row;
            if output >= per_group {
                break;
            }
            for (k, value) in values.iter_mut().enumerate() {
                if let Some(tap) = conv_term(block * BLOCK + k, conv.channels, conv.kernel) {
                    *value = weight(group * per_group + output, tap);
                }
            }
        }
    }
    data
}

/// Weights of one group.
fn group_len(conv: &PackedConv) -> usize {
    conv.outputs_per_group().next_multiple_of(TILE_ROWS) * conv.terms()
}

/// Pairs of one panel, a multiple of a line.
fn panel_len(conv: &PackedConv) -> usize {
    panel_pairs(conv.terms()) + PANEL_SLACK
}

fn panels(geometry: &Geometry) -> usize {
    geometry.pixels().div_ceil(COLUMNS)
}

/// Planes of pairs of channels of one group.
fn planes(conv: &PackedConv) -> usize {
    conv.channels.div_ceil(2)
}

fn image_len(conv: &PackedConv, geometry: &Geometry) -> usize {
    geometry.planes_len(conv.groups * planes(conv))
}

fn is_shared(conv: &PackedConv, geometry: &Geometry) -> bool {
    conv.groups * panels(geometry) * panel_len(conv) <= SHARED
}

/// Scratch values: the image, the shared panels, and per thread sums and a panel of its own.
pub(super) fn scratch_len(conv: &PackedConv, geometry: &Geometry, threads: usize) -> usize {
    let panels = if is_shared(conv, geometry) {
        conv.groups * panels(geometry) * panel_len(conv)
    } else {
        threads * panel_len(conv)
    };
    image_len(conv, geometry) + panels + threads * STRIP_SUMS
}

/// One image.
pub(super) fn conv2d(
    kernels: &Kernels,
    x: &[f16],
    geometry: &Geometry,
    (conv, weights): (&PackedConv, &Lines),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    out: &mut [f16],
) {
    let (image, scratch) = scratch.split_at_mut(image_len(conv, geometry));
    let image: &mut [u32] = bytemuck::cast_slice_mut(image);
    fill_image(kernels, x, geometry, conv.channels, image);
    let work = Work { simd: kernels.simd, image, geometry, conv, weights: weights.halves(), epilogue };
    if is_shared(conv, geometry) {
        work.by_rows(kernels, scratch, out);
    } else {
        work.by_panels(kernels, scratch, out);
    }
}

#[derive(Clone, Copy)]
struct Work<'a, 'b> {
    simd: Simd,
    image: &'a [u32],
    geometry: &'a Geometry,
    conv: &'a PackedConv,
    weights: &'a [f16],
    epilogue: &'a Epilogue<'b>,
}

impl Work<'_, '_> {
    /// Every item gathers one panel and multiplies all rows with it.
    fn by_panels(&self, kernels: &Kernels, scratch: &mut [f32], out: &mut [f16]) {
        let pixels = self.geometry.pixels();
        let rows = Cuts::new(self.conv.outputs_per_group(), PRODUCT_ROWS, 1);
        let columns = Cuts::new(pixels, COLUMNS, panels(self.geometry));
        let grid = Grid { batches: self.conv.groups, rows, columns };
        let per_worker = STRIP_SUMS + panel_len(self.conv);
        tiles(&kernels.pool, out, grid, (scratch, per_worker), |tile, scratch| {
            let registers = Tiles::enter(self.simd).expect("invariant: weights for tiles");
            let (sums, panel) = scratch.split_at_mut(STRIP_SUMS);
            let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
            self.gather(tile.batch(), tile.columns(), panel);
            let (start, end, columns) = (tile.rows().start, tile.rows().end, tile.columns());
            let (group, panel) = (tile.batch(), &panel[..panel_pairs(self.conv.terms())]);
            let count = (end - start).div_ceil(PRODUCT_ROWS);
            let product = |index| self.product(group, (start + index * PRODUCT_ROWS, end), panel, &columns);
            self.multiply(&registers, count, product, sums, tile);
        });
    }

    /// All panels are gathered first; every item multiplies some rows with each of them.
    fn by_rows(&self, kernels: &Kernels, scratch: &mut [f32], out: &mut [f16]) {
        let (per_group, pixels) = (panels(self.geometry), self.geometry.pixels());
        let (groups, len) = (self.conv.groups, panel_len(self.conv));
        let (gathered, scratch) = scratch.split_at_mut(groups * per_group * len);
        let columns = |panel: usize| panel * COLUMNS..((panel + 1) * COLUMNS).min(pixels);
        chunks(&kernels.pool, gathered, len, |start, part| {
            let part: &mut [u32] = bytemuck::cast_slice_mut(part);
            for (index, panel) in part.chunks_exact_mut(len).enumerate() {
                let index = start / len + index;
                self.gather(index / per_group, columns(index % per_group), panel);
            }
        });
        let gathered: &[u32] = bytemuck::cast_slice(gathered);
        let outputs = self.conv.outputs_per_group();
        let wanted = (4 * kernels.pool.threads()).div_ceil(groups);
        let rows = Cuts::new(outputs, PRODUCT_ROWS, outputs.div_ceil(PRODUCT_ROWS).min(wanted));
        let grid = Grid { batches: groups, rows, columns: Cuts::new(pixels, COLUMNS, 1) };
        tiles(&kernels.pool, out, grid, (scratch, STRIP_SUMS), |tile, sums| {
            let registers = Tiles::enter(self.simd).expect("invariant: weights for tiles");
            let (group, rows) = (tile.batch(), tile.rows());
            for start in rows.clone().step_by(PRODUCT_ROWS) {
                let product = |panel: usize| {
                    let at = (group * per_group + panel) * len;
                    let pairs = &gathered[at..at + panel_pairs(self.conv.terms())];
                    self.product(group, (start, rows.end), pairs, &columns(panel))
                };
                self.multiply(&registers, per_group, product, sums, tile);
            }
        });
    }

    fn multiply<'p>(
        &self,
        registers: &Tiles,
        count: usize,
        product: impl Fn(usize) -> Product<'p>,
        sums: &mut [f32],
        tile: &mut Tile<'_, f16>,
    ) {
        let first = tile.batch() * self.conv.outputs_per_group();
        let epilogue = &group_epilogue(self.epilogue, first, self.conv.outputs_per_group());
        let blocks = self.conv.terms() / BLOCK;
        strips(registers, (count, blocks), product, sums, &mut Sink { simd: self.simd, epilogue, out: tile });
    }

    /// The product of the outputs of `group` from `start` (up to `end`) and the panel of the pixels `columns`.
    fn product<'p>(
        &'p self,
        group: usize,
        (start, end): (usize, usize),
        panel: &'p [u32],
        columns: &Range<usize>,
    ) -> Product<'p> {
        let end = end.min(start + PRODUCT_ROWS);
        let (data, size) = (self.weights, group_len(self.conv));
        let at = |row: usize| {
            let start = group * size + row * self.conv.terms();
            TileRows { data, start, row: BLOCK, block: TILE_ROWS * BLOCK }
        };
        let second = if end - start > TILE_ROWS { start + TILE_ROWS } else { start };
        let (left, columns) = ([at(start), at(second)], (columns.start, columns.end));
        Product { left, panel, rows: (start, end), columns, skip: [0; 2] }
    }

    /// Writes the panel `[term / 2][32]` of the pixels `pixels` for group `group`.
    fn gather(&self, group: usize, pixels: Range<usize>, panel: &mut [u32]) {
        let (runs, count) = self.geometry.runs(pixels);
        let (geometry, image, channels) = (self.geometry, self.image, self.conv.channels);
        let first = group * planes(self.conv);
        self.simd.run(Gather { geometry, image, channels, first, runs: &runs[..count], panel });
    }
}

struct Gather<'a> {
    geometry: &'a Geometry,
    image: &'a [u32],
    channels: usize,
    /// The first plane of the group.
    first: usize,
    runs: &'a [Run],
    panel: &'a mut [u32],
}

impl Gather<'_> {
    /// Fills row `row` with the pair of channels from `channel` on of the tap at `base`. Copies of whole steps
    /// spill into the next row, which is filled later.
    #[inline(always)]
    fn row(&mut self, row: usize, base: usize, channel: usize) {
        let row = &mut self.panel[row * COLUMNS..(row + 1) * COLUMNS + PANEL_SLACK];
        if channel >= self.channels {
            row[..COLUMNS].fill(0);
            return;
        }
        let plane = &self.image[base + channel / 2 * self.geometry.plane()..];
        for run in self.runs {
            let from = &plane[run.source..run.source + STEP];
            row[run.target..run.target + STEP].copy_from_slice(from);
        }
    }
}

impl Task for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let [height, width] = self.geometry.kernel();
        let narrow = self.channels <= NARROW;
        let (taps, channels) = if narrow {
            (width.next_multiple_of(NARROW_TAPS), NARROW)
        } else {
            (width, self.channels.next_multiple_of(BLOCK))
        };
        let mut row = 0;
        for kh in 0..height {
            for kw in 0..taps {
                let base = self.geometry.tap(kh, kw.min(width - 1), self.first);
                for channel in (0..channels).step_by(2) {
                    self.row(row, base, if kw < width { channel } else { self.channels });
                    row += 1;
                }
            }
        }
    }
}
