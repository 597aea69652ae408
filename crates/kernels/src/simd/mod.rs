//! The instruction sets: all `unsafe` code of the crate but the thread pool's.
//!
//! A routine is a [`Task`], written once as plain code over slices. [`Simd::run`] compiles it under each
//! instruction set and picks at run time; only the conversions of [`Lanes`] and the matrix kernels in [`micro`]
//! and [`amx`] are written with intrinsics.
#![expect(unsafe_code, reason = "intrinsics, and calls of functions compiled for an instruction set")]

mod amx;
mod disjoint;
mod lines;
mod micro;
pub(crate) mod peak;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;

use crate::Isa;

pub(crate) use amx::{PRODUCT_ROWS, TILE_ROWS, TileRows, Tiles};
pub(crate) use disjoint::{Cuts, Grid, Tile, chunks, tiles};
pub(crate) use lines::Lines;
pub(crate) use micro::{COLUMNS, PAIRS, Panel, ROWS, TileBuffer, micro};

/// Conversions between `f16` and `f32` slices of one length, in one instruction set.
pub(crate) trait Lanes {
    /// Exact conversion to `f32`.
    fn widen(source: &[f16], target: &mut [f32]);
    /// Conversion to `f16` with round-to-nearest-even.
    fn narrow(source: &[f32], target: &mut [f16]);
    /// Exact conversion of a row of pairs (the first in the low half) to the row of the firsts, then that of the
    /// seconds.
    fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]);
    /// Rounds to the nearest `f16` value, ties to even, in place.
    fn round(values: &mut [f32]);
}

/// A routine that [`Simd::run`] compiles for every instruction set; `run` must be `#[inline(always)]`.
pub(crate) trait Task {
    type Output;
    fn run<L: Lanes>(self) -> Self::Output;
}

/// An instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Simd(Isa);

impl Simd {
    pub(crate) const SCALAR: Simd = Simd(Isa::Scalar);

    pub(crate) fn new(isa: Isa) -> Option<Simd> {
        let available = match isa {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Isa::AmxFp16 => x86::has_avx512() && amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::AmxFp16 => false,
        };
        available.then_some(Simd(isa))
    }

    pub(crate) fn isa(self) -> Isa {
        self.0
    }

    /// Runs `task` as compiled for this instruction set.
    #[inline]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            // SAFETY: a `Simd` exists only for an instruction set that `Simd::new` found on this machine.
            #[cfg(target_arch = "x86_64")]
            Isa::AmxFp16 | Isa::Avx512 => unsafe { x86::run_avx512(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::run_avx2(task) },
            _ => task.run::<Scalar>(),
        }
    }
}

/// The portable conversions.
pub(crate) struct Scalar;

impl Lanes for Scalar {
    #[inline(always)]
    fn widen(source: &[f16], target: &mut [f32]) {
        for (to, from) in target.iter_mut().zip(source) {
            *to = from.to_f32();
        }
    }

    #[inline(always)]
    fn narrow(source: &[f32], target: &mut [f16]) {
        for (to, from) in target.iter_mut().zip(source) {
            *to = f16::from_f32(*from);
        }
    }

    #[inline(always)]
    fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]) {
        let (first, second) = target.split_at_mut(COLUMNS);
        for ((first, second), &pair) in first.iter_mut().zip(second).zip(source) {
            *first = f16::from_bits(pair as u16).to_f32();
            *second = f16::from_bits((pair >> 16) as u16).to_f32();
        }
    }

    #[inline(always)]
    fn round(values: &mut [f32]) {
        for value in values {
            *value = f16::from_f32(*value).to_f32();
        }
    }
}
