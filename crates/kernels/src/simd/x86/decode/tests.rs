//! Every decoder beside the portable one.

use super::*;
use crate::Isa;
use crate::simd::stored::{Scales, decode, vector_of_stored};

/// Compares every decoder of `stored` with the portable one.
fn check(stored: Stored<'_>, blocks: usize) {
    let mut want = vec![u32::MAX; blocks * PAIRS * COLUMNS];
    decode(Simd::SCALAR, stored, &mut want);
    for isa in Isa::available() {
        let mut got = vec![u32::MAX; want.len()];
        decode(Simd::new(isa).expect("available"), stored, &mut got);
        assert!(got == want, "{isa:?}");
    }
    one_by_one(stored, blocks, &want);
    if Simd::new(Isa::Avx512).is_none() {
        return;
    }
    // SAFETY: the processor has AVX-512; these decoders need no more.
    unsafe { plain(stored, blocks, &want) };
}

/// Rows that are 1 in one place have the weights there as their products.
fn one_by_one(stored: Stored<'_>, blocks: usize, want: &[u32]) {
    let whole = !matches!(stored, Stored::Bytes { scales, .. } if !scales.each.is_multiple_of(PAIRS));
    for (isa, place) in
        Isa::available().into_iter().flat_map(|isa| (0..blocks * BLOCK).map(move |at| (isa, at)))
    {
        let (mut a, mut sums) = (vec![0.0; blocks * BLOCK], [[0.0; COLUMNS]; 3]);
        a[place] = 1.0;
        let simd = Simd::new(isa).expect("available");
        let taken = vector_of_stored(simd, &a, &[stored; 3], &mut sums);
        let own = matches!(simd.vectors(), Isa::Avx2 | Isa::Avx512 | Isa::Avx512Fp16);
        assert_eq!(taken, whole && own, "{isa:?}");
        let row = &want[place / 2 * COLUMNS..][..COLUMNS];
        // Infinite weights make the other places NaN; finite ones are exact.
        for (column, pair) in row.iter().enumerate().filter(|_| taken) {
            let weight = f16::from_bits((pair >> (place % 2 * 16)) as u16).to_f32();
            let all = || (0..blocks * BLOCK / 2).map(|row| want[row * COLUMNS + column]);
            let finite = all().all(|pair| pair & 0x7c00 != 0x7c00 && pair >> 16 & 0x7c00 != 0x7c00);
            for sums in sums.iter().filter(|_| finite) {
                assert_eq!(sums[column], weight, "{isa:?}: place {place} of column {column}");
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn plain(stored: Stored<'_>, blocks: usize, want: &[u32]) {
    let mut got = vec![u32::MAX; blocks * PAIRS * COLUMNS];
    let job = Fill { stored, target: &mut got };
    match stored {
        Stored::Bytes { .. } => job.run::<Bytes<'_>>(),
        Stored::Sparse { .. } => job.run::<Sparse<'_>>(),
        Stored::Indices { .. } => job.run::<Indices<'_>>(),
    }
    assert!(got == want);
}

#[test]
fn every_number_times_scales_of_all_sizes() {
    let numbers: Vec<i8> = (0..4 * PAIRS * ROW).map(|at| (at * 37 + at / 256) as i8).collect();
    for first in [0x0001_u16, 0x0017, 0x03ff, 0x0400, 0x2c37, 0x3c00, 0x5bff, 0x6123, 0x7bff] {
        let scale = |at: usize| f16::from_bits((first + (at * 7 % 64) as u16).min(0x7bff));
        let rows: Vec<[f16; ROW]> =
            (0..2).map(|row| std::array::from_fn(|at| scale(row * ROW + at))).collect();
        for (each, first) in [(4 * PAIRS, 0), (2 * PAIRS, 0), (2 * PAIRS, PAIRS), (5, 3)] {
            check(Stored::Bytes { numbers: &numbers, scales: Scales { rows: &rows, each, first } }, 4);
        }
    }
}

#[test]
fn numbers_times_scales_are_rounded_as_halves_are() {
    for scale in 0..=LARGEST {
        let scale = f16::from_bits(scale).to_f32();
        for number in 1..=128_u8 {
            let (exact, above) = (f32::from(number) * scale, f32::from(number) * (scale * MORE));
            // What `vfnmadd` subtracts is exact.
            let weight = above - (above - exact);
            assert_eq!(weight, f16::from_f32(exact).to_f32(), "{number} times {scale}");
        }
    }
}

#[test]
fn every_pair_of_indices() {
    let indices: Vec<u8> = (0..2 * PAIRS * COLUMNS).map(|at| (at * 7) as u8).collect();
    let table = std::array::from_fn(|at| f16::from_bits(at as u16 * 0x0911));
    check(Stored::Indices { indices: &indices, table: &table }, 2);
}

#[test]
fn rows_of_every_density() {
    let masks: Vec<u64> = (0..3 * PAIRS)
        .map(|row| {
            0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(row as u64 + 1) >> row
                | if row < 20 { u64::MAX << row } else { 0 }
        })
        .collect();
    let counts = masks.chunks(PAIRS).map(|block| block.iter().map(|mask| mask.count_ones() as usize).sum());
    let mut starts = vec![0];
    starts.extend(counts.scan(0, |sum: &mut usize, count: usize| {
        *sum += count;
        Some(*sum)
    }));
    let values: Vec<f16> = (0..starts[3]).map(|at| f16::from_bits(at as u16 + 1)).collect();
    check(Stored::Sparse { masks: &masks, starts: &starts[..3], values: &values }, 3);
}
