//! The matrix kernel on panels of pairs, by the instructions `fmlal` and `fmlal2`: a product of two `f16` is exact, and
//! its sum with an `f32` is rounded once, which is a step of a chain. So nothing is converted to `f32`, and the panel is
//! half as long.

use std::arch::aarch64::{
    float16x8_t, float32x4_t, vaddq_f32, vdupq_n_f32, vfmlalq_laneq_high_f16, vfmlalq_laneq_low_f16,
    vld1q_f32, vld1q_u16, vreinterpretq_f16_u16, vst1q_f32, vuzp1q_u16, vuzp2q_u16,
};

use half::f16;

use super::Neon;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Lanes, PAIRS};

/// Most rows of a tile: their twenty chains, and what they are made of, fit the registers.
const ROWS: usize = 5;
/// Columns of a strip.
const STRIP: usize = 8;
/// Pairs in a register of the left operand.
const GROUP: usize = 4;

/// The rows of a tile, back in the `f16` that they come from.
type Left = [[f16; BLOCK]; ROWS];

/// See [`crate::simd::micro`], which has checked the lengths.
#[target_feature(enable = "neon,fp16,fhm")]
pub(crate) fn micro_fhm(a: &[f32], rows: usize, panel: &[u32], sums: &mut [[f32; COLUMNS]]) {
    let mut left = [[f16::ZERO; BLOCK]; ROWS];
    let blocks = panel.as_chunks::<{ PAIRS * COLUMNS }>().0;
    for (a, block) in a.chunks_exact((rows * BLOCK).max(1)).zip(blocks) {
        for (a, sums) in a.chunks(ROWS * BLOCK).zip(sums[..rows].chunks_mut(ROWS)) {
            Neon::narrow(a, &mut left.as_flattened_mut()[..a.len()]);
            match sums.len() {
                1 => tiles::<1, 4>(&left, block, sums),
                2 => tiles::<2, 2>(&left, block, sums),
                3 => tiles::<3, 2>(&left, block, sums),
                4 => tiles::<4, 1>(&left, block, sums),
                _ => tiles::<ROWS, 1>(&left, block, sums),
            }
        }
    }
}

/// The even and the odd chain of eight columns.
type Chains = [[float32x4_t; 2]; 2];

/// `R` rows times a block, `S` strips at a time.
#[inline]
#[target_feature(enable = "neon,fp16,fhm")]
fn tiles<const R: usize, const S: usize>(
    left: &Left,
    block: &[u32; PAIRS * COLUMNS],
    sums: &mut [[f32; COLUMNS]],
) {
    let rows = sums.first_chunk_mut::<R>().expect("invariant: sums for every row");
    for first in (0..COLUMNS).step_by(S * STRIP) {
        let mut chains = [[[[vdupq_n_f32(0.0); 2]; 2]; S]; R];
        for group in 0..PAIRS / GROUP {
            // Lanes of a register are numbered by constants.
            macro_rules! pairs {
                ($($pair:literal)*) => { $(
                    for strip in 0..S {
                        let at = (group * GROUP + $pair) * COLUMNS + first + strip * STRIP;
                        // SAFETY: eight columns, of which `first + strip * STRIP` is the first, of a row of the block.
                        let terms = unsafe { sorted(block.as_ptr().add(at)) };
                        for (chains, row) in chains.iter_mut().zip(left) {
                            // SAFETY: a row of the left operand has 4 groups of 8 values.
                            let factors = unsafe { load(row.as_ptr().add(group * 2 * GROUP)) };
                            step::<{ 2 * $pair }, { 2 * $pair + 1 }>(&mut chains[strip], terms, factors);
                        }
                    }
                )* };
            }
            pairs!(0 1 2 3);
        }
        for (chains, sums) in chains.iter().zip(rows.iter_mut()) {
            let strips = sums[first..].as_chunks_mut::<STRIP>().0;
            for ([even, odd], strip) in chains.iter().zip(strips) {
                for (half, sums) in strip.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let both = vaddq_f32(even[half], odd[half]);
                    // SAFETY: four values are readable and writable.
                    unsafe { vst1q_f32(sums.as_mut_ptr(), vaddq_f32(vld1q_f32(sums.as_ptr()), both)) };
                }
            }
        }
    }
}

/// # Safety
/// Eight values are readable at `at`.
#[inline]
#[target_feature(enable = "neon,fp16,fhm")]
unsafe fn load(at: *const f16) -> float16x8_t {
    // SAFETY: the caller's promise, and `f16` is its bits.
    vreinterpretq_f16_u16(unsafe { vld1q_u16(at.cast()) })
}

/// The firsts and the seconds of eight pairs.
///
/// # Safety
/// Eight pairs are readable at `at`.
#[inline]
#[target_feature(enable = "neon,fp16,fhm")]
unsafe fn sorted(at: *const u32) -> [float16x8_t; 2] {
    // SAFETY: the caller's promise.
    let (low, high) = unsafe { (vld1q_u16(at.cast()), vld1q_u16(at.add(STRIP / 2).cast())) };
    [vreinterpretq_f16_u16(vuzp1q_u16(low, high)), vreinterpretq_f16_u16(vuzp2q_u16(low, high))]
}

/// Adds the products of one pair of terms: the factors are the lanes `EVEN` and `ODD`.
#[inline]
#[target_feature(enable = "neon,fp16,fhm")]
fn step<const EVEN: i32, const ODD: i32>(chains: &mut Chains, terms: [float16x8_t; 2], factors: float16x8_t) {
    let ([even, odd], [evens, odds]) = (chains, terms);
    even[0] = vfmlalq_laneq_low_f16::<EVEN>(even[0], evens, factors);
    even[1] = vfmlalq_laneq_high_f16::<EVEN>(even[1], evens, factors);
    odd[0] = vfmlalq_laneq_low_f16::<ODD>(odd[0], odds, factors);
    odd[1] = vfmlalq_laneq_high_f16::<ODD>(odd[1], odds, factors);
}
