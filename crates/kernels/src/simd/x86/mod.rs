//! x86-64: detection, entry points and conversions.

mod decode;
mod half;
mod narrow;
mod transpose;
mod vector;

use std::arch::x86_64::{
    __m256, __m256i, __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_srli_si128,
    _mm_storeu_si128, _mm256_castsi256_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtph_ps,
    _mm256_cvtps_ph, _mm256_cvtss_f32, _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_permute4x64_epi64, _mm256_setr_epi8,
    _mm256_shuffle_epi8, _mm256_storeu_ps, _mm256_storeu_si256, _mm512_castsi512_si256, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_cvtss_f32, _mm512_extracti64x4_epi64,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permute_ps, _mm512_permutexvar_epi16, _mm512_shuffle_f32x4,
    _mm512_storeu_ps,
};

use ::half::f16;

use super::half::HalfTask;
pub(super) use decode::{decode_512, decodes, vector_512};
pub(super) use narrow::{decode_256, decodes_256, multiplies_256, vector_256};

use super::real::Each;
use super::{COLUMNS, Lanes, Task, WIDTH};
pub(super) use transpose::{interleave, turn_8};
use vector::{Wide256, Wide512};

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

pub(super) fn has_avx512_fp16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512fp16")
}

#[target_feature(enable = "avx512fp16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn run_avx512_fp16<T: HalfTask>(task: T) {
    task.run::<Avx512, half::Packed>();
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

/// The firsts and the seconds of 8 pairs.
///
/// # Safety
/// 8 pairs are readable at `source`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn pairs_256(source: *const u32) -> [__m256; 2] {
    // SAFETY: the caller's promise.
    let pairs = unsafe { _mm256_loadu_si256(source.cast()) };
    let sort = _mm256_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    );
    let sorted = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_shuffle_epi8(pairs, sort));
    [_mm256_cvtph_ps(_mm256_castsi256_si128(sorted)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(sorted))]
}

/// The firsts and the seconds of 16 pairs.
///
/// # Safety
/// 16 pairs are readable at `source`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn pairs_512(source: *const u32) -> [__m512; 2] {
    const SORT: [u16; 32] = {
        let mut sort = [0; 32];
        let mut at = 0;
        while at < 32 {
            sort[at] = (at % 16 * 2 + at / 16) as u16;
            at += 1;
        }
        sort
    };
    // SAFETY: the caller's promise, and `SORT` has 64 bytes.
    let (pairs, sort) =
        unsafe { (_mm512_loadu_si512(source.cast()), _mm512_loadu_si512(SORT.as_ptr().cast())) };
    let sorted = _mm512_permutexvar_epi16(sort, pairs);
    [_mm512_cvtph_ps(_mm512_castsi512_si256(sorted)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(sorted))]
}

#[inline(always)]
fn avx2_pairs(source: &[u32; 8]) -> [[f32; 8]; 2] {
    let mut target = [[0.0; 8]; 2];
    // SAFETY: called only from code that `run_avx2` compiled; the arrays hold 8 values.
    unsafe {
        let [first, second] = pairs_256(source.as_ptr());
        _mm256_storeu_ps(target[0].as_mut_ptr(), first);
        _mm256_storeu_ps(target[1].as_mut_ptr(), second);
    }
    target
}

#[inline(always)]
fn avx512_pairs(source: &[u32; 16]) -> [[f32; 16]; 2] {
    let mut target = [[0.0; 16]; 2];
    // SAFETY: called only from code that `run_avx512` compiled; the arrays hold 16 values.
    unsafe {
        let [first, second] = pairs_512(source.as_ptr());
        _mm512_storeu_ps(target[0].as_mut_ptr(), first);
        _mm512_storeu_ps(target[1].as_mut_ptr(), second);
    }
    target
}

