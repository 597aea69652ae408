//! [`Real`] on vector registers.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, __mmask16, _CMP_EQ_OQ, _CMP_LE_OQ, _CMP_LT_OQ, _CMP_UNORD_Q,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_andnot_ps, _mm256_blendv_ps,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_ceil_ps, _mm256_cmp_ps, _mm256_cmpeq_epi32,
    _mm256_cvtepi32_ps, _mm256_div_ps, _mm256_floor_ps, _mm256_fmadd_ps, _mm256_max_ps, _mm256_min_ps,
    _mm256_movemask_ps, _mm256_mul_ps, _mm256_or_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_slli_epi32, _mm256_sqrt_ps, _mm256_srai_epi32, _mm256_sub_epi32, _mm256_sub_ps, _mm256_xor_ps,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_ps, _mm512_andnot_ps, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_div_ps, _mm512_fmadd_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_sqrt_ps,
    _mm512_srai_epi32, _mm512_sub_epi32, _mm512_sub_ps, _mm512_testn_epi32_mask, _mm512_xor_ps,
};
use std::ops::{Add, Div, Mul, Sub};

use crate::simd::real::Real;

/// Sixteen lanes; used only inside `run_avx512`.
#[derive(Clone, Copy)]
pub(crate) struct Wide512(pub(super) __m512);
/// Eight lanes; used only inside `run_avx2`.
#[derive(Clone, Copy)]
pub(crate) struct Wide256(pub(super) __m256);

/// Evaluates an intrinsic that only needs its instruction set.
macro_rules! only {
    ($call:expr) => {
        // SAFETY: the types of this file are made only by code that `run_avx2` or `run_avx512` compiled, and those
        // run only where the processor has the instructions.
        unsafe { $call }
    };
}

macro_rules! operators {
    ($type:ident { $($trait:ident $name:ident $intrinsic:ident)* }) => {
        $(
            impl $trait for $type {
                type Output = $type;

                #[inline(always)]
                fn $name(self, other: $type) -> $type {
                    $type(only!($intrinsic(self.0, other.0)))
                }
            }
        )*
    };
}

operators!(Wide512 {
    Add add _mm512_add_ps
    Sub sub _mm512_sub_ps
    Mul mul _mm512_mul_ps
    Div div _mm512_div_ps
});
operators!(Wide256 {
    Add add _mm256_add_ps
    Sub sub _mm256_sub_ps
    Mul mul _mm256_mul_ps
    Div div _mm256_div_ps
});

/// Functions whose body is one expression of intrinsics.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name($($argument: $type),*) -> $result {
                only!($body)
            }
        )*
    };
}

/// Methods of one operand or of two whose body is one expression of intrinsics.
macro_rules! methods {
    ($($name:ident($this:ident $(, $argument:ident)*) -> $result:ty = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self $(, $argument: Self)*) -> $result {
                let $this = self;
                only!($body)
            }
        )*
    };
}

const DOWN: i32 = 0x09;
const UP: i32 = 0x0a;

impl Real for Wide512 {
    type Mask = __mmask16;
    type Int = __m512i;

