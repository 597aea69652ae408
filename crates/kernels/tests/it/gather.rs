//! Picking by tables, and mixing neighbours.

use aneforge_kernels::gather::{Tap, bilinear, gather, mix};
use aneforge_kernels::{View, f16};
use proptest::prelude::*;

use super::support::{Random, cases, contexts, values};

fn taps(random: &mut Random, size: usize, count: usize) -> Vec<Tap> {
    let tap = |_| Tap {
        low: random.below(size),
        high: random.below(size),
        weight: if random.below(4) == 0 { 0.0 } else { random.below(1000) as f32 / 1000.0 },
    };
    (0..count).map(tap).collect()
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn tables_pick_per_axis(
        shape in prop::collection::vec(1..6_usize, 1..6),
        counts in prop::collection::vec(1..40_usize, 5),
        run in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let counts: Vec<usize> = counts.iter().map(|&n| if shape.len() > 3 { n % 7 + 1 } else { n }).collect();
        let x: Vec<u16> = (0..shape.iter().product()).map(|_| random.next() as u16).collect();
        let mut tables: Vec<Vec<usize>> = shape.iter().zip(&counts)
            .map(|(&size, &count)| (0..count).map(|_| random.below(size)).collect()).collect();
        if run {
            // A last table that is a run is copied in one go.
            *tables.last_mut().unwrap() = (shape[shape.len() - 1] / 2..shape[shape.len() - 1]).collect();
        }
        let total = tables.iter().map(Vec::len).product();
        let want: Vec<u16> = (0..total).map(|mut index: usize| {
            let (mut at, mut stride) = (0, 1);
            for (table, &size) in tables.iter().zip(&shape).rev() {
                at += table[index % table.len()] * stride;
                (index, stride) = (index / table.len(), stride * size);
            }
            x[at]
        }).collect();
        for kernels in contexts() {
            let mut out = vec![0xdead; total];
            gather(kernels, View::new(&x, &shape), &tables, &mut out);
            prop_assert!(out == want, "{kernels:?}");
        }
    }

    #[test]
    fn planes_are_sampled_at_rows_and_columns(
        planes in 1..4_usize, height in 1..6_usize, width in 1..40_usize,
        out_height in 1..6_usize, out_width in prop_oneof![1..9_usize, Just(300)], seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let x = values(planes * height * width, seed);
        let (rows, columns) = (taps(&mut random, height, out_height), taps(&mut random, width, out_width));
        let mut want = Vec::new();
        for plane in x.chunks(height * width) {
            for row in &rows {
                for column in &columns {
                    let at = |y: usize, x: usize| plane[y * width + x].to_f32();
                    let across = |y| mix(at(y, column.low), at(y, column.high), column.weight);
                    want.push(f16::from_f32(mix(across(row.low), across(row.high), row.weight)).to_bits());
                }
            }
        }
        for kernels in contexts() {
            let mut out = vec![f16::ONE; want.len()];
            bilinear(kernels, &x, [height, width], &rows, &columns, &mut out);
            prop_assert!(out.iter().map(|v| v.to_bits()).eq(want.iter().copied()), "{kernels:?}");
        }
    }
}

#[test]
fn a_neighbour_without_a_share_does_not_count() {
    assert_eq!(mix(2.0, f32::INFINITY, 0.0), 2.0);
    assert_eq!(mix(2.0, 4.0, 0.25), 2.5);
}
