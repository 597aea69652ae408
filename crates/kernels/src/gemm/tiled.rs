//! Matrix products on tile registers, 32 rows and 32 columns at a time: of `f16` numbers ([`halves`]), with the sums of
//! the other paths, or of their parts ([`parts`]).

mod halves;
mod parts;

use std::ops::Range;

use half::f16;

use super::left::{InPlace, Left, Strided};
use super::{PackedB, Plan, Sink};
use crate::order::BLOCK;
use crate::simd::{
    COLUMNS, Cuts, Factor, Factors, Grid, Lanes, PRODUCT_ROWS, TILE_ROWS, Task, Tile, TilePanel, TileRows,
    Tiles,
};
use crate::{Epilogue, Kernels};

/// Bytes of a panel that stay in the first-level cache while rows pass.
const PANEL_CACHE: usize = 32 << 10;
/// Products that share the operand in the first-level cache.
const STRIP: usize = 8;
/// Sums of the products of a strip.
const STRIP_SUMS: usize = STRIP * PRODUCT_ROWS * COLUMNS;
/// Bytes of rows that should stay in the second-level cache.
const ROW_CACHE: usize = 768 << 10;
/// With fewer rows than this a tile is mostly empty, and reading the right operand is what takes the time.
const FEWEST_ROWS: usize = 7;

/// What tiles multiply in a product of `rows` rows, if it runs on tiles.
pub(crate) fn factors(kernels: &Kernels, rows: usize) -> Option<Factors> {
    kernels.tiles().filter(|_| rows >= FEWEST_ROWS)
}

/// How to cut the product of the rows of `source` and `b`, and scratch values.
pub(crate) fn plan<S: Left>(
    kernels: &Kernels,
    factors: Factors,
    source: S,
    rows: usize,
    b: &PackedB,
) -> Plan {
    let threads = kernels.pool.threads();
    match factors {
        Factors::Halves => halves::plan(threads, &source, rows, b),
        Factors::Parts => parts::plan(threads, &source, rows, b),
    }
}

