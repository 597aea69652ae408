//! How a packed right operand is held: as it is, or compressed and decoded part by part where it is used.

use std::ops::Range;

use half::f16;

use super::pack::panel_pairs;
use super::{PackedB, Weight};
use crate::simd::{COLUMNS, Lines, PAIRS, ROW, Scales, Stored};

/// The values of all panels.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// `[n / 32][k / 2][32][2]`.
    Half(Lines),
    /// See [`Stored::Bytes`].
    Int8 {
        numbers: Lines,
        /// `[n / 32][k / 2 / each][32][2]`.
        scales: Vec<f16>,
        /// Rows of pairs that share scales.
        each: usize,
    },
    /// See [`Stored::Indices`].
    Lut { indices: Lines, table: [f16; 16] },
    /// See [`Stored::Sparse`].
    Sparse {
        masks: Vec<u64>,
        /// Where the values of each block of each panel start.
        starts: Vec<usize>,
        values: Vec<f16>,
    },
}

impl PackedB {
    /// Packs `[N, K]` bytes with one `f16` scale per row, or per row and block of K (`scales` is `[N, blocks]`), and
    /// keeps them as bytes. A weight is the byte times its scale, rounded to `f16`: what
    /// `constexpr_affine_dequantize` with a zero point of 0 and `constexpr_blockwise_shift_scale` give.
    ///
    /// # Panics
    /// When a length does not fit, or the blocks do not divide `terms`.
    #[must_use]
    pub fn from_int8(data: &[i8], scales: &[f16], columns: usize, terms: usize) -> PackedB {
        assert_eq!(data.len(), columns * terms, "pack: weights are not [{columns}, {terms}]");
        let blocks = scales.len() / columns.max(1);
        let fits = blocks > 0 && scales.len() == columns * blocks && terms.is_multiple_of(blocks);
        assert!(fits, "pack: {} scales for [{columns}, {terms}]", scales.len());
        let size = panel_pairs(terms);
        let panels = columns.div_ceil(COLUMNS);
        let mut numbers = Lines::zeroed((panels * size).div_ceil(2));
        let places: &mut [i8] = bytemuck::cast_slice_mut(numbers.pairs_mut());
        each_place(columns, terms, |n, k, at| places[at] = data[n * terms + k]);
        let block = (terms / blocks).max(1);
        let all = (size / COLUMNS).max(1);
        // A row of pairs is in one block, or one row of scales is its own.
        let each = [all, block / 2, 1][if blocks == 1 { 0 } else { 1 + block % 2 }];
        let rows = all.div_ceil(each);
        let mut ordered = vec![f16::ZERO; panels * rows * ROW];
        for (index, scale) in ordered.iter_mut().enumerate() {
            let (row, n) = (index / ROW % rows, index / ROW / rows * COLUMNS + index % ROW / 2);
            let k = (row * each * 2 + index % 2).min(terms.saturating_sub(1));
            if n < columns {
                *scale = scales[n * blocks + k / block];
            }
        }
        PackedB::with_form(terms, columns, Form::Int8 { numbers, scales: ordered, each })
    }

    /// Packs `[N, K]` indices of four bits into `table`, two per byte with the first in the low half, and keeps them
    /// so (`constexpr_lut_to_dense`).
    ///
    /// # Panics
    /// When the length is not that of `columns * terms` indices.
    #[must_use]
    pub fn from_lut4(indices: &[u8], table: [f16; 16], columns: usize, terms: usize) -> PackedB {
        assert_eq!(
            indices.len(),
            (columns * terms).div_ceil(2),
            "pack: indices are not [{columns}, {terms}]"
        );
        let mut packed = Lines::zeroed((columns.div_ceil(COLUMNS) * panel_pairs(terms)).div_ceil(4));
        let places: &mut [u8] = bytemuck::cast_slice_mut(packed.pairs_mut());
        // What stands behind the last terms meets zeros, and must be finite.
        let finite = table.iter().position(|value| value.is_finite()).unwrap_or(0) as u8;
        places.fill(finite << 4 | finite);
        each_place(columns, terms, |n, k, at| {
            let index = n * terms + k;
            let place = indices[index / 2] >> (index % 2 * 4) & 0xf;
            let (row, inside) = (at / ROW, at % ROW);
            let (byte, shift) = (&mut places[row * COLUMNS + inside % COLUMNS], inside / COLUMNS * 4);
            *byte = *byte & !(0xf << shift) | place << shift;
        });
        PackedB::with_form(terms, columns, Form::Lut { indices: packed, table })
    }

