//! The left operand of a product: rows of terms, wherever they come from.

use std::ops::Range;

use half::f16;

use crate::order::BLOCK;
use crate::simd::{Cuts, Filled, Lanes, Part, ROWS, SplitRows, TILE_ROWS, Task, TileRows};

/// Rows of terms that can be packed.
pub(crate) trait Left: Copy + Sync {
    /// Terms of a row, with zeros up to whole blocks.
    fn terms(&self) -> usize;
    /// How many terms each of its blocks holds.
    fn filled(&self) -> Filled;
    /// Packs a few rows as `f32`, `[block][row][32]`.
    fn pack<L: Lanes>(&self, rows: Range<usize>, target: &mut [f32]);
    /// Copies rows that start `pitch` values apart, with zeros behind their terms.
    fn copy<L: Lanes>(&self, rows: Range<usize>, pitch: usize, target: &mut [f16]);
    /// Where tile registers find the `rows` rows that there are, if they can read them as they lie.
    fn in_place(&self, rows: usize) -> Option<InPlace<'_, f16>>;
    /// Where they find the parts of all rows, if those were split beforehand.
    fn parts(&self) -> Option<InPlace<'_, Part>> {
        None
    }
}

/// Blocks that tile registers multiply at a time, at most.
pub(crate) const AT_ONCE: usize = 16;

/// Rows as tile registers read them. Rows stand at positions, which may be more than the rows: what lies at the others
/// is read and not used.
#[derive(Clone, Copy)]
pub(crate) struct InPlace<'a, F> {
    pub(crate) data: &'a [F],
    pub(crate) start: usize,
    /// Positions of a line, and values from one line to the next.
    pub(crate) line: (usize, usize),
    /// Rows of a line, at its first positions.
    pub(crate) used: usize,
    /// Values from one position to the next.
    pub(crate) step: usize,
    pub(crate) blocks: Blocks<'a>,
    /// The positions that may be read.
    pub(crate) inside: (usize, usize),
}

/// Where the blocks of a row start.
#[derive(Clone, Copy)]
pub(crate) enum Blocks<'a> {
    /// One behind the other.
    Neighbours,
    /// So many values behind the row's start.
    At(&'a [usize]),
}

impl<'a> Blocks<'a> {
    /// Values to add to all, and the offsets of the blocks `range`, at most [`AT_ONCE`].
    pub(crate) fn get(&self, range: Range<usize>) -> (usize, &'a [usize]) {
        static NEIGHBOURS: [usize; AT_ONCE] = {
            let (mut offsets, mut index) = ([0; AT_ONCE], 0);
            while index < AT_ONCE {
                offsets[index] = index * BLOCK;
                index += 1;
            }
            offsets
        };
        match self {
            Blocks::Neighbours => (range.start * BLOCK, &NEIGHBOURS[..range.len()]),
            Blocks::At(offsets) => (0, &offsets[range]),
        }
    }
}

impl<'a, F> InPlace<'a, F> {
    /// The rows `rows` of a matrix, the first of which starts at `start`.
    pub(crate) fn matrix(data: &'a [F], start: usize, row: usize, rows: Range<usize>) -> InPlace<'a, F> {
        let (line, inside) = ((usize::MAX, 0), (rows.start, rows.end));
        InPlace { data, start, line, used: usize::MAX, step: row, blocks: Blocks::Neighbours, inside }
    }

    /// The positions from that of the first of `rows`, or the tile that holds it, to that of the last. Where a line is
    /// whole tiles, so is what comes before the first one: a tile does not reach into the next line.
    pub(crate) fn positions(&self, rows: &Range<usize>) -> (usize, usize) {
        let at = |row: usize| row / self.used * self.line.0 + row % self.used;
        let whole = self.line.0 < usize::MAX && self.line.0 * self.step != self.line.1;
        let first = at(rows.start);
        (if whole { first - first % TILE_ROWS } else { first }, at(rows.end - 1) + 1)
    }

    /// The runs of rows among `positions`, each with its first position.
    pub(crate) fn rows(&self, positions: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let ((line, _), used) = (self.line, self.used);
        let lines = positions.start / line..=(positions.end - 1) / line;
        lines.filter_map(move |index| {
            let first = positions.start.saturating_sub(index * line);
            let last = (positions.end - index * line).min(used);
            (first < last).then(|| (index * line + first, index * used + first..index * used + last))
        })
    }

    /// 16 positions, and how many of them come before `position`.
    pub(crate) fn tile(&self, position: usize) -> (TileRows<'a, F>, usize) {
        let first = position.min(self.inside.1 - TILE_ROWS);
        let (own, (line, pitch)) = (first - self.inside.0, self.line);
        let start = self.start + own / line * pitch + own % line * self.step;
        (TileRows { data: self.data, start, row: self.step }, position - first)
    }
}

/// A matrix inside a slice, by strides of which one is 1.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f16],
    pub(crate) offset: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strided<'_> {
    pub(crate) fn at(&self, row: usize, column: usize) -> usize {
        self.offset + row * self.row + column * self.column
    }
}

