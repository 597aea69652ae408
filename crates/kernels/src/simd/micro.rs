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
/// starts at `a[b * rows * 32 + r * 32]`.
pub(crate) fn micro(simd: Simd, a: &[f32], rows: usize, panel: Panel<'_>, sums: &mut [[f32; COLUMNS]]) {
    let blocks = panel.blocks();
    assert!(rows <= ROWS && a.len() == blocks * rows * BLOCK, "invariant: packed rows fit the panel");
    assert!(sums.len() >= rows, "invariant: sums for every row");
    match simd.vectors() {
        // SAFETY: a `Simd` exists only for an instruction set of this machine; the assert gives the lengths.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx512Fp16 | crate::Isa::Avx512 => unsafe { x86::avx512(a, rows, panel, blocks, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx2 => unsafe { x86::avx2(a, rows, panel, blocks, sums) },
        #[cfg(target_arch = "aarch64")]
        crate::Isa::NeonFhm | crate::Isa::Neon => match panel {
            // SAFETY: a `Simd` exists only for an instruction set of this machine.
            Panel::Pairs(pairs) if simd.vectors() == crate::Isa::NeonFhm => unsafe {
                super::aarch64::micro_fhm(a, rows, pairs, sums);
            },
            _ => super::aarch64::micro(a, rows, panel, sums),
        },
        _ => scalar(a, rows, panel, sums),
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
                micro(simd, a, 1, Panel::Pairs(panel), std::slice::from_mut(sums));
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
mod x86 {
    use super::few;
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::super::x86::{pairs_256, pairs_512};
    use super::{BLOCK, COLUMNS, PAIRS, Panel, ROWS};

    /// The sums of the even places of a block.
    #[repr(C, align(64))]
    struct Even([[f32; COLUMNS]; ROWS]);

    /// Most rows of the AVX2 kernel.
    const AVX2_ROWS: usize = 6;
    /// Columns of the AVX2 kernel.
    const AVX2_COLUMNS: usize = 16;
    /// Bytes of a row of `f32`.
    const ROW_BYTES: usize = COLUMNS * 4;
    /// Bytes of a row of pairs, two terms.
    const PAIR_BYTES: usize = COLUMNS * 4;

    /// Bytes of a block of a panel.
    const fn block_bytes(half: bool) -> usize {
        if half { PAIRS * PAIR_BYTES } else { BLOCK * ROW_BYTES }
    }

    /// 32 values of row `k` of a panel.
    ///
    /// # Safety
    /// The panel at `b` has this row; it is of pairs when `HALF`, else of `f32`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load_512<const HALF: bool>(b: *const u8, k: usize) -> [__m512; 2] {
        if HALF {
            // SAFETY: the caller's promise; a row of pairs has 128 bytes.
            unsafe {
                let row = b.add(k / 2 * PAIR_BYTES);
                let (low, high) = (pairs_512(row.cast()), pairs_512(row.add(PAIR_BYTES / 2).cast()));
                [low[k % 2], high[k % 2]]
            }
        } else {
            // SAFETY: the caller's promise; an `f32` has 4 bytes.
            unsafe {
                let row = b.add(k * ROW_BYTES);
                [_mm512_loadu_ps(row.cast()), _mm512_loadu_ps(row.add(ROW_BYTES / 2).cast())]
            }
        }
    }

    /// # Safety
    /// `a` holds `blocks * R * 32` values, `b` `blocks * 32 * 32` of its type, `c` `R * 32`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn kernel_512<const R: usize, const HALF: bool>(
        a: *const f32,
        b: *const u8,
        blocks: usize,
        c: *mut f32,
    ) {
        let mut even = Even([[0.0; COLUMNS]; ROWS]);
        let even = even.0.as_mut_ptr().cast::<f32>();
        for block in 0..blocks {
            // SAFETY: `block < blocks`, so the pointers stay inside of what the caller promises.
            let (a, b) = unsafe { (a.add(block * R * BLOCK), b.add(block * block_bytes(HALF))) };
            for parity in 0..2 {
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                for step in 0..BLOCK / 2 {
                    let k = 2 * step + parity;
                    // SAFETY: `k < 32`, a row of this block.
                    let row = unsafe { load_512::<HALF>(b, k) };
                    for (r, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `r < R` and `k < 32`.
                        let value = _mm512_set1_ps(unsafe { *a.add(r * BLOCK + k) });
                        sum[0] = _mm512_fmadd_ps(value, row[0], sum[0]);
                        sum[1] = _mm512_fmadd_ps(value, row[1], sum[1]);
                    }
                }
                for (r, sum) in sums.iter().enumerate() {
                    for (half, &odd) in sum.iter().enumerate() {
                        let at = r * COLUMNS + half * 16;
                        // SAFETY: `at + 16 <= R * 32 <= 14 * 32`.
                        unsafe {
                            if parity == 0 {
                                _mm512_storeu_ps(even.add(at), odd);
                            } else {
                                let both = _mm512_add_ps(_mm512_loadu_ps(even.add(at)), odd);
                                _mm512_storeu_ps(c.add(at), _mm512_add_ps(_mm512_loadu_ps(c.add(at)), both));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Like [`kernel_512`], with both chains in registers: for so few rows that one alone would wait for itself.
    ///
    /// # Safety
    /// That of [`kernel_512`] for a panel of `f32`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn small_512<const R: usize>(a: *const f32, b: *const u8, blocks: usize, c: *mut f32) {
        for block in 0..blocks {
            // SAFETY: `block < blocks`, so the pointers stay inside of what the caller promises.
            let (a, b) = unsafe { (a.add(block * R * BLOCK), b.add(block * block_bytes(false))) };
            let mut sums = [[[_mm512_setzero_ps(); 2]; 2]; R];
            for step in 0..BLOCK / 2 {
                // SAFETY: the rows `2 * step` and `2 * step + 1` are rows of this block.
                let rows = unsafe { [load_512::<false>(b, 2 * step), load_512::<false>(b, 2 * step + 1)] };
                for (parity, row) in rows.iter().enumerate() {
                    for (r, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `r < R` and `2 * step + parity < 32`.
                        let value = _mm512_set1_ps(unsafe { *a.add(r * BLOCK + 2 * step + parity) });
                        sum[parity][0] = _mm512_fmadd_ps(value, row[0], sum[parity][0]);
                        sum[parity][1] = _mm512_fmadd_ps(value, row[1], sum[parity][1]);
                    }
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                for (half, (&even, &odd)) in sum[0].iter().zip(&sum[1]).enumerate() {
                    let both = _mm512_add_ps(even, odd);
                    // SAFETY: `r < R`, and a row of `c` has 32 values.
                    unsafe {
                        let at = c.add(r * COLUMNS + half * 16);
                        _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), both));
                    }
                }
            }
        }
    }

    /// # Safety
    /// `a.len() == blocks * rows * 32`, `rows <= 14`, `rows <= sums.len()` and the panel has `blocks` blocks.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) unsafe fn avx512(
        a: &[f32],
        rows: usize,
        panel: Panel<'_>,
        blocks: usize,
        sums: &mut [[f32; COLUMNS]],
    ) {
        let (a, c) = (a.as_ptr(), sums.as_mut_ptr().cast::<f32>());
        macro_rules! pick {
            ($half:literal, $b:expr) => {
                // SAFETY: the caller's promise, with `R == rows`.
                unsafe {
                    match rows {
                        0 => {}
                        1 if $half => few::few_512::<1>(a, $b, blocks, c),
                        2 if $half => few::few_512::<2>(a, $b, blocks, c),
                        3 if $half => few::few_512::<3>(a, $b, blocks, c),
                        4 if $half => few::few_512::<4>(a, $b, blocks, c),
                        5 if $half => few::few_512::<5>(a, $b, blocks, c),
                        6 if $half => few::few_512::<6>(a, $b, blocks, c),
                        1 => small_512::<1>(a, $b, blocks, c),
                        2 => small_512::<2>(a, $b, blocks, c),
                        3 => small_512::<3>(a, $b, blocks, c),
                        4 => small_512::<4>(a, $b, blocks, c),
                        5 => small_512::<5>(a, $b, blocks, c),
                        6 => small_512::<6>(a, $b, blocks, c),
                        7 => kernel_512::<7, $half>(a, $b, blocks, c),
                        8 => kernel_512::<8, $half>(a, $b, blocks, c),
                        9 => kernel_512::<9, $half>(a, $b, blocks, c),
                        10 => kernel_512::<10, $half>(a, $b, blocks, c),
                        11 => kernel_512::<11, $half>(a, $b, blocks, c),
                        12 => kernel_512::<12, $half>(a, $b, blocks, c),
                        13 => kernel_512::<13, $half>(a, $b, blocks, c),
                        _ => kernel_512::<14, $half>(a, $b, blocks, c),
                    }
                }
            };
        }
        match panel {
            Panel::F32(values) => pick!(false, values.as_ptr().cast()),
            Panel::Pairs(values) => pick!(true, values.as_ptr().cast()),
        }
    }

    /// 16 values of row `k` of a panel.
    ///
    /// # Safety
    /// They are readable; the panel at `b` is of pairs when `HALF`, else of `f32`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_256<const HALF: bool>(b: *const u8, k: usize) -> [__m256; 2] {
        if HALF {
            // SAFETY: the caller's promise; a row of pairs has 128 bytes.
            unsafe {
                let row = b.add(k / 2 * PAIR_BYTES);
                let (low, high) = (pairs_256(row.cast()), pairs_256(row.add(32).cast()));
                [low[k % 2], high[k % 2]]
            }
        } else {
            // SAFETY: the caller's promise; an `f32` has 4 bytes.
            unsafe {
                let row = b.add(k * ROW_BYTES);
                [_mm256_loadu_ps(row.cast()), _mm256_loadu_ps(row.add(32).cast())]
            }
        }
    }

    /// `R` rows of one block, 16 columns; rows of `a` and of `c` are 32 apart.
    ///
    /// # Safety
    /// `R <= 6`; `a` holds `R` rows of 32 values, the panel at `b` 32 rows of 16 columns, `c` `R` rows of 16.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn kernel_256<const R: usize, const HALF: bool>(a: *const f32, b: *const u8, c: *mut f32) {
        let mut even = [[_mm256_setzero_ps(); 2]; R];
        for parity in 0..2 {
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            for step in 0..BLOCK / 2 {
                let k = 2 * step + parity;
                // SAFETY: `k < 32`, a row of this block.
                let row = unsafe { load_256::<HALF>(b, k) };
                for (r, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `r < R` and `k < 32`.
                    let value = _mm256_set1_ps(unsafe { *a.add(r * BLOCK + k) });
                    sum[0] = _mm256_fmadd_ps(value, row[0], sum[0]);
                    sum[1] = _mm256_fmadd_ps(value, row[1], sum[1]);
                }
            }
            if parity == 0 {
                even = sums;
                continue;
            }
            for (r, (even, odd)) in even.iter().zip(&sums).enumerate() {
                for half in 0..2 {
                    let both = _mm256_add_ps(even[half], odd[half]);
                    // SAFETY: `r < R`, and 16 values of a row of `c` are ours.
                    unsafe {
                        let at = c.add(r * COLUMNS + half * 8);
                        _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), both));
                    }
                }
            }
        }
    }

    /// # Safety
    /// `a.len() == blocks * rows * 32`, `rows <= 14`, `rows <= sums.len()` and the panel has `blocks` blocks.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2(
        a: &[f32],
        rows: usize,
        panel: Panel<'_>,
        blocks: usize,
        sums: &mut [[f32; COLUMNS]],
    ) {
        let c = sums.as_mut_ptr().cast::<f32>();
        if let (Panel::Pairs(b), 1..=3) = (panel, rows) {
            let (a, b) = (a.as_ptr(), b.as_ptr().cast());
            // SAFETY: the caller's promise.
            return unsafe {
                match rows {
                    1 => few::few_256::<1, 8>(a, b, blocks, c),
                    2 => few::few_256::<2, 4>(a, b, blocks, c),
                    _ => few::few_256::<3, 4>(a, b, blocks, c),
                }
            };
        }
        let groups = rows.div_ceil(AVX2_ROWS).max(1);
        for block in 0..blocks {
            for group in 0..groups {
                let (first, last) = (rows * group / groups, rows * (group + 1) / groups);
                for column in (0..COLUMNS).step_by(AVX2_COLUMNS) {
                    // SAFETY: the caller's promise; the rows `first..last` and 16 columns from `column` of
                    // block `block` are inside of every operand.
                    unsafe {
                        let a = a.as_ptr().add((block * rows + first) * BLOCK);
                        let c = c.add(first * COLUMNS + column);
                        match panel {
                            Panel::F32(b) => {
                                let b = b.as_ptr().add(block * BLOCK * COLUMNS + column);
                                rows_256::<false>(last - first, a, b.cast(), c);
                            }
                            Panel::Pairs(b) => {
                                let b = b.as_ptr().add(block * PAIRS * COLUMNS + column);
                                rows_256::<true>(last - first, a, b.cast(), c);
                            }
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// That of [`kernel_256`] with `R == rows`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows_256<const HALF: bool>(rows: usize, a: *const f32, b: *const u8, c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                0 => {}
                1 => kernel_256::<1, HALF>(a, b, c),
                2 => kernel_256::<2, HALF>(a, b, c),
                3 => kernel_256::<3, HALF>(a, b, c),
                4 => kernel_256::<4, HALF>(a, b, c),
                5 => kernel_256::<5, HALF>(a, b, c),
                _ => kernel_256::<6, HALF>(a, b, c),
            }
        }
    }
}
