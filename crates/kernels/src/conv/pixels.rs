//! The pixels that a convolution reads, as rows of a matrix product: a row is an output pixel, its terms are the taps.

use std::ops::Range;

use half::f16;

use crate::gemm::{Blocks, InPlace, Left};
use crate::order::{BLOCK, NARROW, NARROW_TAPS};
use crate::simd::{Filled, Lanes, Part, ROWS, Real, TILE_ROWS, WIDTH};

/// Values of one image in the order row, column, channel, and how the taps of one group walk them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels<'a> {
    pub(super) data: &'a [f16],
    /// Tap (0, 0) of output (0, 0), first channel.
    pub(super) start: usize,
    /// Values from one output row to the next, and from one output to the next.
    pub(super) step: [usize; 2],
    /// Outputs of a row.
    pub(super) width: usize,
    /// Values from one tap to the next, down and to the right.
    pub(super) tap: [isize; 2],
    pub(super) kernel: [usize; 2],
    /// Channels of the group.
    pub(super) channels: usize,
    /// Where the blocks of a row start, behind its first value; only where tile registers read them.
    pub(super) offsets: &'a [usize],
    /// The parts of the values from so many values on, where tile registers read those.
    pub(super) parts: Option<(&'a [Part], usize)>,
}

impl Pixels<'_> {
    /// Where tap (0, 0) of output pixel `pixel` lies.
    #[inline(always)]
    pub(super) fn at(&self, pixel: usize) -> usize {
        self.start + pixel / self.width * self.step[0] + pixel % self.width * self.step[1]
    }

    /// How far tap (`kh`, `kw`) lies behind tap (0, 0), which wraps where it lies before.
    #[inline(always)]
    pub(super) fn tap(&self, kh: usize, kw: usize) -> usize {
        (kh as isize * self.tap[0] + kw as isize * self.tap[1]) as usize
    }

    fn blocks_per_row(&self) -> usize {
        match self.channels {
            ..=NARROW => self.kernel[1].div_ceil(NARROW_TAPS),
            channels => self.kernel[1] * channels.div_ceil(BLOCK),
        }
    }

    /// Whether tile registers can read whole blocks.
    pub(super) fn is_whole(&self) -> bool {
        self.channels.is_multiple_of(BLOCK)
    }

    /// Blocks whose offsets [`Pixels::offsets`] holds.
    pub(super) fn offsets_len(&self) -> usize {
        if self.is_whole() { self.kernel[0] * self.blocks_per_row() } else { 0 }
    }

    /// How far the first value that a row takes lies behind tap (0, 0); wraps.
    fn lowest(&self) -> usize {
        let last = |axis: usize| self.kernel[axis].saturating_sub(1);
        let back = |axis: usize| if self.tap[axis] < 0 { last(axis) } else { 0 };
        self.tap(back(0), back(1))
    }

    /// Writes [`Pixels::offsets`].
    pub(super) fn fill_offsets(&self, offsets: &mut [usize]) {
        let lowest = self.lowest();
        let taps = (0..self.kernel[0]).flat_map(|kh| (0..self.kernel[1]).map(move |kw| (kh, kw)));
        let blocks = taps.flat_map(|(kh, kw)| {
            let tap = self.tap(kh, kw).wrapping_sub(lowest);
            (0..self.channels / BLOCK).map(move |block| tap + block * BLOCK)
        });
        offsets.iter_mut().zip(blocks).for_each(|(offset, block)| *offset = block);
    }

    /// Taps of one row are neighbours, four values each: a block is one run, with zeros in the place of channels that
    /// there are not.
    fn is_dense(&self) -> bool {
        self.channels <= NARROW && self.tap[1] == NARROW as isize
    }

    /// The runs of neighbouring values that a row takes.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let (pixels, [height, width], blocks) = (*self, self.kernel, self.blocks_per_row());
        let (narrow, dense) = (self.channels <= NARROW, self.is_dense());
        // Taps of a row that a run covers, and the runs of a tap.
        let taps = if dense { NARROW_TAPS } else { 1 };
        let parts = if narrow { 1 } else { self.channels.div_ceil(BLOCK) };
        let runs = (0..height).flat_map(move |kh| {
            (0..width).step_by(taps).flat_map(move |kw| (0..parts).map(move |part| (kh, kw, part)))
        });
        runs.map(move |(kh, kw, part)| {
            let place = if narrow {
                (kh * blocks + kw / NARROW_TAPS) * BLOCK + kw % NARROW_TAPS * NARROW
            } else {
                ((kh * width + kw) * parts + part) * BLOCK
            };
            let count = match (dense, narrow) {
                (true, _) => (width - kw).min(NARROW_TAPS) * NARROW,
                (_, true) => pixels.channels,
                _ => BLOCK.min(pixels.channels - part * BLOCK),
            };
            Run { place, offset: pixels.tap(kh, kw).wrapping_add(part * BLOCK), count }
        })
    }
}

