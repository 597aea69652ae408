//! [`Real`] on a register of four.

use std::arch::aarch64::{
    float32x4_t, int32x4_t, uint32x4_t, vabsq_f32, vaddq_f32, vaddq_s32, vandq_s32, vandq_u32, vbslq_f32,
    vceqq_f32, vceqzq_s32, vcleq_f32, vcltq_f32, vcvtq_f32_s32, vdivq_f32, vdupq_n_f32, vdupq_n_s32,
    vdupq_n_u32, veorq_u32, vfmaq_f32, vminvq_u32, vmulq_f32, vmvnq_u32, vorrq_u32, vreinterpretq_f32_s32,
    vreinterpretq_f32_u32, vreinterpretq_s32_f32, vreinterpretq_u32_f32, vrndmq_f32, vrndpq_f32, vshlq_n_s32,
    vshrq_n_s32, vsqrtq_f32, vsubq_f32, vsubq_s32,
};
use std::ops::{Add, Div, Mul, Sub};

use crate::simd::real::Real;

/// Four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Quad(pub(super) float32x4_t);

impl Quad {
    #[inline(always)]
    pub(super) fn zero() -> Quad {
        Quad::splat(0.0)
    }
}

/// Evaluates an intrinsic of NEON.
macro_rules! neon {
    ($call:expr) => {
        // SAFETY: NEON is part of every aarch64 processor, and these intrinsics touch no memory.
        unsafe { $call }
    };
}

macro_rules! operators {
    ($($trait:ident $name:ident $intrinsic:ident)*) => { $(
        impl $trait for Quad {
            type Output = Quad;

            #[inline(always)]
            fn $name(self, other: Quad) -> Quad {
                Quad(neon!($intrinsic(self.0, other.0)))
            }
        }
    )* };
}

operators!(Add add vaddq_f32 Sub sub vsubq_f32 Mul mul vmulq_f32 Div div vdivq_f32);

/// Functions whose body is one expression of intrinsics.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => { $(
        #[inline(always)]
        fn $name($($argument: $type),*) -> $result {
            neon!($body)
        }
    )* };
}

/// Methods of one operand or more whose body is one expression of intrinsics.
macro_rules! methods {
    ($($name:ident($this:ident $(, $argument:ident)*) -> $result:ty = $body:expr;)*) => { $(
        #[inline(always)]
        fn $name(self $(, $argument: Self)*) -> $result {
            let $this = self;
            neon!($body)
        }
    )* };
}

const SIGN: u32 = 0x8000_0000;

impl Real for Quad {
    type Mask = uint32x4_t;
    type Int = int32x4_t;

    methods! {
        mul_add(this, factor, summand) -> Self = Quad(vfmaq_f32(summand.0, this.0, factor.0));
        sqrt(this) -> Self = Quad(vsqrtq_f32(this.0));
        abs(this) -> Self = Quad(vabsq_f32(this.0));
        copysign(this, sign) -> Self = Quad(vbslq_f32(vdupq_n_u32(SIGN), sign.0, this.0));
        flip(this, sign) -> Self = Quad(vreinterpretq_f32_u32(veorq_u32(
            vreinterpretq_u32_f32(this.0),
            vandq_u32(vreinterpretq_u32_f32(sign.0), vdupq_n_u32(SIGN))
        )));
        floor(this) -> Self = Quad(vrndmq_f32(this.0));
        ceil(this) -> Self = Quad(vrndpq_f32(this.0));
        lt(this, other) -> uint32x4_t = vcltq_f32(this.0, other.0);
        le(this, other) -> uint32x4_t = vcleq_f32(this.0, other.0);
        eq(this, other) -> uint32x4_t = vceqq_f32(this.0, other.0);
        is_nan(this) -> uint32x4_t = vmvnq_u32(vceqq_f32(this.0, this.0));
        bits(this) -> int32x4_t = vreinterpretq_s32_f32(this.0);
    }
    functions! {
        splat(value: f32) -> Self = Quad(vdupq_n_f32(value));
        and(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vandq_u32(a, b);
        or(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vorrq_u32(a, b);
        not(a: uint32x4_t) -> uint32x4_t = vmvnq_u32(a);
        all(mask: uint32x4_t) -> bool = vminvq_u32(mask) == u32::MAX;
        select(mask: uint32x4_t, a: Self, b: Self) -> Self = Quad(vbslq_f32(mask, a.0, b.0));
        from_bits(bits: int32x4_t) -> Self = Quad(vreinterpretq_f32_s32(bits));
        int(value: i32) -> int32x4_t = vdupq_n_s32(value);
        int_add(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        int_sub(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        to_exponent(a: int32x4_t) -> int32x4_t = vshlq_n_s32::<23>(a);
        exponent_of(a: int32x4_t) -> int32x4_t = vshrq_n_s32::<23>(a);
        int_half(a: int32x4_t) -> int32x4_t = vshrq_n_s32::<1>(a);
        disjoint(a: int32x4_t, b: int32x4_t) -> uint32x4_t = vceqzq_s32(vandq_s32(a, b));
        from_int(a: int32x4_t) -> Self = Quad(vcvtq_f32_s32(a));
    }
}
