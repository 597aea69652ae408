//! Transposes: of square blocks of single-precision values, and of columns of 16-bit values.

use std::arch::x86_64::{
    __m128i, __m256, __m512, _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpackhi_epi32,
    _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castsi128_si256,
    _mm256_inserti128_si256, _mm256_permute2f128_ps, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm256_unpackhi_epi16, _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_epi16, _mm256_unpacklo_pd,
    _mm256_unpacklo_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castsi128_si512, _mm512_inserti32x4,
    _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_storeu_si512, _mm512_unpackhi_epi16,
    _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_epi16, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

/// Within every 128 bits: of each four rows, column `j` of all four becomes row `j`.
macro_rules! fours {
    ($rows:ident, $low_ps:ident, $high_ps:ident, $low_pd:ident, $high_pd:ident, $to_pd:ident, $to_ps:ident) => {
        for four in $rows.as_chunks_mut::<4>().0 {
            let [a, b, c, d] = *four;
            let (ab, cd) = ($to_pd($low_ps(a, b)), $to_pd($low_ps(c, d)));
            let (more_ab, more_cd) = ($to_pd($high_ps(a, b)), $to_pd($high_ps(c, d)));
            *four = [
                $to_ps($low_pd(ab, cd)),
                $to_ps($high_pd(ab, cd)),
                $to_ps($low_pd(more_ab, more_cd)),
                $to_ps($high_pd(more_ab, more_cd)),
            ];
        }
    };
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn eight(mut rows: [__m256; 8]) -> [__m256; 8] {
    fours!(
        rows,
        _mm256_unpacklo_ps,
        _mm256_unpackhi_ps,
        _mm256_unpacklo_pd,
        _mm256_unpackhi_pd,
        _mm256_castps_pd,
        _mm256_castpd_ps
    );
    let mut out = rows;
    for column in 0..4 {
        out[column] = _mm256_permute2f128_ps::<0x20>(rows[column], rows[4 + column]);
        out[4 + column] = _mm256_permute2f128_ps::<0x31>(rows[column], rows[4 + column]);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn sixteen(mut rows: [__m512; 16]) -> [__m512; 16] {
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    fours!(
        rows,
        _mm512_unpacklo_ps,
        _mm512_unpackhi_ps,
        _mm512_unpacklo_pd,
        _mm512_unpackhi_pd,
        _mm512_castps_pd,
        _mm512_castpd_ps
    );
    let mut out = rows;
    for column in 0..4 {
        let (a, b, c, d) = (rows[column], rows[4 + column], rows[8 + column], rows[12 + column]);
        let even = [_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<EVEN>(c, d)];
        let odd = [_mm512_shuffle_f32x4::<ODD>(a, b), _mm512_shuffle_f32x4::<ODD>(c, d)];
        out[column] = _mm512_shuffle_f32x4::<EVEN>(even[0], even[1]);
        out[8 + column] = _mm512_shuffle_f32x4::<ODD>(even[0], even[1]);
        out[4 + column] = _mm512_shuffle_f32x4::<EVEN>(odd[0], odd[1]);
        out[12 + column] = _mm512_shuffle_f32x4::<ODD>(odd[0], odd[1]);
    }
    out
}

/// Within every 128 bits, turns squares of 8 rows: every round moves one bit of a value's row into its column, and
/// three rounds exchange the two.
macro_rules! squares {
    ($rows:ident, $low:ident, $high:ident) => {
        for _ in 0..3 {
            let halves = $rows;
            for at in 0..4 {
                let (low, high) = (halves[at], halves[at + 4]);
                [$rows[2 * at], $rows[2 * at + 1]] = [$low(low, high), $high(low, high)];
            }
        }
    };
}

/// 8 values of a row.
///
/// # Safety
/// The row holds `at + 8` values.
#[inline(always)]
unsafe fn eight_of(row: &[u16], at: usize) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(row.as_ptr().add(at).cast()) }
}

/// `target[column * pitch + row] = rows[row][at + column]` for 8 columns.
///
/// # Safety
/// Every row holds `at + 8` values, and `target` has room for 8 values at `0`, `pitch`, ... `7 * pitch`.
#[inline(always)]
pub(in super::super) unsafe fn turn_8(rows: &[&[u16]; 8], at: usize, target: *mut u16, pitch: usize) {
    // SAFETY: the caller's promise, and every such processor has SSE2.
    unsafe {
        let mut square = [eight_of(rows[0], at); 8];
        for (square, row) in square.iter_mut().zip(rows) {
            *square = eight_of(row, at);
        }
        squares!(square, _mm_unpacklo_epi16, _mm_unpackhi_epi16);
        for (column, values) in square.into_iter().enumerate() {
            _mm_storeu_si128(target.add(column * pitch).cast(), values);
        }
    }
}

/// [`turn_8`] for 16 rows.
///
/// # Safety
/// As there, for 16 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn turn_16(rows: &[&[u16]; 16], at: usize, target: *mut u16, pitch: usize) {
    let mut squares = [_mm256_setzero_si256(); 8];
    for (row, square) in squares.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let [a, b] = unsafe { [eight_of(rows[row], at), eight_of(rows[row + 8], at)] };
        *square = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    }
    squares!(squares, _mm256_unpacklo_epi16, _mm256_unpackhi_epi16);
    for (column, values) in squares.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(target.add(column * pitch).cast(), values) };
    }
}

/// [`turn_8`] for 32 rows.
///
/// # Safety
/// As there, for 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn turn_32(rows: &[&[u16]; 32], at: usize, target: *mut u16, pitch: usize) {
    let mut squares = [_mm512_setzero_si512(); 8];
    for (row, square) in squares.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let [a, b] = unsafe { [eight_of(rows[row], at), eight_of(rows[row + 8], at)] };
        // SAFETY: as above.
        let [c, d] = unsafe { [eight_of(rows[row + 16], at), eight_of(rows[row + 24], at)] };
        let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
        *square = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d);
    }
    squares!(squares, _mm512_unpacklo_epi16, _mm512_unpackhi_epi16);
    for (column, values) in squares.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(target.add(column * pitch).cast(), values) };
    }
}

/// `target[column] = [rows[0][column], ...]`.
#[inline(always)]
pub(in super::super) fn interleave(rows: [&[u16; 8]; 4], target: &mut [[u16; 4]; 8]) {
    let at: *mut __m128i = target.as_mut_ptr().cast();
    // SAFETY: rows hold 8 values and `target` 32, and every such processor has SSE2.
    unsafe {
        let [a, b] = [eight_of(rows[0], 0), eight_of(rows[1], 0)];
        let [c, d] = [eight_of(rows[2], 0), eight_of(rows[3], 0)];
        let (ab, cd) = (_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
        _mm_storeu_si128(at, _mm_unpacklo_epi32(ab, cd));
        _mm_storeu_si128(at.add(1), _mm_unpackhi_epi32(ab, cd));
        let (ab, cd) = (_mm_unpackhi_epi16(a, b), _mm_unpackhi_epi16(c, d));
        _mm_storeu_si128(at.add(2), _mm_unpacklo_epi32(ab, cd));
        _mm_storeu_si128(at.add(3), _mm_unpackhi_epi32(ab, cd));
    }
}
