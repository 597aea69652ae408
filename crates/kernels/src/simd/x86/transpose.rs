//! Transposes of square blocks of single-precision values.

use std::arch::x86_64::{
    __m256, __m512, _mm256_castpd_ps, _mm256_castps_pd, _mm256_permute2f128_ps, _mm256_unpackhi_pd,
    _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_shuffle_f32x4, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
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
