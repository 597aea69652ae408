//! Matrix products, in the order of [`crate::order::Dot`].

mod batch;
mod pack;
mod tiled;

use half::f16;

use crate::order::BLOCK;
use crate::simd::{COLUMNS, Cuts, Grid, Panel, ROWS, Simd, Tile, TileBuffer, micro, tiles};
use crate::{Epilogue, Kernels, Scratch};

pub use batch::{BatchShape, bmm, bmm_scratch};
pub use pack::{PackedB, Weight};

pub(crate) use pack::{PackColumns, PackRows, Strided, panel_pairs};
pub(crate) use tiled::{Product, STRIP_SUMS, Sink, strips};

/// Bytes of packed rows that should stay in the second-level cache.
const ROW_CACHE: usize = 768 << 10;
/// With more rows than this, a panel is converted to `f32` once instead of once per group of rows.
const CONVERT_ROWS: usize = 6;
/// Multiplications below which a product stays on its calling thread.
const SMALL: usize = 1 << 17;

/// How one product of `rows` times `[terms] x columns` is cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) grid: Grid,
    /// Terms, rounded up to whole blocks.
    pub(crate) terms: usize,
    /// Scratch values per thread: packed rows, then one panel.
    pub(crate) per_worker: usize,
}

impl Plan {
    pub(crate) fn new(threads: usize, batches: usize, rows: usize, terms: usize, columns: usize) -> Plan {
        let work = batches * rows * terms * columns;
        let terms = terms.next_multiple_of(BLOCK);
        let row_limit = (ROW_CACHE / 4 / terms.max(1)).clamp(ROWS, 512);
        let row_parts = rows.div_ceil(row_limit).max(1);
        let panels = columns.div_ceil(COLUMNS).max(1);
        let wanted = if threads == 1 || work < SMALL { 1 } else { 4 * threads };
        let column_parts = wanted.div_ceil(batches.max(1) * row_parts).min(panels);
        let rows_each = rows.div_ceil(row_parts) + 1;
        Plan {
            grid: Grid {
                batches,
                rows: Cuts::new(rows, 1, row_parts),
                columns: Cuts::new(columns, COLUMNS, column_parts),
            },
            terms,
            per_worker: (rows_each * terms + terms * COLUMNS).next_multiple_of(16),
        }
    }
}

/// Scratch values that [`gemm`] needs for `rows` rows.
#[must_use]
pub fn gemm_scratch(kernels: &Kernels, rows: usize, b: &PackedB) -> usize {
    plan(kernels, rows, b).per_worker * kernels.pool.threads()
}

fn plan(kernels: &Kernels, rows: usize, b: &PackedB) -> Plan {
    let threads = kernels.pool.threads();
    if tiled::applies(kernels, rows) {
        let source = Strided { data: &[], offset: 0, row: b.terms(), column: 1 };
        let copies = !tiled::in_place(&source, rows, b.terms());
        return tiled::plan(threads, 1, [rows, b.terms(), b.columns()], (false, copies));
    }
    Plan::new(threads, 1, rows, b.terms(), b.columns())
}

/// `out[m][n] = epilogue(sum over k of a[m][k] b[k][n])` with `a` `[M, K]` and `out` `[M, N]`, row-major.
///
/// # Panics
/// When `a` is not `rows * K` long, `out` not `rows * N`, or the bias does not fit.
pub fn gemm(
    kernels: &Kernels,
    a: &[f16],
    rows: usize,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let (terms, columns) = (b.terms(), b.columns());
    assert_eq!(a.len(), rows * terms, "gemm: left operand is not [{rows}, {terms}]");
    assert_eq!(out.len(), rows * columns, "gemm: output is not [{rows}, {columns}]");
    epilogue.check(rows, columns, 1);
    if out.is_empty() {
        return;
    }
    let plan = plan(kernels, rows, b);
    let scratch = scratch.take(plan.per_worker * kernels.pool.threads());
    let source = Strided { data: a, offset: 0, row: terms, column: 1 };
    if tiled::applies(kernels, rows) {
        tiled::gemm(kernels, source, b, epilogue, (&plan, scratch), out);
    } else {
        by_panels(kernels, source, b, epilogue, (&plan, scratch), out);
    }
}

fn by_panels(
    kernels: &Kernels,
    source: Strided<'_>,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    (plan, scratch): (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    let (simd, terms) = (kernels.simd, b.terms());
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let (packed, panel) = scratch.split_at_mut(scratch.len() - plan.terms * COLUMNS);
        let packed = &mut packed[..tile.rows().len() * plan.terms];
        simd.run(PackRows { source, rows: tile.rows(), terms, packed });
        let groups = row_groups(tile.rows().len());
        for start in tile.columns().step_by(COLUMNS) {
            let pairs = b.panel(start / COLUMNS);
            let panel = if tile.rows().len() > CONVERT_ROWS {
                simd.run(Widen { source: pairs, target: panel });
                Panel::F32(panel)
            } else {
                Panel::Pairs(pairs)
            };
            multiply_panel(simd, (packed, groups.sizes()), panel, start, epilogue, tile);
        }
    });
}

/// All rows of `tile`, packed in `rows` in groups of `sizes` rows, times the panel of the columns from `start`.
pub(crate) fn multiply_panel(
    simd: Simd,
    (mut rows, sizes): (&[f32], impl Iterator<Item = usize>),
    panel: Panel<'_>,
    start: usize,
    epilogue: &Epilogue<'_>,
    tile: &mut Tile<'_, f16>,
) {
    let terms = rows.len() / tile.rows().len();
    let columns = start..(start + COLUMNS).min(tile.columns().end);
    let mut first = tile.rows().start;
    for count in sizes {
        let (packed, rest) = rows.split_at(count * terms);
        let mut sums = TileBuffer::zero();
        micro(simd, packed, count, panel, &mut sums);
        epilogue.store(simd, sums.rows(), (first..first + count, columns.clone()), tile);
        rows = rest;
        first += count;
    }
}

/// `rows` rows in groups of nearly equal size that fit the matrix kernel.
pub(crate) fn row_groups(rows: usize) -> Cuts {
    Cuts::new(rows, 1, rows.div_ceil(ROWS))
}

struct Widen<'a> {
    source: &'a [u32],
    target: &'a mut [f32],
}

impl crate::simd::Task for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: crate::simd::Lanes>(self) {
        for (pairs, values) in self.source.as_chunks().0.iter().zip(self.target.as_chunks_mut().0) {
            L::widen_pairs(pairs, values);
        }
    }
}