/// The first values of a block, with zeros in the place of the others.
struct Kept<L: Lanes> {
    whole: bool,
    masks: [<L::Vector as Real>::Mask; 2],
}

impl<L: Lanes> Kept<L> {
    #[inline(always)]
    fn new(count: usize) -> Self {
        const PLACES: [f32; WIDTH] =
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        let (places, count) = (L::load(&PLACES), count as f32);
        Kept {
            whole: count >= BLOCK as f32,
            masks: [
                places.lt(<L::Vector as Real>::splat(count)),
                places.lt(<L::Vector as Real>::splat(count - WIDTH as f32)),
            ],
        }
    }

    #[inline(always)]
    fn widen(&self, source: &[f16; BLOCK], target: &mut [f32; BLOCK]) {
        if self.whole {
            return L::widen(source, target);
        }
        let zero = <L::Vector as Real>::splat(0.0);
        let vectors = source.as_chunks::<WIDTH>().0.iter().zip(target.as_chunks_mut::<WIDTH>().0);
        for ((source, target), mask) in vectors.zip(self.masks) {
            L::store(<L::Vector as Real>::select(mask, L::read(source), zero), target);
        }
    }
}

/// Neighbouring values that a row takes.
struct Run {
    /// Of the first, among the terms.
    place: usize,
    /// Behind the row's start.
    offset: usize,
    count: usize,
}

impl Left for Pixels<'_> {
    fn terms(&self) -> usize {
        self.kernel[0] * self.blocks_per_row() * BLOCK
    }

    fn filled(&self) -> Filled {
        if self.channels <= NARROW {
            return Filled::runs(self.kernel[1] * NARROW).fours(self.channels);
        }
        Filled::runs(self.channels)
    }

    #[inline(always)]
    fn pack<L: Lanes>(&self, rows: Range<usize>, target: &mut [f32]) {
        let (count, mut starts) = (rows.len(), [0; ROWS]);
        for (start, row) in starts.iter_mut().zip(rows) {
            *start = self.at(row);
        }
        let starts = &starts[..count];
        // Where they are not, every block is one run, which writes its zeros too.
        let scattered = self.channels <= NARROW && !self.is_dense();
        if scattered {
            target.fill(0.0);
        }
        for Run { place, offset, count: length } in self.runs() {
            let (block, within) = (place / BLOCK, place % BLOCK);
            let target = &mut target[block * count * BLOCK..(block + 1) * count * BLOCK];
            let kept = Kept::<L>::new(length);
            for (start, target) in starts.iter().zip(target.as_chunks_mut::<BLOCK>().0) {
                let source = &self.data[start.wrapping_add(offset)..];
                match source.first_chunk() {
                    Some(source) if !scattered => kept.widen(source, target),
                    _ => {
                        L::widen(&source[..length], &mut target[within..within + length]);
                        if !scattered {
                            target[length..].fill(0.0);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn copy<L: Lanes>(&self, rows: Range<usize>, pitch: usize, target: &mut [f16]) {
        if !self.is_whole() {
            target.fill(f16::ZERO);
        }
        for (row, target) in rows.zip(target.chunks_exact_mut(pitch)) {
            let start = self.at(row);
            for Run { place, offset, count } in self.runs() {
                let source = &self.data[start.wrapping_add(offset)..][..count];
                target[place..place + count].copy_from_slice(source);
            }
        }
    }

    fn in_place(&self, _: usize) -> Option<InPlace<'_, f16>> {
        self.is_whole().then(|| self.lines(self.data, 0))
    }

    fn parts(&self) -> Option<InPlace<'_, Part>> {
        self.parts.map(|(parts, before)| self.lines(parts, before))
    }
}

impl Pixels<'_> {
    /// Rows of outputs are lines. With a stride of one, a line goes on through the halo into the next one, so that no
    /// tile is cut short; else lines are whole tiles. `data` begins `before` values behind the image's slice.
    fn lines<'a, F>(&'a self, data: &'a [F], before: usize) -> InPlace<'a, F> {
        let [row, step] = self.step;
        let goes_on = row.is_multiple_of(step)
            && (self.width..=self.width + self.width / 8 + 2).contains(&(row / step));
        let line = if goes_on { (row / step, row) } else { (self.width.next_multiple_of(TILE_ROWS), row) };
        InPlace {
            data,
            start: self.start.wrapping_add(self.lowest()).wrapping_sub(before),
            line,
            used: self.width,
            step,
            blocks: Blocks::At(self.offsets),
            inside: (0, usize::MAX),
        }
    }
}
