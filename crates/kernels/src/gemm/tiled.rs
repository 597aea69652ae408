//! Matrix products on tile registers: the same sums as the other paths, 32 rows and 32 columns at a time.

use std::ops::Range;

use half::f16;

use super::left::{CopyRows, InPlace, Left, Strided};
use super::{PackedB, Plan, Sink, panel_pairs};
use crate::simd::{
    COLUMNS, Cuts, Grid, Lanes, PAIRS, PRODUCT_ROWS, Simd, TILE_ROWS, Task, Tile, TileRows, Tiles, tiles,
};
use crate::{Epilogue, Kernels};

/// Blocks of an operand that stay in the first-level cache while the other one passes.
const DEPTH: usize = super::left::AT_ONCE;
/// Products that share the operand in the first-level cache.
const STRIP: usize = 8;
/// Sums of the products of a strip.
const STRIP_SUMS: usize = STRIP * PRODUCT_ROWS * COLUMNS;
/// Bytes of rows that should stay in the second-level cache.
const ROW_CACHE: usize = 768 << 10;
/// With fewer rows than this a tile is mostly empty, and reading the right operand is what takes the time.
const FEWEST_ROWS: usize = 7;

/// Whether a product of `rows` rows runs on tiles.
pub(crate) fn applies(kernels: &Kernels, rows: usize) -> bool {
    Tiles::usable(kernels.simd) && rows >= FEWEST_ROWS
}

/// Up to 32 positions of the left operand times a panel.
#[derive(Clone, Copy)]
struct Product<'a> {
    left: InPlace<'a>,
    panel: &'a [u32],
    /// The first position, and one past the last.
    positions: (usize, usize),
    /// The rows that are stored.
    wanted: (usize, usize),
    columns: (usize, usize),
}

impl<'a> Product<'a> {
    fn tiles(&self) -> usize {
        (self.positions.1 - self.positions.0).div_ceil(TILE_ROWS)
    }

    /// The rows of tile `index`, and how many of them belong to the product before.
    fn rows(&self, index: usize) -> (TileRows<'a>, usize) {
        self.left.tile(self.positions.0 + index * TILE_ROWS)
    }

    fn multiply(&self, tiles: &Tiles, blocks: Range<usize>, sums: &mut [[f32; COLUMNS]]) {
        let (first, count) = (self.rows(0).0, self.tiles());
        let left = [first, if count > 1 { self.rows(1).0 } else { first }];
        let step = PAIRS * COLUMNS;
        let panel = &self.panel[blocks.start * step..blocks.end * step];
        let (skip, offsets) = self.left.blocks.get(blocks.clone());
        let left = left.map(|rows| TileRows { start: rows.start + skip, ..rows });
        tiles.multiply((&left[..count], offsets), panel, sums, blocks.start > 0);
    }

    fn store(&self, sink: &mut Sink<'_, '_, '_>, sums: &[[f32; COLUMNS]]) {
        let columns = self.columns.0..self.columns.1;
        for (tile, sums) in sums.chunks_exact(TILE_ROWS).take(self.tiles()).enumerate() {
            let sums = &sums[self.rows(tile).1..];
            let first = self.positions.0 + tile * TILE_ROWS;
            let positions = first..(first + TILE_ROWS).min(self.positions.1);
            for (at, rows) in self.left.rows(positions) {
                let skip = self.wanted.0.saturating_sub(rows.start).min(rows.len());
                let rows = rows.start + skip..rows.end.min(self.wanted.1).max(rows.start + skip);
                if !rows.is_empty() {
                    sink.store(&sums[at + skip - first..][..rows.len()], rows, columns.clone());
                }
            }
        }
    }
}

