//! Matrix products.

use aneforge_kernels::gemm::{
    BatchShape, PackedB, RowShape, Rows, bmm, bmm_scratch, gemm, gemm_rows, gemm_scratch, row_product,
    row_product_scratch,
};
use aneforge_kernels::map::Unary;
use aneforge_kernels::{Bias, Epilogue, Residual, Scratch, f16, order};
use proptest::prelude::*;

use super::support::{Order, Random, cases, check_sums, misaligned, summing_contexts, values};

/// Fewest rows of a product on tiles.
const FEWEST_ROWS: usize = 7;

fn product(
    order: Order,
    [rows, terms, columns]: [usize; 3],
    epilogue: &Epilogue<'_>,
    a: impl Fn(usize, usize) -> f16,
    b: impl Fn(usize, usize) -> f16,
) -> Vec<f16> {
    let sum = |m, n| order.dot((0..terms).map(|k| (a(m, k).to_f32(), b(k, n).to_f32())));
    let each = (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n)));
    each.map(|(m, n)| epilogue.eval(sum(m, n), (m, n), m * columns + n)).collect()
}

#[test]
fn the_order_of_a_dot_product_is_even_and_odd_chains_of_blocks() {
    let (a, b) = (values(77, 1), values(77, 2));
    let mut sum = 0.0_f32;
    for block in 0..3 {
        let chain = |parity: usize| {
            let inside = (block * 32..(block * 32 + 32).min(77)).filter(|k| k % 2 == parity);
            inside.fold(0.0_f32, |chain, k| a[k].to_f32().mul_add(b[k].to_f32(), chain))
        };
        sum += chain(0) + chain(1);
    }
    let terms = a.iter().zip(&b).map(|(a, b)| (a.to_f32(), b.to_f32()));
    assert_eq!(order::dot(terms).to_bits(), sum.to_bits());
}