/// The rows of a matrix of `terms` columns.
#[derive(Clone, Copy)]
pub(crate) struct MatrixRows<'a> {
    pub(crate) source: Strided<'a>,
    pub(crate) terms: usize,
}

impl Left for MatrixRows<'_> {
    fn terms(&self) -> usize {
        self.terms.next_multiple_of(BLOCK)
    }

    fn filled(&self) -> Filled {
        Filled::runs(self.terms)
    }

    #[inline(always)]
    fn pack<L: Lanes>(&self, rows: Range<usize>, target: &mut [f32]) {
        let MatrixRows { source, terms } = *self;
        for (block, target) in target.chunks_exact_mut(rows.len() * BLOCK).enumerate() {
            let k = block * BLOCK;
            let count = BLOCK.min(terms - k);
            if source.column == 1 {
                for (row, target) in rows.clone().zip(target.chunks_exact_mut(BLOCK)) {
                    let at = source.at(row, k);
                    L::widen(&source.data[at..at + count], &mut target[..count]);
                    target[count..].fill(0.0);
                }
            } else {
                transpose::<L>(source, (rows.start, k), (rows.len(), count), target);
            }
        }
    }

    #[inline(always)]
    fn copy<L: Lanes>(&self, rows: Range<usize>, pitch: usize, target: &mut [f16]) {
        let MatrixRows { source, terms } = *self;
        if source.column == 1 {
            for (row, target) in rows.zip(target.chunks_exact_mut(pitch)) {
                let at = source.at(row, 0);
                target[..terms].copy_from_slice(&source.data[at..at + terms]);
                target[terms..].fill(f16::ZERO);
            }
            return;
        }
        target.fill(f16::ZERO);
        for k in 0..terms {
            let at = source.at(rows.start, k);
            for (row, &value) in source.data[at..at + rows.len()].iter().enumerate() {
                target[row * pitch + k] = value;
            }
        }
    }

    fn in_place(&self, rows: usize) -> Option<InPlace<'_, f16>> {
        let MatrixRows { source, terms } = self;
        let fits = source.column == 1 && terms.is_multiple_of(BLOCK) && rows >= TILE_ROWS;
        fits.then(|| InPlace::matrix(source.data, source.offset, source.row, 0..rows))
    }
}

#[inline(always)]
fn transpose<L: Lanes>(
    source: Strided<'_>,
    (first, k): (usize, usize),
    (size, count): (usize, usize),
    target: &mut [f32],
) {
    target.fill(0.0);
    let mut wide = [0.0; ROWS];
    for index in 0..count {
        let at = source.at(first, k + index);
        L::widen(&source.data[at..at + size], &mut wide[..size]);
        for (row, value) in wide[..size].iter().enumerate() {
            target[row * BLOCK + index] = *value;
        }
    }
}

/// Packs rows: those of `groups` that they consist of, each `[block][row][32]`.
pub(crate) struct PackRows<'a, S> {
    pub(crate) source: S,
    pub(crate) rows: Range<usize>,
    pub(crate) groups: Cuts,
    pub(crate) packed: &'a mut [f32],
}

impl<S: Left> Task for PackRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let PackRows { source, rows, groups, packed } = self;
        let terms = source.terms();
        for group in groups.inside(&rows) {
            let at = (group.start - rows.start) * terms..(group.end - rows.start) * terms;
            source.pack::<L>(group, &mut packed[at]);
        }
    }
}

/// Copies rows that start `pitch` values apart.
pub(crate) struct CopyRows<'a, S> {
    pub(crate) source: S,
    pub(crate) rows: Range<usize>,
    pub(crate) pitch: usize,
    pub(crate) copied: &'a mut [f16],
}

impl<S: Left> Task for CopyRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.source.copy::<L>(self.rows, self.pitch, self.copied);
    }
}

/// Copies the parts of rows, which start `pitch` values apart.
pub(crate) struct CopyParts<'a, S> {
    pub(crate) source: S,
    pub(crate) rows: Range<usize>,
    pub(crate) pitch: usize,
    pub(crate) copied: &'a mut [Part],
}

impl<S: Left> Task for CopyParts<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let CopyParts { source, rows, pitch, copied } = self;
        for (target, first) in copied.chunks_mut(TILE_ROWS * pitch).zip(rows.clone().step_by(TILE_ROWS)) {
            let rows = first..(first + TILE_ROWS).min(rows.end);
            source.copy::<L>(rows, 2 * pitch, bytemuck::cast_slice_mut(target));
            SplitRows { rows: target, terms: source.terms(), pitch }.run::<L>();
        }
    }
}

/// Packs one row as `f32`.
pub(crate) struct PackRow<'a, S> {
    pub(crate) source: S,
    pub(crate) index: usize,
    pub(crate) target: &'a mut [f32],
}

impl<S: Left> Task for PackRow<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.source.pack::<L>(self.index..self.index + 1, self.target);
    }
}