/// Computes and stores `count` products of `blocks` blocks that share a panel. A product is stored while the tiles
/// work on the next one.
fn strips<'p>(
    tiles: &Tiles,
    (count, blocks): (usize, usize),
    product: impl Fn(usize) -> Product<'p>,
    sums: &mut [f32],
    sink: &mut Sink<'_, '_, '_>,
) {
    let (sums, _) = sums.as_chunks_mut::<COLUMNS>();
    for first in (0..count).step_by(STRIP) {
        let strip = first..(first + STRIP).min(count);
        let parts = Cuts::new(blocks, 1, blocks.div_ceil(DEPTH));
        for part in 0..parts.parts {
            let last = part + 1 == parts.parts;
            for index in strip.clone() {
                let at = (index - first) * PRODUCT_ROWS;
                product(index).multiply(tiles, parts.range(part), &mut sums[at..at + PRODUCT_ROWS]);
                if last && index > first {
                    product(index - 1).store(sink, &sums[at - PRODUCT_ROWS..at]);
                }
            }
        }
        let at = (strip.len() - 1) * PRODUCT_ROWS;
        product(strip.end - 1).store(sink, &sums[at..at + PRODUCT_ROWS]);
    }
}

/// How to cut a product of rows `source`, and scratch values per thread: sums, a panel where the right operand is
/// not packed, and copied rows where the left one is not read in place.
pub(crate) fn plan<S: Left>(
    threads: usize,
    batches: usize,
    source: S,
    [rows, columns]: [usize; 2],
    panel: bool,
) -> Plan {
    let terms = source.terms();
    let row_limit = (ROW_CACHE / 2 / terms.max(1)).clamp(PRODUCT_ROWS, 1024);
    let row_parts = rows.div_ceil(row_limit).max(1);
    let wanted =
        if threads == 1 || batches * rows * terms * columns < super::SMALL { 1 } else { 4 * threads };
    let panels = columns.div_ceil(COLUMNS).max(1);
    let column_parts = wanted.div_ceil(batches.max(1) * row_parts).min(panels);
    let rows_cut = Cuts::new(rows, PRODUCT_ROWS, row_parts);
    let rows_each = (rows.div_ceil(PRODUCT_ROWS).div_ceil(row_parts) + 1) * PRODUCT_ROWS;
    let copied = if source.in_place(rows).is_none() { rows_each * pitch(terms) / 2 } else { 0 };
    let panel = if panel { panel_pairs(terms) } else { 0 };
    Plan {
        grid: Grid::new(batches, rows_cut, Cuts::new(columns, COLUMNS, column_parts)),
        rows,
        terms,
        turned: false,
        shared: 0,
        per_worker: (STRIP_SUMS + panel + copied).next_multiple_of(16),
    }
}

/// Values from one copied row to the next: a line more than the row, or all rows would share few cache sets.
fn pitch(terms: usize) -> usize {
    terms + crate::order::BLOCK
}

/// The rows `rows` of `source`: in place when possible, else copied to `copied`.
fn rows<'a, S: Left>(
    simd: Simd,
    source: &'a S,
    height: usize,
    rows: Range<usize>,
    copied: &'a mut [f16],
) -> InPlace<'a> {
    if let Some(rows) = source.in_place(height) {
        return rows;
    }
    let (row, first) = (pitch(source.terms()), rows.start);
    let count = rows.len().next_multiple_of(TILE_ROWS);
    let copied = &mut copied[..count * row];
    simd.run(CopyRows { source: *source, rows, pitch: row, copied });
    InPlace::matrix(copied, 0, row, first..first + count)
}

/// [`super::product`] on tiles.
pub(crate) fn product<S: Left>(
    kernels: &Kernels,
    source: S,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    (plan, scratch): (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    let (simd, terms) = (kernels.simd, plan.terms);
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let registers = Tiles::enter(simd).expect("invariant: `applies` looked");
        let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
        let decoded = if b.is_compressed() { panel_pairs(terms) } else { 0 };
        let (decoded, copied) = scratch.split_at_mut(decoded);
        let (range, columns) = plan.sides(tile);
        let left = rows(simd, &source, plan.rows, range.clone(), bytemuck::cast_slice_mut(copied));
        let mut sink = Sink { simd, epilogue, out: tile, turned: plan.turned };
        for start in columns.clone().step_by(COLUMNS) {
            let decoded = bytemuck::cast_slice_mut(decoded);
            let panel = b.part(simd, start / COLUMNS, 0..terms / crate::order::BLOCK, decoded);
            let columns = (start, (start + COLUMNS).min(columns.end));
            multiply_panel(&registers, (left, &range), (panel, columns), sums, &mut sink);
        }
    });
}

