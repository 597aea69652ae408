//! How to run: the instruction set and the threads.

use std::sync::Arc;

use crate::simd::{Factors, Simd};
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
    /// x86-64 Linux with AMX tiles of `bf16`, and everything of [`Isa::Avx512Fp16`]; with [`Sums::Fast`], products of
    /// matrices of 7 rows or more, attention and convolutions of more than 4 channels per group or outputs per group
    /// run on the tiles.
    AmxBf16,
    /// x86-64 Linux with AMX tiles of `f16`, and everything of [`Isa::Avx512Fp16`]; what [`Isa::AmxBf16`] runs on tiles
    /// runs on them in either way of summing.
    ///
    /// With the crate's feature `emulate-amx`, a testing aid, every x86-64 Linux has both kinds of tiles. Instructions
    /// that the processor lacks are emulated, which is very slow, and vectors are the widest that there are.
    AmxFp16,
    /// aarch64 with NEON, which every such processor has.
    Neon,
    /// aarch64 with the instructions FMLAL, which multiply `f16` and add to `f32`, and everything of [`Isa::Neon`].
    NeonFhm,
}

/// How the products of matrices and of convolutions sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sums {
    /// In the order of [`crate::order::Dot`]: the same bits everywhere.
    Defined,
    /// In the fastest order that this processor has with exact products and sums of single precision: that of
    /// [`crate::order::PartsDot`] on [`Isa::AmxBf16`], for 7 rows (or pixels) or more, and the defined one elsewhere. The
    /// bits do not depend on threads, layouts, blocking or the form of the weights.
    #[default]
    Fast,
}

impl Isa {
    /// The instruction sets that this machine can run, slowest first; never empty.
    #[must_use]
    pub fn available() -> Vec<Isa> {
        let x86 = [Isa::Avx2, Isa::Avx512, Isa::Avx512Fp16, Isa::AmxBf16, Isa::AmxFp16];
        let all = [Isa::Scalar].into_iter().chain(x86).chain([Isa::Neon, Isa::NeonFhm]);
        all.filter(|&isa| Simd::new(isa).is_some()).collect()
    }

    /// The fastest instruction set that this machine can run.
    #[must_use]
    pub fn best() -> Isa {
        Isa::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// The instruction set of this name, that of the variant in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Isa> {
        let all = [
            Isa::Scalar,
            Isa::Avx2,
            Isa::Avx512,
            Isa::Avx512Fp16,
            Isa::AmxBf16,
            Isa::AmxFp16,
            Isa::Neon,
            Isa::NeonFhm,
        ];
        all.into_iter().find(|isa| format!("{isa:?}").eq_ignore_ascii_case(name.trim()))
    }

    /// Whether this machine can run the set, also where the processor does not say so, as some virtual machines make it
    /// conceal [`Isa::AmxFp16`]: tries the instructions, in a child process, as bad ones would end it, and compares what
    /// they give with the definition. Where that goes well, the set is available from then on.
    #[must_use]
    pub fn probe(self) -> bool {
        Simd::probe(self)
    }
}

/// The context that every routine takes: an instruction set known to be available, and a thread pool.
///
/// Results do not depend on it, unless it sums fast; only the time does. Cloning is cheap and shares the pool.
#[derive(Clone, Debug)]
pub struct Kernels {
    pub(crate) simd: Simd,
    pub(crate) sums: Sums,
    pub(crate) pool: Arc<Pool>,
}

impl Kernels {
    /// A context for `isa` on `pool`, with defined sums; `None` when this machine cannot run `isa`.
    #[must_use]
    pub fn new(isa: Isa, pool: Arc<Pool>) -> Option<Kernels> {
        Simd::new(isa).map(|simd| Kernels { simd, sums: Sums::Defined, pool })
    }

    /// This context, for `isa`; `None` when this machine cannot run it.
    #[must_use]
    pub fn with_isa(self, isa: Isa) -> Option<Kernels> {
        Simd::new(isa).map(|simd| Kernels { simd, ..self })
    }

    /// This context, on these threads.
    #[must_use]
    pub fn on(self, pool: Arc<Pool>) -> Kernels {
        Kernels { pool, ..self }
    }

    /// This context, with products that sum so. How much scratch they need may depend on it.
    #[must_use]
    pub fn with_sums(self, sums: Sums) -> Kernels {
        Kernels { sums, ..self }
    }

    /// The fastest instruction set, with defined sums, on a new pool of `threads` threads (the caller counts as one).
    #[must_use]
    pub fn with_threads(threads: usize) -> Kernels {
        let simd = Simd::new(Isa::best()).unwrap_or(Simd::SCALAR);
        Kernels { simd, sums: Sums::Defined, pool: Arc::new(Pool::new(threads)) }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.simd.isa()
    }

    /// How products sum.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// What tile registers multiply, where products run on them.
    pub(crate) fn tiles(&self) -> Option<Factors> {
        match (self.simd.isa(), self.sums) {
            (Isa::AmxFp16, _) => Some(Factors::Halves),
            (Isa::AmxBf16, Sums::Fast) => Some(Factors::Parts),
            _ => None,
        }
    }

    /// The threads in use.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
