//! The matrix kernel on AVX-512 and on AVX2.

use std::arch::x86_64::{
    _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::{BLOCK, Blocks, COLUMNS, Panel, ROWS, few};

/// Most rows of the AVX-512 kernel that has whole rows of the panel at once: with both chains of all of them, 28 vectors.
const WIDE_ROWS: usize = 7;
/// Columns that kernels do without where the others are all that count.
const HALF: usize = COLUMNS / 2;
/// Most rows of the AVX-512 kernel on pairs.
const AVX512_PAIRS_ROWS: usize = 6;
/// Most rows of the AVX2 kernel.
const AVX2_ROWS: usize = 6;
/// Most rows of the AVX2 kernel on pairs.
const AVX2_PAIRS_ROWS: usize = 3;

/// `rows` in groups of nearly equal size, at most `most` each, as the first of each and how many there are.
fn groups(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let groups = rows.div_ceil(most);
    (0..groups).map(move |group| {
        let first = rows * group / groups;
        (first, rows * (group + 1) / groups - first)
    })
}

/// # Safety
/// `a.len() == blocks.count * rows * 32`, `rows <= 14`, `rows <= sums.len()` and the panel has as many blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512(
    a: &[f32],
    rows: usize,
    panel: Panel<'_>,
    blocks: Blocks,
    sums: &mut [[f32; COLUMNS]],
) {
    let (a, pitch, c) = (a.as_ptr(), rows * BLOCK, sums.as_mut_ptr().cast::<f32>());
    let b = match panel {
        // SAFETY: the caller's promise.
        Panel::F32(b) => return unsafe { wide_512(rows, a, b.as_ptr(), blocks, c) },
        Panel::Pairs(b) => b.as_ptr().cast(),
    };
    blocks.begin(&mut sums[..rows]);
    for (first, count) in groups(rows, AVX512_PAIRS_ROWS) {
        // SAFETY: the caller's promise; the rows `first..first + count` are among the `rows` rows of every block.
        unsafe {
            let (a, c) = ((a.add(first * BLOCK), pitch), c.add(first * COLUMNS));
            match count {
                1 => few::few_512::<1>(a, b, blocks, c),
                2 => few::few_512::<2>(a, b, blocks, c),
                3 => few::few_512::<3>(a, b, blocks, c),
                4 => few::few_512::<4>(a, b, blocks, c),
                5 => few::few_512::<5>(a, b, blocks, c),
                _ => few::few_512::<AVX512_PAIRS_ROWS>(a, b, blocks, c),
            }
        }
    }
}

/// # Safety
/// That of [`avx512`] for a panel of `f32`, where `rows <= 14`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn wide_512(rows: usize, a: *const f32, b: *const f32, blocks: Blocks, c: *mut f32) {
    let a = (a, rows * BLOCK);
    macro_rules! pick {
        ($($few:literal)*; $($many:literal)*) => {
            // SAFETY: the caller's promise, with `R == rows`; the second half of the columns begins 16 behind the first.
            unsafe {
                match rows {
                    $($few => kernel_512::<$few, 2>(a, b, blocks, c),)*
                    $($many => {
                        kernel_512::<$many, 1>(a, b, blocks, c);
                        if blocks.columns > HALF {
                            kernel_512::<$many, 1>(a, b.add(HALF), blocks, c.add(HALF));
                        }
                    })*
                    _ => debug_assert_eq!(rows, 0, "invariant: at most 14 rows"),
                }
            }
        };
    }
    const { assert!(WIDE_ROWS == 7 && ROWS == 14) };
    pick!(1 2 3 4 5 6 7; 8 9 10 11 12 13 14);
}

/// `V` vectors of columns.
///
/// # Safety
/// Row `r < R` of block `k` is 32 values at `a.0 + k * a.1 + r * 32`; every block of `b` is 32 rows, which are 32 values
/// apart, as are the `R` rows of sums in `c`, and `16 * V` values of each are readable, those of `c` writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn kernel_512<const R: usize, const V: usize>(
    (a, pitch): (*const f32, usize),
    b: *const f32,
    blocks: Blocks,
    c: *mut f32,
) {
    for (block, pairs) in blocks.pairs() {
        // SAFETY: this block is one of those that the caller promises.
        let (a, b) = unsafe { (a.add(block * pitch), b.add(block * BLOCK * COLUMNS)) };
        let (mut chains, begins) = ([[[_mm512_setzero_ps(); V]; 2]; R], blocks.begins(block));
        for pair in 0..pairs {
            for place in 0..2 {
                let k = 2 * pair + place;
                if k % 4 >= blocks.filled.fours {
                    continue;
                }
                let mut row = [_mm512_setzero_ps(); V];
                for (v, row) in row.iter_mut().enumerate() {
                    // SAFETY: `k < 32` is a row of this block of the panel, `v < V`.
                    *row = unsafe { _mm512_loadu_ps(b.add(k * COLUMNS + v * 16)) };
                }
                for (r, chains) in chains.iter_mut().enumerate() {
                    // SAFETY: `r < R` and `k < 32`.
                    let factor = _mm512_set1_ps(unsafe { *a.add(r * BLOCK + k) });
                    for (chain, &row) in chains[place].iter_mut().zip(&row) {
                        *chain = _mm512_fmadd_ps(factor, row, *chain);
                    }
                }
            }
        }
        for (r, [even, odd]) in chains.iter().enumerate() {
            for (v, (&even, &odd)) in even.iter().zip(odd).enumerate() {
                let both = _mm512_add_ps(even, odd);
                // SAFETY: `r < R` and `v < V`.
                unsafe {
                    let at = c.add(r * COLUMNS + v * 16);
                    // A sum of chains is not -0, so that adding it to +0 would not change it.
                    let sum = if begins { both } else { _mm512_add_ps(_mm512_loadu_ps(at), both) };
                    _mm512_storeu_ps(at, sum);
                }
            }
        }
    }
}

