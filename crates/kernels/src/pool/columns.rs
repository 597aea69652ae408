//! Columns of the input, so that those of one tap of neighbouring windows are neighbours.

use half::f16;

use super::Window;
use crate::simd::{COLUMNS, Lanes, WIDTH};

/// Most columns of the input, and most windows, that are reduced at a time.
pub(super) const SPAN: usize = 512;
pub(super) const WINDOWS: usize = 128;
/// With room for whole blocks of pairs at the end of two phases.
pub(super) const ROOM: usize = SPAN + 2 * COLUMNS;
/// Rows of the input that are kept for the next row of windows.
pub(super) const RING: usize = 8;

/// How the input columns of neighbouring windows are split by stride phase, so that those of one tap are
/// neighbours.
#[derive(Clone, Copy)]
pub(super) struct Phases {
    pub(super) stride: usize,
    pad: usize,
    /// Windows of one block, whole vectors.
    pub(super) windows: usize,
    /// Columns of one phase.
    len: usize,
    /// Places from one phase to the next.
    pub(super) pitch: usize,
}

/// Where `count` input columns from `source` on lie among the columns of a block of windows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) count: usize,
}

/// What is kept of rows of the input, for the next row of windows.
#[repr(align(64))]
pub(super) struct Ring<T> {
    rows: [[T; ROOM]; RING],
    /// Which row of the image each of `rows` is.
    holds: [usize; RING],
}

impl<T: Copy> Ring<T> {
    pub(super) fn new(fill: T) -> Ring<T> {
        Ring { rows: [[fill; ROOM]; RING], holds: [usize::MAX; RING] }
    }

    /// Forgets which rows it holds, for another image or block.
    pub(super) fn forget(&mut self) {
        self.holds.fill(usize::MAX);
    }

    /// Where to write row `index` of the image, if it is none of the rows yet.
    #[inline(always)]
    pub(super) fn missing(&mut self, index: usize) -> Option<&mut [T; ROOM]> {
        if self.holds[index % RING] == index {
            return None;
        }
        self.holds[index % RING] = index;
        Some(&mut self.rows[index % RING])
    }

    #[inline(always)]
    pub(super) fn row(&self, index: usize) -> &[T; ROOM] {
        &self.rows[index % RING]
    }
}

impl Phases {
    /// For rows of `windows` windows; `None` when a vector of windows needs more than [`SPAN`] columns.
    pub(super) fn new(window: &Window, windows: usize) -> Option<Phases> {
        let (stride, more) = (window.stride[1], window.kernel[1] / window.stride[1]);
        let most = (SPAN / stride).saturating_sub(more).min(WINDOWS) / WIDTH * WIDTH;
        let windows = windows.next_multiple_of(WIDTH).min(most);
        let (pad, len, pitch) = (window.pad[2], windows + more, ROOM / stride);
        (windows > 0).then_some(Phases { stride, pad, windows, len, pitch })
    }

    fn columns(&self) -> usize {
        self.len * self.stride
    }

    /// The columns of the image that windows from `first` on read.
    pub(super) fn inside(&self, first: usize, width: usize) -> Inside {
        let origin = first * self.stride;
        let target = self.pad.saturating_sub(origin).min(self.columns());
        let source = (origin + target).saturating_sub(self.pad).min(width);
        let count = (width - source).min(self.columns() - target);
        Inside { source, target, count }
    }

    /// Of two phases, where the columns from `first` on go in turn.
    #[inline(always)]
    pub(super) fn two<'a, T>(&self, first: usize, target: &'a mut [T; ROOM]) -> (&'a mut [T], &'a mut [T]) {
        let (even, odd) = target.split_at_mut(self.pitch);
        if first.is_multiple_of(2) {
            (&mut even[first / 2..], &mut odd[first / 2..])
        } else {
            (&mut odd[first / 2..], &mut even[first / 2 + 1..])
        }
    }

    /// Writes the columns of `row` by phase, and zeros or nothing behind them.
    #[inline(always)]
    pub(super) fn split<L: Lanes>(&self, row: &[f16], inside: Inside, target: &mut [f32; ROOM]) {
        let Inside { source, target: first, count } = inside;
        let row = &row[source..source + count];
        match self.stride {
            1 => {
                for (part, target) in row.chunks(WIDTH).zip(target[first..].as_chunks_mut().0) {
                    L::store(L::read_some(part), target);
                }
            }
            2 => {
                let (one, other) = self.two(first, target);
                let targets = one.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(other.as_chunks_mut().0);
                for (part, (one, other)) in row.chunks(2 * COLUMNS).zip(targets) {
                    let (mut pairs, mut both) = ([0_u32; COLUMNS], [0.0; 2 * COLUMNS]);
                    let values: &mut [f16] = bytemuck::cast_slice_mut(&mut pairs);
                    match part.first_chunk::<{ 2 * COLUMNS }>() {
                        Some(all) => values.copy_from_slice(all),
                        None => values[..part.len()].copy_from_slice(part),
                    }
                    L::widen_pairs(&pairs, &mut both);
                    let halves: &[[f32; COLUMNS]] = both.as_chunks().0;
                    (*one, *other) = (halves[0], halves[1]);
                }
            }
            stride => {
                let mut wide = [0.0; SPAN];
                L::widen(row, &mut wide[..count]);
                for (column, value) in (first..).zip(&wide[..count]) {
                    target[column % stride * self.pitch + column / stride] = *value;
                }
            }
        }
    }

    /// What every window of a block reads for its column `kw`.
    #[inline(always)]
    pub(super) fn tap<'a, T>(&self, split: &'a [T; ROOM], kw: usize) -> &'a [T] {
        &split[kw % self.stride * self.pitch + kw / self.stride..][..self.windows]
    }
}