fn epilogue<'a>(choice: u64, rows: &'a [f16], columns: &'a [f16], all: &'a [f16]) -> Epilogue<'a> {
    let scale = [Bias::None, Bias::All(f16::from_f32(0.18)), Bias::Column(columns)][choice as usize / 9 % 3];
    let residual = [Residual::None, Residual::Before(all), Residual::After(all)][choice as usize / 27 % 3];
    let bias = [Bias::None, Bias::Column(columns), Bias::Row(rows)][choice as usize % 3];
    let activation =
        [None, Some(Unary::Relu), Some(Unary::Gelu), Some(Unary::Relu6)][choice as usize / 3 % 4];
    let limit = choice.is_multiple_of(5).then_some(f16::from_f32(0.4));
    Epilogue { scale, bias, residual, activation, limit, ..Epilogue::default() }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn gemm_equals_its_definition(
        rows in prop_oneof![1..9_usize, 10..60_usize],
        terms in prop_oneof![1..100_usize, Just(128)],
        columns in 1..100_usize,
        seed in any::<u64>(),
    ) {
        let (a, b) = (misaligned(&values(rows * terms, seed), 1), values(terms * columns, seed ^ 1));
        let a = &a[1..];
        let biases = (values(rows, seed ^ 2), values(columns, seed ^ 3));
        let all = values(rows * columns, seed ^ 4);
        let epilogue = epilogue(seed, &biases.0, &biases.1, &all);
        let nk = seed % 2 == 0;
        let packed = if nk { PackedB::from_nk(&b, columns, terms) } else { PackedB::from_kn(&b, terms, columns) };
        let b_at = |k: usize, n: usize| if nk { b[n * terms + k] } else { b[k * columns + n] };
        let want = |order| product(order, [rows, terms, columns], &epilogue, |m, k| a[m * terms + k], b_at);
        check_sums(rows >= FEWEST_ROWS, want, "gemm", |kernels, out| {
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, rows, &packed));
            gemm(kernels, a, rows, &packed, &epilogue, &mut scratch, out);
        });
    }

    #[test]
    fn bmm_equals_its_definition(
        batch in prop::collection::vec(1..4_usize, 0..3),
        rows in 1..40_usize,
        terms in prop_oneof![8 => 1..70_usize, 1 => 1000..2200_usize],
        columns in 1..70_usize,
        transpose in any::<[bool; 2]>(),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let mut operand = || -> Vec<usize> {
            batch.iter().map(|&size| if random.below(3) == 0 { 1 } else { size }).collect()
        };
        let (a_batch, b_batch) = (operand(), operand());
        let counts = [&a_batch, &b_batch].map(|shape| shape.iter().product::<usize>());
        let (a, b) = (values(counts[0] * rows * terms, seed), values(counts[1] * terms * columns, seed ^ 1));
        let [transpose_a, transpose_b] = transpose;
        let (a_axes, b_axes) = (&a_batch, &b_batch);
        let shape = BatchShape {
            batch: &batch, a_batch: a_axes, b_batch: b_axes, rows, terms, columns, transpose_a, transpose_b,
        };
        let biases = (values(rows, seed ^ 2), values(columns, seed ^ 3));
        let all = values(batch.iter().product::<usize>() * rows * columns, seed ^ 4);
        let epilogue = epilogue(seed, &biases.0, &biases.1, &all);
        let want = |order| {
        let mut want = Vec::new();
        for index in 0..batch.iter().product::<usize>() {
            let at = |own: &[usize]| {
                let (mut rest, mut at, mut step) = (index, 0, 1);
                for axis in (0..batch.len()).rev() {
                    at += if own[axis] == 1 { 0 } else { rest % batch[axis] * step };
                    rest /= batch[axis];
                    step *= own[axis];
                }
                at
            };
            let (a, b) = (&a[at(a_axes) * rows * terms..], &b[at(b_axes) * terms * columns..]);
            let first = want.len();
            let range = first..first + rows * columns;
            let residual = match epilogue.residual {
                Residual::None => Residual::None,
                Residual::Before(all) => Residual::Before(&all[range]),
                Residual::After(all) => Residual::After(&all[range]),
            };
            let epilogue = Epilogue { residual, ..epilogue };
            want.extend(product(
                order,
                [rows, terms, columns],
                &epilogue,
                |m, k| if transpose_a { a[k * rows + m] } else { a[m * terms + k] },
                |k, n| if transpose_b { b[n * terms + k] } else { b[k * columns + n] },
            ));
        }
        want
        };
        check_sums(rows >= FEWEST_ROWS, want, "bmm", |kernels, out| {
            let mut scratch = Scratch::with_capacity(bmm_scratch(kernels, &shape));
            bmm(kernels, &a, &b, &shape, &epilogue, &mut scratch, out);
        });
    }

    #[test]
    fn products_of_rows_of_images_equal_their_definition(
        images in 1..3_usize,
        channels in prop_oneof![1..9_usize, 10..60_usize],
        height in 1..5_usize,
        terms in prop_oneof![1..70_usize, Just(128)],
        columns in 1..70_usize,
        seed in any::<u64>(),
    ) {
        let shape = RowShape { images, channels, height, terms, columns };
        let a = values(images * channels * height * terms, seed);
        let b = values(images * terms * height * columns, seed ^ 1);
        let places = (0..images * channels * height * columns).map(|at| {
            (at / (channels * height * columns), at / columns, at / columns % height, at % columns)
        });
        let want = |order: Order| places.clone().map(|(image, row, line, column)| {
            let b = |w: usize| b[((image * terms + w) * height + line) * columns + column];
            f16::from_f32(order.dot((0..terms).map(|w| (a[row * terms + w].to_f32(), b(w).to_f32()))))
        }).collect();
        check_sums(channels >= FEWEST_ROWS, want, "row_product", |kernels, out| {
            let need = row_product_scratch(kernels, &shape);
            let mut scratch = Scratch::with_capacity(need);
            row_product(kernels, &a, &b, &shape, &Epilogue::default(), &mut scratch, out);
            assert_eq!(scratch.capacity(), need);
        });
    }
}

