//! [`Halves`] with AVX512-FP16.

use std::arch::x86_64::{
    __m512h, _CMP_ORD_Q, _mm512_add_ph, _mm512_castph_si512, _mm512_castsi256_si512, _mm512_castsi512_ph,
    _mm512_castsi512_si256, _mm512_cmp_ph_mask, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_extracti64x4_epi64,
    _mm512_fpclass_ph_mask, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_maskz_mov_epi16, _mm512_mul_ph,
    _mm512_set1_epi16, _mm512_storeu_si512, _mm512_sub_ph,
};

use half::f16;

use super::vector::Wide512;
use super::{Avx512, NEAREST};
use crate::simd::half::{HALVES, Halves};

/// 32 numbers; used only inside `run_avx512_fp16`.
#[derive(Clone, Copy)]
pub(crate) struct Packed(__m512h);

/// Evaluates intrinsics that only need their instruction set.
macro_rules! only {
    ($call:expr) => {
        // SAFETY: a `Packed` is made only by code that `run_avx512_fp16` compiled, which runs only where the
        // processor has the instructions.
        unsafe { $call }
    };
}

impl Halves<Avx512> for Packed {
    #[inline(always)]
    fn read(source: &[f16; HALVES]) -> Packed {
        // SAFETY: as above; 32 values are readable.
        Packed(unsafe { _mm512_castsi512_ph(_mm512_loadu_si512(source.as_ptr().cast())) })
    }
    #[inline(always)]
    fn write(self, target: &mut [f16; HALVES]) {
        // SAFETY: as above; 32 values are writable.
        unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), _mm512_castph_si512(self.0)) }
    }
    #[inline(always)]
    fn splat(value: f16) -> Packed {
        Packed(only!(_mm512_castsi512_ph(_mm512_set1_epi16(value.to_bits() as i16))))
    }
    #[inline(always)]
    fn add(self, other: Packed) -> Packed {
        Packed(only!(_mm512_add_ph(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Packed) -> Packed {
        Packed(only!(_mm512_sub_ph(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Packed) -> Packed {
        Packed(only!(_mm512_mul_ph(self.0, other.0)))
    }
    #[inline(always)]
    fn without_nan(self) -> Packed {
        Packed(only!({
            let numbers = _mm512_cmp_ph_mask::<_CMP_ORD_Q>(self.0, self.0);
            _mm512_castsi512_ph(_mm512_maskz_mov_epi16(numbers, _mm512_castph_si512(self.0)))
        }))
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        // Quiet NaN, both infinities, signalling NaN.
        const SPECIAL: i32 = 0x99;
        only!(_mm512_fpclass_ph_mask::<SPECIAL>(self.0)) == 0
    }
    #[inline(always)]
    fn wide(self) -> [Wide512; 2] {
        only!({
            let bits = _mm512_castph_si512(self.0);
            let low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
            [Wide512(low), Wide512(_mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(bits)))]
        })
    }
    #[inline(always)]
    fn narrow([low, high]: [Wide512; 2]) -> Packed {
        Packed(only!({
            let low = _mm512_castsi256_si512(_mm512_cvtps_ph::<NEAREST>(low.0));
            _mm512_castsi512_ph(_mm512_inserti64x4::<1>(low, _mm512_cvtps_ph::<NEAREST>(high.0)))
        }))
    }
}
