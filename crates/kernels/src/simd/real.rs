//! Arithmetic on one value or on a vector of them, written once.

use std::ops::{Add, Div, Mul, Sub};

/// A single-precision number, or several side by side. Every operation is the IEEE one, lane by lane, so a
/// function written with them gives the same bits for one value as for a vector.
pub(crate) trait Real:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// A truth value per lane.
    type Mask: Copy;
    /// A 32-bit integer per lane; arithmetic wraps.
    type Int: Copy;

    fn splat(value: f32) -> Self;
    /// `self * factor + summand`, rounded once.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;

    fn lt(self, other: Self) -> Self::Mask;
    fn le(self, other: Self) -> Self::Mask;
    fn eq(self, other: Self) -> Self::Mask;
    fn is_nan(self) -> Self::Mask;
    fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    fn or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    fn not(a: Self::Mask) -> Self::Mask;
    /// Whether the mask holds in every lane.
    fn all(mask: Self::Mask) -> bool;
    /// `a` where the mask holds, else `b`.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;

    fn bits(self) -> Self::Int;
    fn from_bits(bits: Self::Int) -> Self;
    fn int(value: i32) -> Self::Int;
    fn int_add(a: Self::Int, b: Self::Int) -> Self::Int;
    fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a << 23`.
    fn to_exponent(a: Self::Int) -> Self::Int;
    /// `a >> 23`, with copies of the sign.
    fn exponent_of(a: Self::Int) -> Self::Int;
    /// `a >> 1`, with copies of the sign.
    fn int_half(a: Self::Int) -> Self::Int;
    /// Whether no bit is set in both.
    fn disjoint(a: Self::Int, b: Self::Int) -> Self::Mask;
    fn from_int(a: Self::Int) -> Self;

    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
    #[inline(always)]
    fn ge(self, other: Self) -> Self::Mask {
        other.le(self)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        self.flip(Self::splat(-0.0))
    }
    /// With the sign turned where that of `sign` is negative.
    fn flip(self, sign: Self) -> Self;
    /// `self` where it is larger, else `low`, also for NaN.
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        Self::select(self.gt(low), self, low)
    }
    /// `low` where `self` is smaller, else `self`, also for NaN.
    #[inline(always)]
    fn not_below(self, low: Self) -> Self {
        Self::select(self.lt(low), low, self)
    }
    /// `high` where `self` is larger, else `self`, also for NaN.
    #[inline(always)]
    fn not_above(self, high: Self) -> Self {
        Self::select(self.gt(high), high, self)
    }
    /// `self * 2^n`, rounded once, for `0.5 <= |self| < 2` and an integer `-252 <= n <= 254`, given twice.
    #[inline(always)]
    fn scale(self, _: Self, n: Self::Int) -> Self {
        // The first product is exact.
        let half = Self::int_half(n);
        let power = |n: Self::Int| Self::from_bits(Self::to_exponent(Self::int_add(n, Self::int(127))));
        self * power(half) * power(Self::int_sub(n, half))
    }
}

impl Real for f32 {
    type Mask = bool;
    type Int = i32;

    #[inline(always)]
    fn splat(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn mul_add(self, factor: f32, summand: f32) -> f32 {
        f32::mul_add(self, factor, summand)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn copysign(self, sign: f32) -> f32 {
        f32::copysign(self, sign)
    }
    #[inline(always)]
    fn floor(self) -> f32 {
        f32::floor(self)
    }
    #[inline(always)]
    fn ceil(self) -> f32 {
        f32::ceil(self)
    }
    #[inline(always)]
    fn lt(self, other: f32) -> bool {
        self < other
    }
    #[inline(always)]
    fn le(self, other: f32) -> bool {
        self <= other
    }
    #[inline(always)]
    fn eq(self, other: f32) -> bool {
        self == other
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
    #[inline(always)]
    fn and(a: bool, b: bool) -> bool {
        a & b
    }
    #[inline(always)]
    fn or(a: bool, b: bool) -> bool {
        a | b
    }
    #[inline(always)]
    fn not(a: bool) -> bool {
        !a
    }
    #[inline(always)]
    fn all(mask: bool) -> bool {
        mask
    }
    #[inline(always)]
    fn select(mask: bool, a: f32, b: f32) -> f32 {
        if mask { a } else { b }
    }
    #[inline(always)]
    fn bits(self) -> i32 {
        self.to_bits() as i32
    }
    #[inline(always)]
    fn from_bits(bits: i32) -> f32 {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn int(value: i32) -> i32 {
        value
    }
    #[inline(always)]
    fn int_add(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn int_sub(a: i32, b: i32) -> i32 {
        a.wrapping_sub(b)
    }
    #[inline(always)]
    fn to_exponent(a: i32) -> i32 {
        a << 23
    }
    #[inline(always)]
    fn exponent_of(a: i32) -> i32 {
        a >> 23
    }
    #[inline(always)]
    fn int_half(a: i32) -> i32 {
        a >> 1
    }
    #[inline(always)]
    fn disjoint(a: i32, b: i32) -> bool {
        a & b == 0
    }
    #[inline(always)]
    fn from_int(a: i32) -> f32 {
        a as f32
    }
    #[inline(always)]
    fn flip(self, sign: f32) -> f32 {
        f32::from_bits(self.to_bits() ^ (sign.to_bits() & 0x8000_0000))
    }
}

/// Values side by side, computed one by one.
#[derive(Clone, Copy)]
pub(crate) struct Each<T, const N: usize>(pub(crate) [T; N]);

/// An array of `$body` for every lane: a plain loop, which compiles in less time than `array::from_fn`.
macro_rules! lanes {
    ($lane:ident, $body:expr) => {{
        let mut $lane = 0;
        let mut all = [$body; N];
        while $lane + 1 < N {
            $lane += 1;
            all[$lane] = $body;
        }
        all
    }};
}

macro_rules! operator {
    ($trait:ident, $name:ident) => {
        impl<T: Real, const N: usize> $trait for Each<T, N> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Each(lanes!(lane, $trait::$name(self.0[lane], other.0[lane])))
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

/// Functions of masks or integers that do the same in every lane.
macro_rules! each {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline(always)]
            fn $name($($argument: $type),*) -> $result {
                lanes!(lane, T::$name($($argument[lane]),*))
            }
        )*
    };
}

impl<T: Real, const N: usize> Real for Each<T, N> {
    type Mask = [T::Mask; N];
    type Int = [T::Int; N];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Each([T::splat(value); N])
    }
    #[inline(always)]
    fn int(value: i32) -> [T::Int; N] {
        [T::int(value); N]
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        Each(lanes!(lane, self.0[lane].mul_add(factor.0[lane], summand.0[lane])))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Each(lanes!(lane, T::sqrt(self.0[lane])))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Each(lanes!(lane, T::abs(self.0[lane])))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Each(lanes!(lane, self.0[lane].copysign(sign.0[lane])))
    }
    #[inline(always)]
    fn flip(self, sign: Self) -> Self {
        Each(lanes!(lane, self.0[lane].flip(sign.0[lane])))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        Each(lanes!(lane, T::floor(self.0[lane])))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        Each(lanes!(lane, T::ceil(self.0[lane])))
    }
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        Each(lanes!(lane, self.0[lane].at_least(low.0[lane])))
    }
    #[inline(always)]
    fn not_below(self, low: Self) -> Self {
        Each(lanes!(lane, self.0[lane].not_below(low.0[lane])))
    }
    #[inline(always)]
    fn not_above(self, high: Self) -> Self {
        Each(lanes!(lane, self.0[lane].not_above(high.0[lane])))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        lanes!(lane, self.0[lane].lt(other.0[lane]))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        lanes!(lane, self.0[lane].le(other.0[lane]))
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        lanes!(lane, self.0[lane].eq(other.0[lane]))
    }
    #[inline(always)]
    fn all(mask: Self::Mask) -> bool {
        mask.into_iter().all(T::all)
    }
    #[inline(always)]
    fn is_nan(self) -> Self::Mask {
        lanes!(lane, T::is_nan(self.0[lane]))
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Each(lanes!(lane, T::select(mask[lane], a.0[lane], b.0[lane])))
    }
    #[inline(always)]
    fn bits(self) -> Self::Int {
        lanes!(lane, T::bits(self.0[lane]))
    }
    #[inline(always)]
    fn from_bits(bits: Self::Int) -> Self {
        Each(lanes!(lane, T::from_bits(bits[lane])))
    }
    #[inline(always)]
    fn from_int(a: Self::Int) -> Self {
        Each(lanes!(lane, T::from_int(a[lane])))
    }
    each! {
        and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
        or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
        not(a: Self::Mask) -> Self::Mask;
        int_add(a: Self::Int, b: Self::Int) -> Self::Int;
        int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
        to_exponent(a: Self::Int) -> Self::Int;
        exponent_of(a: Self::Int) -> Self::Int;
        int_half(a: Self::Int) -> Self::Int;
        disjoint(a: Self::Int, b: Self::Int) -> Self::Mask;
    }
}
