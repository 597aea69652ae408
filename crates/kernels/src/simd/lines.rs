//! Packed operands that start on a cache line, which tile loads want.

use bytemuck::{Pod, Zeroable};

/// Values of 4 bytes in a line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

// SAFETY: an array of integers without padding; all bit patterns are values.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// An aligned vector of pairs of `f16`.
#[derive(Clone)]
pub(crate) struct Lines(Vec<Line>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Lines").field(&self.0.len()).finish()
    }
}

impl Lines {
    /// At least `pairs` pairs of zeros.
    pub(crate) fn zeroed(pairs: usize) -> Lines {
        Lines(vec![Line([0; LINE]); pairs.div_ceil(LINE)])
    }

    pub(crate) fn pairs(&self) -> &[u32] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn pairs_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
