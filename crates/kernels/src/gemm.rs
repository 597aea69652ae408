//! Matrix products, in the order of [`crate::order::Dot`].

mod batch;
mod form;
mod left;
mod pack;
mod sink;
pub(crate) mod tiled;

use std::ops::Range;

use half::f16;

use crate::order::BLOCK;
use crate::simd::{
    COLUMNS, Cuts, Filled, Grid, PAIRS, Panel, Place, ROWS, STREAMS, Simd, Tile, expect_soon, lines_of,
    micro, tiles, vector, vector_of_stored,
};
use crate::{Epilogue, Kernels, Layout, Scratch};

pub use batch::{BatchShape, RowShape, bmm, bmm_scratch, row_product, row_product_scratch};
pub use pack::{PackedB, Weight};

pub(crate) use left::{Blocks, InPlace, Left, MatrixRows, PackRows, Strided};
pub(crate) use pack::{PackColumns, panel_pairs};
pub(crate) use sink::Sink;

/// Bytes of packed rows that should stay in the second-level cache.
const ROW_CACHE: usize = 768 << 10;
/// With more rows than this, a panel is converted to `f32` once instead of once per group of rows, where the kernel
/// does not multiply `f16`.
const CONVERT_ROWS: usize = 6;
/// Fewest rows of a tile, where there are so many.
const FEWEST_ROWS: usize = 4 * ROWS;
/// Rows of a tile that are worth the panels that are converted for them.
const MANY_ROWS: usize = 8 * ROWS;
/// Multiplications below which a product stays on its calling thread.
const SMALL: usize = 1 << 17;

/// Blocks of terms that are multiplied at a time, so that their part of a panel stays in the first-level cache.
const DEPTH: usize = 4;
/// Values of a panel's part, and of its pairs where they are decoded.
const PART: usize = DEPTH * (BLOCK + PAIRS) * COLUMNS;
/// Terms of operands that are both packed that go at a time, as whole panels of more leave the second-level cache; and the most
/// sums that are kept meanwhile.
const SLAB: usize = 1 << 10;
const MOST_SUMS: usize = 1 << 20;
/// Most values of packed rows that all threads share.
const SHARED: usize = 1 << 20;

/// How one product of `rows` times `[terms] x columns` is cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) grid: Grid,
    pub(crate) rows: usize,
    /// Terms, rounded up to whole blocks.
    pub(crate) terms: usize,
    /// The grid is that of the transposed result.
    pub(crate) turned: bool,
    /// Values of rows that are packed, or split, once for all threads; 0 when every tile does so with its own.
    pub(crate) shared: usize,
    /// Terms that are packed at a time, whole blocks: all of them, but where both operands are packed and have many.
    pub(crate) slab: usize,
    /// Scratch values per thread: sums, one panel or a part of it, then packed rows.
    pub(crate) per_worker: usize,
}

impl Plan {
    /// `panel`: whether every tile packs its rows and panels.
    pub(crate) fn new(threads: usize, batches: usize, shape: [usize; 3], panel: bool) -> Plan {
        let [rows, terms, columns] = shape;
        let work = batches * rows * terms * columns;
        let terms = terms.next_multiple_of(BLOCK);
        let row_limit = |terms: usize| (ROW_CACHE / 4 / terms.max(1)).clamp(FEWEST_ROWS, 512);
        let wide = columns.next_multiple_of(COLUMNS).max(COLUMNS);
        let in_slabs = panel && terms > SLAB && wide * rows.min(row_limit(SLAB)) <= MOST_SUMS;
        let slab = if in_slabs { SLAB } else { terms.max(BLOCK) };
        let wanted = if threads == 1 || work < SMALL { 1 } else { 4 * threads }.div_ceil(batches.max(1));
        let row_parts = row_parts(rows.div_ceil(row_limit(slab)).max(1), rows, wanted);
        let panels = wide / COLUMNS;
        let enough = 2 * row_parts >= wanted && row_parts.is_multiple_of(threads);
        let column_parts = if enough { 1 } else { wanted.div_ceil(row_parts).min(panels) };
        let groups = row_groups(rows);
        // Few columns: groups of rows are for several threads, if need be.
        let idle = wanted > 1 && row_parts * column_parts * batches < threads;
        let row_parts = if idle { groups.parts.min(threads).max(row_parts) } else { row_parts };
        let shared = if !panel && column_parts > 1 && rows * terms <= SHARED { rows * terms } else { 0 };
        let cut = Cuts::grouped(groups, row_parts);
        let rows_each = (groups.parts.div_ceil(row_parts) + 1) * ROWS;
        let packed = if shared > 0 { 0 } else { rows_each * slab };
        let panel = if panel { slab * COLUMNS } else { PART };
        let sums = rows_each * if in_slabs { wide } else { COLUMNS };
        Plan {
            grid: Grid::new(batches, cut, Cuts::new(columns, COLUMNS, column_parts)),
            rows,
            terms,
            turned: false,
            shared,
            slab,
            per_worker: (sums + panel + packed).next_multiple_of(16),
        }
    }