macro_rules! lanes {
    ($name:ident, $width:literal, $widen:ident, $narrow:ident, $pairs:ident, { $($vector:item)* }) => {
        impl Lanes for $name {
            $($vector)*

            #[inline(always)]
            fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]) {
                let (first, second) = target.split_at_mut(COLUMNS);
                let targets = first.as_chunks_mut::<$width>().0.iter_mut().zip(second.as_chunks_mut().0);
                for ((first, second), pairs) in targets.zip(source.as_chunks().0) {
                    [*first, *second] = $pairs(pairs);
                }
            }

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
        }
    };
}

lanes!(Avx2, 8, avx2_widen, avx2_narrow, avx2_pairs, {
    type Vector = Each<Wide256, 2>;
    const TALL: usize = 16;

    #[inline(always)]
    unsafe fn turn_tall(rows: &[&[u16]], at: usize, target: *mut u16, pitch: usize) {
        let rows = rows.first_chunk().expect("invariant: as many rows");
        // SAFETY: the caller's promise; called only from code that `run_avx2` compiled.
        unsafe { transpose::turn_16(rows, at, target, pitch) };
    }

    #[inline(always)]
    fn down<const N: usize>(vector: Self::Vector) -> Self::Vector {
        let [low, high] = vector.0;
        // SAFETY: called only from code that `run_avx2` compiled.
        let low = unsafe {
            match N {
                8 => high.0,
                4 => _mm256_permute2f128_ps::<0x11>(low.0, low.0),
                2 => _mm256_permute_ps::<0b11_10_11_10>(low.0),
                _ => _mm256_permute_ps::<0b11_10_11_01>(low.0),
            }
        };
        Each([Wide256(low), high])
    }

    #[inline(always)]
    fn first(vector: Self::Vector) -> f32 {
        // SAFETY: called only from code that `run_avx2` compiled.
        unsafe { _mm256_cvtss_f32(vector.0[0].0) }
    }

    #[inline(always)]
    fn transpose(rows: [Self::Vector; WIDTH]) -> [Self::Vector; WIDTH] {
        let mut out = rows;
        for (half, first) in [(0, 0), (0, 8), (1, 0), (1, 8)] {
            let mut block = [rows[0].0[0].0; 8];
            for (row, value) in block.iter_mut().zip(&rows[first..]) {
                *row = value.0[half].0;
            }
            // SAFETY: called only from code that `run_avx2` compiled.
            let turned = unsafe { transpose::eight(block) };
            for (out, column) in out[8 * half..].iter_mut().zip(turned) {
                out.0[first / 8] = Wide256(column);
            }
        }
        out
    }

    #[inline(always)]
    fn load(source: &[f32; WIDTH]) -> Self::Vector {
        // SAFETY: called only from code that `run_avx2` compiled; 16 values are readable.
        unsafe {
            let at = source.as_ptr();
            Each([Wide256(_mm256_loadu_ps(at)), Wide256(_mm256_loadu_ps(at.add(8)))])
        }
    }

    #[inline(always)]
    fn store(vector: Self::Vector, target: &mut [f32; WIDTH]) {
        // SAFETY: called only from code that `run_avx2` compiled; 16 values are writable.
        unsafe {
            let at = target.as_mut_ptr();
            _mm256_storeu_ps(at, vector.0[0].0);
            _mm256_storeu_ps(at.add(8), vector.0[1].0);
        }
    }

    #[inline(always)]
    fn read(source: &[f16; WIDTH]) -> Self::Vector {
        // SAFETY: called only from code that `run_avx2` compiled; 16 values are readable.
        unsafe {
            let at = source.as_ptr().cast();
            let low = _mm256_cvtph_ps(_mm_loadu_si128(at));
            Each([Wide256(low), Wide256(_mm256_cvtph_ps(_mm_loadu_si128(at.add(1))))])
        }
    }

    #[inline(always)]
    fn read_bytes(source: &[i8; WIDTH]) -> Self::Vector {
        // SAFETY: called only from code that `run_avx2` compiled; 16 bytes are readable.
        unsafe {
            let low = _mm_loadu_si128(source.as_ptr().cast());
            let wide = [low, _mm_srli_si128::<8>(low)];
            Each(wide.map(|bytes| Wide256(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)))))
        }
    }

    #[inline(always)]
    fn write(vector: Self::Vector, target: &mut [f16; WIDTH]) {
        // SAFETY: called only from code that `run_avx2` compiled; 16 values are writable.
        unsafe {
            let at = target.as_mut_ptr().cast();
            _mm_storeu_si128(at, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector.0[0].0));
            _mm_storeu_si128(at.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector.0[1].0));
        }
    }

    #[inline(always)]
    fn rounded(vector: Self::Vector) -> Self::Vector {
        Each(vector.0.map(|part| {
            // SAFETY: called only from code that `run_avx2` compiled.
            Wide256(unsafe { _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(part.0)) })
        }))
    }
});
lanes!(Avx512, 16, avx512_widen, avx512_narrow, avx512_pairs, {
    type Vector = Wide512;
    const TALL: usize = 32;

    #[inline(always)]
    unsafe fn turn_tall(rows: &[&[u16]], at: usize, target: *mut u16, pitch: usize) {
        let rows = rows.first_chunk().expect("invariant: as many rows");
        // SAFETY: the caller's promise; called only from code that `run_avx512` compiled.
        unsafe { transpose::turn_32(rows, at, target, pitch) };
    }

    #[inline(always)]
    fn down<const N: usize>(vector: Wide512) -> Wide512 {
        // SAFETY: called only from code that `run_avx512` compiled.
        Wide512(unsafe {
            match N {
                8 => _mm512_shuffle_f32x4::<0b11_10_11_10>(vector.0, vector.0),
                4 => _mm512_shuffle_f32x4::<0b11_10_11_01>(vector.0, vector.0),
                2 => _mm512_permute_ps::<0b11_10_11_10>(vector.0),
                _ => _mm512_permute_ps::<0b11_10_11_01>(vector.0),
            }
        })
    }

    #[inline(always)]
    fn first(vector: Wide512) -> f32 {
        // SAFETY: called only from code that `run_avx512` compiled.
        unsafe { _mm512_cvtss_f32(vector.0) }
    }

    #[inline(always)]
    fn transpose(rows: [Wide512; WIDTH]) -> [Wide512; WIDTH] {
        let (mut out, mut plain) = (rows, [rows[0].0; WIDTH]);
        for (plain, row) in plain.iter_mut().zip(rows) {
            *plain = row.0;
        }
        // SAFETY: called only from code that `run_avx512` compiled.
        for (out, column) in out.iter_mut().zip(unsafe { transpose::sixteen(plain) }) {
            *out = Wide512(column);
        }
        out
    }

    #[inline(always)]
    fn load(source: &[f32; WIDTH]) -> Wide512 {
        // SAFETY: called only from code that `run_avx512` compiled; 16 values are readable.
        Wide512(unsafe { _mm512_loadu_ps(source.as_ptr()) })
    }

    #[inline(always)]
    fn store(vector: Wide512, target: &mut [f32; WIDTH]) {
        // SAFETY: called only from code that `run_avx512` compiled; 16 values are writable.
        unsafe { _mm512_storeu_ps(target.as_mut_ptr(), vector.0) }
    }

    #[inline(always)]
    fn read(source: &[f16; WIDTH]) -> Wide512 {
        // SAFETY: called only from code that `run_avx512` compiled; 16 values are readable.
        Wide512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(source.as_ptr().cast())) })
    }

    #[inline(always)]
    fn read_bytes(source: &[i8; WIDTH]) -> Wide512 {
        // SAFETY: called only from code that `run_avx512` compiled; 16 bytes are readable.
        Wide512(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(source.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn write(vector: Wide512, target: &mut [f16; WIDTH]) {
        // SAFETY: called only from code that `run_avx512` compiled; 16 values are writable.
        unsafe { _mm256_storeu_si256(target.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(vector.0)) }
    }

    #[inline(always)]
    fn rounded(vector: Wide512) -> Wide512 {
        // SAFETY: called only from code that `run_avx512` compiled.
        Wide512(unsafe { _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(vector.0)) })
    }
});
