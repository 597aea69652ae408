//! Half-precision arithmetic, 32 numbers at a time.

use half::f16;

use super::{Lanes, Real, WIDTH};

/// Numbers of a [`Halves`].
pub(crate) const HALVES: usize = 2 * WIDTH;

/// 32 half-precision numbers. Every operation rounds once, to nearest, ties to even: what an op that stores its result
/// does.
pub(crate) trait Halves<L: Lanes>: Copy {
    fn read(source: &[f16; HALVES]) -> Self;
    fn write(self, target: &mut [f16; HALVES]);
    fn splat(value: f16) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// +0 in place of NaN.
    fn without_nan(self) -> Self;
    /// Whether there is no infinity and no NaN.
    fn is_finite(self) -> bool;
    /// The first 16 and the others, exactly.
    fn wide(self) -> [L::Vector; 2];
    /// The numbers, rounded.
    fn narrow(wide: [L::Vector; 2]) -> Self;

    /// Up to 32 values, with `fill` behind them.
    #[inline(always)]
    fn read_some(source: &[f16], fill: f16) -> Self {
        match source.first_chunk() {
            Some(all) => Self::read(all),
            None => {
                let mut padded = [fill; HALVES];
                padded[..source.len()].copy_from_slice(source);
                Self::read(&padded)
            }
        }
    }

    /// Writes as many values as `target` holds, at most 32.
    #[inline(always)]
    fn write_some(self, target: &mut [f16]) {
        match target.first_chunk_mut() {
            Some(all) => self.write(all),
            None => {
                let mut padded = [f16::ZERO; HALVES];
                self.write(&mut padded);
                target.copy_from_slice(&padded[..target.len()]);
            }
        }
    }
}

/// A routine of half-precision arithmetic that [`super::Simd::run_halves`] compiles for every instruction set; `run`
/// must be `#[inline(always)]`.
pub(crate) trait HalfTask {
    fn run<L: Lanes, H: Halves<L>>(self);
}

/// Single-precision arithmetic, rounded after every operation. Rounding the single-precision result again gives what
/// one rounding of the exact result would: `f32` has at least `2 * 11 + 2` bits.
pub(crate) struct Rounded<L: Lanes>([L::Vector; 2]);

impl<L: Lanes> Clone for Rounded<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Lanes> Copy for Rounded<L> {}

impl<L: Lanes> Halves<L> for Rounded<L> {
    #[inline(always)]
    fn read(source: &[f16; HALVES]) -> Self {
        let [low, high] = *source.as_chunks::<WIDTH>().0 else { unreachable!("invariant: two vectors") };
        Rounded([L::read(&low), L::read(&high)])
    }
    #[inline(always)]
    fn write(self, target: &mut [f16; HALVES]) {
        let (low, high) = target.split_at_mut(WIDTH);
        L::write_some(self.0[0], low);
        L::write_some(self.0[1], high);
    }
    #[inline(always)]
    fn splat(value: f16) -> Self {
        Rounded([L::read(&[value; WIDTH]); 2])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Rounded([L::rounded(self.0[0] + other.0[0]), L::rounded(self.0[1] + other.0[1])])
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Rounded([L::rounded(self.0[0] - other.0[0]), L::rounded(self.0[1] - other.0[1])])
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Rounded([L::rounded(self.0[0] * other.0[0]), L::rounded(self.0[1] * other.0[1])])
    }
    #[inline(always)]
    fn without_nan(self) -> Self {
        let zero = <L::Vector as Real>::splat(0.0);
        let [low, high] = self.0;
        Rounded([
            <L::Vector as Real>::select(low.is_nan(), zero, low),
            <L::Vector as Real>::select(high.is_nan(), zero, high),
        ])
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        // Not by a closure, which would be compiled without the instruction set.
        let ([first, second], infinity) = (self.0, <L::Vector as Real>::splat(f32::INFINITY));
        let finite = <L::Vector as Real>::and(first.abs().lt(infinity), second.abs().lt(infinity));
        <L::Vector as Real>::all(finite)
    }
    #[inline(always)]
    fn wide(self) -> [L::Vector; 2] {
        self.0
    }
    #[inline(always)]
    fn narrow(wide: [L::Vector; 2]) -> Self {
        Rounded([L::rounded(wide[0]), L::rounded(wide[1])])
    }
}
