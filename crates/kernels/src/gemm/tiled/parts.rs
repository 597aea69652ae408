//! Products of the parts of `f16` numbers; see [`crate::order::PartsDot`].
//!
//! Rows are split beforehand, once for all threads where they fit, a panel when it is used. What a product of parts gives
//! is finite where all its terms are; the sums that are not are taken in the defined order instead.

use std::ops::Range;

use half::f16;

use super::super::left::{CopyParts, InPlace, Left, PackRow, Strided};
use super::super::{PackedB, Plan, SHARED, Sink, panel_pairs};
use super::{PairColumns, STRIP_SUMS, cut, multiply_panel, pitch};
use crate::order::BLOCK;
use crate::simd::{
    COLUMNS, Cuts, Grid, Lanes, Panel, Part, Real, Simd, SplitPanel, TILE_ROWS, Task, Tile, TilePanel, Tiles,
    WIDTH, micro, tiles,
};
use crate::{Epilogue, Kernels};

/// See [`super::plan`].
pub(super) fn plan<S: Left>(threads: usize, source: &S, rows: usize, b: &PackedB) -> Plan {
    let terms = source.terms();
    let (grid, rows_each) = cut(threads, 1, [rows, terms, b.columns()], size_of::<Part>());
    let all = rows.next_multiple_of(TILE_ROWS) * pitch(terms);
    let (shared, copied) = match source.parts().is_some() {
        true => (0, 0),
        false if all <= SHARED => (all, 0),
        false => (0, rows_each * pitch(terms)),
    };
    let decoded = if b.is_compressed() { panel_pairs(terms) } else { 0 };
    let per_worker = (own_len(terms) + decoded + copied).next_multiple_of(16);
    Plan { grid, rows, terms, turned: false, shared, slab: terms, per_worker }
}

/// What a thread works in.
struct Own<'a> {
    sums: &'a mut [f32],
    /// A row of the left operand, for [`repair`].
    row: &'a mut [f32],
    panel: &'a mut [u32],
}

/// Values of [`Own`].
fn own_len(terms: usize) -> usize {
    STRIP_SUMS + terms.next_multiple_of(BLOCK) + 2 * panel_pairs(terms)
}

impl<'a> Own<'a> {
    /// The first of `scratch`, and the rest.
    fn take(scratch: &'a mut [f32], terms: usize) -> (Own<'a>, &'a mut [f32]) {
        let (sums, scratch) = scratch.split_at_mut(STRIP_SUMS);
        let (row, scratch) = scratch.split_at_mut(terms.next_multiple_of(BLOCK));
        let (panel, rest) = scratch.split_at_mut(2 * panel_pairs(terms));
        (Own { sums, row, panel: bytemuck::cast_slice_mut(panel) }, rest)
    }

    /// The rows `rows` of `source`, whose parts are `left`, times the panel `pairs` of the columns `columns`.
    fn multiply<S: Left>(
        &mut self,
        registers: &Tiles,
        source: &S,
        (left, rows): (InPlace<'_, Part>, &Range<usize>),
        (pairs, columns): (&[u32], (usize, usize)),
        sink: &mut Sink<'_, '_, '_>,
    ) {
        let (simd, row) = (sink.simd, &mut *self.row);
        let high = simd.run(SplitPanel { pairs, target: self.panel });
        let panel = (TilePanel { pairs: self.panel, high }, columns);
        let repair =
            |rows: Range<usize>, sums: &mut [[f32; COLUMNS]]| repair(simd, source, (rows, pairs), row, sums);
        multiply_panel(registers, (left, rows), panel, self.sums, sink, repair);
    }
}

/// Puts the defined sums of the rows `rows` in the place of those that are not finite.
fn repair<S: Left>(
    simd: Simd,
    source: &S,
    (rows, pairs): (Range<usize>, &[u32]),
    row: &mut [f32],
    sums: &mut [[f32; COLUMNS]],
) {
    if simd.run(AllFinite { sums }) {
        return;
    }
    for (index, sums) in rows.zip(sums) {
        if sums.iter().all(|sum| sum.is_finite()) {
            continue;
        }
        simd.run(PackRow { source: *source, index, target: row });
        let mut defined = [[0.0; COLUMNS]];
        micro(simd, (row, 1), (0, source.filled()), (Panel::Pairs(pairs), COLUMNS), &mut defined);
        let places = sums.iter_mut().zip(defined[0]);
        places.filter(|(sum, _)| !sum.is_finite()).for_each(|(sum, defined)| *sum = defined);
    }
}

/// Whether all sums are finite.
struct AllFinite<'a> {
    sums: &'a [[f32; COLUMNS]],
}

