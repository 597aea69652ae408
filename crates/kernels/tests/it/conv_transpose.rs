//! Transposed convolutions.

use aneforge_kernels::conv::{ConvParams, PackedConvTranspose, conv_transpose2d, conv_transpose2d_scratch};
use aneforge_kernels::map::Unary;
use aneforge_kernels::{Bias, Epilogue, Scratch, f16, order};
use proptest::prelude::*;

use super::support::{Order, cases, check_sums, values};

fn run(input: [usize; 4], shape: [usize; 4], groups: usize, params: ConvParams, seed: u64) {
    let [images, channels, height, width] = input;
    let [_, per_group, kh, kw] = shape;
    let ConvParams { stride, pad, dilation } = params;
    let full = [0, 1]
        .map(|axis| ([height, width][axis] - 1) * stride[axis] + dilation[axis] * ([kh, kw][axis] - 1) + 1);
    let size = [0, 1].map(|axis: usize| full[axis].saturating_sub(pad[2 * axis] + pad[2 * axis + 1]));
    let (x, weights) = (values(input.iter().product(), seed), values(shape.iter().product(), seed ^ 1));
    let (outputs, inside) = (per_group * groups, channels / groups);
    let bias = values(outputs, seed ^ 2);
    let epilogue = Epilogue {
        bias: if seed.is_multiple_of(2) { Bias::Row(&bias) } else { Bias::None },
        activation: seed.is_multiple_of(3).then_some(Unary::Tanh),
        ..Epilogue::default()
    };
    let origin = |axis: usize, place: usize, tap: usize, extent: usize| {
        let distance = (place + pad[2 * axis]).checked_sub(tap * dilation[axis])?;
        (distance.is_multiple_of(stride[axis]) && distance / stride[axis] < extent)
            .then_some(distance / stride[axis])
    };
    // Outputs of one remainder are a product of their own, unless the kernel cannot be cut.
    let cut = !(inside <= order::NARROW && kw > order::NARROW_TAPS && stride[1] > 1);
    let direct = inside <= order::NARROW && per_group <= 4;
    let of_pixel = |order: Order, pixel: usize| {
        let extent = |axis: usize, at: usize| (size[axis] - at % stride[axis]).div_ceil(stride[axis]);
        let pixels = extent(0, pixel / size[1]) * extent(1, pixel % size[1]);
        if cut && !direct && pixels >= 7 { order } else { Order::Defined }
    };
    let want = |order: Order| {
        let mut want = Vec::new();
        for (image, output) in (0..images).flat_map(|n| (0..outputs).map(move |o| (n, o))) {
            for pixel in 0..size[0] * size[1] {
                let terms = (0..order::conv_terms(inside, [kh, kw])).map(|term| {
                    let [i, j, c] = order::conv_term(term, inside, [kh, kw])?;
                    let row = origin(0, pixel / size[1], i, height)?;
                    let column = origin(1, pixel % size[1], j, width)?;
                    let c = output / per_group * inside + c;
                    let x = x[((image * channels + c) * height + row) * width + column].to_f32();
                    Some((x, weights[((c * per_group + output % per_group) * kh + i) * kw + j].to_f32()))
                });
                let sum = of_pixel(order, pixel).dot(terms.map(|term| term.unwrap_or((0.0, 0.0))));
                want.push(epilogue.eval(sum, (output, pixel), want.len()));
            }
        }
        want
    };
    check_sums(true, want, "conv_transpose", |kernels, out: &mut [f16]| {
        let packed = PackedConvTranspose::new(&weights, shape, groups, &params);
        assert_eq!(packed.output_size([height, width]), size);
        let mut scratch = Scratch::with_capacity(conv_transpose2d_scratch(kernels, input, &packed));
        conv_transpose2d(kernels, &x, input, &packed, &epilogue, &mut scratch, out);
    });
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn conv_transpose_equals_its_definition(
        images in 1..3_usize,
        groups in prop_oneof![Just(1_usize), 1..4_usize],
        inside in prop_oneof![1..6_usize, Just(33)],
        per_group in prop_oneof![1..7_usize, Just(17)],
        size in [1..8_usize, 1..20],
        kernel in [1..6_usize, 1..12],
        stride in [1..4_usize, 1..4],
        pad in [0..3_usize, 0..3, 0..3, 0..3],
        dilation in [1..4_usize, 1..4],
        seed in any::<u64>(),
    ) {
        let input = [images, groups * inside, size[0], size[1]];
        let shape = [groups * inside, per_group, kernel[0], kernel[1]];
        run(input, shape, groups, ConvParams { stride, pad, dilation }, seed);
    }
}

#[test]
fn the_upsamplings_of_real_networks() {
    let params = |stride, pad| ConvParams { stride: [stride; 2], pad: [pad; 4], dilation: [1, 1] };
    run([1, 64, 9, 9], [64, 32, 4, 4], 1, params(2, 1), 4);
    run([1, 40, 7, 33], [40, 20, 2, 2], 1, params(2, 0), 5);
    run([1, 24, 12, 12], [24, 1, 3, 3], 24, params(2, 1), 6);
}
