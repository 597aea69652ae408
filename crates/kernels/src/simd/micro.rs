//! The matrix kernel: a few rows times a panel of columns, in the order of [`crate::order::Dot`].

use half::f16;

use super::Simd;
use crate::order::BLOCK;

/// Most rows of a tile.
pub(crate) const ROWS: usize = 14;
/// Columns of a tile.
pub(crate) const COLUMNS: usize = 32;
/// Pairs of terms in a block.
pub(crate) const PAIRS: usize = BLOCK / 2;

/// The second operand of a tile, with `k` a multiple of [`BLOCK`].
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// `[k][COLUMNS]`.
    F32(&'a [f32]),
    /// `[k / 2][COLUMNS]` pairs of `f16` of neighbouring terms, the first in the low half.
    Pairs(&'a [u32]),
}

/// How many terms of the left operand the blocks of a row hold, behind which there are zeros: a chain may leave those out, as
/// they change no bit of it. Blocks come in runs of which only the last need not be full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    run: usize,
    last: usize,
    /// How many of every four terms are not zeros.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other kernels multiply those zeros"))]
    fours: usize,
}

impl Filled {
    /// Every block is full.
    pub(crate) const WHOLE: Filled = Filled { run: 1, last: PAIRS, fours: 4 };

    /// In runs of so many terms.
    pub(crate) fn runs(terms: usize) -> Filled {
        let run = terms.div_ceil(BLOCK).max(1);
        Filled { run, last: (terms - (run - 1) * BLOCK).div_ceil(2), fours: 4 }
    }

    /// With zeros in place of the last of every four terms, all but so many.
    pub(crate) fn fours(self, fours: usize) -> Filled {
        Filled { fours, ..self }
    }

    /// Pairs of terms that block `block` holds, where the last may be of one.
    fn pairs(self, block: usize) -> usize {
        if (block + 1).is_multiple_of(self.run) { self.last } else { PAIRS }
    }
}

/// Neighbouring blocks of a row.
#[derive(Clone, Copy)]
struct Blocks {
    first: usize,
    count: usize,
    filled: Filled,
    /// Columns of the panel that are not padding.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other kernels multiply the padding"))]
    columns: usize,
}

impl Blocks {
    /// The index of each among these, and the pairs of terms that it holds.
    fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |index| (index, self.filled.pairs(self.first + index)))
    }

    /// Whether sums start at +0 with block `index` of these.
    fn begins(self, index: usize) -> bool {
        self.first + index == 0
    }

    /// Sums to which the blocks are added.
    fn begin(self, sums: &mut [[f32; COLUMNS]]) -> &mut [[f32; COLUMNS]] {
        if self.begins(0) {
            sums.fill([0.0; COLUMNS]);
        }
        sums
    }
}

impl Panel<'_> {
    fn blocks(&self) -> usize {
        let terms = match self {
            Panel::F32(values) => values.len(),
            Panel::Pairs(values) => 2 * values.len(),
        };
        assert_eq!(terms % (BLOCK * COLUMNS), 0, "invariant: a panel is whole blocks");
        terms / (BLOCK * COLUMNS)
    }
}