#[test]
fn blocking_and_threads_change_no_bit() {
    for [rows, terms, columns] in [[150, 1100, 130], [700, 96, 70], [3, 700, 300]] {
        let (a, b) = (values(rows * terms, 3), values(terms * columns, 4));
        let packed = PackedB::from_kn(&b, terms, columns);
        let mut first: [Option<Vec<f16>>; 2] = [None, None];
        for kernels in summing_contexts() {
            let mut out = vec![f16::NAN; rows * columns];
            gemm(kernels, &a, rows, &packed, &Epilogue::default(), &mut Scratch::new(), &mut out);
            let order = Order::of(kernels, rows >= FEWEST_ROWS);
            let first = first[order as usize].get_or_insert_with(|| out.clone());
            assert!(out == *first, "{kernels:?}");
            for (m, n) in [(0, 0), (rows - 1, columns - 1), (rows / 2, columns / 3)] {
                let terms = (0..terms).map(|k| (a[m * terms + k].to_f32(), b[k * columns + n].to_f32()));
                assert_eq!(first[m * columns + n], f16::from_f32(order.dot(terms)));
            }
        }
    }
}

/// Rows, terms and columns around the sizes of tiles, from an operand at every alignment.
#[test]
fn ragged_shapes_at_any_alignment() {
    for (index, [rows, terms, columns]) in [
        [7, 32, 32],
        [9, 31, 33],
        [15, 64, 31],
        [16, 33, 1],
        [17, 64, 65],
        [31, 1, 64],
        [33, 63, 32],
        [48, 96, 40],
        [47, 65, 16],
        [63, 512, 33],
        [64, 544, 34],
        [65, 545, 15],
        [290, 1056, 70],
    ]
    .into_iter()
    .enumerate()
    {
        let (a, b) = (values(rows * terms, index as u64), values(terms * columns, 9));
        let packed = PackedB::from_nk(&b, columns, terms);
        let want = |order| {
            let shape = [rows, terms, columns];
            product(order, shape, &Epilogue::default(), |m, k| a[m * terms + k], |k, n| b[n * terms + k])
        };
        let moved = misaligned(&a, index);
        check_sums(true, want, "gemm", |kernels, out| {
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, rows, &packed));
            gemm(kernels, &moved[index..], rows, &packed, &Epilogue::default(), &mut scratch, out);
        });
    }
}

#[test]
fn subnormal_operands_and_cancelling_sums() {
    let [rows, terms, columns] = [40, 160, 40];
    let tiny = |count: usize, seed: u64| -> Vec<f16> {
        let mut random = Random(seed);
        (0..count).map(|_| f16::from_bits((random.next() & 0x83ff) as u16)).collect()
    };
    let large = |count: usize, seed: u64| -> Vec<f16> {
        let mut random = Random(seed);
        (0..count).map(|_| f16::from_bits((random.next() & 0x83ff | 0x6c00) as u16)).collect()
    };
    for (a, b) in [
        (tiny(rows * terms, 1), tiny(terms * columns, 2)),
        (tiny(rows * terms, 3), large(terms * columns, 4)),
        (large(rows * terms, 5), large(terms * columns, 6)),
    ] {
        let packed = PackedB::from_kn(&b, terms, columns);
        let (a_at, b_at) = (|m: usize, k: usize| a[m * terms + k], |k: usize, n: usize| b[k * columns + n]);
        let want = |order| product(order, [rows, terms, columns], &Epilogue::default(), a_at, b_at);
        check_sums(true, want, "gemm", |kernels, out| {
            gemm(kernels, &a, rows, &packed, &Epilogue::default(), &mut Scratch::new(), out);
        });
    }
}

#[test]
fn infinities_and_overflow_come_out() {
    let a = [f16::INFINITY, f16::ONE, f16::MAX, f16::MAX];
    let packed = PackedB::from_kn(&[f16::ONE, f16::ONE], 2, 1);
    for kernels in summing_contexts() {
        let mut out = [f16::ZERO; 2];
        gemm(kernels, &a, 2, &packed, &Epilogue::default(), &mut Scratch::new(), &mut out);
        assert_eq!(out, [f16::INFINITY; 2]);
        let a = a.repeat(20);
        let mut out = [f16::ZERO; 40];
        gemm(kernels, &a, 40, &packed, &Epilogue::default(), &mut Scratch::new(), &mut out);
        assert_eq!(out, [f16::INFINITY; 40]);
    }
}

