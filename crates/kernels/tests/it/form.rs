//! Products with compressed weights.

use aneforge_kernels::gemm::{PackedB, gemm, gemm_scratch};
use aneforge_kernels::{Epilogue, Scratch, f16};
use proptest::prelude::*;

use super::support::{Order, Random, cases, check_sums, values};

/// The product with the weights `[N, K]` that a compressed form stands for.
fn product(order: Order, a: &[f16], weights: &[f16], [rows, terms, columns]: [usize; 3]) -> Vec<f16> {
    let sum = |m: usize, n: usize| {
        order.dot((0..terms).map(|k| (a[m * terms + k].to_f32(), weights[n * terms + k].to_f32())))
    };
    let each = (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n)));
    each.map(|(m, n)| f16::from_f32(sum(m, n))).collect()
}

fn compare(a: &[f16], weights: &[f16], packed: &PackedB, shape: [usize; 3], what: &str) {
    check_sums(
        shape[0] >= 7,
        |order| product(order, a, weights, shape),
        what,
        |kernels, out| {
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, shape[0], packed));
            gemm(kernels, a, shape[0], packed, &Epilogue::default(), &mut scratch, out);
        },
    );
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn compressed_weights_give_the_product_of_what_they_stand_for(
        rows in prop_oneof![Just(1_usize), 2..9_usize, Just(40)],
        blocks in 1..4_usize,
        block in prop_oneof![1..70_usize, Just(32), Just(64), Just(96)],
        columns in prop_oneof![1..150_usize, Just(256)],
        seed in any::<u64>(),
    ) {
        let terms = blocks * block;
        let shape = [rows, terms, columns];
        let (a, count, mut random) = (values(rows * terms, seed), columns * terms, Random(seed));
        // Some make a weight subnormal, and some infinite.
        let scale = |random: &mut Random| match random.below(40) {
            0 => f16::from_bits(random.below(0x400) as u16),
            1 => f16::from_f32(600.0),
            _ => f16::from_f32((random.below(4000) + 1) as f32 * 3.1e-6),
        };

        let bytes: Vec<i8> = (0..count).map(|_| random.next() as i8).collect();
        for per_row in [1, blocks] {
            let scales: Vec<f16> = (0..columns * per_row).map(|_| scale(&mut random)).collect();
            let dense: Vec<f16> = (0..count)
                .map(|i| scales[i / terms * per_row + i % terms * per_row / terms].to_f32() * f32::from(bytes[i]))
                .map(f16::from_f32)
                .collect();
            let packed = PackedB::from_int8(&bytes, &scales, columns, terms);
            compare(&a, &dense, &packed, shape, "bytes");
        }

        let table: [f16; 16] = values(16, seed ^ 1).try_into().expect("sixteen");
        let indices: Vec<u8> = (0..count.div_ceil(2)).map(|_| random.next() as u8).collect();
        let dense: Vec<f16> =
            (0..count).map(|i| table[usize::from(indices[i / 2] >> (i % 2 * 4) & 0xf)]).collect();
        compare(&a, &dense, &PackedB::from_lut4(&indices, table, columns, terms), shape, "lookup");

        let mask: Vec<u8> = (0..count.div_ceil(8)).map(|_| (random.next() & random.next()) as u8).collect();
        let set = |i: usize| mask[i / 8] >> (i % 8) & 1 == 1;
        let all = values(count, seed ^ 2);
        let kept: Vec<f16> = (0..count).filter(|&i| set(i)).map(|i| all[i]).collect();
        let dense: Vec<f16> = (0..count).map(|i| if set(i) { all[i] } else { f16::ZERO }).collect();
        compare(&a, &dense, &PackedB::from_sparse(&mask, &kept, columns, terms), shape, "sparse");
    }
}

/// What a table holds and no index names stays out of the result, also behind the last term.
#[test]
fn entries_of_a_table_that_no_index_names() {
    let (terms, columns) = (5, 3);
    let mut table = [f16::INFINITY; 16];
    (table[7], table[9]) = (f16::from_f32(0.5), f16::from_f32(-2.0));
    let names: Vec<u8> = (0..columns * terms).map(|at| if at % 3 == 0 { 7 } else { 9 }).collect();
    let indices: Vec<u8> = names.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4).collect();
    let dense: Vec<f16> = names.iter().map(|&name| table[usize::from(name)]).collect();
    for rows in [1, 4, 20] {
        let packed = PackedB::from_lut4(&indices, table, columns, terms);
        compare(&values(rows * terms, 3), &dense, &packed, [rows, terms, columns], "a table of infinities");
    }
}
