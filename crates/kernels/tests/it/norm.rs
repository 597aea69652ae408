//! Fused norms.

use aneforge_kernels::f16;
use aneforge_kernels::map::{Binary, Unary, binary, unary};
use aneforge_kernels::norm::{Norm, Normalize, ScaleShift, normalize};
use aneforge_kernels::reduce::{Reduction, reduce};
use aneforge_kernels::{Kernels, Stores, View};
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
        let parameters = Normalize { norm, affine, flush_nan };
        let each = x.chunks(size).enumerate();
        let want: Vec<f16> = each.flat_map(|(row, x)| parameters.eval(x, row * size)).collect();
        check(&want, "normalize", |kernels, out| normalize(kernels, &x, size, &parameters, out));
    }
}

/// The ops that a layer norm and an RMS norm are legalised to, one kernel each.
fn chain(k: &Kernels, x: &[f16], size: usize, gamma: &[f16], beta: Option<&[f16]>, eps: f16) -> Vec<f16> {
    let (shape, narrow) = ([x.len() / size, size], [x.len() / size, 1]);
    let reduced = |reduction, x: &[f16]| {
        let mut out = vec![f16::ZERO; narrow[0]];
        reduce(k, reduction, x, &shape, 0b10, &mut out);
        out
    };
    let with = |function, a: &[f16], b: &[f16], b_shape: &[usize]| {
        let mut out = vec![f16::ZERO; a.len()];
        binary(k, function, View::new(a, &shape), View::new(b, b_shape), &shape, Stores::default(), &mut out);
        out
    };
    let of = |function, x: &[f16]| {
        let mut out = vec![f16::ZERO; x.len()];
        unary(k, function, x, Stores::default(), &mut out);
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

#[test]
fn fused_norms_are_the_chain_of_ops_bit_for_bit() {
    let (size, eps) = (197, f16::from_f32(1e-5));
    let (x, gamma, beta) = (values(40 * size, 1), values(size, 2), values(size, 3));
    for kernels in contexts() {
        for beta in [None, Some(&beta[..])] {
            let norm = if beta.is_none() { Norm::Length { floor: eps } } else { Norm::Variance { eps } };
            let affine = Some(ScaleShift { gamma: &gamma, beta, span: 1 });
            let mut out = vec![f16::NAN; x.len()];
            normalize(kernels, &x, size, &Normalize { norm, affine, flush_nan: false }, &mut out);
            assert_eq!(out, chain(kernels, &x, size, &gamma, beta, eps));
        }
    }
}
