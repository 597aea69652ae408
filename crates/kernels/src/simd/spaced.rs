//! Vectors that lie evenly spaced in a slice, which is checked once for all of them.

use std::marker::PhantomData;

use half::f16;

use super::{Lanes, WIDTH};

/// `N` times [`WIDTH`] values.
#[derive(Clone, Copy)]
pub(crate) struct Spaced<'a, const N: usize> {
    first: *const f16,
    step: usize,
    values: PhantomData<&'a [f16]>,
}

impl<'a, const N: usize> Spaced<'a, N> {
    /// The first at `start`, the others `step` values apart.
    ///
    /// # Panics
    /// When one does not lie in `data`.
    #[inline(always)]
    pub(crate) fn new(data: &'a [f16], start: usize, step: usize) -> Spaced<'a, N> {
        const { assert!(N > 0) };
        let rest = data.get(start..).map_or(0, <[f16]>::len);
        // The first condition keeps the product from wrapping: a slice takes up at most half of the addresses.
        assert!(
            (N == 1 || step <= rest / (N - 1)) && (N - 1) * step + WIDTH <= rest,
            "invariant: vectors lie in their slice"
        );
        Spaced { first: data[start..].as_ptr(), step, values: PhantomData }
    }

    /// Vector `index`.
    #[inline(always)]
    pub(crate) fn read<L: Lanes>(&self, index: usize) -> L::Vector {
        assert!(index < N, "invariant: one of the vectors");
        // SAFETY: `new` has seen that so many values behind the first lie in the slice, which is borrowed.
        L::read(unsafe { &*self.first.add(index * self.step).cast() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scalar;
    use super::*;

    #[test]
    fn vectors_lie_in_their_slice() {
        let data: [f16; 32] = std::array::from_fn(|at| f16::from_f32(at as f32));
        let mut last = [0.0; WIDTH];
        Scalar::store(Spaced::<3>::new(&data, 0, 8).read::<Scalar>(2), &mut last);
        assert_eq!(last, std::array::from_fn(|at| (16 + at) as f32));
        for (start, step) in [(1, 8), (0, 9), (33, 0), (0, usize::MAX), (usize::MAX, 8)] {
            let beyond = std::panic::catch_unwind(|| Spaced::<3>::new(&data, start, step));
            assert!(beyond.is_err(), "from {start} in steps of {step}");
        }
    }
}