    /// Packs the weights of the set bits of `mask`, `[N, K]` bits with the first in the lowest place of its byte, and
    /// keeps only those (`constexpr_sparse_to_dense`).
    ///
    /// # Panics
    /// When the mask's length is not that of `columns * terms` bits, or its set bits are not as many as `values`.
    #[must_use]
    pub fn from_sparse<W: Weight>(mask: &[u8], values: &[W], columns: usize, terms: usize) -> PackedB {
        assert_eq!(mask.len(), (columns * terms).div_ceil(8), "pack: mask is not [{columns}, {terms}]");
        let size = panel_pairs(terms);
        let mut dense = vec![None; columns.div_ceil(COLUMNS) * size * 2];
        let mut next = values.iter();
        each_place(columns, terms, |n, k, at| {
            let index = n * terms + k;
            if mask[index / 8] >> (index % 8) & 1 == 1 {
                dense[at] = Some(next.next().expect("pack: a value for every set bit").to_half());
            }
        });
        assert!(next.next().is_none(), "pack: a set bit for every value");
        let (mut masks, mut starts, mut kept) = (Vec::new(), Vec::new(), Vec::with_capacity(values.len()));
        for (index, row) in dense.chunks_exact(ROW).enumerate() {
            if index % PAIRS == 0 {
                starts.push(kept.len());
            }
            let bits = row.iter().enumerate().filter(|(_, value)| value.is_some());
            masks.push(bits.fold(0, |mask, (bit, _)| mask | 1 << bit));
            kept.extend(row.iter().flatten());
        }
        PackedB::with_form(terms, columns, Form::Sparse { masks, starts, values: kept })
    }
}

/// Calls `body(n, k, place among the values of all panels)`, rows of the weights one after the other.
fn each_place(columns: usize, terms: usize, mut body: impl FnMut(usize, usize, usize)) {
    let size = panel_pairs(terms) * 2;
    for n in 0..columns {
        for k in 0..terms {
            let row = n / COLUMNS * size + k / 2 * ROW;
            body(n, k, row + n % COLUMNS * 2 + k % 2);
        }
    }
}

impl Form {
    /// The pairs of the blocks `blocks` of panel `index`, each panel of `terms` terms, when they are compressed.
    pub(super) fn stored(&self, (index, terms): (usize, usize), blocks: Range<usize>) -> Option<Stored<'_>> {
        let rows_each = panel_pairs(terms) / COLUMNS;
        let first = index * rows_each + blocks.start * PAIRS;
        let rows = first..first + blocks.len() * PAIRS;
        Some(match self {
            Form::Half(_) => return None,
            Form::Int8 { numbers, scales, each } => {
                let numbers: &[i8] = bytemuck::cast_slice(numbers.pairs());
                let own = rows_each.div_ceil(*each) * ROW;
                let rows_of_scales = scales[index * own..(index + 1) * own].as_chunks().0;
                let scales = Scales { rows: rows_of_scales, each: *each, first: blocks.start * PAIRS };
                Stored::Bytes { numbers: &numbers[rows.start * ROW..rows.end * ROW], scales }
            }
            Form::Lut { indices, table } => {
                let indices: &[u8] = bytemuck::cast_slice(indices.pairs());
                Stored::Indices { indices: &indices[rows.start * COLUMNS..rows.end * COLUMNS], table }
            }
            Form::Sparse { masks, starts, values } => {
                let starts = &starts[rows.start / PAIRS..rows.end / PAIRS];
                Stored::Sparse { masks: &masks[rows], starts, values }
            }
        })
    }
}