/// Scratch values that [`bmm`] needs for `rows` rows of `terms` terms.
pub(crate) fn bmm_scratch(rows: usize, terms: usize) -> usize {
    let copied = rows.next_multiple_of(TILE_ROWS) * pitch(terms.next_multiple_of(crate::order::BLOCK));
    STRIP_SUMS + panel_pairs(terms) + copied.div_ceil(2)
}

/// One part of [`super::bmm`] on tiles, for one pair of matrices.
pub(crate) fn bmm<S: Left>(
    simd: Simd,
    left: S,
    right: Strided<'_>,
    (height, terms): (usize, usize),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    let registers = Tiles::enter(simd).expect("invariant: `applies` looked");
    let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
    let (panel, copied) = scratch.split_at_mut(panel_pairs(terms));
    let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
    let (range, columns) = (tile.rows(), tile.columns());
    let left = rows(simd, &left, height, range.clone(), bytemuck::cast_slice_mut(copied));
    let mut sink = Sink { simd, epilogue, out: tile, turned: false };
    for start in columns.clone().step_by(COLUMNS) {
        let columns = start..(start + COLUMNS).min(columns.end);
        simd.run(PairColumns { source: right, columns: columns.clone(), terms, panel });
        multiply_panel(&registers, (left, &range), (panel, (columns.start, columns.end)), sums, &mut sink);
    }
}

/// The rows `rows` times the panel of the columns `columns`.
fn multiply_panel<'a>(
    registers: &Tiles,
    (left, rows): (InPlace<'a>, &Range<usize>),
    (panel, columns): (&'a [u32], (usize, usize)),
    sums: &mut [f32],
    sink: &mut Sink<'_, '_, '_>,
) {
    let (start, end) = left.positions(rows);
    let product = |index: usize| {
        let first = start + index * PRODUCT_ROWS;
        let positions = (first, end.min(first + PRODUCT_ROWS));
        Product { left, panel, positions, wanted: (rows.start, rows.end), columns }
    };
    let blocks = panel.len() / (PAIRS * COLUMNS);
    strips(registers, ((end - start).div_ceil(PRODUCT_ROWS), blocks), product, sums, sink);
}

/// Packs up to 32 columns of the right operand as `[k / 2][32]` pairs, padded with zeros. Rows of `source` are
/// terms.
pub(crate) struct PairColumns<'a> {
    pub(crate) source: Strided<'a>,
    pub(crate) columns: Range<usize>,
    pub(crate) terms: usize,
    pub(crate) panel: &'a mut [u32],
}

impl Task for PairColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let PairColumns { source, columns, terms, panel } = self;
        let (used, rest) = panel.split_at_mut(terms.div_ceil(2) * COLUMNS);
        rest.fill(0);
        let count = columns.len();
        if source.column == 1 {
            for (pair, target) in used.chunks_exact_mut(COLUMNS).enumerate() {
                let at = source.at(2 * pair, columns.start);
                let mut rows = [[f16::ZERO; COLUMNS]; 2];
                rows[0][..count].copy_from_slice(&source.data[at..at + count]);
                if 2 * pair + 1 < terms {
                    let at = source.at(2 * pair + 1, columns.start);
                    rows[1][..count].copy_from_slice(&source.data[at..at + count]);
                }
                target.copy_from_slice(&pair_up(&rows[0], &rows[1]));
            }
            return;
        }
        for (column, n) in columns.enumerate() {
            let at = source.at(0, n);
            let (pairs, rest) = source.data[at..at + terms].as_chunks::<2>();
            for (target, [first, second]) in used.chunks_exact_mut(COLUMNS).zip(pairs) {
                target[column] = u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16;
            }
            if let [value] = rest {
                used[pairs.len() * COLUMNS + column] = u32::from(value.to_bits());
            }
        }
    }
}

/// Pairs of the values of `first` and of `second`.
#[inline(always)]
fn pair_up<const N: usize>(first: &[f16; N], second: &[f16; N]) -> [u32; N] {
    std::array::from_fn(|at| u32::from(first[at].to_bits()) | u32::from(second[at].to_bits()) << 16)
}
