//! Products of `f16` numbers.

use std::ops::Range;

use half::f16;

use super::super::left::{CopyRows, InPlace, Left, Strided};
use super::super::{PackedB, Plan, Sink, panel_pairs};
use super::{PairColumns, STRIP_SUMS, cut, multiply_panel, pitch};
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Simd, TILE_ROWS, Tile, TilePanel, Tiles, tiles};
use crate::{Epilogue, Kernels};

/// See [`super::plan`]. Scratch is sums, a panel where the right operand is compressed, and copied rows where the left
/// one is not read in place.
pub(super) fn plan<S: Left>(threads: usize, source: &S, rows: usize, b: &PackedB) -> Plan {
    let terms = source.terms();
    let (grid, rows_each) = cut(threads, 1, [rows, terms, b.columns()], size_of::<f16>());
    let copied = if source.in_place(rows).is_none() { rows_each * pitch(terms) / 2 } else { 0 };
    let panel = if b.is_compressed() { panel_pairs(terms) } else { 0 };
    let per_worker = (STRIP_SUMS + panel + copied).next_multiple_of(16);
    Plan { grid, rows, terms, turned: false, shared: 0, slab: terms, per_worker }
}

/// The rows `rows` of `source`: in place when possible, else copied to `copied`.
fn rows<'a, S: Left>(
    simd: Simd,
    source: &'a S,
    height: usize,
    rows: Range<usize>,
    copied: &'a mut [f16],
) -> InPlace<'a, f16> {
    if let Some(rows) = source.in_place(height) {
        return rows;
    }
    let (row, first) = (pitch(source.terms()), rows.start);
    let count = rows.len().next_multiple_of(TILE_ROWS);
    let copied = &mut copied[..count * row];
    simd.run(CopyRows { source: *source, rows, pitch: row, copied });
    InPlace::matrix(copied, 0, row, first..first + count)
}

/// See [`super::product`].
pub(super) fn product<S: Left>(
    kernels: &Kernels,
    source: S,
    b: &PackedB,
    epilogue: &Epilogue<'_>,
    (plan, scratch): (&Plan, &mut [f32]),
    out: &mut [f16],
) {
    let (simd, terms) = (kernels.simd, plan.terms);
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let registers = Tiles::enter(simd).expect("invariant: `factors` looked");
        let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
        let decoded = if b.is_compressed() { panel_pairs(terms) } else { 0 };
        let (decoded, copied) = scratch.split_at_mut(decoded);
        let (range, columns) = plan.sides(tile);
        let left = rows(simd, &source, plan.rows, range.clone(), bytemuck::cast_slice_mut(copied));
        let mut sink = Sink { simd, epilogue, out: tile, turned: plan.turned };
        for start in columns.clone().step_by(COLUMNS) {
            let decoded = bytemuck::cast_slice_mut(decoded);
            let pairs = b.part(simd, start / COLUMNS, 0..terms / BLOCK, decoded);
            let panel = (TilePanel { pairs, high: false }, (start, (start + COLUMNS).min(columns.end)));
            multiply_panel(&registers, (left, &range), panel, sums, &mut sink, |_, _| {});
        }
    });
}

/// See [`super::bmm_scratch`].
pub(super) fn bmm_scratch(rows: usize, terms: usize) -> usize {
    let copied = rows.next_multiple_of(TILE_ROWS) * pitch(terms.next_multiple_of(BLOCK));
    STRIP_SUMS + panel_pairs(terms) + copied.div_ceil(2)
}

/// See [`super::bmm`].
pub(super) fn bmm<S: Left>(
    simd: Simd,
    left: S,
    right: Strided<'_>,
    (height, terms): (usize, usize),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    let registers = Tiles::enter(simd).expect("invariant: `factors` looked");
    let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
    let (pairs, copied) = scratch.split_at_mut(panel_pairs(terms));
    let pairs: &mut [u32] = bytemuck::cast_slice_mut(pairs);
    let (range, columns) = (tile.rows(), tile.columns());
    let left = rows(simd, &left, height, range.clone(), bytemuck::cast_slice_mut(copied));
    let mut sink = Sink { simd, epilogue, out: tile, turned: false };
    for start in columns.clone().step_by(COLUMNS) {
        let columns = start..(start + COLUMNS).min(columns.end);
        simd.run(PairColumns { source: right, columns: columns.clone(), terms, panel: pairs });
        let panel = (TilePanel { pairs, high: false }, (columns.start, columns.end));
        multiply_panel(&registers, (left, &range), panel, sums, &mut sink, |_, _| {});
    }
}