/// `sums[r][c] += a[r] . panel[c]` for `r < rows`, one block of 32 terms after the other. Row `r` of block `b`
/// starts at `a[b * rows * 32 + r * 32]`. The first block is block `first` of those that are `filled`; where that is 0, sums
/// start at +0, whatever they hold. `columns` of the panel count; what comes of the others is not specified.
pub(crate) fn micro(
    simd: Simd,
    (a, rows): (&[f32], usize),
    (first, filled): (usize, Filled),
    (panel, columns): (Panel<'_>, usize),
    sums: &mut [[f32; COLUMNS]],
) {
    let blocks = panel.blocks();
    assert!(rows <= ROWS && a.len() == blocks * rows * BLOCK, "invariant: packed rows fit the panel");
    assert!(sums.len() >= rows, "invariant: sums for every row");
    let blocks = Blocks { first, count: blocks, filled, columns };
    match simd.vectors() {
        // SAFETY: a `Simd` exists only for an instruction set of this machine; the assert gives the lengths.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx512Fp16 | crate::Isa::Avx512 => unsafe {
            x86::avx512(a, rows, panel, blocks, sums);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx2 => unsafe { x86::avx2(a, rows, panel, blocks, sums) },
        #[cfg(target_arch = "aarch64")]
        crate::Isa::NeonFhm | crate::Isa::Neon => match panel {
            // SAFETY: a `Simd` exists only for an instruction set of this machine.
            Panel::Pairs(pairs) if simd.vectors() == crate::Isa::NeonFhm => unsafe {
                super::aarch64::micro_fhm(a, rows, pairs, blocks.begin(&mut sums[..rows]));
            },
            _ => super::aarch64::micro((a, rows), panel, blocks.pairs(), blocks.begin(&mut sums[..rows])),
        },
        _ => scalar(a, rows, panel, blocks.begin(&mut sums[..rows])),
    }
}

/// Panels that [`vector`] takes.
pub(crate) const STREAMS: usize = 4;

/// `sums[s][c] += a . panels[s][c]` for one row `a` and [`STREAMS`] panels of pairs that lie one after the other in
/// `panels`.
pub(crate) fn vector(simd: Simd, a: &[f32], panels: &[u32], sums: &mut [[f32; COLUMNS]; STREAMS]) {
    let size = panels.len() / STREAMS;
    let blocks = a.len() / BLOCK;
    assert!(size == blocks * PAIRS * COLUMNS && panels.len() == size * STREAMS, "invariant: whole panels");
    assert_eq!(a.len() % BLOCK, 0, "invariant: whole blocks");
    match simd.vectors() {
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx512Fp16 | crate::Isa::Avx512 => {
            let starts = std::array::from_fn(|stream| panels[stream * size..].as_ptr().cast());
            // SAFETY: a `Simd` exists only for an instruction set of this machine; the asserts give the lengths.
            unsafe {
                few::streams_512::<STREAMS>(a.as_ptr(), starts, blocks, sums.as_mut_ptr().cast());
            }
        }
        _ => {
            for (panel, sums) in panels.chunks_exact(size.max(1)).zip(sums) {
                let panel = (Panel::Pairs(panel), COLUMNS);
                micro(simd, (a, 1), (0, Filled::WHOLE), panel, std::slice::from_mut(sums));
            }
        }
    }
}

fn scalar(a: &[f32], rows: usize, panel: Panel<'_>, sums: &mut [[f32; COLUMNS]]) {
    let mut wide = [[0.0; COLUMNS]; BLOCK];
    for (block, a) in a.chunks_exact((rows * BLOCK).max(1)).enumerate() {
        let base = block * BLOCK * COLUMNS;
        for (index, row) in wide.iter_mut().enumerate() {
            let range = base + index * COLUMNS..base + (index + 1) * COLUMNS;
            match panel {
                Panel::F32(values) => row.copy_from_slice(&values[range]),
                Panel::Pairs(values) => {
                    let start = (base + index / 2 * 2 * COLUMNS) / 2;
                    for (to, pair) in row.iter_mut().zip(&values[start..start + COLUMNS]) {
                        *to = f16::from_bits((pair >> (index % 2 * 16)) as u16).to_f32();
                    }
                }
            }
        }
        for (a, sums) in a.chunks_exact(BLOCK).zip(sums.iter_mut()) {
            let mut chains = [[0.0_f32; COLUMNS]; 2];
            for (index, (a, row)) in a.iter().zip(&wide).enumerate() {
                for (chain, b) in chains[index % 2].iter_mut().zip(row) {
                    *chain = a.mul_add(*b, *chain);
                }
            }
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum += chains[0][column] + chains[1][column];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod few;

#[cfg(target_arch = "x86_64")]
mod x86;