impl Task for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<L: Lanes>(self) -> bool {
        let largest = L::Vector::splat(f32::MAX);
        let finite = |values: &[f32; WIDTH]| L::Vector::all(L::load(values).abs().le(largest));
        self.sums.iter().all(|sums| sums.as_chunks().0.iter().all(finite))
    }
}

/// Splits all rows of `source`.
fn split_rows<S: Left>(kernels: &Kernels, source: S, rows: usize, shared: &mut [Part]) {
    let pitch = pitch(source.terms());
    let parts = rows.min(2 * kernels.pool.threads());
    let grid = Grid::new(1, Cuts::new(rows, 1, parts), Cuts::new(pitch, pitch, 1));
    tiles(&kernels.pool, &mut shared[..rows * pitch], grid, (&mut [], 0), |tile, _| {
        let rows = tile.rows();
        kernels.simd.run(CopyParts { source, rows, pitch, copied: tile.whole_rows() });
    });
}

/// The parts of the rows `rows` of `source`, in `copied`.
fn copied_rows<'a, S: Left>(
    simd: Simd,
    source: S,
    rows: Range<usize>,
    copied: &'a mut [Part],
) -> InPlace<'a, Part> {
    let (pitch, first) = (pitch(source.terms()), rows.start);
    let count = rows.len().next_multiple_of(TILE_ROWS);
    let copied = &mut copied[..count * pitch];
    let size = rows.len() * pitch;
    simd.run(CopyParts { source, rows, pitch, copied: &mut copied[..size] });
    InPlace::matrix(copied, 0, pitch, first..first + count)
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
    let (shared, scratch) = scratch.split_at_mut(plan.shared.next_multiple_of(16));
    let shared: &mut [Part] = bytemuck::cast_slice_mut(&mut shared[..plan.shared]);
    if plan.shared > 0 {
        split_rows(kernels, source, plan.rows, shared);
    }
    let shared = &*shared;
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let registers = Tiles::enter(simd).expect("invariant: `factors` looked");
        let (mut own, scratch) = Own::take(scratch, terms);
        let decoded = if b.is_compressed() { panel_pairs(terms) } else { 0 };
        let (decoded, copied) = scratch.split_at_mut(decoded);
        let (range, columns) = plan.sides(tile);
        let left = match source.parts() {
            Some(left) => left,
            None if plan.shared > 0 => {
                InPlace::matrix(shared, 0, pitch(terms), 0..plan.rows.next_multiple_of(TILE_ROWS))
            }
            None => copied_rows(simd, source, range.clone(), bytemuck::cast_slice_mut(copied)),
        };
        let mut sink = Sink { simd, epilogue, out: tile, turned: plan.turned };
        for start in columns.clone().step_by(COLUMNS) {
            let decoded = bytemuck::cast_slice_mut(decoded);
            let pairs = b.part(simd, start / COLUMNS, 0..terms / BLOCK, decoded);
            let columns = (start, (start + COLUMNS).min(columns.end));
            own.multiply(&registers, &source, (left, &range), (pairs, columns), &mut sink);
        }
    });
}

/// See [`super::bmm_scratch`].
pub(super) fn bmm_scratch(rows: usize, terms: usize) -> usize {
    let copied = rows.next_multiple_of(TILE_ROWS) * pitch(terms.next_multiple_of(BLOCK));
    own_len(terms) + panel_pairs(terms) + copied
}

/// See [`super::bmm`].
pub(super) fn bmm<S: Left>(
    simd: Simd,
    source: S,
    right: Strided<'_>,
    (_, terms): (usize, usize),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    let registers = Tiles::enter(simd).expect("invariant: `factors` looked");
    let (mut own, scratch) = Own::take(scratch, terms);
    let (pairs, copied) = scratch.split_at_mut(panel_pairs(terms));
    let pairs: &mut [u32] = bytemuck::cast_slice_mut(pairs);
    let (range, columns) = (tile.rows(), tile.columns());
    let left = copied_rows(simd, source, range.clone(), bytemuck::cast_slice_mut(copied));
    let mut sink = Sink { simd, epilogue, out: tile, turned: false };
    for start in columns.clone().step_by(COLUMNS) {
        let columns = start..(start + COLUMNS).min(columns.end);
        simd.run(PairColumns { source: right, columns: columns.clone(), terms, panel: pairs });
        let panel = (&*pairs, (columns.start, columns.end));
        own.multiply(&registers, &source, (left, &range), panel, &mut sink);
    }
}
