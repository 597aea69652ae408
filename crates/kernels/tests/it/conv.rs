//! Convolutions.

use aneforge_kernels::conv::{ConvParams, PackedConv, conv2d, conv2d_scratch};
use aneforge_kernels::map::Unary;
use aneforge_kernels::{Bias, Epilogue, Residual, Scratch, f16, order};
use proptest::prelude::*;

use super::support::{cases, check, contexts, values};

struct Case {
    input: [usize; 4],
    /// OIHW.
    shape: [usize; 4],
    groups: usize,
    params: ConvParams,
    seed: u64,
}

fn definition(case: &Case, x: &[f16], weights: &[f16], epilogue: &Epilogue<'_>) -> Vec<f16> {
    let [images, channels, height, width] = case.input;
    let [outputs, per_group, kh, kw] = case.shape;
    let ConvParams { stride, pad, dilation } = case.params;
    let size = case.params.output_size([height, width], [kh, kw]);
    let mut out = Vec::new();
    for (image, output) in (0..images).flat_map(|n| (0..outputs).map(move |o| (n, o))) {
        let first = output / (outputs / case.groups) * per_group;
        for pixel in 0..size[0] * size[1] {
            let (y, x_) = (pixel / size[1] * stride[0], pixel % size[1] * stride[1]);
            let terms = (0..order::conv_terms(per_group, [kh, kw])).map(|term| {
                let Some([i, j, c]) = order::conv_term(term, per_group, [kh, kw]) else { return (0.0, 0.0) };
                let weight = weights[((output * per_group + c) * kh + i) * kw + j].to_f32();
                let row = (y + i * dilation[0]).checked_sub(pad[0]).filter(|&row| row < height);
                let column = (x_ + j * dilation[1]).checked_sub(pad[2]).filter(|&column| column < width);
                let (Some(row), Some(column)) = (row, column) else { return (0.0, weight) };
                (x[((image * channels + first + c) * height + row) * width + column].to_f32(), weight)
            });
            let index = out.len();
            out.push(epilogue.eval(order::dot(terms), (output, pixel), index));
        }
    }
    out
}

fn run(case: &Case) {
    let [_, _, kh, kw] = case.shape;
    let size = case.params.output_size([case.input[2], case.input[3]], [kh, kw]);
    if size.contains(&0) {
        return;
    }
    let x = values(case.input.iter().product(), case.seed);
    let weights = values(case.shape.iter().product(), case.seed ^ 1);
    let bias = values(case.shape[0], case.seed ^ 2);
    let residual = values(case.input[0] * case.shape[0] * size[0] * size[1], case.seed ^ 3);
    let epilogue = Epilogue {
        bias: if case.seed.is_multiple_of(2) { Bias::Row(&bias) } else { Bias::None },
        activation: case.seed.is_multiple_of(3).then_some(Unary::Silu),
        limit: case.seed.is_multiple_of(5).then_some(f16::from_f32(0.5)),
        flush_nan: case.seed.is_multiple_of(7),
        scale: [Bias::None, Bias::Row(&bias), Bias::All(f16::from_f32(0.37))][case.seed as usize / 11 % 3],
        residual: [Residual::None, Residual::Before(&residual), Residual::After(&residual)]
            [case.seed as usize / 35 % 3],
    };
    let want = definition(case, &x, &weights, &epilogue);
    check(&want, "conv2d", |kernels, out| {
        let packed = PackedConv::new(kernels, &weights, case.shape, case.groups);
        let mut scratch = Scratch::with_capacity(conv2d_scratch(kernels, case.input, &packed, &case.params));
        conv2d(kernels, &x, case.input, &packed, &case.params, &epilogue, &mut scratch, out);
    });
}

fn params() -> impl Strategy<Value = ConvParams> {
    ([1..4_usize, 1..4], [0..3_usize, 0..3, 0..3, 0..3], [1..3_usize, 1..3])
        .prop_map(|(stride, pad, dilation)| ConvParams { stride, pad, dilation })
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn conv2d_equals_its_definition(
        images in 1..3_usize,
        groups in prop_oneof![Just(1_usize), 1..4_usize],
        per_group in prop_oneof![1..6_usize, Just(33), Just(40)],
        outputs in prop_oneof![1..7_usize, Just(17)],
        size in [1..14_usize, 1..45],
        kernel in [1..4_usize, 1..4],
        params in params(),
        seed in any::<u64>(),
    ) {
        let input = [images, groups * per_group, size[0], size[1]];
        let shape = [outputs * groups, per_group, kernel[0], kernel[1]];
        run(&Case { input, shape, groups, params, seed });
    }

    #[test]
    fn narrow_convolutions_with_wide_kernels(
        groups in 1..5_usize,
        per_group in 1..5_usize,
        outputs in 1..9_usize,
        kernel in [1..8_usize, 5..12],
        params in params(),
        seed in any::<u64>(),
    ) {
        let input = [1, groups * per_group, 9, 40];
        let shape = [outputs * groups, per_group, kernel[0], kernel[1]];
        run(&Case { input, shape, groups, params, seed });
    }
}

#[test]
fn the_shapes_of_real_networks() {
    let params = |stride, pad| ConvParams { stride: [stride; 2], pad: [pad; 4], dilation: [1, 1] };
    let case = |channels, size, outputs, kernel, groups, params| Case {
        input: [1, channels, size, size],
        shape: [outputs, channels / groups, kernel, kernel],
        groups,
        params,
        seed: 6,
    };
    run(&case(3, 32, 30, 7, 1, params(2, 3)));
    run(&case(64, 7, 70, 3, 1, params(1, 1)));
    run(&case(96, 14, 96, 3, 96, params(2, 1)));
    run(&case(40, 28, 33, 1, 1, params(1, 0)));
    run(&case(64, 15, 32, 1, 1, params(2, 0)));
    run(&case(36, 30, 50, 3, 1, params(1, 1)));
    run(&case(64, 40, 20, 3, 1, params(1, 1)));
    run(&case(160, 21, 40, 3, 2, params(1, 1)));
    run(&case(8, 40, 48, 5, 2, params(1, 2)));
}

#[test]
fn a_reused_scratch_leaves_no_trace() {
    let (x, weights) = (values(8 * 81, 1), values(16 * 8 * 9, 2));
    let params = ConvParams { pad: [1; 4], ..ConvParams::default() };
    for kernels in contexts() {
        let packed = PackedConv::new(kernels, &weights, [16, 8, 3, 3], 1);
        let mut scratch = Scratch::new();
        let poison = vec![f16::NAN; 8 * 81];
        let mut outs = [(); 3].map(|()| vec![f16::ZERO; 16 * 81]);
        for (out, x) in outs.iter_mut().zip([&x, &poison, &x]) {
            conv2d(kernels, x, [1, 8, 9, 9], &packed, &params, &Epilogue::default(), &mut scratch, out);
        }
        assert_eq!(outs[0], outs[2]);
        assert!(outs[1].iter().all(|x| x.is_nan()) && outs[0].iter().all(|x| x.is_finite()));
    }
}
