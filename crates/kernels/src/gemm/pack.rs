//! Operands in the order in which the matrix kernel reads them.

use std::ops::Range;

use half::f16;

use super::form::Form;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Cuts, Lanes, Lines, PAIRS, ROWS, Simd, Stored, Task, decode};

/// A type that weights come in; `f32` rounds to `f16` when packed.
pub trait Weight: Copy {
    /// The weight as the engine holds it.
    fn to_half(self) -> f16;
}

impl Weight for f16 {
    fn to_half(self) -> f16 {
        self
    }
}

impl Weight for f32 {
    fn to_half(self) -> f16 {
        f16::from_f32(self)
    }
}

/// The right operand of a product, packed once: panels of 32 columns, `[n / 32][k / 2][32][2]`, padded with zeros.
/// Compressed weights stay compressed, and are decoded a part of a panel at a time.
#[derive(Clone, Debug)]
pub struct PackedB {
    terms: usize,
    columns: usize,
    form: Form,
}

impl PackedB {
    /// Packs a row-major `[N, K]` matrix (a linear layer's weight; "transpose_y").
    ///
    /// # Panics
    /// When the length is not `columns * terms`.
    #[must_use]
    pub fn from_nk<W: Weight>(weights: &[W], columns: usize, terms: usize) -> PackedB {
        assert_eq!(weights.len(), columns * terms, "pack: weights are not [{columns}, {terms}]");
        PackedB::pack(columns, terms, |k, n| weights[n * terms + k].to_half())
    }

    /// Packs a row-major `[K, N]` matrix.
    ///
    /// # Panics
    /// When the length is not `terms * columns`.
    #[must_use]
    pub fn from_kn<W: Weight>(weights: &[W], terms: usize, columns: usize) -> PackedB {
        assert_eq!(weights.len(), columns * terms, "pack: weights are not [{terms}, {columns}]");
        PackedB::pack(columns, terms, |k, n| weights[k * columns + n].to_half())
    }

    fn pack(columns: usize, terms: usize, weight: impl Fn(usize, usize) -> f16) -> PackedB {
        let size = panel_pairs(terms);
        let mut data = Lines::zeroed(columns.div_ceil(COLUMNS) * size);
        let at = |k: usize, n: usize| if k < terms { u32::from(weight(k, n).to_bits()) } else { 0 };
        for (index, panel) in data.pairs_mut().chunks_exact_mut(size.max(1)).enumerate() {
            let first = index * COLUMNS;
            for (pair, row) in panel.chunks_exact_mut(COLUMNS).take(terms.div_ceil(2)).enumerate() {
                for (n, value) in row.iter_mut().take(columns - first).enumerate() {
                    *value = at(2 * pair, first + n) | at(2 * pair + 1, first + n) << 16;
                }
            }
        }
        PackedB::with_form(terms, columns, Form::Half(data))
    }

    pub(super) fn with_form(terms: usize, columns: usize, form: Form) -> PackedB {
        PackedB { terms, columns, form }
    }

    /// K.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.terms
    }

    /// N.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `count` panels from `index` on as `[k / 2][32]` pairs, when they are held so.
    pub(crate) fn panels(&self, index: usize, count: usize) -> Option<&[u32]> {
        let size = panel_pairs(self.terms);
        match &self.form {
            Form::Half(data) => Some(&data.pairs()[index * size..(index + count) * size]),
            _ => None,
        }
    }

    /// The blocks `blocks` of panel `index`, when they are compressed.
    pub(crate) fn stored(&self, index: usize, blocks: Range<usize>) -> Option<Stored<'_>> {
        self.form.stored((index, self.terms), blocks)
    }

    /// Whether panels must be decoded.
    pub(crate) fn is_compressed(&self) -> bool {
        !matches!(self.form, Form::Half(_))
    }

    /// The pairs of the blocks `blocks` of panel `index`, in place or decoded to `target`.
    pub(crate) fn part<'a>(
        &'a self,
        simd: Simd,
        index: usize,
        blocks: Range<usize>,
        target: &'a mut [u32],
    ) -> &'a [u32] {
        let size = PAIRS * COLUMNS;
        if let Some(panel) = self.panels(index, 1) {
            return &panel[blocks.start * size..blocks.end * size];
        }
        let target = &mut target[..blocks.len() * size];
        decode(simd, self.stored(index, blocks).expect("invariant: no pairs"), target);
        target
    }
}

/// Pairs in a panel of `terms` terms.
pub(crate) fn panel_pairs(terms: usize) -> usize {
    terms.div_ceil(BLOCK) * PAIRS * COLUMNS
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

/// Packs rows of the left operand: those of `groups` that they consist of, each `[block][row][32]`, padded with
/// zeros.
pub(crate) struct PackRows<'a> {
    pub(crate) source: Strided<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) groups: Cuts,
    pub(crate) terms: usize,
    pub(crate) packed: &'a mut [f32],
}

impl Task for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let PackRows { source, rows, groups, terms, packed } = self;
        let padded = terms.next_multiple_of(BLOCK);
        for range in groups.inside(&rows) {
            let size = range.len();
            let target = &mut packed[(range.start - rows.start) * padded..(range.end - rows.start) * padded];
            let first = range.start;
            for (block, target) in target.chunks_exact_mut(size * BLOCK).enumerate() {
                let k = block * BLOCK;
                let count = BLOCK.min(terms - k);
                if source.column == 1 {
                    for (row, target) in target.chunks_exact_mut(BLOCK).enumerate() {
                        let at = source.at(first + row, k);
                        L::widen(&source.data[at..at + count], &mut target[..count]);
                        target[count..].fill(0.0);
                    }
                } else {
                    transpose::<L>(source, (first, k), (size, count), target);
                }
            }
        }
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

/// Packs up to 32 columns of the right operand as `[k][32]`, padded with zeros. Rows of `source` are terms.
pub(crate) struct PackColumns<'a> {
    pub(crate) source: Strided<'a>,
    pub(crate) columns: Range<usize>,
    pub(crate) terms: usize,
    pub(crate) panel: &'a mut [f32],
}

impl Task for PackColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let PackColumns { source, columns, terms, panel } = self;
        let count = columns.len();
        let (used, rest) = panel.split_at_mut(terms * COLUMNS);
        rest.fill(0.0);
        if source.column == 1 {
            for (k, row) in used.chunks_exact_mut(COLUMNS).enumerate() {
                let at = source.at(k, columns.start);
                L::widen(&source.data[at..at + count], &mut row[..count]);
                row[count..].fill(0.0);
            }
            return;
        }
        if count < COLUMNS {
            used.fill(0.0);
        }
        let mut wide = [0.0; BLOCK];
        for (block, used) in used.chunks_mut(BLOCK * COLUMNS).enumerate() {
            let size = used.len() / COLUMNS;
            for (column, n) in columns.clone().enumerate() {
                let at = source.at(block * BLOCK, n);
                L::widen(&source.data[at..at + size], &mut wide[..size]);
                for (k, value) in wide[..size].iter().enumerate() {
                    used[k * COLUMNS + column] = *value;
                }
            }
        }
    }
}
