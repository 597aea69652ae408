//! Compressed panels on AVX2: decoding, and one row times panels that are decoded in registers.
//!
//! Bytes and indices are looked up within halves of a register. So chain `q` of a half of a row holds the values
//! `4 q .. 4 q + 4` and those 16 behind them, which [`close_mixed`] puts in order.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch,
    _mm_shuffle_epi8, _mm_storeu_si128, _mm256_add_epi8, _mm256_add_ps, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_mul_ps, _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_permute2x128_si256,
    _mm256_permute4x64_pd, _mm256_set1_epi8, _mm256_set1_pd, _mm256_set1_ps, _mm256_setr_epi8,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_shuffle_ps, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16,
    _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
};

use half::f16;

use crate::order::BLOCK;
use crate::simd::stored::{ROW, Scales, Stored};
use crate::simd::{COLUMNS, PAIRS, Simd};

/// How far ahead of what is decoded memory is fetched, in bytes.
const AHEAD: usize = 2048;
/// Swaps neighbouring lanes.
const SWAP: i32 = 0b10_11_00_01;

/// Whether [`vector_256`] takes `stored`.
pub(in super::super) fn multiplies_256(simd: Simd, stored: Stored<'_>) -> bool {
    let whole = !matches!(stored, Stored::Bytes { scales, .. } if !scales.each.is_multiple_of(PAIRS));
    whole && simd.vectors() == crate::Isa::Avx2 && is_x86_feature_detected!("popcnt")
}

/// Whether [`decode_256`] takes `stored`.
pub(in super::super) fn decodes_256(simd: Simd, stored: Stored<'_>) -> bool {
    !matches!(stored, Stored::Bytes { .. }) && multiplies_256(simd, stored)
}

/// See [`crate::simd::vector_of_stored`].
#[target_feature(enable = "popcnt,avx2,fma,f16c")]
pub(in super::super) fn vector_256(a: &[f32], panels: &[Stored<'_>], sums: &mut [[f32; COLUMNS]]) {
    let mut spare = Spare::new();
    for (&panel, sums) in panels.iter().zip(sums) {
        match panel {
            Stored::Bytes { numbers, scales } => multiply_bytes(a, numbers, scales, sums),
            Stored::Indices { indices, table } => multiply_indices(a, indices, table, sums),
            Stored::Sparse { masks, starts, values } => {
                multiply_sparse(a, (masks, starts), (values, &mut spare), sums);
            }
        }
    }
}

/// Writes what `stored` stands for, where [`decodes_256`] says so.
#[target_feature(enable = "popcnt,avx2,fma,f16c")]
pub(in super::super) fn decode_256(stored: Stored<'_>, target: &mut [u32]) {
    let rows: &mut [[f16; ROW]] = bytemuck::cast_slice_mut(target.as_chunks_mut::<COLUMNS>().0);
    match stored {
        Stored::Bytes { .. } => unreachable!("invariant: as `decodes_256` says"),
        Stored::Indices { indices, table } => {
            let tables = bytes_of_halves(table);
            for (row, indices) in rows.iter_mut().zip(indices.as_chunks().0) {
                decode_indices(indices, &tables, row);
            }
        }
        Stored::Sparse { masks, starts, values } => {
            let mut spare = Spare::new();
            let blocks = rows.as_chunks_mut::<PAIRS>().0.iter_mut().zip(masks.as_chunks::<PAIRS>().0);
            for ((rows, masks), &start) in blocks.zip(starts) {
                let (own, mut from) = (spare.of(&values[start..]), 0);
                for (row, &mask) in rows.iter_mut().zip(masks) {
                    for (part, target) in row.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                        let values = spread(own, &mut from, (mask >> (8 * part)) as u8);
                        // SAFETY: 8 values are 16 bytes.
                        unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), values) };
                    }
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fetch<T: ?Sized>(what: &T) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast::<i8>().wrapping_add(AHEAD));
}

/// A pair of factors in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn factors(pair: [f32; 2]) -> __m256 {
    _mm256_castpd_ps(_mm256_set1_pd(bytemuck::cast(pair)))
}

/// The sums of both chains of 8 columns. Of chains of neighbouring values they are those of columns 0 1 4 5 2 3 6 7.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn both(first: __m256, second: __m256) -> __m256 {
    let first = _mm256_add_ps(first, _mm256_permute_ps::<SWAP>(first));
    let second = _mm256_add_ps(second, _mm256_permute_ps::<SWAP>(second));
    _mm256_shuffle_ps::<0b10_00_10_00>(first, second)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_to(sums: &mut [f32; 8], values: __m256) {
    // SAFETY: these are 8 sums.
    unsafe {
        let at = sums.as_mut_ptr();
        _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), values));
    }
}

