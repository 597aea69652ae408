//! How to run: the instruction set and the threads.

use std::sync::Arc;

use crate::simd::Simd;
use crate::threads::Pool;

/// An instruction set that the routines have code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Portable code; the definition that the others are tested against.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, and everything of [`Isa::Avx2`].
    Avx512,
    /// x86-64 with AVX512-FP16, half-precision arithmetic, and everything of [`Isa::Avx512`].
    Avx512Fp16,
    /// x86-64 Linux with AMX tiles of `f16`, and everything of [`Isa::Avx512Fp16`]; products of matrices
    /// of 7 rows or more, attention and convolutions of more than 4 channels per group run on the tiles. With the crate's feature `emulate-amx-fp16`, a testing aid, tiles of any
    /// kind are enough, and products are very slow.
    AmxFp16,
    /// aarch64 with NEON, which every such processor has.
    Neon,
    /// aarch64 with the instructions FMLAL, which multiply `f16` and add to `f32`, and everything of [`Isa::Neon`].
    NeonFhm,
}

impl Isa {
    /// The instruction sets that this machine can run, slowest first; never empty.
    #[must_use]
    pub fn available() -> Vec<Isa> {
        let x86 = [Isa::Avx2, Isa::Avx512, Isa::Avx512Fp16, Isa::AmxFp16];
        let all = [Isa::Scalar].into_iter().chain(x86).chain([Isa::Neon, Isa::NeonFhm]);
        all.filter(|&isa| Simd::new(isa).is_some()).collect()
    }

    /// The fastest instruction set that this machine can run.
    #[must_use]
    pub fn best() -> Isa {
        Isa::available().last().copied().unwrap_or(Isa::Scalar)
    }
}

/// The context that every routine takes: an instruction set known to be available, and a thread pool.
///
/// Results do not depend on it; only the time does. Cloning is cheap and shares the pool.
#[derive(Clone, Debug)]
pub struct Kernels {
    pub(crate) simd: Simd,
    pub(crate) pool: Arc<Pool>,
}

impl Kernels {
    /// A context for `isa` on `pool`; `None` when this machine cannot run `isa`.
    #[must_use]
    pub fn new(isa: Isa, pool: Arc<Pool>) -> Option<Kernels> {
        Simd::new(isa).map(|simd| Kernels { simd, pool })
    }

    /// The fastest instruction set, on a new pool of `threads` threads (the caller counts as one).
    #[must_use]
    pub fn with_threads(threads: usize) -> Kernels {
        let simd = Simd::new(Isa::best()).unwrap_or(Simd::SCALAR);
        Kernels { simd, pool: Arc::new(Pool::new(threads)) }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.simd.isa()
    }

    /// The threads in use.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
