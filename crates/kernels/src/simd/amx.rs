//! The matrix kernels on tile registers: up to 32 rows times a panel of 32 columns.
//!
//! `TDPFP16PS` (AMX-FP16) adds in the order of [`crate::order::Dot`]; four times `TDPBF16PS` (AMX-BF16), on the parts of
//! the numbers, add in that of [`crate::order::PartsDot`]. Sums that leave the registers and come back lose nothing, so
//! the terms may be cut at every block.

mod factors;
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
use std::sync::OnceLock;

use half::f16;

use super::{COLUMNS, PAIRS, Simd};
use crate::Isa;
use crate::order::{self, BLOCK};

use factors::Work;
pub(crate) use factors::{Factor, Factors, Part, Split, SplitPanel, SplitRows, TilePanel};

/// Rows of one tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Rows of a product: two tiles.
pub(crate) const PRODUCT_ROWS: usize = 2 * TILE_ROWS;

/// Whether the processor says that it has the tiles of `isa`, or [`probe`] found them, or they are emulated.
pub(super) fn available(isa: Isa) -> bool {
    machine::available(isa) || isa == Isa::AmxFp16 && CONCEALED.get() == Some(&true)
}

static CONCEALED: OnceLock<bool> = OnceLock::new();

/// Whether tiles multiply `f16` as defined, whatever the processor says.
pub(super) fn probe() -> bool {
    *CONCEALED.get_or_init(|| machine::has_tiles() && machine::holds_in_child(multiplies_halves))
}

/// One product of 16 rows of 32 terms, some of them subnormal. Raises `SIGILL` where tiles do not multiply `f16`.
fn multiplies_halves() -> bool {
    let value = |seed: usize| {
        let bits = seed.wrapping_mul(0x9e37_79b9).rotate_right(13) as u16;
        f16::from_bits(bits & 0x83ff | ((seed % 30) << 10) as u16)
    };
    let a: Vec<f16> = (0..TILE_ROWS * BLOCK).map(value).collect();
    let b: Vec<[f16; 2]> = (0..PAIRS * COLUMNS).map(|at| [value(3 * at + 1), value(5 * at + 2)]).collect();
    let panel = TilePanel { pairs: bytemuck::cast_slice(&b), high: false };
    let mut sums = [[0.0; COLUMNS]; TILE_ROWS];
    let rows = TileRows { data: &a[..], start: 0, row: BLOCK };
    Tiles::configured().multiply((&[rows], &[0]), panel, &mut sums, false);
    sums.iter().zip(a.chunks(BLOCK)).all(|(sums, row)| {
        sums.iter().enumerate().all(|(column, sum)| {
            let right = (0..BLOCK).map(|k| b[k / 2 * COLUMNS + column][k % 2].to_f32());
            let want = order::dot(row.iter().map(|value| value.to_f32()).zip(right));
            sum.to_bits() == want.to_bits()
        })
    })
}

/// 16 rows of the left operand: the 32 terms of row `r` in a block that starts `offset` values behind the others
/// start at value `start + r * row + offset`.
#[derive(Clone, Copy)]
pub(crate) struct TileRows<'a, F> {
    pub(crate) data: &'a [F],
    pub(crate) start: usize,
    pub(crate) row: usize,
}

impl<F> TileRows<'_, F> {
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
    /// `None` when `simd` has no tiles.
    pub(crate) fn enter(simd: Simd) -> Option<Tiles> {
        matches!(simd.isa(), Isa::AmxBf16 | Isa::AmxFp16).then(Tiles::configured)
    }

    /// Where the machine has tiles.
    fn configured() -> Tiles {
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        if depth == 0 {
            // SAFETY: the callers looked whether there are tiles; a `Simd` exists only for an instruction set of this
            // machine.
            unsafe { machine::configure() };
        }
        Tiles { marker: PhantomData }
    }

    /// `sums[r][c] = a[r] . panel[c]` for the 16 rows of every tile of `a` (one or two), added to what `sums`
    /// holds when `more`. `blocks` are the offsets of the blocks of `a`.
    pub(crate) fn multiply<F: Factor>(
        &self,
        (a, blocks): (&[TileRows<'_, F>], &[usize]),
        panel: TilePanel<'_>,
        sums: &mut [[f32; COLUMNS]],
        more: bool,
    ) {
        assert_eq!(panel.pairs.len(), blocks.len() * F::PAIRS, "invariant: a panel is whole blocks");
        assert!(sums.len() >= a.len() * TILE_ROWS, "invariant: sums for every row");
        if blocks.is_empty() {
            if !more {
                sums.fill([0.0; COLUMNS]);
            }
            return;
        }
        a.iter().for_each(|rows| rows.check(blocks));
        let at = |rows: &TileRows<'_, F>| rows.data[rows.start..].as_ptr();
        let work = Work {
            rows: match *a {
                [first] => [at(&first); 2],
                [first, second] => {
                    assert!(first.row == second.row, "invariant: one layout");
                    [at(&first), at(&second)]
                }
                _ => unreachable!("invariant: one tile or two"),
            },
            row: a[0].row,
            blocks,
            panel: panel.pairs.as_ptr(),
            sums: sums.as_mut_ptr().cast::<f32>(),
            more,
        };
        // SAFETY: the tiles are configured while `self` lives; `check` and the asserts give the lengths.
        unsafe { F::multiply(&work, a.len() > 1, panel.high) };
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
