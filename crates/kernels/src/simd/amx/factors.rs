//! What tile registers multiply: `f16` numbers, or the `bf16` parts of them.

use half::f16;

use super::{COLUMNS, PAIRS, machine};
use crate::order::{self, BLOCK};
use crate::simd::{Lanes, Task, WIDTH};

/// The kinds of [`Factor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// `f16`.
    Halves,
    /// [`Part`].
    Parts,
}

/// The place of one value among parts: a block of 32 values is their 32 high parts, then their 32 low parts, as `bf16`.
pub(crate) type Part = u32;

/// The elements of rows that tile registers read.
pub(crate) trait Factor: Copy + Sync {
    /// Pairs of a block of a panel.
    const PAIRS: usize;

    /// Does `work` for two tiles, or only the first. `high`: whether all low parts of the panel are zero.
    ///
    /// # Safety
    /// Tiles are configured on this thread, and `work` says the truth.
    unsafe fn multiply(work: &Work<'_, Self>, two: bool, high: bool);
}

/// A product of one or two tiles of rows.
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    expect(dead_code, reason = "no other platform has tiles")
)]
pub(crate) struct Work<'a, F> {
    /// Each holds 16 rows of 32 elements at each of the offsets `blocks`, of which there is one at least.
    pub(super) rows: [*const F; 2],
    /// Elements from one row to the next.
    pub(super) row: usize,
    pub(super) blocks: &'a [usize],
    /// [`Factor::PAIRS`] pairs per block.
    pub(super) panel: *const u32,
    /// 16 rows of 32 sums per tile.
    pub(super) sums: *mut f32,
    /// Whether to add to the sums that there are.
    pub(super) more: bool,
}

/// Whole blocks of a panel.
#[derive(Clone, Copy)]
pub(crate) struct TilePanel<'a> {
    /// `[k / 2][32]` pairs of terms; with parts, those of the high ones, then of the low ones of each block.
    pub(crate) pairs: &'a [u32],
    /// All low parts are zero, and need not be multiplied.
    pub(crate) high: bool,
}

impl Factor for f16 {
    const PAIRS: usize = PAIRS * COLUMNS;

    unsafe fn multiply(work: &Work<'_, f16>, two: bool, _: bool) {
        // SAFETY: the caller's promise.
        unsafe { if two { machine::halves_two(work) } else { machine::halves_one(work) } }
    }
}

impl Factor for Part {
    const PAIRS: usize = 2 * PAIRS * COLUMNS;

    unsafe fn multiply(work: &Work<'_, Part>, two: bool, high: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            match (two, high) {
                (false, false) => machine::parts_one(work),
                (true, false) => machine::parts_two(work),
                (false, true) => machine::high_parts_one(work),
                (true, true) => machine::high_parts_two(work),
            }
        }
    }
}

/// The high and the low parts of a block.
#[inline(always)]
fn split<L: Lanes>(values: &[f16; BLOCK]) -> [[u16; BLOCK]; 2] {
    let mut split = [[0; BLOCK]; 2];
    for (half, values) in values.as_chunks().0.iter().enumerate() {
        let mut wide = [0.0; WIDTH];
        L::store(L::read(values), &mut wide);
        for (at, value) in wide.iter().enumerate() {
            let [high, low] = order::parts(*value).map(|part| (part.to_bits() >> 16) as u16);
            (split[0][half * WIDTH + at], split[1][half * WIDTH + at]) = (high, low);
        }
    }
    split
}

/// Splits whole blocks.
pub(crate) struct Split<'a> {
    pub(crate) source: &'a [f16],
    pub(crate) target: &'a mut [Part],
}

impl Task for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let targets = self.target.as_chunks_mut::<BLOCK>().0;
        for (source, target) in self.source.as_chunks().0.iter().zip(targets) {
            *target = bytemuck::cast(split::<L>(source));
        }
    }
}

/// Splits rows of `terms` values, whole blocks, which start `pitch` parts apart and lie as `f16` where their parts go.
pub(crate) struct SplitRows<'a> {
    pub(crate) rows: &'a mut [Part],
    pub(crate) terms: usize,
    pub(crate) pitch: usize,
}

impl Task for SplitRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for row in self.rows.chunks_exact_mut(self.pitch) {
            // The parts of a block lie on those that come after it.
            for block in (0..self.terms / BLOCK).rev() {
                let values = bytemuck::cast_slice::<_, f16>(row).as_chunks().0[block];
                row.as_chunks_mut::<BLOCK>().0[block] = bytemuck::cast(split::<L>(&values));
            }
        }
    }
}

/// Splits a panel of `f16` pairs.
pub(crate) struct SplitPanel<'a> {
    pub(crate) pairs: &'a [u32],
    pub(crate) target: &'a mut [u32],
}

impl Task for SplitPanel<'_> {
    /// Whether all low parts are zero.
    type Output = bool;

    #[inline(always)]
    fn run<L: Lanes>(self) -> bool {
        let mut any = [0_u16; BLOCK];
        let blocks = self.target.as_chunks_mut::<{ 2 * PAIRS * COLUMNS }>().0;
        for (pairs, target) in self.pairs.as_chunks::<{ PAIRS * COLUMNS }>().0.iter().zip(blocks) {
            let (high, low) = target.split_at_mut(PAIRS * COLUMNS);
            let targets = high.as_chunks_mut::<WIDTH>().0.iter_mut().zip(low.as_chunks_mut::<WIDTH>().0);
            for (pairs, (high_to, low_to)) in pairs.as_chunks::<WIDTH>().0.iter().zip(targets) {
                let [high, low] = split::<L>(bytemuck::cast_ref::<[u32; WIDTH], [f16; BLOCK]>(pairs));
                any.iter_mut().zip(low).for_each(|(any, low)| *any |= low);
                (*high_to, *low_to) = (bytemuck::cast(high), bytemuck::cast(low));
            }
        }
        any.iter().all(|any| any & 0x7fff == 0)
    }
}
