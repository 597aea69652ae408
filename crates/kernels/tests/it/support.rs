//! Contexts, values and comparison.

use std::sync::{Arc, OnceLock};

use aneforge_kernels::threads::Pool;
use aneforge_kernels::{Isa, Kernels, Sums, f16, order};
use proptest::test_runner::Config as ProptestConfig;

/// So many cases, and no files of failed ones.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Every instruction set of this machine, on one thread and on three.
pub fn contexts() -> &'static [Kernels] {
    static CONTEXTS: OnceLock<Vec<Kernels>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let pools = [Arc::new(Pool::new(1)), Arc::new(Pool::new(3))];
        let all =
            Isa::available().into_iter().flat_map(|isa| pools.clone().map(|pool| Kernels::new(isa, pool)));
        all.flatten().collect()
    })
}

/// [`contexts`], and more with fast sums: those whose fast sums are others, and some whose are the defined ones.
pub fn summing_contexts() -> &'static [Kernels] {
    static CONTEXTS: OnceLock<Vec<Kernels>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let fast = contexts().iter().filter(|kernels| match kernels.isa() {
            Isa::AmxBf16 => true,
            Isa::Scalar | Isa::AmxFp16 => kernels.pool().threads() > 1,
            _ => false,
        });
        contexts().iter().cloned().chain(fast.map(|kernels| kernels.clone().with_sums(Sums::Fast))).collect()
    })
}

/// An order in which products sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Defined,
    Parts,
}

impl Order {
    /// That of the products of `kernels` that have the rows for tiles, or have not.
    pub fn of(kernels: &Kernels, for_tiles: bool) -> Order {
        match (kernels.sums(), kernels.isa(), for_tiles) {
            (Sums::Fast, Isa::AmxBf16, true) => Order::Parts,
            _ => Order::Defined,
        }
    }

    pub fn dot(self, terms: impl IntoIterator<Item = (f32, f32)>) -> f32 {
        match self {
            Order::Defined => order::dot(terms),
            Order::Parts => order::parts_dot(terms),
        }
    }
}

/// A sequence of 32-bit numbers from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed >> 32) as u32
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}

/// `count` finite values around 1, with some subnormal and some large ones.
pub fn values(count: usize, seed: u64) -> Vec<f16> {
    let mut random = Random(seed ^ 0x9e37_79b9);
    let mut value = || {
        let uniform = random.next() as f32 / 2_147_483_648.0 - 1.0;
        f16::from_f32(match random.next() % 32 {
            0 => uniform * 6.0e-5,
            1 => uniform * 3.0e-7,
            2 => uniform * 60.0,
            _ => uniform * 2.0,
        })
    };
    (0..count).map(|_| value()).collect()
}

/// [`values`] with infinities and NaN among them.
pub fn wild_values(count: usize, seed: u64) -> Vec<f16> {
    let mut random = Random(seed ^ 0x51ed);
    let mut values = values(count, seed);
    for value in &mut values {
        match random.next() % 24 {
            0 => *value = f16::INFINITY,
            1 => *value = f16::NEG_INFINITY,
            2 => *value = f16::NAN,
            3 => *value = f16::NEG_ZERO,
            4 => *value = f16::MAX,
            _ => {}
        }
    }
    values
}

/// `count` values that do not start at an aligned address.
pub fn misaligned(values: &[f16], shift: usize) -> Vec<f16> {
    std::iter::repeat_n(f16::NAN, shift).chain(values.iter().copied()).collect()
}

/// The same bits, or both NaN.
#[track_caller]
pub fn assert_same(kernels: &Kernels, got: &[f16], want: &[f16], what: &str) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(
            same,
            "{what}: {got} is not {want} ({:#06x}, {:#06x}) at {index}, {kernels:?}",
            got.to_bits(),
            want.to_bits()
        );
    }
}

/// Runs `body` on every context with an output of `want.len()` values full of NaN and compares.
#[track_caller]
pub fn check(want: &[f16], what: &str, mut body: impl FnMut(&Kernels, &mut [f16])) {
    for kernels in contexts() {
        let mut out = vec![f16::NAN; want.len() + 1];
        body(kernels, &mut out[1..]);
        assert_same(kernels, &out[1..], want, what);
    }
}

/// [`check`] on [`summing_contexts`], against what `want` gives in the order of each; see [`Order::of`].
#[track_caller]
pub fn check_sums(
    for_tiles: bool,
    want: impl Fn(Order) -> Vec<f16>,
    what: &str,
    mut body: impl FnMut(&Kernels, &mut [f16]),
) {
    let (defined, parts) = (want(Order::Defined), OnceLock::new());
    for kernels in summing_contexts() {
        let want = match Order::of(kernels, for_tiles) {
            Order::Defined => &defined,
            Order::Parts => parts.get_or_init(|| want(Order::Parts)),
        };
        let mut out = vec![f16::NAN; want.len() + 1];
        body(kernels, &mut out[1..]);
        assert_same(kernels, &out[1..], want, what);
    }
}
