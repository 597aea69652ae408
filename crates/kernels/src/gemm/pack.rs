//! Operands in the order in which the matrix kernel reads them.

use std::ops::Range;

use half::f16;

use super::form::Form;
use super::left::Strided;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Lanes, Lines, PAIRS, Real, Simd, Stored, Task, WIDTH, chunks, decode};
use crate::threads::Pool;

/// Pairs of panels that one thread writes at a time.
const PANELS: usize = 1 << 12;

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
/// Compressed weights stay compressed, and are decoded at most a panel at a time.
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

    /// Packs the weights `weight(k, n)`.
    pub(crate) fn pack(columns: usize, terms: usize, weight: impl Fn(usize, usize) -> f16) -> PackedB {
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

    /// Calls `body(first column, panel)` for every panel of an operand that is held as pairs, `[k / 2][32]`.
    pub(crate) fn each_panel(&mut self, pool: &Pool, body: impl Fn(usize, &mut [u32]) + Sync) {
        let size = panel_pairs(self.terms);
        let Form::Half(data) = &mut self.form else { unreachable!("compressed weights stay as they are") };
        let used = self.columns.div_ceil(COLUMNS) * size;
        let panels = &mut data.pairs_mut()[..used];
        let each = (PANELS / size.max(1)).max(1);
        chunks(pool, panels, each * size, |start, panels| {
            for (index, panel) in panels.chunks_exact_mut(size).enumerate() {
                body((start / size + index) * COLUMNS, panel);
            }
        });
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

    /// Up to `count` pairs from so many pairs of panel `index` on, which may be of the next panel; none when they are
    /// compressed.
    pub(super) fn behind(&self, index: usize, pairs: usize, count: usize) -> &[u32] {
        let Form::Half(data) = &self.form else { return &[] };
        let rest = data.pairs().get(index * panel_pairs(self.terms) + pairs..).unwrap_or(&[]);
        &rest[..count.min(rest.len())]
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
        for start in (0..terms).step_by(WIDTH) {
            let size = WIDTH.min(terms - start);
            for half in 0..COLUMNS / WIDTH {
                let mut rows = [<L::Vector as Real>::splat(0.0); WIDTH];
                for (row, column) in rows.iter_mut().zip(half * WIDTH..count) {
                    let at = source.at(start, columns.start + column);
                    *row = L::read_some(&source.data[at..at + size]);
                }
                let turned = L::transpose(rows);
                let targets = used[start * COLUMNS..].chunks_exact_mut(COLUMNS);
                for (row, target) in turned.into_iter().zip(targets) {
                    L::store(row, &mut target.as_chunks_mut().0[half]);
                }
            }
        }
    }
}
