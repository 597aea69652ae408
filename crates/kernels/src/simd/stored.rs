//! Panels of compressed weights, and what they stand for.

use half::f16;

use super::{COLUMNS, Lanes, Simd, Task, WIDTH};

/// Values of a row of pairs.
pub(crate) const ROW: usize = 2 * COLUMNS;

/// Rows of pairs of a panel.
#[derive(Clone, Copy)]
pub(crate) enum Stored<'a> {
    /// A byte per value, in their order; the value is the number times its scale, rounded to `f16`.
    Bytes { numbers: &'a [i8], scales: Scales<'a> },
    /// An index into the table per value, two in a byte: those of the first half of a row in the low halves of 32 bytes,
    /// those of the second half in the high ones.
    Indices { indices: &'a [u8], table: &'a [f16; 16] },
    /// A bit per value, and the values whose bit is set, those of a block from one of the starts on; the others are 0.
    Sparse { masks: &'a [u64], starts: &'a [usize], values: &'a [f16] },
}

/// The scales of rows of pairs.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// Those of a panel; the last row is for everything behind it too.
    pub(crate) rows: &'a [[f16; ROW]],
    /// Rows of pairs that share a row of scales.
    pub(crate) each: usize,
    /// The place of the first row of pairs in the panel.
    pub(crate) first: usize,
}

impl<'a> Scales<'a> {
    #[inline(always)]
    pub(super) fn of(&self, row: usize) -> &'a [f16; ROW] {
        &self.rows[((self.first + row) / self.each).min(self.rows.len() - 1)]
    }
}

/// Writes what `stored`, whole blocks, stands for.
pub(crate) fn decode(simd: Simd, stored: Stored<'_>, target: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if super::x86::decodes(simd, stored) {
        // SAFETY: a `Simd` exists only for an instruction set of this machine.
        return unsafe { super::x86::decode_512(stored, target) };
    }
    #[cfg(target_arch = "x86_64")]
    if super::x86::decodes_256(simd, stored) {
        // SAFETY: as above; that there is `popcnt` was asked.
        return unsafe { super::x86::decode_256(stored, target) };
    }
    simd.run(Decode { stored, target });
}

/// `sums[s][c] += a . panels[s][c]` for one row `a` and panels of one form, at least one, if there is a kernel that decodes
/// them on the way; returns whether there is.
pub(crate) fn vector_of_stored(
    simd: Simd,
    a: &[f32],
    panels: &[Stored<'_>],
    sums: &mut [[f32; COLUMNS]],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if super::x86::decodes(simd, panels[0]) {
        // SAFETY: a `Simd` exists only for an instruction set of this machine.
        unsafe { super::x86::vector_512(a, panels, sums) };
        return true;
    }
    #[cfg(target_arch = "x86_64")]
    if super::x86::multiplies_256(simd, panels[0]) {
        // SAFETY: as above; that there is `popcnt` was asked.
        unsafe { super::x86::vector_256(a, panels, sums) };
        return true;
    }
    let _ = (simd, a, panels, sums);
    false
}

struct Decode<'a> {
    stored: Stored<'a>,
    target: &'a mut [u32],
}

impl Task for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let rows: &mut [[f16; ROW]] = bytemuck::cast_slice_mut(self.target.as_chunks_mut::<COLUMNS>().0);
        match self.stored {
            Stored::Bytes { numbers, scales } => {
                for (index, (row, numbers)) in rows.iter_mut().zip(numbers.as_chunks::<ROW>().0).enumerate() {
                    let scales = scales.of(index).as_chunks().0;
                    let vectors = numbers.as_chunks::<WIDTH>().0.iter().zip(scales);
                    for (target, (numbers, scales)) in row.as_chunks_mut().0.iter_mut().zip(vectors) {
                        L::write(L::read_bytes(numbers) * L::read(scales), target);
                    }
                }
            }
            Stored::Indices { indices, table } => {
                for (row, indices) in rows.iter_mut().zip(indices.as_chunks::<COLUMNS>().0) {
                    let (first, second) = row.split_at_mut(COLUMNS);
                    for ((first, second), index) in first.iter_mut().zip(second).zip(indices) {
                        *first = table[usize::from(index & 0xf)];
                        *second = table[usize::from(index >> 4)];
                    }
                }
            }
            Stored::Sparse { masks, starts, values } => {
                let mut values = values[starts.first().copied().unwrap_or(0)..].iter();
                for (row, &mask) in rows.iter_mut().zip(masks) {
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