/// Ends a block: adds both chains of 16 columns, in the order that the file begins with, to their sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn close_mixed(chains: &[__m256; 4], sums: &mut [[f32; 8]; 2]) {
    let (first, second) = (both(chains[0], chains[1]), both(chains[2], chains[3]));
    add_to(&mut sums[0], _mm256_permute2f128_ps::<0x20>(first, second));
    add_to(&mut sums[1], _mm256_permute2f128_ps::<0x31>(first, second));
}

/// The sums of the halves of rows.
#[inline]
fn halves(sums: &mut [f32; COLUMNS]) -> &mut [[[f32; 8]; 2]; 2] {
    bytemuck::cast_mut(sums)
}

/// Greatest magnitude of a scale that makes no weight infinite.
pub(super) const LARGEST: u16 = 0x5fff;
/// What takes 2^24 back.
pub(super) const BACK: f32 = 1.0 / 16_777_216.0;
/// With this product a value is rounded to the 11 bits of an `f16`.
pub(super) const MORE: f32 = 8193.0;

/// What the numbers of a row are multiplied by, in the order of the chains, and these times 2^13 + 1. Numbers come times
/// 2^24, which the scales take back.
struct Multipliers {
    scales: [[[f32; 8]; 4]; 2],
    more: [[[f32; 8]; 4]; 2],
    large: bool,
}

impl Multipliers {
    fn new() -> Multipliers {
        Multipliers { scales: [[[0.0; 8]; 4]; 2], more: [[[0.0; 8]; 4]; 2], large: false }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn set(&mut self, scales: &[f16; ROW]) {
        let (back, more) = (_mm256_set1_ps(BACK), _mm256_set1_ps(MORE));
        self.large = scales.iter().fold(0, |most, scale| most.max(scale.to_bits() & 0x7fff)) > LARGEST;
        for (half, scales) in scales.as_chunks::<32>().0.iter().enumerate() {
            for first in 0..2 {
                // SAFETY: `8 * first + 24 <= 32`.
                let [low, high] = unsafe {
                    let at = scales.as_ptr().add(8 * first).cast::<__m128i>();
                    [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(2)))]
                };
                let (low, high) = (_mm256_mul_ps(low, back), _mm256_mul_ps(high, back));
                let mixed =
                    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
                for (part, mixed) in mixed.into_iter().enumerate() {
                    let at = 2 * first + part;
                    // SAFETY: these are arrays of 8.
                    unsafe {
                        _mm256_storeu_ps(self.scales[half][at].as_mut_ptr(), mixed);
                        _mm256_storeu_ps(self.more[half][at].as_mut_ptr(), _mm256_mul_ps(mixed, more));
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_bytes(a: &[f32], numbers: &[i8], scales: Scales<'_>, sums: &mut [f32; COLUMNS]) {
    let (mut multipliers, mut last) = (Multipliers::new(), std::ptr::null());
    let rows = numbers.as_chunks::<ROW>().0.as_chunks::<PAIRS>().0;
    for (block, (a, rows)) in a.as_chunks::<BLOCK>().0.iter().zip(rows).enumerate() {
        let scales = scales.of(block * PAIRS);
        if !std::ptr::eq(scales, last) {
            multipliers.set(scales);
            last = scales;
        }
        for (half, sums) in halves(sums).iter_mut().enumerate() {
            let chains = if multipliers.large {
                chains_of_bytes::<true>(a, rows, half, &multipliers)
            } else {
                chains_of_bytes::<false>(a, rows, half, &multipliers)
            };
            close_mixed(&chains, sums);
        }
    }
}

/// The chains of a half of the rows of a block. With `LARGE`, weights may be infinite.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn chains_of_bytes<const LARGE: bool>(
    a: &[f32; BLOCK],
    rows: &[[i8; ROW]; PAIRS],
    half: usize,
    multipliers: &Multipliers,
) -> [__m256; 4] {
    // Every number to the top of a lane: there it needs no sign extension.
    let top = top_of_lanes();
    let (mut scales, mut more) = ([_mm256_setzero_ps(); 4], [_mm256_setzero_ps(); 4]);
    for part in 0..4 {
        // SAFETY: these are arrays of 8.
        unsafe {
            scales[part] = _mm256_loadu_ps(multipliers.scales[half][part].as_ptr());
            more[part] = _mm256_loadu_ps(multipliers.more[half][part].as_ptr());
        }
    }
    let mut chains = [_mm256_setzero_ps(); 4];
    for (&pair, row) in a.as_chunks().0.iter().zip(rows) {
        fetch(&row[32 * half]);
        // SAFETY: a half of a row is 32 numbers.
        let numbers = unsafe { _mm256_loadu_si256(row[32 * half..].as_ptr().cast()) };
        let factors = factors(pair);
        for part in 0..4 {
            let number = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(numbers, top[part]));
            let weight = if LARGE {
                _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_mul_ps(
                    number,
                    scales[part],
                )))
            } else {
                // Rounded to 11 bits, ties to even, after Veltkamp. The product is a multiple of 2^-24 as its scale is, so
                // that it has the precision of `f16` also below 2^-14.
                let above = _mm256_mul_ps(number, more[part]);
                _mm256_sub_ps(above, _mm256_fnmadd_ps(number, scales[part], above))
            };
            chains[part] = _mm256_fmadd_ps(factors, weight, chains[part]);
        }
    }
    chains
}

/// For chain `q` the lookup that has byte `4 q + i` of a half at the top of lane `i`, and zeros below.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn top_of_lanes() -> [__m256i; 4] {
    #[rustfmt::skip]
    let first = _mm256_setr_epi8(
        -1, -1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3,
        -1, -1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3,
    );
    #[rustfmt::skip]
    let four = _mm256_setr_epi8(
        0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4,
        0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4,
    );
    let mut all = [first; 4];
    for part in 1..4 {
        all[part] = _mm256_add_epi8(all[part - 1], four);
    }
    all
}

