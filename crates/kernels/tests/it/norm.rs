//! Fused norms.

use aneforge_kernels::f16;
use aneforge_kernels::map::{Binary, Unary, binary, store_again, unary};
use aneforge_kernels::norm::{Norm, Normalize, ScaleShift, normalize};
use aneforge_kernels::reduce::{Reduction, reduce};
use aneforge_kernels::{Kernels, Stores, View, Watch};
use proptest::prelude::*;

use super::support::{cases, check, contexts, values, wild_values};

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn norms_equal_their_definition(
        rows in 1..6_usize,
        size in prop_oneof![1..70_usize, Just(384), Just(1000)],
        by_length in any::<bool>(),
        layout in 0..4_usize,
        flush_nan in any::<bool>(),
        wild in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let count = rows * size;
        let x = if wild { wild_values(count, seed) } else { values(count, seed) };
        // A layer norm, an instance norm, and a group norm of two channels per group.
        let (factors, span) = match layout {
            1 => (size, 1),
            2 => (rows, size),
            _ => (2 * rows, size.div_ceil(2)),
        };
        let (gamma, beta) = (values(factors, seed ^ 1), values(factors, seed ^ 2));
        let beta = (seed % 3 != 0).then_some(&beta[..]);
        let affine = (layout > 0).then_some(ScaleShift { gamma: &gamma, beta, span });
        let norm = if by_length {
            Norm::Length { floor: f16::from_f32(0.05) }
        } else {
            Norm::Variance { eps: f16::from_f32(1e-5) }
        };
        let parameters = Normalize { norm, affine, flush_nan, watch: None };
        let each = x.chunks(size).enumerate();
        let want: Vec<f16> = each.flat_map(|(row, x)| parameters.eval(x, row * size)).collect();
        check(&want, "normalize", |kernels, out| normalize(kernels, &x, size, &parameters, out));
    }
}

/// The ops that a layer norm and an RMS norm are legalised to, one kernel each, which are all watched.
fn chain(
    k: &Kernels,
    x: &[f16],
    (gamma, beta): (&[f16], Option<&[f16]>),
    eps: f16,
    watch: &Watch,
) -> Vec<f16> {
    let size = gamma.len();
    let (shape, narrow) = ([x.len() / size, size], [x.len() / size, 1]);
    let stores = Stores { flush_nan: true, watch: Some(watch) };
    let reduced = |reduction, x: &[f16]| {
        let mut out = vec![f16::ZERO; narrow[0]];
        reduce(k, reduction, x, &shape, 0b10, &mut out);
        store_again(k, stores, &mut out);
        out
    };
    let with = |function, a: &[f16], b: &[f16], b_shape: &[usize]| {
        let mut out = vec![f16::ZERO; a.len()];
        binary(k, function, View::new(a, &shape), View::new(b, b_shape), &shape, stores, &mut out);
        out
    };
    let of = |function, x: &[f16]| {
        let mut out = vec![f16::ZERO; x.len()];
        unary(k, function, x, stores, &mut out);
        out
    };
    let Some(beta) = beta else {
        let length = of(Unary::Threshold { alpha: eps.to_f32() }, &reduced(Reduction::L2Norm, x));
        return with(Binary::Mul, &with(Binary::RealDiv, x, &length, &narrow), gamma, &[size]);
    };
    let centred = with(Binary::Sub, x, &reduced(Reduction::Mean, x), &narrow);
    let variance = reduced(Reduction::Mean, &of(Unary::Square, &centred));
    let sum = of(Unary::AddScalar { k: eps.to_f32() }, &variance);
    let unit = with(Binary::Mul, &centred, &of(Unary::Rsqrt { eps: 0.0 }, &sum), &narrow);
    with(Binary::Add, &with(Binary::Mul, &unit, gamma, &[size]), beta, &[size])
}

/// One row in which each of the ops overflows, whether what comes of it is finite or not.
#[test]
fn fused_norms_are_the_chain_of_ops_bit_for_bit_and_told_of_the_same_overflows() {
    let (size, eps) = (197, f16::from_f32(1e-5));
    let calm = values(5 * size, 1);
    let large = |values: &[f16], last: f32| [&values[..196], &[f16::from_f32(last)]].concat();
    let (gamma, beta) = (values(size, 2), large(&values(size, 3), 4000.0));
    // A square, a difference, the sum of squares, a variance of 65504 and more, the product with gamma, also of one that
    // few norms make so large, and the sum with beta.
    let row = |each: &dyn Fn(usize) -> f32| (0..size).map(|i| f16::from_f32(each(i))).collect::<Vec<_>>();
    let one = row(&|i| if i == 7 { 60000.0 } else { 1.0 });
    let far = row(&|i| if i == 0 { -60000.0 } else { 60000.0 });
    let long = row(&|_| 60000.0);
    let spread = row(&|i| if i % 2 == 0 { 256.0 } else { -256.0 });
    let outlier = row(&|i| if i == 196 { 9.0 } else { 0.0 });
    let cases = [
        (None, &gamma, [false; 2]),
        (Some(&one), &gamma, [true, false]),
        (Some(&far), &gamma, [true; 2]),
        (Some(&long), &gamma, [false, true]),
        (Some(&spread), &gamma, [true, false]),
        (Some(&outlier), &large(&gamma, 65504.0), [true, false]),
        (Some(&outlier), &large(&gamma, 4800.0), [true, false]),
        (Some(&outlier), &large(&gamma, 4600.0), [true, false]),
        (Some(&outlier), &large(&gamma, 4000.0), [false; 2]),
    ];
    for kernels in contexts() {
        for (row, gamma, told) in &cases {
            for (beta, told) in [Some(&beta[..]), None].into_iter().zip(told) {
                let mut x = calm.clone();
                if let Some(row) = row {
                    x[2 * size..3 * size].copy_from_slice(row);
                }
                let norm = if beta.is_none() { Norm::Length { floor: eps } } else { Norm::Variance { eps } };
                let (mut apart, mut together) = (Watch::default(), Watch::default());
                let want = chain(kernels, &x, (gamma, beta), eps, &apart);
                for copies in [1, 2] {
                    // For each row, and for every two.
                    let (gamma, beta) = (gamma.repeat(copies), beta.map(|beta| beta.repeat(copies)));
                    let affine = Some(ScaleShift { gamma: &gamma, beta: beta.as_deref(), span: 1 });
                    let mut out = vec![f16::NAN; x.len()];
                    let parameters = Normalize { norm, affine, flush_nan: true, watch: Some(&together) };
                    normalize(kernels, &x, size, &parameters, &mut out);
                    assert_eq!(out, want);
                    assert_eq!(together.take(), *told, "{row:?}");
                }
                assert_eq!(apart.take(), *told, "{row:?}");
            }
        }
    }
}
