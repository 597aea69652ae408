use super::super::{int8 as plain_int8, lut4 as plain_lut4, relative_error};
use super::*;
use aneforge_kernels::compensate::add_moments;
use aneforge_tensor::{Tensor, random};
use proptest::prelude::*;

fn drawn(seed: u64, dims: &[usize]) -> Vec<f32> {
    (0..dims.iter().product::<usize>() as u64).map(|at| random::normal(seed, at)).collect()
}

fn weight(seed: u64, dims: &[usize]) -> Weight {
    Tensor::from_slice(Shape::new(dims).unwrap(), &drawn(seed, dims)).unwrap().into()
}

/// Rows whose columns depend on each other and differ in size, for each group.
fn rows(seed: u64, groups: usize, columns: usize) -> Vec<Vec<f32>> {
    let of_group = |group: u64| {
        let mut rows = drawn(seed + group, &[3 * columns, columns]);
        for row in rows.chunks_mut(columns) {
            let common = row[0];
            row.iter_mut().enumerate().for_each(|(at, v)| *v = (*v + 2.0 * common) * (1 + at % 5) as f32);
        }
        rows
    };
    (0..groups as u64).map(of_group).collect()
}

fn seen(rows: &[Vec<f32>], columns: usize) -> Seen {
    let lower = rows.iter().map(|rows| {
        let mut lower = vec![0.0; columns * columns];
        add_moments(&Pool::new(1), rows, columns, &mut lower);
        lower
    });
    Seen::new(&lower.collect::<Vec<_>>(), columns, 3 * columns, 1).unwrap()
}

/// `|X (W - W')| / |X W|` from its definition, with so much of what damping adds.
fn error(rows: &[Vec<f32>], damping: f64, columns: usize, weight: &Weight, encoded: &Weight) -> f64 {
    let (exact, stored) = (weight.to_f32(), encoded.to_f32());
    let (size, mut sums) = (exact.len() / rows.len(), [0.0f64; 2]);
    for (group, rows) in rows.iter().enumerate() {
        let squares: f64 = rows.iter().map(|x| f64::from(*x).powi(2)).sum();
        for at in group * size..(group + 1) * size {
            let damp = damping * squares / columns as f64;
            sums[0] += damp * (f64::from(exact[at]) - f64::from(stored[at])).powi(2);
            sums[1] += damp * f64::from(exact[at]).powi(2);
        }
        for at in (group * size..(group + 1) * size).step_by(columns) {
            for row in rows.chunks(columns) {
                let product = |values: &dyn Fn(usize) -> f64| -> f64 {
                    (0..columns).map(|k| f64::from(row[k]) * values(at + k)).sum::<f64>().powi(2)
                };
                sums[0] += product(&|at| f64::from(exact[at]) - f64::from(stored[at]));
                sums[1] += product(&|at| f64::from(exact[at]));
            }
        }
    }
    (sums[0] / sums[1]).sqrt()
}

#[test]
fn products_are_nearer_than_with_the_plain_quantisers() {
    let (weight, rows) = (weight(1, &[32, 24]), rows(9, 1, 24));
    let (seen, pool) = (seen(&rows, 24), Pool::new(2));
    let of = |encoded: &Weight| error(&rows, 0.0, 24, &weight, encoded);
    let (bytes, plain) = (int8(&weight, &seen, &pool).unwrap(), plain_int8(&weight).unwrap());
    assert!(of(&bytes) < 0.7 * of(&plain), "{} and {}", of(&bytes), of(&plain));
    assert_eq!(bytes.stored_bytes(), plain.stored_bytes());
    let (table, plain) = (lut4(&weight, &seen, &pool).unwrap(), plain_lut4(&weight).unwrap());
    assert!(of(&table) < 0.7 * of(&plain), "{} and {}", of(&table), of(&plain));
    assert_eq!(table.stored_bytes(), plain.stored_bytes());
    // Values themselves are further away: what is near is the product.
    assert!(relative_error(&weight, &table) > relative_error(&weight, &plain));
}