/// [`super::product`] on tiles.
pub(crate) fn product<S: Left>(
    kernels: &Kernels,
    factors: Factors,
    source: S,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    work: (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    match factors {
        Factors::Halves => halves::product(kernels, source, b, epilogue, work, out),
        Factors::Parts => parts::product(kernels, source, b, epilogue, work, out),
    }
}

/// How to cut `batches` products of operands that are not packed.
pub(crate) fn bmm_plan(kernels: &Kernels, factors: Factors, batches: usize, shape: [usize; 3]) -> Plan {
    let own = match factors {
        Factors::Halves => halves::bmm_scratch,
        Factors::Parts => parts::bmm_scratch,
    };
    let bytes = match factors {
        Factors::Halves => size_of::<f16>(),
        Factors::Parts => size_of::<crate::simd::Part>(),
    };
    let [rows, terms, columns] = shape;
    let terms = terms.next_multiple_of(BLOCK);
    let (grid, rows_each) = cut(kernels.pool.threads(), batches, [rows, terms, columns], bytes);
    Plan {
        grid,
        rows,
        terms,
        turned: false,
        shared: 0,
        slab: terms,
        per_worker: own(rows_each, terms).next_multiple_of(16),
    }
}

/// Scratch values that [`bmm`] needs for `rows` rows of `terms` terms, whatever tiles multiply.
pub(crate) fn bmm_scratch(rows: usize, terms: usize) -> usize {
    halves::bmm_scratch(rows, terms).max(parts::bmm_scratch(rows, terms))
}

/// One part of [`super::bmm`] on tiles, for one pair of matrices of `shape` rows and terms.
pub(crate) fn bmm<S: Left>(
    kernels: &Kernels,
    factors: Factors,
    (left, right): (S, Strided<'_>),
    shape: (usize, usize),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    match factors {
        Factors::Halves => halves::bmm(kernels.simd, left, right, shape, epilogue, scratch, tile),
        Factors::Parts => parts::bmm(kernels.simd, left, right, shape, epilogue, scratch, tile),
    }
}

/// How products are cut whose rows hold terms of `bytes` bytes, and the most rows of a part.
fn cut(threads: usize, batches: usize, [rows, terms, columns]: [usize; 3], bytes: usize) -> (Grid, usize) {
    let row_limit = (ROW_CACHE / bytes / terms.max(1)).clamp(PRODUCT_ROWS, 1024);
    let row_parts = rows.div_ceil(row_limit).max(1);
    let wanted =
        if threads == 1 || batches * rows * terms * columns < super::SMALL { 1 } else { 4 * threads };
    let panels = columns.div_ceil(COLUMNS).max(1);
    let column_parts = wanted.div_ceil(batches.max(1) * row_parts).min(panels);
    let rows_cut = Cuts::new(rows, PRODUCT_ROWS, row_parts);
    let rows_each = (rows.div_ceil(PRODUCT_ROWS).div_ceil(row_parts) + 1) * PRODUCT_ROWS;
    (Grid::new(batches, rows_cut, Cuts::new(columns, COLUMNS, column_parts)), rows_each)
}

/// Values from one copied row to the next: a line more than the row, or all rows would share few cache sets.
fn pitch(terms: usize) -> usize {
    terms + BLOCK
}

/// Up to 32 positions of the left operand times a panel.
#[derive(Clone, Copy)]
struct Product<'a, F> {
    left: InPlace<'a, F>,
    panel: TilePanel<'a>,
    /// The first position, and one past the last.
    positions: (usize, usize),
    /// The rows that are stored.
    wanted: (usize, usize),
    columns: (usize, usize),
}

impl<'a, F: Factor> Product<'a, F> {
    fn tiles(&self) -> usize {
        (self.positions.1 - self.positions.0).div_ceil(TILE_ROWS)
    }

    /// The rows of tile `index`, and how many of them belong to the product before.
    fn rows(&self, index: usize) -> (TileRows<'a, F>, usize) {
        self.left.tile(self.positions.0 + index * TILE_ROWS)
    }

    fn multiply(&self, tiles: &Tiles, blocks: Range<usize>, sums: &mut [[f32; COLUMNS]]) {
        let (first, count) = (self.rows(0).0, self.tiles());
        let left = [first, if count > 1 { self.rows(1).0 } else { first }];
        let pairs = &self.panel.pairs[blocks.start * F::PAIRS..blocks.end * F::PAIRS];
        let panel = TilePanel { pairs, ..self.panel };
        let (skip, offsets) = self.left.blocks.get(blocks.clone());
        let left = left.map(|rows| TileRows { start: rows.start + skip, ..rows });
        tiles.multiply((&left[..count], offsets), panel, sums, blocks.start > 0);
    }

    /// Stores the sums, after `repair` has seen those of each run of rows.
    fn store(
        &self,
        sink: &mut Sink<'_, '_, '_>,
        repair: &mut impl FnMut(Range<usize>, &mut [[f32; COLUMNS]]),
        sums: &mut [[f32; COLUMNS]],
    ) {
        let columns = self.columns.0..self.columns.1;
        for (tile, sums) in sums.chunks_exact_mut(TILE_ROWS).take(self.tiles()).enumerate() {
            let sums = &mut sums[self.rows(tile).1..];
            let first = self.positions.0 + tile * TILE_ROWS;
            let positions = first..(first + TILE_ROWS).min(self.positions.1);
            for (at, rows) in self.left.rows(positions) {
                let skip = self.wanted.0.saturating_sub(rows.start).min(rows.len());
                let rows = rows.start + skip..rows.end.min(self.wanted.1).max(rows.start + skip);
                if !rows.is_empty() {
                    let sums = &mut sums[at + skip - first..][..rows.len()];
                    repair(rows.clone(), sums);
                    sink.store(sums, rows, columns.clone());
                }
            }
        }
    }
}

/// Computes and stores `count` products of `blocks` blocks that share a panel. A product is stored while the tiles
/// work on the next one.
fn strips<'p, F: Factor + 'p>(
    tiles: &Tiles,
    (count, blocks): (usize, usize),
    product: impl Fn(usize) -> Product<'p, F>,
    sums: &mut [f32],
    sink: &mut Sink<'_, '_, '_>,
    mut repair: impl FnMut(Range<usize>, &mut [[f32; COLUMNS]]),
) {
    let depth = PANEL_CACHE / (F::PAIRS * size_of::<u32>());
    let (sums, _) = sums.as_chunks_mut::<COLUMNS>();
    for first in (0..count).step_by(STRIP) {
        let strip = first..(first + STRIP).min(count);
        let parts = Cuts::new(blocks, 1, blocks.div_ceil(depth));
        for part in 0..parts.parts {
            let last = part + 1 == parts.parts;
            for index in strip.clone() {
                let at = (index - first) * PRODUCT_ROWS;
                product(index).multiply(tiles, parts.range(part), &mut sums[at..at + PRODUCT_ROWS]);
                if last && index > first {
                    product(index - 1).store(sink, &mut repair, &mut sums[at - PRODUCT_ROWS..at]);
                }
            }
        }
        let at = (strip.len() - 1) * PRODUCT_ROWS;
        product(strip.end - 1).store(sink, &mut repair, &mut sums[at..at + PRODUCT_ROWS]);
    }
}

/// The rows `rows` times the panel of the columns `columns`.
fn multiply_panel<'a, F: Factor>(
    registers: &Tiles,
    (left, rows): (InPlace<'a, F>, &Range<usize>),
    (panel, columns): (TilePanel<'a>, (usize, usize)),
    sums: &mut [f32],
    sink: &mut Sink<'_, '_, '_>,
    repair: impl FnMut(Range<usize>, &mut [[f32; COLUMNS]]),
) {
    let (start, end) = left.positions(rows);
    let product = |index: usize| {
        let first = start + index * PRODUCT_ROWS;
        let positions = (first, end.min(first + PRODUCT_ROWS));
        Product { left, panel, positions, wanted: (rows.start, rows.end), columns }
    };
    let blocks = panel.pairs.len() / F::PAIRS;
    strips(registers, ((end - start).div_ceil(PRODUCT_ROWS), blocks), product, sums, sink, repair);
}

/// Packs up to 32 columns of the right operand as `[k / 2][32]` pairs, padded with zeros. Rows of `source` are
/// terms.
struct PairColumns<'a> {
    source: Strided<'a>,
    columns: Range<usize>,
    terms: usize,
    panel: &'a mut [u32],
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
