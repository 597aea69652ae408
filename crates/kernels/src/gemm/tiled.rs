//! Matrix products on tile registers: the same sums as the other paths, 32 rows and 32 columns at a time.

use std::ops::Range;

use half::f16;

use super::{PackedB, Plan, Strided, panel_pairs};
use crate::order::BLOCK;
use crate::simd::{
    COLUMNS, Cuts, Grid, Lanes, PAIRS, PRODUCT_ROWS, Simd, TILE_ROWS, Task, Tile, TileRows, Tiles, tiles,
};
use crate::{Epilogue, Kernels};

/// Blocks of an operand that stay in the first-level cache while the other one passes.
const DEPTH: usize = 16;
/// Products that share the operand in the first-level cache.
pub(crate) const STRIP: usize = 8;
/// Sums of the products of a strip.
pub(crate) const STRIP_SUMS: usize = STRIP * PRODUCT_ROWS * COLUMNS;
/// Bytes of rows that should stay in the second-level cache.
const ROW_CACHE: usize = 768 << 10;
/// With fewer rows than this a tile is mostly empty, and reading the right operand is what takes the time.
const FEWEST_ROWS: usize = 7;

/// Whether a product of `rows` rows runs on tiles.
pub(super) fn applies(kernels: &Kernels, rows: usize) -> bool {
    Tiles::usable(kernels.simd) && rows >= FEWEST_ROWS
}

/// Up to 32 rows times a panel.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The rows of one or two tiles; the second may repeat the first.
    pub(crate) left: [TileRows<'a>; 2],
    pub(crate) panel: &'a [u32],
    /// The rows and columns of the output.
    pub(crate) rows: (usize, usize),
    pub(crate) columns: (usize, usize),
    /// Rows at the start of each tile that belong to another product.
    pub(crate) skip: [usize; 2],
}

impl Product<'_> {
    fn tiles(&self) -> usize {
        (self.rows.1 - self.rows.0).div_ceil(TILE_ROWS)
    }

    fn multiply(&self, tiles: &Tiles, blocks: Range<usize>, sums: &mut [[f32; COLUMNS]]) {
        let left = self.left.map(|rows| rows.skip(blocks.start));
        let step = PAIRS * COLUMNS;
        let panel = &self.panel[blocks.start * step..blocks.end * step];
        tiles.multiply(&left[..self.tiles()], panel, sums, blocks.start > 0);
    }

    fn store(&self, simd: Simd, epilogue: &Epilogue<'_>, sums: &[[f32; COLUMNS]], out: &mut Tile<'_, f16>) {
        for (tile, sums) in sums.chunks_exact(TILE_ROWS).take(self.tiles()).enumerate() {
            let first = self.rows.0 + tile * TILE_ROWS;
            let rows = first..(first + TILE_ROWS).min(self.rows.1);
            epilogue.store(simd, &sums[self.skip[tile]..], (rows, self.columns.0..self.columns.1), out);
        }
    }
}

/// Where the sums of a product go.
pub(crate) struct Sink<'a, 'b, 'c> {
    pub(crate) simd: Simd,
    pub(crate) epilogue: &'a Epilogue<'b>,
    pub(crate) out: &'a mut Tile<'c, f16>,
}

/// Computes and stores `count` products of `blocks` blocks that share an operand. A product is stored while the
/// tiles work on the next one.
pub(crate) fn strips<'p>(
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
                    product(index - 1).store(sink.simd, sink.epilogue, &sums[at - PRODUCT_ROWS..], sink.out);
                }
            }
        }
        let at = (strip.len() - 1) * PRODUCT_ROWS;
        product(strip.end - 1).store(sink.simd, sink.epilogue, &sums[at..], sink.out);
    }
}

/// The left operand as tiles read it: `f16` rows `row` values apart, of whole blocks.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    data: &'a [f16],
    offset: usize,
    row: usize,
    /// The row of the output that the first row belongs to.
    first: usize,
    /// At least 16.
    rows: usize,
}

impl<'a> Left<'a> {
    /// Rows `rows` of `source`: in place when possible, else copied to `packed`.
    pub(crate) fn new(
        simd: Simd,
        source: Strided<'a>,
        (height, terms): (usize, usize),
        rows: Range<usize>,
        packed: &'a mut [f16],
    ) -> Left<'a> {
        if in_place(&source, height, terms) {
            return Left {
                data: source.data,
                offset: source.offset,
                row: source.row,
                first: 0,
                rows: height,
            };
        }
        let (row, first) = (pitch(terms), rows.start);
        let count = rows.len().next_multiple_of(TILE_ROWS);
        let packed = &mut packed[..count * row];
        simd.run(CopyRows { source, rows, terms, packed });
        Left { data: packed, offset: 0, row, first, rows: count }
    }

    /// The product of the rows from `start` (up to `end`) and `panel`.
    pub(crate) fn product(
        &self,
        (start, end): (usize, usize),
        panel: &'a [u32],
        columns: (usize, usize),
    ) -> Product<'a> {
        let end = end.min(start + PRODUCT_ROWS);
        let mut skip = [0; 2];
        let mut left = [0, 1].map(|tile| {
            let wanted = start - self.first + tile * TILE_ROWS;
            let row = wanted.min(self.rows - TILE_ROWS);
            skip[tile] = wanted - row;
            TileRows { data: self.data, start: self.offset + row * self.row, row: self.row, block: BLOCK }
        });
        if end - start <= TILE_ROWS {
            left[1] = left[0];
        }
        Product { left, panel, rows: (start, end), columns, skip }
    }
}

