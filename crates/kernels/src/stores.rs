//! How results are stored, and what is noticed on the way.

use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;

use crate::simd::{Lanes, Real};

/// The least magnitude that rounds to an infinity: halfway from 65504, the largest `f16`, to 65536.
pub(crate) const OVERFLOW: f32 = 65520.0;

/// Whether an infinity or a NaN came up since it was last asked, from whatever operands.
#[derive(Debug, Default)]
pub struct Watch(AtomicBool);

impl Watch {
    /// Says that one came up.
    #[cold]
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one came up, and forgets it.
    #[must_use]
    pub fn take(&mut self) -> bool {
        std::mem::take(self.0.get_mut())
    }
}

/// How the results of a node are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stores<'a> {
    /// NaN becomes +0.
    pub flush_nan: bool,
    /// Told of values that half precision stores as an infinity or NaN, before they are flushed.
    pub watch: Option<&'a Watch>,
}

impl Stores<'_> {
    /// What is stored for `value`.
    #[inline(always)]
    pub(crate) fn vector<L: Lanes>(self, value: L::Vector) -> L::Vector {
        let Some(watch) = self.watch else { return kept::<L>(self.flush_nan, value) };
        // Where all are finite there is no NaN to flush either.
        let finite = value.abs().lt(<L::Vector as Real>::splat(OVERFLOW));
        if <L::Vector as Real>::all(finite) {
            return value;
        }
        watch.note();
        kept::<L>(self.flush_nan, value)
    }

    /// Stores as many values as `out` holds, at most as many as there are.
    #[inline(always)]
    pub(crate) fn write_some<L: Lanes>(self, value: L::Vector, out: &mut [f16]) {
        if let Some(all) = out.first_chunk_mut() {
            return L::write(self.vector::<L>(value), all);
        }
        // What lies behind the last value may well not be finite.
        L::write_some(value, out);
        out.iter_mut().for_each(|value| *value = self.one(*value));
    }

    /// What is stored for `value`, which is rounded already.
    pub(crate) fn one(self, value: f16) -> f16 {
        if !value.is_finite() {
            self.watch.inspect(|watch| watch.note());
        }
        if self.flush_nan && value.is_nan() { f16::ZERO } else { value }
    }
}

/// +0 in place of NaN, where that is asked for.
#[inline(always)]
pub(crate) fn kept<L: Lanes>(flush: bool, value: L::Vector) -> L::Vector {
    if !flush {
        return value;
    }
    <L::Vector as Real>::select(value.is_nan(), <L::Vector as Real>::splat(0.0), value)
}
