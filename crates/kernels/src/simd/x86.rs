//! x86-64: detection, entry points and conversions.

use std::arch::x86_64::{
    __m256i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128,
    _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_loadu_ps, _mm512_storeu_ps,
};

use half::f16;

use super::{Lanes, Task};

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

pub(super) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run_avx2<T: Task>(task: T) -> T::Output {
    task.run::<Avx2>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn run_avx512<T: Task>(task: T) -> T::Output {
    task.run::<Avx512>()
}

/// Conversions with F16C; used only inside [`run_avx2`].
pub(super) struct Avx2;
/// Conversions with AVX-512; used only inside [`run_avx512`].
pub(super) struct Avx512;

#[inline(always)]
fn avx2_widen(source: &[f16; 8]) -> [f32; 8] {
    let mut target = [0.0; 8];
    // SAFETY: called only from code that `run_avx2` compiled; both arrays hold 8 values.
    unsafe {
        _mm256_storeu_ps(target.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(source.as_ptr().cast())))
    };
    target
}

#[inline(always)]
fn avx2_narrow(source: &[f32; 8]) -> [f16; 8] {
    let mut target = [f16::ZERO; 8];
    // SAFETY: called only from code that `run_avx2` compiled; both arrays hold 8 values.
    unsafe {
        let packed = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(source.as_ptr()));
        _mm_storeu_si128(target.as_mut_ptr().cast(), packed);
    }
    target
}

#[inline(always)]
fn avx512_widen(source: &[f16; 16]) -> [f32; 16] {
    let mut target = [0.0; 16];
    // SAFETY: called only from code that `run_avx512` compiled; both arrays hold 16 values.
    unsafe {
        let packed: __m256i = _mm256_loadu_si256(source.as_ptr().cast());
        _mm512_storeu_ps(target.as_mut_ptr(), _mm512_cvtph_ps(packed));
    }
    target
}

#[inline(always)]
fn avx512_narrow(source: &[f32; 16]) -> [f16; 16] {
    let mut target = [f16::ZERO; 16];
    // SAFETY: called only from code that `run_avx512` compiled; both arrays hold 16 values.
    unsafe {
        let packed = _mm512_cvtps_ph::<NEAREST>(_mm512_loadu_ps(source.as_ptr()));
        _mm256_storeu_si256(target.as_mut_ptr().cast(), packed);
    }
    target
}

macro_rules! lanes {
    ($name:ident, $width:literal, $widen:ident, $narrow:ident) => {
        impl Lanes for $name {
            #[inline(always)]
            fn widen(source: &[f16], target: &mut [f32]) {
                let count = source.len().min(target.len());
                let (head, tail) = source[..count].as_chunks::<$width>();
                let (head_out, tail_out) = target[..count].as_chunks_mut::<$width>();
                for (to, from) in head_out.iter_mut().zip(head) {
                    *to = $widen(from);
                }
                if !tail.is_empty() {
                    let mut padded = [f16::ZERO; $width];
                    padded[..tail.len()].copy_from_slice(tail);
                    tail_out.copy_from_slice(&$widen(&padded)[..tail.len()]);
                }
            }

            #[inline(always)]
            fn narrow(source: &[f32], target: &mut [f16]) {
                let count = source.len().min(target.len());
                let (head, tail) = source[..count].as_chunks::<$width>();
                let (head_out, tail_out) = target[..count].as_chunks_mut::<$width>();
                for (to, from) in head_out.iter_mut().zip(head) {
                    *to = $narrow(from);
                }
                if !tail.is_empty() {
                    let mut padded = [0.0; $width];
                    padded[..tail.len()].copy_from_slice(tail);
                    tail_out.copy_from_slice(&$narrow(&padded)[..tail.len()]);
                }
            }

            #[inline(always)]
            fn round(values: &mut [f32]) {
                let (head, tail) = values.as_chunks_mut::<$width>();
                for chunk in head {
                    *chunk = $widen(&$narrow(chunk));
                }
                if !tail.is_empty() {
                    let mut padded = [0.0; $width];
                    padded[..tail.len()].copy_from_slice(tail);
                    tail.copy_from_slice(&$widen(&$narrow(&padded))[..tail.len()]);
                }
            }
        }
    };
}

lanes!(Avx2, 8, avx2_widen, avx2_narrow);
lanes!(Avx512, 16, avx512_widen, avx512_narrow);