pub(super) fn in_place(source: &Strided<'_>, height: usize, terms: usize) -> bool {
    source.column == 1 && terms.is_multiple_of(BLOCK) && height >= TILE_ROWS
}

/// Values from one copied row to the next: a line more than the row, or all rows would share few cache sets.
fn pitch(terms: usize) -> usize {
    terms.next_multiple_of(BLOCK) + BLOCK
}

/// How to cut a product, and scratch values per thread: sums, a panel when the right operand is not packed, and
/// copied rows when the left one is not read in place.
pub(super) fn plan(
    threads: usize,
    batches: usize,
    [rows, terms, columns]: [usize; 3],
    (panel, packed): (bool, bool),
) -> Plan {
    let row_limit = (ROW_CACHE / 2 / terms.max(1)).clamp(PRODUCT_ROWS, 1024);
    let row_parts = rows.div_ceil(row_limit).max(1);
    let wanted =
        if threads == 1 || batches * rows * terms * columns < super::SMALL { 1 } else { 4 * threads };
    let panels = columns.div_ceil(COLUMNS).max(1);
    let column_parts = wanted.div_ceil(batches.max(1) * row_parts).min(panels);
    let rows_cut = Cuts::new(rows, PRODUCT_ROWS, row_parts);
    let rows_each = (rows.div_ceil(PRODUCT_ROWS).div_ceil(row_parts) + 1) * PRODUCT_ROWS;
    let copied = if packed { rows_each * pitch(terms) / 2 } else { 0 };
    let panel = if panel { panel_pairs(terms) } else { 0 };
    Plan {
        grid: Grid { batches, rows: rows_cut, columns: Cuts::new(columns, COLUMNS, column_parts) },
        terms: terms.next_multiple_of(BLOCK),
        shared: 0,
        per_worker: (STRIP_SUMS + panel + copied).next_multiple_of(16),
    }
}

/// [`super::gemm`] on tiles.
pub(super) fn gemm(
    kernels: &Kernels,
    source: Strided<'_>,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    (plan, scratch): (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    let (simd, terms, height) = (kernels.simd, b.terms(), plan.grid.rows.total());
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let registers = Tiles::enter(simd).expect("invariant: `applies` looked");
        let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
        let decoded = if b.is_compressed() { panel_pairs(terms) } else { 0 };
        let (decoded, packed) = scratch.split_at_mut(decoded);
        let packed = bytemuck::cast_slice_mut(packed);
        let left = Left::new(simd, source, (height, terms), tile.rows(), packed);
        for start in tile.columns().step_by(COLUMNS) {
            let decoded = bytemuck::cast_slice_mut(decoded);
            let panel = b.part(simd, start / COLUMNS, 0..terms.div_ceil(BLOCK), decoded);
            multiply_panel(&registers, &left, panel, start, sums, simd, epilogue, tile);
        }
    });
}

/// One part of [`super::bmm`] on tiles, for one pair of matrices.
pub(super) fn bmm(
    simd: Simd,
    left: Strided<'_>,
    right: Strided<'_>,
    (height, terms): (usize, usize),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    let registers = Tiles::enter(simd).expect("invariant: `applies` looked");
    let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
    let (panel, packed) = scratch.split_at_mut(panel_pairs(terms));
    let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
    let left = Left::new(simd, left, (height, terms), tile.rows(), bytemuck::cast_slice_mut(packed));
    for start in tile.columns().step_by(COLUMNS) {
        let columns = start..(start + COLUMNS).min(tile.columns().end);
        simd.run(PairColumns { source: right, columns, terms, panel });
        multiply_panel(&registers, &left, panel, start, sums, simd, epilogue, tile);
    }
}

/// All rows of `tile` times the panel of the columns from `start`.
#[expect(clippy::too_many_arguments, reason = "operands, registers, sums, result")]
pub(super) fn multiply_panel<'a>(
    registers: &Tiles,
    left: &Left<'a>,
    panel: &'a [u32],
    start: usize,
    sums: &mut [f32],
    simd: Simd,
    epilogue: &Epilogue<'_>,
    tile: &mut Tile<'_, f16>,
) {
    let rows = tile.rows();
    let columns = (start, (start + COLUMNS).min(tile.columns().end));
    let count = rows.len().div_ceil(PRODUCT_ROWS);
    let product = |index: usize| left.product((rows.start + index * PRODUCT_ROWS, rows.end), panel, columns);
    let blocks = panel.len() / (PAIRS * COLUMNS);
    strips(registers, (count, blocks), product, sums, &mut Sink { simd, epilogue, out: tile });
}

/// Copies rows, padded with zeros to whole blocks; rows are [`pitch`] apart.
struct CopyRows<'a> {
    source: Strided<'a>,
    rows: Range<usize>,
    terms: usize,
    packed: &'a mut [f16],
}

impl Task for CopyRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let CopyRows { source, rows, terms, packed } = self;
        let pitch = pitch(terms);
        if source.column == 1 {
            for (row, target) in rows.zip(packed.chunks_exact_mut(pitch)) {
                let at = source.at(row, 0);
                target[..terms].copy_from_slice(&source.data[at..at + terms]);
                target[terms..].fill(f16::ZERO);
            }
            return;
        }
        packed.fill(f16::ZERO);
        for k in 0..terms {
            let at = source.at(rows.start, k);
            for (row, &value) in source.data[at..at + rows.len()].iter().enumerate() {
                packed[row * pitch + k] = value;
            }
        }
    }
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