/// The low halves of bytes of indices, or the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn places(indices: __m256i, half: usize) -> __m256i {
    let moved = if half == 0 { indices } else { _mm256_srli_epi16::<4>(indices) };
    _mm256_and_si256(moved, _mm256_set1_epi8(0xf))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn twice(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: these are 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_indices(a: &[f32], indices: &[u8], table: &[f16; 16], sums: &mut [f32; COLUMNS]) {
    let tables = bytes_of_singles(table);
    let rows = indices.as_chunks::<COLUMNS>().0.as_chunks::<PAIRS>().0;
    for (a, rows) in a.as_chunks::<BLOCK>().0.iter().zip(rows) {
        let [first, second] = halves(sums);
        close_mixed(&chains_of_indices::<0>(a, rows, &tables), first);
        close_mixed(&chains_of_indices::<1>(a, rows, &tables), second);
    }
}

/// The chains of a half of the rows of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn chains_of_indices<const HALF: usize>(
    a: &[f32; BLOCK],
    rows: &[[u8; COLUMNS]; PAIRS],
    tables: &[__m256i; 3],
) -> [__m256; 4] {
    let zero = _mm256_setzero_si256();
    let mut chains = [_mm256_setzero_ps(); 4];
    for (&pair, row) in a.as_chunks().0.iter().zip(rows) {
        if HALF == 0 {
            fetch(row);
        }
        // SAFETY: a row is 32 bytes.
        let places = places(unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }, HALF);
        let factors = factors(pair);
        let low = _mm256_shuffle_epi8(tables[0], places);
        let middle = _mm256_shuffle_epi8(tables[1], places);
        let high = _mm256_shuffle_epi8(tables[2], places);
        let below = [_mm256_unpacklo_epi8(zero, low), _mm256_unpackhi_epi8(zero, low)];
        let above = [_mm256_unpacklo_epi8(middle, high), _mm256_unpackhi_epi8(middle, high)];
        for part in 0..2 {
            let weights = [
                _mm256_unpacklo_epi16(below[part], above[part]),
                _mm256_unpackhi_epi16(below[part], above[part]),
            ];
            for (side, weights) in weights.into_iter().enumerate() {
                let chain = &mut chains[2 * part + side];
                *chain = _mm256_fmadd_ps(factors, _mm256_castsi256_ps(weights), *chain);
            }
        }
    }
    chains
}

/// Bytes 1, 2 and 3 of the entries of a table as `f32`, whose byte 0 is 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes_of_singles(table: &[f16; 16]) -> [__m256i; 3] {
    let mut singles = [0.0_f32; 16];
    for (singles, table) in singles.as_chunks_mut::<8>().0.iter_mut().zip(table.as_chunks::<8>().0) {
        // SAFETY: these are 8 values each.
        unsafe {
            let values = _mm256_cvtph_ps(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_storeu_ps(singles.as_mut_ptr(), values);
        }
    }
    let mut bytes = [[0; 16]; 3];
    for (at, single) in singles.iter().enumerate() {
        for (part, bytes) in bytes.iter_mut().enumerate() {
            bytes[at] = single.to_le_bytes()[part + 1];
        }
    }
    [twice(&bytes[0]), twice(&bytes[1]), twice(&bytes[2])]
}