    /// With the transposed result, whose rows are the columns of the product.
    pub(crate) fn turned(self) -> Plan {
        let Grid { batches, rows, columns, .. } = self.grid;
        // In the order of the product's rows, as without.
        let grid = Grid { columns_first: true, ..Grid::new(batches, columns, rows) };
        Plan { grid, turned: true, ..self }
    }

    /// The cuts of the rows and of the columns of the product.
    pub(crate) fn cuts(&self) -> (Cuts, Cuts) {
        let Grid { rows, columns, .. } = self.grid;
        if self.turned { (columns, rows) } else { (rows, columns) }
    }

    /// The rows and the columns of the product that `tile` holds.
    pub(crate) fn sides(&self, tile: &Tile<'_, f16>) -> (Range<usize>, Range<usize>) {
        if self.turned { (tile.columns(), tile.rows()) } else { (tile.rows(), tile.columns()) }
    }

    pub(crate) fn scratch(&self, threads: usize) -> usize {
        self.shared.next_multiple_of(16) + self.per_worker * threads
    }
}

/// In how many parts so many rows are cut, at least `least`, where four parts of the product for each thread are `wanted`.
/// Threads that have rows of their own neither share cache lines nor read what another has just written, but each converts
/// all panels; with as many rows for one as for another, none waits.
fn row_parts(least: usize, rows: usize, wanted: usize) -> usize {
    let (parts, threads) = (least.max(wanted.min(rows / MANY_ROWS)), wanted.div_ceil(4));
    let more = parts.next_multiple_of(threads);
    match parts - parts % threads {
        _ if rows / more >= FEWEST_ROWS => more,
        0 => parts,
        fewer => fewer,
    }
}

/// Scratch values that [`gemm`] needs for `rows` rows.
#[must_use]
pub fn gemm_scratch(kernels: &Kernels, rows: usize, b: &PackedB) -> usize {
    plan(kernels, rows, b).scratch(kernels.pool.threads())
}

fn plan(kernels: &Kernels, rows: usize, b: &PackedB) -> Plan {
    let source =
        MatrixRows { source: Strided { data: &[], offset: 0, row: b.terms(), column: 1 }, terms: b.terms() };
    plan_for(kernels, source, rows, b)
}

/// How `rows` rows like those of `source` times `b` are cut.
pub(crate) fn plan_for<S: Left>(kernels: &Kernels, source: S, rows: usize, b: &PackedB) -> Plan {
    let threads = kernels.pool.threads();
    if let Some(factors) = tiled::factors(kernels, rows) {
        return tiled::plan(kernels, factors, source, rows, b);
    }
    Plan::new(threads, 1, [rows, b.terms(), b.columns()], false)
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
    let (from, to) = (Rows { start: 0, pitch: terms }, Rows { start: 0, pitch: columns });
    gemm_rows(kernels, (a, from), rows, b, epilogue, scratch, (out, to));
}

/// Rows of a matrix inside a slice: row `r` starts at element `start + r * pitch`, and its values are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first element of the first row.
    pub start: usize,
    /// Elements from one row to the next.
    pub pitch: usize,
}

impl Rows {
    /// The rows of a matrix `[rows, columns]` whose values are neighbours; `None` of another array.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Rows> {
        match (layout.extents(), layout.strides()) {
            (&[_, columns], &[pitch, step]) if step == 1 || columns <= 1 => {
                Some(Rows { start: layout.start(), pitch })
            }
            _ => None,
        }
    }

    /// The matrix of so many rows and columns.
    #[must_use]
    pub fn layout(&self, rows: usize, columns: usize) -> Layout {
        Layout::new(self.start, &[rows, columns], &[self.pitch, 1])
    }
}

