//! The matrix kernel: four rows times eight columns at a time, sixteen chains in registers.

use std::arch::aarch64::{vaddq_f32, vdupq_n_f32, vfmaq_n_f32, vld1q_f32, vst1q_f32};

use super::widen_four_pairs;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Panel};

/// Rows of a tile.
const ROWS: usize = 4;
/// Columns of a tile.
const STRIP: usize = 8;

/// See [`crate::simd::micro`], which has checked the lengths.
pub(crate) fn micro(
    (a, rows): (&[f32], usize),
    panel: Panel<'_>,
    blocks: impl Iterator<Item = (usize, usize)>,
    sums: &mut [[f32; COLUMNS]],
) {
    for ((block, pairs), a) in blocks.zip(a.chunks_exact((rows * BLOCK).max(1))) {
        for (a, sums) in a.chunks(ROWS * BLOCK).zip(sums[..rows].chunks_mut(ROWS)) {
            for strip in (0..COLUMNS).step_by(STRIP) {
                match sums.len() {
                    1 => tile::<1>(a, panel, (block, pairs), strip, sums),
                    2 => tile::<2>(a, panel, (block, pairs), strip, sums),
                    3 => tile::<3>(a, panel, (block, pairs), strip, sums),
                    _ => tile::<ROWS>(a, panel, (block, pairs), strip, sums),
                }
            }
        }
    }
}

/// `R` rows times the eight columns from `strip` on, over the pairs of one block.
#[inline(always)]
fn tile<const R: usize>(
    a: &[f32],
    panel: Panel<'_>,
    (block, pairs): (usize, usize),
    strip: usize,
    sums: &mut [[f32; COLUMNS]],
) {
    assert!(a.len() >= R * BLOCK && sums.len() >= R && strip + STRIP <= COLUMNS, "invariant: a whole tile");
    let base = block * BLOCK * COLUMNS;
    // SAFETY: NEON is part of every aarch64 processor. Loads are of four values inside of slices: `[..]` checks
    // the first of a row of the panel, whose `COLUMNS` columns hold `strip + STRIP`; rows of `sums` likewise.
    unsafe {
        let mut chains = [[[vdupq_n_f32(0.0); 2]; 2]; R];
        for pair in 0..pairs {
            let terms = match panel {
                Panel::F32(values) => {
                    let row = &values[base + 2 * pair * COLUMNS..][..2 * COLUMNS];
                    let at = row.as_ptr().add(strip);
                    let load = |at: *const f32| [vld1q_f32(at), vld1q_f32(at.add(4))];
                    [load(at), load(at.add(COLUMNS))]
                }
                Panel::Pairs(values) => {
                    let row = &values[base / 2 + pair * COLUMNS..][..COLUMNS];
                    let at = row.as_ptr().add(strip);
                    let ((a0, b0), (a1, b1)) = (widen_four_pairs(at), widen_four_pairs(at.add(4)));
                    [[a0, a1], [b0, b1]]
                }
            };
            for (row, chains) in chains.iter_mut().enumerate() {
                for place in 0..2 {
                    let factor = a[row * BLOCK + 2 * pair + place];
                    for half in 0..2 {
                        chains[place][half] = vfmaq_n_f32(chains[place][half], terms[place][half], factor);
                    }
                }
            }
        }
        for (chains, sums) in chains.iter().zip(sums) {
            for half in 0..2 {
                let at = sums.as_mut_ptr().add(strip + 4 * half);
                vst1q_f32(at, vaddq_f32(vld1q_f32(at), vaddq_f32(chains[0][half], chains[1][half])));
            }
        }
    }
}
