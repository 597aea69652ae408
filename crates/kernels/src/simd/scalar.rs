//! The portable instruction set: no intrinsics.

use super::real::{Each, Real};
use super::{COLUMNS, Lanes, WIDTH};
use half::f16;
use std::ops::{Add, Div, Mul, Sub};

/// Values side by side, computed one by one by functions that are not inlined: inlined, the portable form of every
/// routine takes as long to compile as the forms of two vector instruction sets.
#[derive(Clone, Copy)]
pub(crate) struct Apart(Each<f32, WIDTH>);

macro_rules! operators {
    ($($trait:ident $name:ident;)*) => {$(
        impl $trait for Apart {
            type Output = Self;

            #[inline(never)]
            fn $name(self, other: Self) -> Self {
                Apart(self.0.$name(other.0))
            }
        }
    )*};
}

operators! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}

macro_rules! values {
    ($($name:ident($($other:ident),*);)*) => {$(
        #[inline(never)]
        fn $name(self, $($other: Self),*) -> Self {
            Apart(self.0.$name($($other.0),*))
        }
    )*};
}

macro_rules! comparisons {
    ($($name:ident($($other:ident),*);)*) => {$(
        #[inline(never)]
        fn $name(self, $($other: Self),*) -> Self::Mask {
            self.0.$name($($other.0),*)
        }
    )*};
}

/// Functions of truth values and integers.
macro_rules! others {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[inline(never)]
        fn $name($($argument: $type),*) -> $result {
            <Each<f32, WIDTH> as Real>::$name($($argument),*)
        }
    )*};
}

impl Real for Apart {
    type Mask = [bool; WIDTH];
    type Int = [i32; WIDTH];

    values! {
        mul_add(factor, summand);
        sqrt();
        abs();
        copysign(sign);
        flip(sign);
        floor();
        ceil();
        at_least(low);
        not_below(low);
        not_above(high);
    }
    comparisons! {
        lt(other);
        le(other);
        eq(other);
        is_nan();
    }
    others! {
        all(mask: Self::Mask) -> bool;
        and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
        or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
        not(a: Self::Mask) -> Self::Mask;
        int(value: i32) -> Self::Int;
        int_add(a: Self::Int, b: Self::Int) -> Self::Int;
        int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
        to_exponent(a: Self::Int) -> Self::Int;
        exponent_of(a: Self::Int) -> Self::Int;
        int_half(a: Self::Int) -> Self::Int;
        disjoint(a: Self::Int, b: Self::Int) -> Self::Mask;
    }

    #[inline(never)]
    fn splat(value: f32) -> Self {
        Apart(Each::splat(value))
    }
    #[inline(never)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Apart(Each::select(mask, a.0, b.0))
    }
    #[inline(never)]
    fn bits(self) -> Self::Int {
        self.0.bits()
    }
    #[inline(never)]
    fn from_bits(bits: Self::Int) -> Self {
        Apart(Each::from_bits(bits))
    }
    #[inline(never)]
    fn from_int(a: Self::Int) -> Self {
        Apart(Each::from_int(a))
    }
}

/// The portable conversions.
pub(crate) struct Scalar;

impl Lanes for Scalar {
    const ONE_BY_ONE: bool = true;
    type Vector = Apart;

    #[inline(always)]
    fn load(source: &[f32; WIDTH]) -> Self::Vector {
        Apart(Each(*source))
    }

    #[inline(always)]
    fn store(vector: Self::Vector, target: &mut [f32; WIDTH]) {
        *target = vector.0.0;
    }

    #[inline(never)]
    fn read(source: &[f16; WIDTH]) -> Self::Vector {
        let mut wide = [0.0; WIDTH];
        widen_one_by_one(source, &mut wide);
        Apart(Each(wide))
    }

    #[inline(never)]
    fn read_bytes(source: &[i8; WIDTH]) -> Self::Vector {
        Apart(Each(source.map(f32::from)))
    }

    #[inline(never)]
    fn write(vector: Self::Vector, target: &mut [f16; WIDTH]) {
        narrow_one_by_one(&vector.0.0, target);
    }

    #[inline(never)]
    fn rounded(vector: Self::Vector) -> Self::Vector {
        let mut half = [f16::ZERO; WIDTH];
        narrow_one_by_one(&vector.0.0, &mut half);
        Self::read(&half)
    }

    #[inline(always)]
    fn widen(source: &[f16], target: &mut [f32]) {
        widen_one_by_one(source, target);
    }

    #[inline(always)]
    fn narrow(source: &[f32], target: &mut [f16]) {
        narrow_one_by_one(source, target);
    }

    #[inline(never)]
    fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]) {
        let (first, second) = target.split_at_mut(COLUMNS);
        for ((first, second), &pair) in first.iter_mut().zip(second).zip(source) {
            *first = f16::from_bits(pair as u16).to_f32();
            *second = f16::from_bits((pair >> 16) as u16).to_f32();
        }
    }
}

// Not inlined: the conversion is long, and used everywhere.
#[inline(never)]
pub(super) fn widen_one_by_one(source: &[f16], target: &mut [f32]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = from.to_f32();
    }
}

#[inline(never)]
pub(super) fn narrow_one_by_one(source: &[f32], target: &mut [f16]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = f16::from_f32(*from);
    }
}