/// [`gemm`] on rows that need not follow each other: `a` is read where `from` says and `out` written where `to` says;
/// what lies between its rows stays. A residual lies as `out` does.
///
/// # Panics
/// When a row does not lie in its slice, rows of `out` overlap, the bias does not fit, or a residual is shorter than
/// `out`.
pub fn gemm_rows(
    kernels: &Kernels,
    (a, from): (&[f16], Rows),
    rows: usize,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    (out, to): (&mut [f16], Rows),
) {
    let (terms, columns) = (b.terms(), b.columns());
    epilogue.check_in(rows, columns, out.len());
    if rows * columns == 0 {
        return;
    }
    let inside = from.layout(rows, terms).end().is_some_and(|end| end <= a.len());
    assert!(inside, "gemm: row {} of the left operand ends behind its slice", rows - 1);
    let mut plan = plan(kernels, rows, b);
    plan.grid.place = Place { start: to.start, row: to.pitch, ..plan.grid.place };
    let scratch = scratch.take(plan.scratch(kernels.pool.threads()));
    let source = Strided { data: a, offset: from.start, row: from.pitch, column: 1 };
    product(kernels, MatrixRows { source, terms }, b, epilogue, (&plan, scratch), out);
}

/// `plan`'s product of the rows of `source` and `b`.
pub(crate) fn product<S: Left>(
    kernels: &Kernels,
    source: S,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    (plan, scratch): (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    if let Some(factors) = tiled::factors(kernels, plan.rows) {
        return tiled::product(kernels, factors, source, b, epilogue, (plan, scratch), out);
    }
    let (simd, terms) = (kernels.simd, plan.terms);
    let (shared, scratch) = scratch.split_at_mut(plan.shared.next_multiple_of(16));
    let shared = &mut shared[..plan.shared];
    let all = row_groups(plan.rows);
    if plan.shared > 0 {
        pack_rows(kernels, source, all, shared);
    }
    let shared = &*shared;
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let (rows, mut columns) = plan.sides(tile);
        let (sums, scratch) = scratch.split_at_mut(sums_len(rows.len()));
        let (part, own) = scratch.split_at_mut(PART);
        let packed = if shared.is_empty() {
            let own = &mut own[..rows.len() * terms];
            simd.run(PackRows { source, rows: rows.clone(), groups: all, packed: own });
            &*own
        } else {
            &shared[rows.start * terms..rows.end * terms]
        };
        if rows.len() == 1 && !plan.turned {
            columns.start = vector_panels(simd, packed, b, epilogue, tile);
        }
        let mut sink = Sink { simd, epilogue, out: tile, turned: plan.turned };
        for start in columns.clone().step_by(COLUMNS) {
            let panel = (Right::Packed(b, start / COLUMNS), &mut *part);
            let columns = start..(start + COLUMNS).min(columns.end);
            let packed = Packed { values: packed, groups: all, filled: source.filled(), part: Part::WHOLE };
            multiply_panel(packed, panel, (rows.clone(), columns), sums, &mut sink);
        }
    });
}

/// A tile of one row, several panels at a time; returns the first column that is left.
fn vector_panels(
    simd: Simd,
    packed: &[f32],
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    tile: &mut Tile<'_, f16>,
) -> usize {
    let (mut start, end, row) = (tile.columns().start, tile.columns().end, tile.rows().start);
    while start < end {
        let mut sums = [[0.0; COLUMNS]; STREAMS];
        let (first, count) = (start / COLUMNS, (end - start).div_ceil(COLUMNS).min(STREAMS));
        if b.is_compressed() {
            let stored = |stream: usize| {
                let index = first + stream.min(count - 1);
                b.stored(index, 0..packed.len() / BLOCK).expect("invariant: compressed")
            };
            let panels: [_; STREAMS] = std::array::from_fn(stored);
            if !vector_of_stored(simd, packed, &panels[..count], &mut sums[..count]) {
                break;
            }
        } else {
            let whole = start + STREAMS * COLUMNS <= end;
            let Some(panels) = whole.then(|| b.panels(first, STREAMS)).flatten() else { break };
            vector(simd, packed, panels, &mut sums);
        }
        for sums in &sums[..count] {
            let columns = start..(start + COLUMNS).min(end);
            start = columns.end;
            epilogue.store(simd, std::slice::from_ref(sums), (row..row + 1, columns), tile);
        }
    }
    start
}

/// Packs all rows of the left operand, each group once.
fn pack_rows<S: Left>(kernels: &Kernels, source: S, groups: Cuts, packed: &mut [f32]) {
    let terms = source.terms();
    let rows = Cuts::grouped(groups, groups.parts.min(2 * kernels.pool.threads()));
    let grid = Grid::new(1, rows, Cuts::new(terms, terms, 1));
    tiles(&kernels.pool, packed, grid, (&mut [], 0), |tile, _| {
        let rows = tile.rows();
        kernels.simd.run(PackRows { source, rows, groups, packed: tile.whole_rows() });
    });
}

/// Values of the sums of `rows` rows of a panel.
pub(crate) fn sums_len(rows: usize) -> usize {
    rows * COLUMNS
}

