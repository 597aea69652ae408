//! NEON, which every aarch64 processor has: vectors of four, and the conversions of `f16`.

mod fhm;
mod micro;
mod vector;

pub(super) use fhm::micro_fhm;
pub(super) use micro::micro;
use vector::Quad;

use std::arch::aarch64::{
    float32x4_t, int8x8_t, uint16x4_t, vcvt_f16_f32, vcvt_f32_f16, vcvtq_f32_s32, vget_high_s16,
    vget_low_s16, vld1_s8, vld1_u16, vld1q_f32, vld1q_u32, vmovl_s8, vmovl_s16, vmovn_u32,
    vreinterpret_f16_u16, vreinterpret_u16_f16, vshrn_n_u32, vst1_u16, vst1q_f32,
};

use half::f16;

use super::real::Each;
use super::scalar::{narrow_one_by_one, widen_one_by_one};
use super::{COLUMNS, Lanes, WIDTH};

/// Whether the processor has FMLAL.
pub(super) fn has_fhm() -> bool {
    std::arch::is_aarch64_feature_detected!("fp16") && std::arch::is_aarch64_feature_detected!("fhm")
}

/// Four `f16` as `f32`, exactly.
#[inline(always)]
fn widen_four(half: uint16x4_t) -> float32x4_t {
    // SAFETY: NEON is part of every aarch64 processor.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(half)) }
}

/// Four `f32` as `f16`, rounded to nearest, ties to even: the mode that threads start in and nothing changes.
#[inline(always)]
fn narrow_four(wide: float32x4_t) -> uint16x4_t {
    // SAFETY: NEON is part of every aarch64 processor.
    unsafe { vreinterpret_u16_f16(vcvt_f16_f32(wide)) }
}

/// The path for aarch64.
pub(super) struct Neon;

/// An array of `body(part)` for the four parts of a vector.
macro_rules! parts {
    ($part:ident, $body:expr) => {{
        let mut all = [Quad::zero(); WIDTH / 4];
        let mut $part = 0;
        while $part < WIDTH / 4 {
            all[$part] = Quad($body);
            $part += 1;
        }
        Each(all)
    }};
}

impl Lanes for Neon {
    type Vector = Each<Quad, { WIDTH / 4 }>;

    #[inline(always)]
    fn load(source: &[f32; WIDTH]) -> Self::Vector {
        // SAFETY: four values from `4 * part` on are readable.
        parts!(part, unsafe { vld1q_f32(source.as_ptr().add(4 * part)) })
    }

    #[inline(always)]
    fn store(vector: Self::Vector, target: &mut [f32; WIDTH]) {
        for (part, four) in vector.0.into_iter().enumerate() {
            // SAFETY: four values from `4 * part` on are writable.
            unsafe { vst1q_f32(target.as_mut_ptr().add(4 * part), four.0) };
        }
    }

    #[inline(always)]
    fn read(source: &[f16; WIDTH]) -> Self::Vector {
        // SAFETY: four values from `4 * part` on are readable, and `f16` is its bits.
        parts!(part, widen_four(unsafe { vld1_u16(source.as_ptr().add(4 * part).cast()) }))
    }

    #[inline(always)]
    fn read_bytes(source: &[i8; WIDTH]) -> Self::Vector {
        parts!(part, {
            // SAFETY: eight bytes from `4 * part`, rounded down to eight, on are readable.
            let eight: int8x8_t = unsafe { vld1_s8(source.as_ptr().add(part / 2 * 8)) };
            // SAFETY: NEON is part of every aarch64 processor.
            unsafe {
                let wide = vmovl_s8(eight);
                let four = if part % 2 == 0 { vget_low_s16(wide) } else { vget_high_s16(wide) };
                vcvtq_f32_s32(vmovl_s16(four))
            }
        })
    }

    #[inline(always)]
    fn write(vector: Self::Vector, target: &mut [f16; WIDTH]) {
        for (part, four) in vector.0.into_iter().enumerate() {
            // SAFETY: four values from `4 * part` on are writable, and `f16` is its bits.
            unsafe { vst1_u16(target.as_mut_ptr().add(4 * part).cast(), narrow_four(four.0)) };
        }
    }

    #[inline(always)]
    fn rounded(vector: Self::Vector) -> Self::Vector {
        parts!(part, widen_four(narrow_four(vector.0[part].0)))
    }

    #[inline(always)]
    fn widen(source: &[f16], target: &mut [f32]) {
        let (source, source_rest) = source.as_chunks::<WIDTH>();
        let (target, target_rest) = target.as_chunks_mut::<WIDTH>();
        for (source, target) in source.iter().zip(target) {
            Self::store(Self::read(source), target);
        }
        widen_one_by_one(source_rest, target_rest);
    }

    #[inline(always)]
    fn narrow(source: &[f32], target: &mut [f16]) {
        let (source, source_rest) = source.as_chunks::<WIDTH>();
        let (target, target_rest) = target.as_chunks_mut::<WIDTH>();
        for (source, target) in source.iter().zip(target) {
            Self::write(Self::load(source), target);
        }
        narrow_one_by_one(source_rest, target_rest);
    }

    #[inline(always)]
    fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]) {
        for at in (0..COLUMNS).step_by(4) {
            // SAFETY: four pairs from `at` on are readable.
            let (first, second) = unsafe { widen_four_pairs(source.as_ptr().add(at)) };
            // SAFETY: four values from `at` on are writable, and from `COLUMNS + at` on.
            unsafe {
                vst1q_f32(target.as_mut_ptr().add(at), first);
                vst1q_f32(target.as_mut_ptr().add(COLUMNS + at), second);
            }
        }
    }
}

/// The firsts and the seconds of four pairs.
///
/// # Safety
/// Four pairs from `at` on are readable.
#[inline(always)]
unsafe fn widen_four_pairs(at: *const u32) -> (float32x4_t, float32x4_t) {
    // SAFETY: the caller's promise, and NEON is part of every aarch64 processor.
    let (first, second) = unsafe {
        let pairs = vld1q_u32(at);
        (vmovn_u32(pairs), vshrn_n_u32::<16>(pairs))
    };
    (widen_four(first), widen_four(second))
}
