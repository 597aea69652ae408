//! How a packed right operand is held: as it is, or compressed and decoded part by part where it is used.

use std::ops::Range;

use half::f16;

use super::pack::panel_pairs;
use super::{PackedB, Weight};
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Lanes, Lines, PAIRS, Simd, Task, WIDTH};

/// Values of a row of pairs.
const ROW: usize = 2 * COLUMNS;

/// The values of all panels.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// `[n / 32][k / 2][32][2]`.
    Half(Lines),
    /// In the same order, one byte each; the value is the number times its scale, rounded to `f16`.
    Int8 {
        data: Vec<i8>,
        /// `[n / 32][k / block][32]`.
        scales: Vec<f16>,
        /// Terms that share a scale.
        block: usize,
    },
    /// In the same order without the last axis: the first term's index in the low half of a byte.
    Lut { data: Vec<u8>, table: [f16; 16] },
    /// One word per row of pairs, a bit per value, and the values of the bits that are set.
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
        let panels = columns.div_ceil(COLUMNS);
        let mut packed = vec![0; panels * panel_pairs(terms) * 2];
        each_place(columns, terms, |n, k, at| packed[at] = data[n * terms + k]);
        let mut ordered = vec![f16::ZERO; panels * blocks * COLUMNS];
        for (n, block) in (0..columns).flat_map(|n| (0..blocks).map(move |block| (n, block))) {
            ordered[(n / COLUMNS * blocks + block) * COLUMNS + n % COLUMNS] = scales[n * blocks + block];
        }
        let block = (terms / blocks).max(1);
        PackedB::with_form(terms, columns, Form::Int8 { data: packed, scales: ordered, block })
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
        let mut data = vec![0; columns.div_ceil(COLUMNS) * panel_pairs(terms)];
        each_place(columns, terms, |n, k, at| {
            let index = n * terms + k;
            data[at / 2] |= (indices[index / 2] >> (index % 2 * 4) & 0xf) << (at % 2 * 4);
        });
        PackedB::with_form(terms, columns, Form::Lut { data, table })
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
    /// Writes the pairs of the blocks `blocks` of panel `index`, each panel of `terms` terms.
    pub(super) fn decode(
        &self,
        simd: Simd,
        (index, terms): (usize, usize),
        blocks: Range<usize>,
        target: &mut [u32],
    ) {
        simd.run(Decode { form: self, index, terms, blocks, target });
    }
}

struct Decode<'a> {
    form: &'a Form,
    index: usize,
    terms: usize,
    blocks: Range<usize>,
    target: &'a mut [u32],
}

impl Task for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Decode { form, index, terms, blocks, target } = self;
        let target: &mut [f16] = bytemuck::cast_slice_mut(target);
        let first = index * panel_pairs(terms) + blocks.start * PAIRS * COLUMNS;
        let pairs = first..first + blocks.len() * PAIRS * COLUMNS;
        match form {
            Form::Half(lines) => {
                target.copy_from_slice(&lines.halves()[2 * pairs.start..2 * pairs.end]);
            }
            Form::Int8 { data, scales, block } => {
                let own = terms.div_ceil(*block).max(1) * COLUMNS;
                let scales = &scales[index * own..(index + 1) * own];
                let data = &data[2 * pairs.start..2 * pairs.end];
                bytes::<L>(data, scales, *block, blocks.start * BLOCK, target);
            }
            Form::Lut { data, table } => {
                for (pair, &indices) in target.as_chunks_mut::<2>().0.iter_mut().zip(&data[pairs]) {
                    *pair = [table[usize::from(indices & 0xf)], table[usize::from(indices >> 4)]];
                }
            }
            Form::Sparse { masks, starts, values } => {
                let row = pairs.start / COLUMNS;
                let mut values = values[starts.get(row / PAIRS).copied().unwrap_or(0)..].iter();
                for (row, &mask) in target.chunks_exact_mut(ROW).zip(&masks[row..]) {
                    row.fill(f16::ZERO);
                    let mut rest = mask;
                    while rest != 0 {
                        let value = values.next().expect("invariant: a value for every set bit");
                        row[rest.trailing_zeros() as usize] = *value;
                        rest &= rest - 1;
                    }
                }
            }
        }
    }
}

/// Bytes times scales; `scales` are `[k / block][32]`, and the first row of pairs begins at term `first`.
#[inline(always)]
fn bytes<L: Lanes>(data: &[i8], scales: &[f16], block: usize, first: usize, target: &mut [f16]) {
    let last = scales.len() / COLUMNS - 1;
    // The scales as pairs, and the blocks they belong to.
    let (mut wide, mut held) = ([[f16::ZERO; WIDTH]; ROW / WIDTH], [usize::MAX; 2]);
    for (pair, (data, target)) in data.chunks_exact(ROW).zip(target.chunks_exact_mut(ROW)).enumerate() {
        let term = first + 2 * pair;
        // Terms behind the end are zeros, with any scale.
        let wanted = [term, term + 1].map(|term| (term / block).min(last));
        if wanted != held {
            for (at, scale) in wide.as_flattened_mut().iter_mut().enumerate() {
                *scale = scales[wanted[at % 2] * COLUMNS + at / 2];
            }
            held = wanted;
        }
        let vectors = data.as_chunks().0.iter().zip(target.as_chunks_mut().0).zip(&wide);
        for ((data, target), scale) in vectors {
            L::write(L::read_bytes(data) * L::read(scale), target);
        }
    }
}