/// The low and the high bytes of the entries of a table.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes_of_halves(table: &[f16; 16]) -> [__m256i; 2] {
    let (mut low, mut high) = ([0; 16], [0; 16]);
    for (at, entry) in table.iter().enumerate() {
        [low[at], high[at]] = entry.to_le_bytes();
    }
    [twice(&low), twice(&high)]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn decode_indices(indices: &[u8; COLUMNS], tables: &[__m256i; 2], row: &mut [f16; ROW]) {
    // SAFETY: these are 32 bytes.
    let indices = unsafe { _mm256_loadu_si256(indices.as_ptr().cast()) };
    for (half, target) in row.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let places = places(indices, half);
        let (low, high) = (_mm256_shuffle_epi8(tables[0], places), _mm256_shuffle_epi8(tables[1], places));
        let (first, second) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
        // SAFETY: these are 32 values.
        unsafe {
            let at = target.as_mut_ptr();
            _mm256_storeu_si256(at.cast(), _mm256_permute2x128_si256::<0x20>(first, second));
            _mm256_storeu_si256(at.add(16).cast(), _mm256_permute2x128_si256::<0x31>(first, second));
        }
    }
}

/// As many values as a block has at most, and as many as are read behind them.
const KEPT: usize = BLOCK * COLUMNS + 8;

/// Room for the values of the last blocks, behind which there are no others to read.
struct Spare([f16; KEPT]);

impl Spare {
    fn new() -> Spare {
        Spare([f16::ZERO; KEPT])
    }

    #[inline]
    fn of<'a>(&'a mut self, values: &'a [f16]) -> &'a [f16; KEPT] {
        match values.first_chunk() {
            Some(values) => values,
            None => {
                self.0[..values.len()].copy_from_slice(values);
                &self.0
            }
        }
    }
}

/// For every byte of a mask the bytes of the values that come to the places of its set bits; zeros come to the others.
static SPREAD: [[u8; 16]; 256] = {
    let mut all = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut bit, mut rank) = (0, 0);
        while bit < 8 {
            if mask >> bit & 1 == 1 {
                (all[mask][2 * bit], all[mask][2 * bit + 1]) = (2 * rank, 2 * rank + 1);
                rank += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    all
};

/// The values of 8 bits of a mask. Called for the bits of a block from the first on, with `from` 0 before that.
#[inline]
#[target_feature(enable = "popcnt,avx2,fma,f16c")]
fn spread(own: &[f16; KEPT], from: &mut usize, mask: u8) -> __m128i {
    // SAFETY: `from` is at most the number of bits before these, so that 8 values are to be read; so is an entry.
    let values = unsafe {
        let places = _mm_loadu_si128(SPREAD[usize::from(mask)].as_ptr().cast());
        _mm_shuffle_epi8(_mm_loadu_si128(own.as_ptr().add(*from).cast()), places)
    };
    *from += mask.count_ones() as usize;
    values
}

#[target_feature(enable = "popcnt,avx2,fma,f16c")]
fn multiply_sparse(
    a: &[f32],
    (masks, starts): (&[u64], &[usize]),
    (values, spare): (&[f16], &mut Spare),
    sums: &mut [f32; COLUMNS],
) {
    let blocks = masks.as_chunks::<PAIRS>().0.iter().zip(starts);
    for (a, (masks, &start)) in a.as_chunks::<BLOCK>().0.iter().zip(blocks) {
        let (own, mut from) = (spare.of(&values[start..]), 0);
        let mut chains = [_mm256_setzero_ps(); 8];
        for (&pair, &mask) in a.as_chunks().0.iter().zip(masks) {
            let factors = factors(pair);
            fetch(&own[from]);
            for (part, chain) in chains.iter_mut().enumerate() {
                let weights = _mm256_cvtph_ps(spread(own, &mut from, (mask >> (8 * part)) as u8));
                *chain = _mm256_fmadd_ps(factors, weights, *chain);
            }
        }
        let sums: &mut [[f32; 8]; 4] = bytemuck::cast_mut(sums);
        for (chains, sums) in chains.as_chunks::<2>().0.iter().zip(sums) {
            let mixed = _mm256_castps_pd(both(chains[0], chains[1]));
            add_to(sums, _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(mixed)));
        }
    }
}
