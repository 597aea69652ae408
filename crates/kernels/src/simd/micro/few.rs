//! The matrix kernel for few rows, on a panel of pairs: what bounds it is reading the panel.
//!
//! Converted as they lie, pairs give vectors with the even places in the even lanes and the odd ones in the odd
//! lanes. So both chains of a column run side by side, and neighbouring lanes are added once per block.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd,
    _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_permute_ps,
    _mm256_permute4x64_pd, _mm256_set1_pd, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm512_add_ps, _mm512_castpd_ps, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_permute_ps,
    _mm512_permutex2var_ps, _mm512_set1_pd, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::{BLOCK, Blocks, COLUMNS, PAIRS};

/// Bytes of a row of pairs.
const ROW: usize = COLUMNS * 4;
/// How far ahead the panel is fetched, in bytes: what one thread's line buffers hold, and some more.
const AHEAD: usize = 4096;
/// Swaps neighbouring lanes.
const SWAP: i32 = 0b10_11_00_01;

/// # Safety
/// Row `r < R` of block `k` is 32 values at `a.0 + k * a.1 + r * 32`; `b` holds 16 rows of 32 pairs for each block, `c` `R`
/// rows of 32 sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn few_512<const R: usize>(
    (a, pitch): (*const f32, usize),
    b: *const u8,
    blocks: Blocks,
    c: *mut f32,
) {
    for (block, pairs) in blocks.pairs() {
        // SAFETY: this block is one of those that the caller promises.
        let (a, b) = unsafe { (a.add(block * pitch), b.add(block * PAIRS * ROW)) };
        let mut chains = [[_mm512_setzero_ps(); 4]; R];
        for pair in 0..pairs {
            // SAFETY: `pair < 16` is a row of this block; a fetch ahead may be of any address.
            let row = unsafe {
                let row = b.add(pair * ROW);
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + 64).cast());
                [0, 32, 64, 96].map(|at| _mm512_cvtph_ps(_mm256_loadu_si256(row.add(at).cast())))
            };
            for (r, chains) in chains.iter_mut().enumerate() {
                // SAFETY: `r < R` and `2 * pair + 1 < 32`; an unaligned read of two values.
                let value = unsafe { a.add(r * BLOCK + 2 * pair).cast::<f64>().read_unaligned() };
                let values = _mm512_castpd_ps(_mm512_set1_pd(value));
                for (chain, row) in chains.iter_mut().zip(row) {
                    *chain = _mm512_fmadd_ps(values, row, *chain);
                }
            }
        }
        for (r, chains) in chains.into_iter().enumerate() {
            // SAFETY: `r < R`, and a row of `c` has 32 values.
            unsafe { close_512(chains, c.add(r * COLUMNS)) };
        }
    }
}

/// Ends a block: adds both chains of each of 32 columns to their sums.
///
/// # Safety
/// 32 sums are readable and writable at `c`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) unsafe fn close_512(chains: [__m512; 4], c: *mut f32) {
    let evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let both = chains.map(|chain| _mm512_add_ps(chain, _mm512_permute_ps::<SWAP>(chain)));
    for half in 0..2 {
        let sums = _mm512_permutex2var_ps(both[2 * half], evens, both[2 * half + 1]);
        // SAFETY: the caller's promise.
        unsafe {
            let at = c.add(half * 16);
            _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sums));
        }
    }
}

/// One row times `S` panels side by side: more streams keep more lines on their way from memory.
///
/// # Safety
/// `a` holds `blocks * 32` values, every panel `blocks * 16 * 32` pairs, `c` `S * 32` values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn streams_512<const S: usize>(
    a: *const f32,
    panels: [*const u8; S],
    blocks: usize,
    c: *mut f32,
) {
    const AHEAD: usize = 1024;
    for block in 0..blocks {
        let mut chains = [[_mm512_setzero_ps(); 4]; S];
        for pair in 0..PAIRS {
            // SAFETY: `2 * pair + 1 < 32`, so both values are of this block; an unaligned read of two values.
            let value = unsafe { a.add(block * BLOCK + 2 * pair).cast::<f64>().read_unaligned() };
            let values = _mm512_castpd_ps(_mm512_set1_pd(value));
            for (chains, panel) in chains.iter_mut().zip(panels) {
                // SAFETY: a row of this block of the panel; a fetch ahead may be of any address.
                let row = unsafe {
                    let row = panel.add((block * PAIRS + pair) * ROW);
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + 64).cast());
                    [0, 32, 64, 96].map(|at| _mm512_cvtph_ps(_mm256_loadu_si256(row.add(at).cast())))
                };
                for (chain, row) in chains.iter_mut().zip(row) {
                    *chain = _mm512_fmadd_ps(values, row, *chain);
                }
            }
        }
        for (stream, chains) in chains.into_iter().enumerate() {
            // SAFETY: `stream < S`, and `c` has 32 values for each.
            unsafe { close_512(chains, c.add(stream * COLUMNS)) };
        }
    }
}

/// With `V` vectors, of four columns each, at a time.
///
/// # Safety
/// That of [`few_512`]; `V` is 4 or 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn few_256<const R: usize, const V: usize>(
    (a, pitch): (*const f32, usize),
    b: *const u8,
    blocks: Blocks,
    c: *mut f32,
) {
    let parts = |(block, pairs)| (0..8 / V).map(move |part| (block, pairs, part));
    for (block, pairs, part) in blocks.pairs().flat_map(parts) {
        // SAFETY: this block is one of those that the caller promises, and `part * V < 8`.
        let (a, b) = unsafe { (a.add(block * pitch), b.add(block * PAIRS * ROW + part * V * 16)) };
        let mut chains = [[_mm256_setzero_ps(); V]; R];
        for pair in 0..pairs {
            let mut row = [_mm256_setzero_ps(); V];
            for (v, row_part) in row.iter_mut().enumerate() {
                // SAFETY: `pair < 16` and `part * V + v < 8`; a fetch ahead may be of any address.
                unsafe {
                    let at = b.add(pair * ROW + v * 16);
                    if v % 4 == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                    }
                    *row_part = _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
                }
            }
            for (r, chains) in chains.iter_mut().enumerate() {
                // SAFETY: `r < R` and `2 * pair + 1 < 32`; an unaligned read of two values.
                let value = unsafe { a.add(r * BLOCK + 2 * pair).cast::<f64>().read_unaligned() };
                let values = _mm256_castpd_ps(_mm256_set1_pd(value));
                for (chain, row) in chains.iter_mut().zip(row) {
                    *chain = _mm256_fmadd_ps(values, row, *chain);
                }
            }
        }
        for (r, chains) in chains.iter().enumerate() {
            let both = chains.map(|chain| _mm256_add_ps(chain, _mm256_permute_ps::<SWAP>(chain)));
            for two in 0..V / 2 {
                // Even lanes of both, as columns 0 1 4 5 2 3 6 7.
                let mixed = _mm256_shuffle_ps::<0b10_00_10_00>(both[2 * two], both[2 * two + 1]);
                let sums = _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(mixed)));
                // SAFETY: `r < R`, and a row of `c` has 32 values.
                unsafe {
                    let at = c.add(r * COLUMNS + part * V * 4 + two * 8);
                    _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sums));
                }
            }
        }
    }
}
