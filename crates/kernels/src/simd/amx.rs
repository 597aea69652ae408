//! The matrix kernel on tile registers (AMX-FP16): up to 32 rows times a panel of 32 columns.
//!
//! `TDPFP16PS` adds in the order of [`crate::order::Dot`], and sums that leave the registers and come back lose
//! nothing, so the terms may be cut at every block.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use linux as machine;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod absent;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
use absent as machine;

use std::cell::Cell;
use std::marker::PhantomData;

use half::f16;

use super::{COLUMNS, PAIRS, Simd};
use crate::Isa;
use crate::order::BLOCK;

/// Rows of one tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Rows of a product: two tiles.
pub(crate) const PRODUCT_ROWS: usize = 2 * TILE_ROWS;

#[cfg(target_arch = "x86_64")]
pub(super) fn available() -> bool {
    machine::available()
}

/// 16 rows of the left operand: the 32 terms of row `r` in a block that starts `offset` values behind the others
/// start at `data[start + r * row + offset]`.
#[derive(Clone, Copy)]
pub(crate) struct TileRows<'a> {
    pub(crate) data: &'a [f16],
    pub(crate) start: usize,
    pub(crate) row: usize,
}

impl TileRows<'_> {
    fn check(&self, blocks: &[usize]) {
        let last = self.row.checked_mul(TILE_ROWS - 1).and_then(|last| last.checked_add(self.start + BLOCK));
        let room = last.and_then(|last| self.data.len().checked_sub(last));
        let fits = room.is_some_and(|room| blocks.iter().all(|&offset| offset <= room));
        assert!(fits && self.start <= self.data.len(), "invariant: tile rows inside of their slice");
    }
}

thread_local! {
    /// How many [`Tiles`] live on this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// The tile registers of this thread, configured while this value lives.
pub(crate) struct Tiles {
    /// A value must be dropped on the thread it was made on.
    marker: PhantomData<*const ()>,
}

impl Tiles {
    /// Whether [`Tiles::enter`] gives tiles.
    pub(crate) fn usable(simd: Simd) -> bool {
        simd.isa() == Isa::AmxFp16
    }

    /// `None` when `simd` has no tiles.
    pub(crate) fn enter(simd: Simd) -> Option<Tiles> {
        if !Tiles::usable(simd) {
            return None;
        }
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        if depth == 0 {
            // SAFETY: a `Simd` exists only for an instruction set of this machine.
            unsafe { machine::configure() };
        }
        Some(Tiles { marker: PhantomData })
    }

    /// `sums[r][c] = a[r] . panel[c]` for the 16 rows of every tile of `a` (one or two), added to what `sums`
    /// holds when `more`. `blocks` are the offsets of the blocks of `a`; `panel` is `[k / 2][32]` pairs of terms.
    pub(crate) fn multiply(
        &self,
        (a, blocks): (&[TileRows<'_>], &[usize]),
        panel: &[u32],
        sums: &mut [[f32; COLUMNS]],
        more: bool,
    ) {
        assert_eq!(panel.len(), blocks.len() * PAIRS * COLUMNS, "invariant: a panel is whole blocks");
        assert!(sums.len() >= a.len() * TILE_ROWS, "invariant: sums for every row");
        if blocks.is_empty() {
            if !more {
                sums.fill([0.0; COLUMNS]);
            }
            return;
        }
        a.iter().for_each(|rows| rows.check(blocks));
        let at = |rows: &TileRows<'_>| rows.data[rows.start..].as_ptr();
        let (b, c) = (panel.as_ptr(), sums.as_mut_ptr().cast::<f32>());
        match *a {
            // SAFETY: the tiles are configured while `self` lives; `check` and the asserts give the lengths.
            [first] => unsafe { machine::one(at(&first), first.row, blocks, b, c, more) },
            [first, second] => {
                assert!(first.row == second.row, "invariant: one layout");
                // SAFETY: as above.
                unsafe { machine::two([at(&first), at(&second)], first.row, blocks, b, c, more) }
            }
            _ => unreachable!("invariant: one tile or two"),
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            // SAFETY: `enter` configured the tiles of this thread, and no `Tiles` is left on it.
            unsafe { machine::release() };
        }
    }
}