    methods! {
        mul_add(this, factor, summand) -> Self = Wide512(_mm512_fmadd_ps(this.0, factor.0, summand.0));
        sqrt(this) -> Self = Wide512(_mm512_sqrt_ps(this.0));
        abs(this) -> Self = Wide512(_mm512_andnot_ps(_mm512_set1_ps(-0.0), this.0));
        copysign(this, sign) -> Self = Wide512(_mm512_or_ps(
            _mm512_andnot_ps(_mm512_set1_ps(-0.0), this.0),
            _mm512_and_ps(_mm512_set1_ps(-0.0), sign.0)
        ));
        flip(this, sign) -> Self =
            Wide512(_mm512_xor_ps(this.0, _mm512_and_ps(_mm512_set1_ps(-0.0), sign.0)));
        at_least(this, low) -> Self = Wide512(_mm512_max_ps(this.0, low.0));
        not_below(this, low) -> Self = Wide512(_mm512_max_ps(low.0, this.0));
        not_above(this, high) -> Self = Wide512(_mm512_min_ps(high.0, this.0));
        floor(this) -> Self = Wide512(_mm512_roundscale_ps::<DOWN>(this.0));
        ceil(this) -> Self = Wide512(_mm512_roundscale_ps::<UP>(this.0));
        lt(this, other) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(this.0, other.0);
        le(this, other) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(this.0, other.0);
        eq(this, other) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(this.0, other.0);
        is_nan(this) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(this.0, this.0);
        bits(this) -> __m512i = _mm512_castps_si512(this.0);
    }
    functions! {
        splat(value: f32) -> Self = Wide512(_mm512_set1_ps(value));
        select(mask: __mmask16, a: Self, b: Self) -> Self = Wide512(_mm512_mask_blend_ps(mask, b.0, a.0));
        from_bits(bits: __m512i) -> Self = Wide512(_mm512_castsi512_ps(bits));
        int(value: i32) -> __m512i = _mm512_set1_epi32(value);
        int_add(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        int_sub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        to_exponent(a: __m512i) -> __m512i = _mm512_slli_epi32::<23>(a);
        exponent_of(a: __m512i) -> __m512i = _mm512_srai_epi32::<23>(a);
        int_half(a: __m512i) -> __m512i = _mm512_srai_epi32::<1>(a);
        disjoint(a: __m512i, b: __m512i) -> __mmask16 = _mm512_testn_epi32_mask(a, b);
        from_int(a: __m512i) -> Self = Wide512(_mm512_cvtepi32_ps(a));
    }

    #[inline(always)]
    fn scale(self, n: Self, _: __m512i) -> Self {
        Wide512(only!(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn and(a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn or(a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn not(a: __mmask16) -> __mmask16 {
        !a
    }
    #[inline(always)]
    fn all(mask: __mmask16) -> bool {
        mask == __mmask16::MAX
    }
}

impl Real for Wide256 {
    type Mask = __m256;
    type Int = __m256i;

    methods! {
        mul_add(this, factor, summand) -> Self = Wide256(_mm256_fmadd_ps(this.0, factor.0, summand.0));
        sqrt(this) -> Self = Wide256(_mm256_sqrt_ps(this.0));
        abs(this) -> Self = Wide256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), this.0));
        copysign(this, sign) -> Self = Wide256(_mm256_or_ps(
            _mm256_andnot_ps(_mm256_set1_ps(-0.0), this.0),
            _mm256_and_ps(_mm256_set1_ps(-0.0), sign.0)
        ));
        flip(this, sign) -> Self =
            Wide256(_mm256_xor_ps(this.0, _mm256_and_ps(_mm256_set1_ps(-0.0), sign.0)));
        at_least(this, low) -> Self = Wide256(_mm256_max_ps(this.0, low.0));
        not_below(this, low) -> Self = Wide256(_mm256_max_ps(low.0, this.0));
        not_above(this, high) -> Self = Wide256(_mm256_min_ps(high.0, this.0));
        floor(this) -> Self = Wide256(_mm256_floor_ps(this.0));
        ceil(this) -> Self = Wide256(_mm256_ceil_ps(this.0));
        lt(this, other) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(this.0, other.0);
        le(this, other) -> __m256 = _mm256_cmp_ps::<_CMP_LE_OQ>(this.0, other.0);
        eq(this, other) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(this.0, other.0);
        is_nan(this) -> __m256 = _mm256_cmp_ps::<_CMP_UNORD_Q>(this.0, this.0);
        bits(this) -> __m256i = _mm256_castps_si256(this.0);
    }
    functions! {
        splat(value: f32) -> Self = Wide256(_mm256_set1_ps(value));
        and(a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        or(a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        not(a: __m256) -> __m256 = _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
        all(mask: __m256) -> bool = _mm256_movemask_ps(mask) == 0xff;
        select(mask: __m256, a: Self, b: Self) -> Self = Wide256(_mm256_blendv_ps(b.0, a.0, mask));
        from_bits(bits: __m256i) -> Self = Wide256(_mm256_castsi256_ps(bits));
        int(value: i32) -> __m256i = _mm256_set1_epi32(value);
        int_add(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        int_sub(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        to_exponent(a: __m256i) -> __m256i = _mm256_slli_epi32::<23>(a);
        exponent_of(a: __m256i) -> __m256i = _mm256_srai_epi32::<23>(a);
        int_half(a: __m256i) -> __m256i = _mm256_srai_epi32::<1>(a);
        disjoint(a: __m256i, b: __m256i) -> __m256 =
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(a, b), _mm256_setzero_si256()));
        from_int(a: __m256i) -> Self = Wide256(_mm256_cvtepi32_ps(a));
    }
}
