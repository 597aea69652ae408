//! Products that are not rounded equal the order's definition on every instruction set and number of threads.

use super::support::{Random, contexts};
use aneforge_kernels::order::dot;
use aneforge_kernels::sums::{Columns, sums};

#[test]
fn sums_equal_their_definition() {
    for [rows, terms, columns] in
        [[1, 1, 1], [3, 31, 5], [14, 32, 32], [15, 33, 33], [40, 100, 70], [2, 0, 3]]
    {
        let mut random = Random(7);
        let mut matrix = |count: usize| -> Vec<f32> {
            (0..count).map(|_| random.below(2000) as f32 / 256.0 - 4.0).collect()
        };
        let (a, b) = (matrix(rows * terms), matrix(columns * terms));
        let row = |values: &[f32], at: usize| values[at * terms..(at + 1) * terms].to_vec();
        let want: Vec<u32> = (0..rows * columns)
            .map(|i| dot(row(&a, i / columns).into_iter().zip(row(&b, i % columns))).to_bits())
            .collect();
        for kernels in contexts() {
            let fill =
                |values: &[f32], at: usize, out: &mut [f32]| out[..terms].copy_from_slice(&row(values, at));
            let packed = Columns::new(kernels, [columns, terms], |at, out| fill(&b, at, out));
            let mut out = vec![f32::NAN; rows * columns];
            // Rows are finished once each, and told apart.
            let finish = |row: usize, out: &mut [f32]| {
                if row % 2 == 1 {
                    out.iter_mut().for_each(|v| *v = -*v);
                }
            };
            sums(kernels, &packed, |at, out| fill(&a, at, out), finish, &mut out);
            (1..rows).step_by(2).for_each(|row| finish(row, &mut out[row * columns..][..columns]));
            let got: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
            assert_eq!(got, want, "{rows}x{terms}x{columns} on {:?}", kernels.isa());
        }
    }
}