/// # Safety
/// That of [`avx512`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(
    a: &[f32],
    rows: usize,
    panel: Panel<'_>,
    blocks: Blocks,
    sums: &mut [[f32; COLUMNS]],
) {
    let (a, pitch, c) = (a.as_ptr(), rows * BLOCK, sums.as_mut_ptr().cast::<f32>());
    match panel {
        Panel::Pairs(b) => {
            blocks.begin(&mut sums[..rows]);
            for (first, count) in groups(rows, AVX2_PAIRS_ROWS) {
                // SAFETY: as in `avx512`.
                unsafe {
                    let (a, b, c) =
                        ((a.add(first * BLOCK), pitch), b.as_ptr().cast(), c.add(first * COLUMNS));
                    match count {
                        1 => few::few_256::<1, 8>(a, b, blocks, c),
                        2 => few::few_256::<2, 4>(a, b, blocks, c),
                        _ => few::few_256::<AVX2_PAIRS_ROWS, 4>(a, b, blocks, c),
                    }
                }
            }
        }
        Panel::F32(b) => {
            for (block, pairs) in blocks.pairs() {
                let terms = (pairs, blocks.begins(block));
                let halves =
                    |group| (0..blocks.columns.min(COLUMNS)).step_by(HALF).map(move |at| (group, at));
                for ((first, count), column) in groups(rows, AVX2_ROWS).flat_map(halves) {
                    // SAFETY: the caller's promise; the rows `first..first + count` are among the `rows` rows of this
                    // block, and the second half of its 32 columns begins 16 behind the first.
                    unsafe {
                        let a = a.add(block * pitch + first * BLOCK);
                        let b = b.as_ptr().add(block * BLOCK * COLUMNS + column);
                        let c = c.add(first * COLUMNS + column);
                        match count {
                            1 => kernel_256::<1>(a, b, terms, c),
                            2 => kernel_256::<2>(a, b, terms, c),
                            3 => kernel_256::<3>(a, b, terms, c),
                            4 => kernel_256::<4>(a, b, terms, c),
                            5 => kernel_256::<5>(a, b, terms, c),
                            _ => kernel_256::<AVX2_ROWS>(a, b, terms, c),
                        }
                    }
                }
            }
        }
    }
}

/// `R` rows of one block, 16 columns: one chain after the other, as both of all rows would not fit the registers.
///
/// # Safety
/// Row `r < R` is 32 values at `a + r * 32`; `b` is 32 rows, which are 32 values apart, as are the `R` rows of sums in `c`,
/// and 16 values of each are readable, those of `c` writable; `pairs <= 16`. With `begins`, sums start at +0.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel_256<const R: usize>(
    a: *const f32,
    b: *const f32,
    (pairs, begins): (usize, bool),
    c: *mut f32,
) {
    let mut even = [[_mm256_setzero_ps(); 2]; R];
    for place in 0..2 {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for pair in 0..pairs {
            let k = 2 * pair + place;
            // SAFETY: `k < 32`.
            let row = unsafe {
                let row = b.add(k * COLUMNS);
                [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8))]
            };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `r < R` and `k < 32`.
                let factor = _mm256_set1_ps(unsafe { *a.add(r * BLOCK + k) });
                sum[0] = _mm256_fmadd_ps(factor, row[0], sum[0]);
                sum[1] = _mm256_fmadd_ps(factor, row[1], sum[1]);
            }
        }
        if place == 0 {
            even = sums;
            continue;
        }
        for (r, (even, odd)) in even.iter().zip(&sums).enumerate() {
            for half in 0..2 {
                let both = _mm256_add_ps(even[half], odd[half]);
                // SAFETY: `r < R`, and 16 values of a row of `c` are ours.
                unsafe {
                    let at = c.add(r * COLUMNS + half * 8);
                    // A sum of chains is not -0, so that adding it to +0 would not change it.
                    let sum = if begins { both } else { _mm256_add_ps(_mm256_loadu_ps(at), both) };
                    _mm256_storeu_ps(at, sum);
                }
            }
        }
    }
}