#[test]
fn an_infinity_stays_in_its_row_and_its_column() {
    let [rows, terms, columns] = [37, 64, 45];
    let (mut a, mut b) = (values(rows * terms, 1), values(terms * columns, 2));
    a[20 * terms + 5] = f16::INFINITY;
    a[22 * terms + 7] = f16::NAN;
    b[7 * columns + 44] = f16::NEG_INFINITY;
    let packed = PackedB::from_kn(&b, terms, columns);
    let want = |order| {
        let (a_at, b_at) = (|m: usize, k: usize| a[m * terms + k], |k: usize, n: usize| b[k * columns + n]);
        product(order, [rows, terms, columns], &Epilogue::default(), a_at, b_at)
    };
    check_sums(true, want, "gemm", |kernels, out| {
        gemm(kernels, &a, rows, &packed, &Epilogue::default(), &mut Scratch::new(), out);
        for (index, got) in out.iter().enumerate() {
            let hit = [20, 22].contains(&(index / columns)) || index % columns == 44;
            assert_eq!(got.is_finite(), !hit, "{got} at {index}, {kernels:?}");
        }
    });
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn rows_may_lie_apart(
        shape in [1..40_usize, 1..90_usize, 1..200_usize],
        gaps in [0..5_usize, 0..70],
        starts in [0..9_usize, 0..9],
        seed in any::<u64>(),
    ) {
        let [rows, terms, columns] = shape;
        let (from, to) = (
            Rows { start: starts[0], pitch: terms + gaps[0] },
            Rows { start: starts[1], pitch: columns + gaps[1] },
        );
        let a = values(from.start + rows * from.pitch, seed);
        let b = values(terms * columns, seed ^ 1);
        let before = values(to.start + rows * to.pitch, seed ^ 2);
        let residual = values(before.len(), seed ^ 3);
        let bias = values(columns, seed ^ 4);
        let epilogue = Epilogue {
            bias: Bias::Column(&bias),
            residual: Residual::After(&residual),
            activation: Some(Unary::Relu),
            ..Epilogue::default()
        };
        let want = |order: Order| {
        let mut want = before.clone();
        for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
            let terms = (0..terms).map(|k| (a[from.start + m * from.pitch + k].to_f32(), b[n * terms + k].to_f32()));
            let at = to.start + m * to.pitch + n;
            want[at] = epilogue.eval(order.dot(terms), (m, n), at);
        }
        want
        };
        let packed = PackedB::from_nk(&b, columns, terms);
        check_sums(rows >= FEWEST_ROWS, want, "gemm_rows", |kernels, out| {
            out.copy_from_slice(&before);
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, rows, &packed));
            gemm_rows(kernels, (&a, from), rows, &packed, &epilogue, &mut scratch, (out, to));
        });
    }
}

/// Weights that are one `bf16` each, in every form that holds them: the bits do not depend on the form, nor on what else
/// there is in other panels.
#[test]
fn weights_of_one_part_in_every_form() {
    let [rows, terms, columns] = [39, 96, 70];
    let (a, mut random) = (values(rows * terms, 1), Random(2));
    let indices: Vec<u8> = (0..terms * columns).map(|_| (random.next() & 0xf) as u8).collect();
    let table: [f16; 16] = std::array::from_fn(|at| f16::from_f32((at as f32 - 7.0) * 0.25));
    let weights: Vec<f16> = indices.iter().map(|&at| table[usize::from(at)]).collect();
    let bytes: Vec<i8> = indices.iter().map(|&at| at as i8 - 7).collect();
    let pairs: Vec<u8> = indices.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
    // The first panel has a weight of two parts, far behind.
    let mut mixed = weights.clone();
    mixed[3 * terms + 90] = f16::from_bits(0x3c01);
    for (packed, weights) in [
        (PackedB::from_nk(&weights, columns, terms), &weights),
        (PackedB::from_int8(&bytes, &vec![f16::from_f32(0.25); columns], columns, terms), &weights),
        (PackedB::from_lut4(&pairs, table, columns, terms), &weights),
        (PackedB::from_nk(&mixed, columns, terms), &mixed),
    ] {
        let want = |order| {
            let shape = [rows, terms, columns];
            product(
                order,
                shape,
                &Epilogue::default(),
                |m, k| a[m * terms + k],
                |k, n| weights[n * terms + k],
            )
        };
        check_sums(true, want, "weights of one part", |kernels, out| {
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, rows, &packed));
            gemm(kernels, &a, rows, &packed, &Epilogue::default(), &mut scratch, out);
        });
    }
}
