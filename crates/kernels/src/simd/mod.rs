//! The instruction sets: all `unsafe` code of the crate but the thread pool's.
//!
//! A routine is a [`Task`], written once as plain code over slices. [`Simd::run`] compiles it under each
//! instruction set and picks at run time; only the conversions of [`Lanes`] and the matrix kernels in [`micro`]
//! and [`amx`] are written with intrinsics.
#![expect(unsafe_code, reason = "intrinsics, and calls of functions compiled for an instruction set")]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod amx;
mod disjoint;
mod half;
mod lines;
mod micro;
pub(crate) mod peak;
pub(crate) mod real;
mod scalar;
mod spaced;
mod stored;
mod turn;
#[cfg(target_arch = "x86_64")]
mod x86;

use ::half::f16;

use crate::Isa;
use scalar::Scalar;

pub(crate) use amx::{
    Factor, Factors, PRODUCT_ROWS, Part, Split, SplitPanel, SplitRows, TILE_ROWS, TilePanel, TileRows, Tiles,
};
pub(crate) use disjoint::{Cuts, Grid, Place, Tile, Walk as RowsOf, chunks, tiles};
pub(crate) use half::{HALVES, HalfTask, Halves};
pub(crate) use lines::Lines;
pub(crate) use micro::{COLUMNS, Filled, PAIRS, Panel, ROWS, STREAMS, micro, vector};
pub(crate) use real::Real;
pub(crate) use spaced::Spaced;
pub(crate) use stored::{ROW, Scales, Stored, decode, vector_of_stored};
pub(crate) use turn::{expect_soon, interleave, lines_of, turn};

/// Values of a [`Lanes::Vector`].
pub(crate) const WIDTH: usize = 16;

/// Vectors, and conversions between `f16` and `f32` slices of one length, in one instruction set.
pub(crate) trait Lanes {
    /// [`WIDTH`] values.
    type Vector: Real;

    /// Whether vectors are no faster than one value after the other.
    const ONE_BY_ONE: bool = false;

    /// The values of `source`.
    fn load(source: &[f32; WIDTH]) -> Self::Vector;
    /// Writes the values as they are.
    fn store(vector: Self::Vector, target: &mut [f32; WIDTH]);
    /// The values of `source`, exactly.
    fn read(source: &[f16; WIDTH]) -> Self::Vector;
    /// The numbers of `source`.
    fn read_bytes(source: &[i8; WIDTH]) -> Self::Vector;
    /// Writes the values, rounded to nearest, ties to even.
    fn write(vector: Self::Vector, target: &mut [f16; WIDTH]);
    /// The values, rounded to the nearest `f16`, ties to even.
    fn rounded(vector: Self::Vector) -> Self::Vector;

    /// Lane `j + N` in lane `j`, for `N` 8, 4, 2 or 1 and `j < N`; what the others hold is not specified.
    #[inline(always)]
    fn down<const N: usize>(vector: Self::Vector) -> Self::Vector {
        let mut lanes = [0.0; WIDTH];
        Self::store(vector, &mut lanes);
        lanes.copy_within(N..2 * N, 0);
        Self::load(&lanes)
    }

    /// Lane 0.
    #[inline(always)]
    fn first(vector: Self::Vector) -> f32 {
        let mut lanes = [0.0; WIDTH];
        Self::store(vector, &mut lanes);
        lanes[0]
    }

    /// The transpose of rows.
    #[inline(always)]
    fn transpose(rows: [Self::Vector; WIDTH]) -> [Self::Vector; WIDTH] {
        let mut source = [[0.0; WIDTH]; WIDTH];
        source.iter_mut().zip(rows).for_each(|(target, row)| Self::store(row, target));
        std::array::from_fn(|column| Self::load(&std::array::from_fn(|row| source[row][column])))
    }

    /// Rows that [`Lanes::turn_tall`] takes.
    const TALL: usize = turn::SIDE;

    /// `target[column * pitch + row] = rows[row][at + column]` for 8 columns.
    ///
    /// # Safety
    /// Every row holds `at + 8` values, and `target` has room for [`Lanes::TALL`] values at `0`, `pitch`, ...
    /// `7 * pitch`.
    #[inline(always)]
    unsafe fn turn_tall(rows: &[&[u16]], at: usize, target: *mut u16, pitch: usize) {
        let rows = rows.first_chunk().expect("invariant: as many rows");
        // SAFETY: the caller's promise.
        unsafe { turn::turn_square(rows, at, target, pitch) };
    }

    /// Up to [`WIDTH`] values, with zeros behind them.
    #[inline(always)]
    fn read_some(source: &[f16]) -> Self::Vector {
        match source.first_chunk() {
            Some(all) => Self::read(all),
            None => {
                let mut padded = [f16::ZERO; WIDTH];
                padded[..source.len()].copy_from_slice(source);
                Self::read(&padded)
            }
        }
    }