/// The right operand of a tile.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// A panel `[k][32]`.
    Panel(&'a [f32]),
    /// A panel of a packed operand.
    Packed(&'a PackedB, usize),
}

/// Rows of the left operand, packed in those of `groups` that they consist of.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) groups: Cuts,
    pub(crate) filled: Filled,
    pub(crate) part: Part,
}

/// Which of their blocks these are.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Blocks before them, whose products the sums hold.
    pub(crate) before: usize,
    /// Whether no more follow.
    pub(crate) last: bool,
}

impl Part {
    /// All.
    pub(crate) const WHOLE: Part = Part { before: 0, last: true };
}

/// The rows `rows` times a panel, whose columns are `columns`. `part` holds a part of a packed panel while it is used.
pub(crate) fn multiply_panel(
    packed: Packed<'_>,
    (panel, part): (Right<'_>, &mut [f32]),
    (rows, columns): (Range<usize>, Range<usize>),
    sums: &mut [f32],
    sink: &mut Sink<'_, '_, '_>,
) {
    let Packed { values: packed, groups, filled, part: of } = packed;
    let (simd, terms) = (sink.simd, packed.len() / rows.len());
    let blocks = terms / BLOCK;
    let sums = &mut sums.as_chunks_mut::<COLUMNS>().0[..rows.len()];
    if blocks == 0 {
        sums.fill([0.0; COLUMNS]);
        return sink.store(sums, rows, columns);
    }
    let decodes = matches!(panel, Right::Packed(b, _) if b.is_compressed() && rows.len() <= CONVERT_ROWS);
    let depth = if decodes { 1 } else { DEPTH };
    // Rows are stored while their sums are in the first-level cache, but for transposed ones, many of which go at once.
    let one_part = of.before == 0 && of.last && blocks <= depth;
    let (at_once, many) = (sink.turned, rows.len() > CONVERT_ROWS);
    for first in (0..blocks).step_by(depth) {
        let last = (first + depth).min(blocks);
        // What is converted next comes from afar: each group asks for a share of it. The kernel for few rows looks ahead itself.
        let share = (depth * PAIRS * COLUMNS).div_ceil(groups_of(rows.len()));
        let mut next = panel.behind(last, if many { depth } else { 0 }).chunks(share);
        let panel = panel.part(simd, first..last, many, part);
        for group in groups.inside(&rows) {
            let (from, size) = (group.start - rows.start, group.len());
            let at = from * terms;
            let a = &packed[at + first * size * BLOCK..at + last * size * BLOCK];
            let sums = &mut sums[if one_part && !at_once { 0 } else { from }..][..size];
            expect_soon(next.next().into_iter().flat_map(lines_of));
            micro(simd, (a, size), (of.before + first, filled), (panel, columns.len()), sums);
            if of.last && last == blocks && !at_once {
                sink.store(sums, group, columns.clone());
            }
        }
    }
    if at_once && of.last {
        sink.store(sums, rows, columns);
    }
}

impl Right<'_> {
    /// The pairs of `count` blocks from block `block` on, where they are held so, for those who look ahead: behind the last
    /// block of a panel comes the first one of the next.
    fn behind(&self, block: usize, count: usize) -> &[u32] {
        match self {
            Right::Packed(b, index) => b.behind(*index, block * PAIRS * COLUMNS, count * PAIRS * COLUMNS),
            Right::Panel(_) => &[],
        }
    }

    /// The blocks `blocks`, as `f32` for many rows; `part` holds them.
    fn part<'a>(&'a self, simd: Simd, blocks: Range<usize>, many: bool, part: &'a mut [f32]) -> Panel<'a> {
        let size = blocks.len() * BLOCK * COLUMNS;
        match *self {
            Right::Panel(values) => Panel::F32(&values[blocks.start * BLOCK * COLUMNS..][..size]),
            Right::Packed(b, index) => {
                let (wide, pairs) = part.split_at_mut(DEPTH * BLOCK * COLUMNS);
                let pairs = b.part(simd, index, blocks, bytemuck::cast_slice_mut(pairs));
                if !many || simd.prefers_pairs() {
                    return Panel::Pairs(pairs);
                }
                simd.run(Widen { source: pairs, target: &mut wide[..size] });
                Panel::F32(&wide[..size])
            }
        }
    }
}

/// `rows` rows in groups of nearly equal size that fit the matrix kernel.
pub(crate) fn row_groups(rows: usize) -> Cuts {
    Cuts::new(rows, 1, groups_of(rows))
}

/// How many groups those are.
fn groups_of(rows: usize) -> usize {
    rows.div_ceil(ROWS)
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