/// How far other rows of the same kind are off, with weights that were fitted to so few.
#[test]
fn what_few_rows_were_seen_of_is_fitted_to_them_less() {
    let columns = 32;
    let (weight, all) = (weight(1, &[32, columns]), &rows(9, 1, columns)[0]);
    let (few, others) = all.split_at(columns * columns);
    let mut lower = vec![0.0; columns * columns];
    add_moments(&Pool::new(1), few, columns, &mut lower);
    let off = |claimed: usize| {
        let seen = Seen::new(&[lower.clone()], columns, claimed, 1).unwrap();
        let encoded = lut4(&weight, &seen, &Pool::new(1)).unwrap();
        error(&[others.to_vec()], 0.0, columns, &weight, &encoded)
    };
    let (held, trusted) = (off(columns), off(1 << 20));
    assert!(held < 0.9 * trusted, "{held}, and {trusted} if they are trusted");
}

#[test]
fn moments_of_other_columns_are_refused() {
    let (seen, pool) = (seen(&rows(9, 2, 6), 6), Pool::new(1));
    for dims in [&[4, 7][..], &[3, 6], &[5, 12]] {
        assert!(int8(&weight(2, dims), &seen, &pool).is_none(), "{dims:?}");
        assert!(lut4(&weight(2, dims), &seen, &pool).is_none(), "{dims:?}");
    }
    assert!(int8(&weight(2, &[4, 6]), &seen, &pool).is_some());
    assert!(Seen::new(&[], 3, 9, 1).is_none() && Seen::new(&[vec![0.0; 9]], 3, 9, 1).is_none());
}

#[test]
fn groups_that_were_never_active_keep_their_plain_codes() {
    let (weight, mut rows) = (weight(5, &[6, 8]), rows(3, 3, 8));
    rows[1].fill(0.0);
    let (seen, pool) = (seen(&rows, 8), Pool::new(1));
    let (bytes, plain) = (int8(&weight, &seen, &pool).unwrap(), plain_int8(&weight).unwrap());
    assert_eq!(bytes.to_f32()[16..32], plain.to_f32()[16..32]);
    for ours in [&bytes, &lut4(&weight, &seen, &pool).unwrap()] {
        let (said, want) = (seen.error(&weight, ours, &pool), error(&rows, 0.0, 8, &weight, ours));
        assert!((said - want).abs() <= 1e-9 * want, "{said} and {want}");
    }
    assert!(seen.error(&weight, &bytes, &pool) < seen.error(&weight, &plain, &pool));
}

proptest! {
    #[test]
    fn nothing_is_worse_than_plain_and_errors_are_the_definitions(
        seed in 0u64..1 << 40,
        groups in 1usize..4,
        outputs in 1usize..5,
        half in 1usize..8,
    ) {
        let columns = 2 * half;
        let dims = [groups * outputs, columns];
        let (weight, rows) = (weight(seed, &dims), rows(seed + 1, groups, columns));
        let (seen, pool) = (seen(&rows, columns), Pool::new(1));
        let both = [
            (int8(&weight, &seen, &pool).unwrap(), plain_int8(&weight).unwrap()),
            (lut4(&weight, &seen, &pool).unwrap(), plain_lut4(&weight).unwrap()),
        ];
        for (ours, plain) in both {
            let errors = [&ours, &plain].map(|encoded| error(&rows, damping(columns, 3 * columns, 1), columns, &weight, encoded));
            prop_assert!(errors[0] <= errors[1] * (1.0 + 1e-9) + 1e-12, "{:?}", errors);
            let (said, want) = (seen.error(&weight, &ours, &pool), error(&rows, 0.0, columns, &weight, &ours));
            prop_assert!((said - want).abs() <= 1e-6 * want + 1e-9, "{} and {}", said, want);
            let said = seen.expected(&weight, &ours, &pool);
            prop_assert!((said - errors[0]).abs() <= 1e-6 * errors[0] + 1e-9, "{} and {}", said, errors[0]);
        }
    }
}