    /// Writes as many values as `target` holds, at most [`WIDTH`].
    #[inline(always)]
    fn write_some(vector: Self::Vector, target: &mut [f16]) {
        match target.first_chunk_mut() {
            Some(all) => Self::write(vector, all),
            None => {
                let mut padded = [f16::ZERO; WIDTH];
                Self::write(vector, &mut padded);
                target.copy_from_slice(&padded[..target.len()]);
            }
        }
    }
    /// Exact conversion to `f32`.
    fn widen(source: &[f16], target: &mut [f32]);
    /// Conversion to `f16` with round-to-nearest-even.
    fn narrow(source: &[f32], target: &mut [f16]);
    /// Exact conversion of a row of pairs (the first in the low half) to the row of the firsts, then that of the
    /// seconds.
    fn widen_pairs(source: &[u32; COLUMNS], target: &mut [f32; 2 * COLUMNS]);
}

/// A routine that [`Simd::run`] compiles for every instruction set; `run` must be `#[inline(always)]`.
pub(crate) trait Task {
    type Output;
    fn run<L: Lanes>(self) -> Self::Output;
}

/// An instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Simd {
    isa: Isa,
    /// The set without its tiles.
    vectors: Isa,
}

impl Simd {
    pub(crate) const SCALAR: Simd = Simd { isa: Isa::Scalar, vectors: Isa::Scalar };

    pub(crate) fn new(isa: Isa) -> Option<Simd> {
        let vectors = match isa {
            Isa::AmxBf16 | Isa::AmxFp16 => Simd::beside_tiles().filter(|_| amx::available(isa))?,
            vectors => Simd::has_vectors(vectors).then_some(vectors)?,
        };
        Some(Simd { isa, vectors })
    }

    /// See [`Isa::probe`].
    pub(crate) fn probe(isa: Isa) -> bool {
        Simd::new(isa).is_some() || isa == Isa::AmxFp16 && Simd::beside_tiles().is_some() && amx::probe()
    }

    /// The vectors of a set with tiles. Every processor with tiles has AVX512-FP16; emulated tiles stand beside whatever
    /// there is.
    pub(crate) fn beside_tiles() -> Option<Isa> {
        let narrower: &[Isa] =
            if cfg!(feature = "emulate-amx") { &[Isa::Avx512, Isa::Avx2, Isa::Scalar] } else { &[] };
        [Isa::Avx512Fp16].iter().chain(narrower).copied().find(|&isa| Simd::has_vectors(isa))
    }

    fn has_vectors(isa: Isa) -> bool {
        match isa {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Fp16 => x86::has_avx512_fp16(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Fp16 => false,
            Isa::AmxBf16 | Isa::AmxFp16 => false,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonFhm => aarch64::has_fhm(),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::NeonFhm => false,
        }
    }

    pub(crate) fn isa(self) -> Isa {
        self.isa
    }

    /// The set without its tiles.
    pub(crate) fn vectors(self) -> Isa {
        self.vectors
    }

    /// Whether the instructions of [`Isa::Avx512`] are among those of this set.
    #[cfg(target_arch = "x86_64")]
    fn has_avx512(self) -> bool {
        matches!(self.vectors, Isa::Avx512 | Isa::Avx512Fp16)
    }

    /// Whether the matrix kernel reads a panel of pairs at least as fast as one of `f32`, for any number of rows.
    pub(crate) fn prefers_pairs(self) -> bool {
        self.vectors == Isa::NeonFhm
    }

    /// Runs `task` as compiled for this instruction set.
    #[inline]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self.vectors {
            // SAFETY: a `Simd` exists only for an instruction set that `Simd::new` found on this machine.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Fp16 | Isa::Avx512 => unsafe { x86::run_avx512(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::run_avx2(task) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonFhm => task.run::<aarch64::Neon>(),
            _ => task.run::<Scalar>(),
        }
    }

    /// Like [`Simd::run`], with half-precision arithmetic where the processor has it, and else with single-precision
    /// arithmetic that is rounded after every operation.
    #[inline]
    pub(crate) fn run_halves<T: HalfTask>(self, task: T) {
        struct Apart<T>(T);

        impl<T: HalfTask> Task for Apart<T> {
            type Output = ();

            #[inline(always)]
            fn run<L: Lanes>(self) {
                self.0.run::<L, half::Rounded<L>>();
            }
        }

        match self.vectors {
            // SAFETY: a `Simd` exists only for an instruction set that `Simd::new` found on this machine.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Fp16 => unsafe { x86::run_avx512_fp16(task) },
            _ => self.run(Apart(task)),
        }
    }
}
