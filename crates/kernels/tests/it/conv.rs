//! Convolutions.

use aneforge_kernels::conv::{
    ConvParams, Images, Nhwc, PackedConv, conv2d, conv2d_images, conv2d_images_scratch, conv2d_nhwc,
    conv2d_nhwc_scratch, conv2d_scratch,
};
use aneforge_kernels::map::Unary;
use aneforge_kernels::{Bias, Epilogue, Residual, Scratch, f16, order};
use proptest::prelude::*;

use super::support::{
    Order, Random, assert_same, cases, check_sums, contexts, summing_contexts, values, wild_values,
};

struct Case {
    input: [usize; 4],
    /// OIHW.
    shape: [usize; 4],
    groups: usize,
    params: ConvParams,
    seed: u64,
}

fn definition(order: Order, case: &Case, x: &[f16], weights: &[f16], epilogue: &Epilogue<'_>) -> Vec<f16> {
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
            out.push(epilogue.eval(order.dot(terms), (output, pixel), index));
        }
    }
    out
}

impl Case {
    fn outputs(&self) -> [usize; 2] {
        self.params.output_size([self.input[2], self.input[3]], [self.shape[2], self.shape[3]])
    }

    /// Whether there are the pixels for tiles; convolutions with few channels and outputs do without.
    fn for_tiles(&self) -> bool {
        let direct = self.shape[1] <= order::NARROW && self.shape[0] / self.groups <= 4;
        self.outputs().iter().product::<usize>() >= 7 && !direct
    }
}

fn run(case: &Case) {
    let size = case.outputs();
    if size.contains(&0) {
        return;
    }
    let x = values(case.input.iter().product(), case.seed);
    let weights = values(case.shape.iter().product(), case.seed ^ 1);
    let bias = values(case.shape[0], case.seed ^ 2);
    let residual = values(case.input[0] * case.shape[0] * size[0] * size[1], case.seed ^ 3);
    let epilogue = Epilogue {
        bias: if case.seed.is_multiple_of(3) { Bias::None } else { Bias::Row(&bias) },
        activation: [None, Some(Unary::Silu), Some(Unary::Relu), Some(Unary::Relu6)][case.seed as usize % 4],
        limit: case.seed.is_multiple_of(5).then_some(f16::from_f32(0.5)),
        flush_nan: case.seed.is_multiple_of(7),
        scale: [Bias::None, Bias::Row(&bias), Bias::All(f16::from_f32(0.37))][case.seed as usize / 11 % 3],
        residual: [Residual::None, Residual::Before(&residual), Residual::After(&residual)]
            [case.seed as usize / 35 % 3],
        watch: None,
    };
    let want = |order| definition(order, case, &x, &weights, &epilogue);
    let others = values(weights.len(), case.seed ^ 4);
    check_sums(case.for_tiles(), want, "conv2d", |kernels, out| {
        let packed = if case.seed.is_multiple_of(2) {
            PackedConv::new(&weights, case.shape, case.groups)
        } else {
            let mut packed = PackedConv::new(&others, case.shape, case.groups);
            packed.refill(kernels, &weights);
            packed
        };
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
    fn depthwise_convolutions(
        channels in prop_oneof![1..5_usize, Just(16), Just(33), Just(70)],
        each in prop_oneof![Just(1_usize), Just(2)],
        size in [1..8_usize, 1..40],
        kernel in prop_oneof![Just([3_usize, 3]), Just([5, 5]), [1..4_usize, 1..8]],
        stride in prop_oneof![Just([1_usize, 1]), Just([2, 2]), [1..3_usize, 1..4]],
        params in params(),
        seed in any::<u64>(),
    ) {
        let shape = [channels * each, 1, kernel[0], kernel[1]];
        let params = ConvParams { stride, ..params };
        run(&Case { input: [2, channels, size[0], size[1]], shape, groups: channels, params, seed });
    }

    #[test]
    fn narrow_convolutions_with_wide_kernels(
        groups in 1..5_usize,
        per_group in 1..5_usize,
        width in prop_oneof![Just(40_usize), Just(270)],
        outputs in 1..9_usize,
        kernel in [1..8_usize, 5..12],
        params in params(),
        seed in any::<u64>(),
    ) {
        let input = [1, groups * per_group, 9, width];
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
    // Rows of outputs in several parts, with a stride.
    run(&case(256, 28, 9, 3, 1, params(2, 1)));
    run(&case(64, 56, 7, 3, 1, params(2, 1)));
}

/// Where there is one output there is no way to the next, however long it would be.
#[test]
fn strides_beyond_the_image_take_no_memory() {
    let params = ConvParams { stride: [1 << 30; 2], pad: [1; 4], dilation: [1; 2] };
    let case = Case { input: [1, 4, 8, 8], shape: [5, 4, 3, 3], groups: 1, params, seed: 8 };
    let packed = PackedConv::new(&[f16::ONE; 5 * 4 * 3 * 3], case.shape, 1);
    for kernels in summing_contexts() {
        assert!(conv2d_images_scratch(kernels, case.input, &packed, &params) < 1 << 20);
    }
    run(&case);
}

#[test]
fn a_reused_scratch_leaves_no_trace() {
    let (x, weights) = (values(8 * 81, 1), values(16 * 8 * 9, 2));
    let params = ConvParams { pad: [1; 4], ..ConvParams::default() };
    for kernels in summing_contexts() {
        let packed = PackedConv::new(&weights, [16, 8, 3, 3], 1);
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

/// `[n, c, h, w]` where `view` says; `fill` elsewhere, and zeros in the halo.
fn lay_out(x: &[f16], [images, channels, height, width]: [usize; 4], view: &Nhwc, fill: f16) -> Vec<f16> {
    let mut out = vec![fill; view.len(images, 3)];
    let [top, bottom, left, right] = view.halo;
    for (n, y) in (0..images).flat_map(|n| (0..top + height + bottom).map(move |y| (n, y))) {
        for x_ in 0..left + width + right {
            let inside = (top..top + height).contains(&y) && (left..left + width).contains(&x_);
            let at = (view.start + n * view.image + y * view.row + x_ * view.pixel)
                - (top * view.row + left * view.pixel);
            for c in 0..channels {
                let from = |y: usize, x: usize| ((n * channels + c) * height + y) * width + x;
                out[at + c] = if inside { x[from(y - top, x_ - left)] } else { f16::ZERO };
            }
        }
    }
    out
}

fn from_one_to_the_other(
    case: &Case,
    packed: &PackedConv,
    read: (&[f16], &Images),
    (want, to): (&[Vec<f16>; 2], &Images),
    epilogue: &Epilogue<'_>,
) {
    for kernels in summing_contexts() {
        let want = &want[Order::of(kernels, case.for_tiles()) as usize];
        let len = conv2d_images_scratch(kernels, case.input, packed, &case.params);
        let (mut scratch, mut out) = (Scratch::with_capacity(len), vec![f16::ZERO; want.len()]);
        let write = (&mut out[..], to);
        conv2d_images(kernels, read, case.input, packed, &case.params, epilogue, &mut scratch, write);
        assert_same(kernels, &out, want, "conv2d_images");
    }
}

fn from_pixels_to_pixels(
    case: &Case,
    packed: &PackedConv,
    read: (&[f16], &Nhwc),
    (want, to): (&[Vec<f16>; 2], &Nhwc),
    epilogue: &Epilogue<'_>,
) {
    for kernels in summing_contexts() {
        let want = &want[Order::of(kernels, case.for_tiles()) as usize];
        let len = conv2d_nhwc_scratch(kernels, case.input, packed, &case.params);
        let (mut scratch, mut out) = (Scratch::with_capacity(len), vec![f16::ZERO; want.len()]);
        let write = (&mut out[..], to);
        conv2d_nhwc(kernels, read, case.input, packed, &case.params, epilogue, &mut scratch, write);
        assert_same(kernels, &out, want, "conv2d_nhwc");
    }
}

/// The same results where they lie otherwise: from an image with too small a halo, with one that is read in place,
/// from pixels that are far apart, and into a padded image.
fn run_nhwc(case: &Case) {
    let ([images, channels, height, width], outputs, size) = (case.input, case.shape[0], case.outputs());
    if size.contains(&0) {
        return;
    }
    let [x, weights, bias, residual] = [
        values(case.input.iter().product(), case.seed),
        values(case.shape.iter().product(), case.seed ^ 1),
        values(outputs, case.seed ^ 2),
        values(images * outputs * size[0] * size[1], case.seed ^ 3),
    ];
    let epilogue = |residual| Epilogue {
        bias: Bias::Row(&bias),
        activation: Some(Unary::Relu),
        residual: Residual::Before(residual),
        ..Epilogue::default()
    };
    let want = [Order::Defined, Order::Parts]
        .map(|order| definition(order, case, &x, &weights, &epilogue(&residual)));
    let shape = [images, outputs, size[0], size[1]];
    let halo = case.params.pad.map(|pad| pad + case.seed as usize % 2);
    let wide = Nhwc {
        pixel: channels + 3,
        row: (channels + 3) * (width + 9) + 1,
        ..Nhwc::padded([0; 2], 1, [0; 4])
    };
    let apart =
        Nhwc { image: wide.row * (height + 8), start: wide.row * 4 + wide.pixel * 4, halo: [3; 4], ..wide };
    let to = Nhwc::padded(size, outputs, [1, 0, 2, 1]);
    let packed = PackedConv::new(&weights, case.shape, case.groups);
    let pixels = lay_out(&x, case.input, &apart, f16::NAN);
    from_one_to_the_other(
        case,
        &packed,
        (&pixels, &Images::Pixels(apart)),
        (&want, &Images::Planes),
        &epilogue(&residual),
    );
    let residual = lay_out(&residual, shape, &to, f16::ZERO);
    let padded = want.each_ref().map(|want| lay_out(want, shape, &to, f16::ZERO));
    from_one_to_the_other(
        case,
        &packed,
        (&x, &Images::Planes),
        (&padded, &Images::Pixels(to)),
        &epilogue(&residual),
    );
    for from in [
        Nhwc::padded([height, width], channels, [0; 4]),
        Nhwc::padded([height, width], channels, halo),
        apart,
    ] {
        let x = lay_out(&x, case.input, &from, f16::NAN);
        from_pixels_to_pixels(case, &packed, (&x, &from), (&padded, &to), &epilogue(&residual));
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn images_may_lie_pixel_after_pixel(
        images in 1..3_usize,
        groups in prop_oneof![Just(1_usize), 1..4_usize],
        per_group in prop_oneof![1..6_usize, Just(32), Just(40), Just(64)],
        outputs in prop_oneof![1..7_usize, Just(17), Just(33)],
        size in [1..14_usize, 1..40],
        kernel in [1..4_usize, 1..4],
        params in params(),
        seed in any::<u64>(),
    ) {
        let input = [images, groups * per_group, size[0], size[1]];
        let shape = [outputs * groups, per_group, kernel[0], kernel[1]];
        run_nhwc(&Case { input, shape, groups, params, seed });
    }

    #[test]
    fn compressed_weights_equal_dense_ones(
        groups in prop_oneof![Just(1_usize), 1..4_usize],
        per_group in prop_oneof![1..6_usize, Just(32), Just(37)],
        outputs in prop_oneof![1..9_usize, Just(33)],
        kernel in [1..4_usize, 1..10],
        seed in any::<u64>(),
    ) {
        let shape = [outputs * groups, per_group, kernel[0], kernel[1]];
        let (count, mut random) = (shape.iter().product::<usize>(), Random(seed));
        let per_output = count / shape[0];
        let bytes: Vec<i8> = (0..count).map(|_| random.next() as i8).collect();
        let scales: Vec<f16> = values(shape[0], seed).iter().map(|x| f16::from_f32(x.to_f32() / 64.0)).collect();
        let indices: Vec<u8> = (0..count.div_ceil(2)).map(|_| random.next() as u8).collect();
        let table: [f16; 16] = values(16, seed ^ 5).try_into().unwrap();
        let mask: Vec<u8> = (0..count.div_ceil(8)).map(|_| random.next() as u8 & random.next() as u8).collect();
        let set = |at: usize| mask[at / 8] >> (at % 8) & 1 == 1;
        let kept = values((0..count).filter(|&at| set(at)).count(), seed ^ 6);
        let mut rest = kept.iter();
        let scaled = |at: usize| f16::from_f32(f32::from(bytes[at]) * scales[at / per_output].to_f32());
        let dense = [
            (0..count).map(scaled).collect::<Vec<_>>(),
            (0..count).map(|at| table[usize::from(indices[at / 2] >> (at % 2 * 4) & 0xf)]).collect(),
            (0..count).map(|at| if set(at) { *rest.next().unwrap() } else { f16::ZERO }).collect(),
        ];
        let packed = [
            PackedConv::from_int8(&bytes, &scales, shape, groups),
            PackedConv::from_lut4(&indices, table, shape, groups),
            PackedConv::from_sparse(&mask, &kept, shape, groups),
        ];
        let (input, params) = ([1, groups * per_group, 9, 11], ConvParams { pad: [1; 4], ..ConvParams::default() });
        let x = values(input.iter().product(), seed ^ 7);
        for (dense, packed) in dense.iter().zip(&packed) {
            let case = Case { input, shape, groups, params, seed };
            if case.params.output_size([9, 11], kernel).contains(&0) {
                continue;
            }
            let for_tiles = case.outputs().iter().product::<usize>() >= 7;
            let want = |order| definition(order, &case, &x, dense, &Epilogue::default());
            check_sums(for_tiles, want, "compressed conv2d", |kernels, out| {
                let mut scratch = Scratch::with_capacity(conv2d_scratch(kernels, input, packed, &params));
                conv2d(kernels, &x, input, packed, &params, &Epilogue::default(), &mut scratch, out);
            });
        }
    }
}

/// What a tap does not reach cannot spoil a result, be it infinite.
#[test]
fn infinities_stay_where_they_are_read() {
    for (channels, kernel) in [(3, 3), (3, 7), (33, 1), (40, 3), (1, 3)] {
        let case = Case {
            input: [1, channels, 12, 17],
            shape: [8, channels, kernel, kernel],
            groups: 1,
            params: ConvParams { stride: [2, 2], pad: [1; 4], dilation: [1, 1] },
            seed: 0,
        };
        let x = wild_values(case.input.iter().product(), 4);
        let weights = values(case.shape.iter().product(), 5);
        let want = |order| definition(order, &case, &x, &weights, &Epilogue::default());
        let packed = PackedConv::new(&weights, case.shape, 1);
        check_sums(case.for_tiles(), want, "conv2d of infinities", |kernels, out| {
            let (params, epilogue) = (&case.params, &Epilogue::default());
            conv2d(kernels, &x, case.input, &packed, params, epilogue, &mut Scratch::new(), out);
        });
    }
}

/// An image without pixels is all padding.
#[test]
fn images_without_pixels() {
    let params = ConvParams { pad: [1; 4], ..ConvParams::default() };
    for input in [[2, 8, 0, 5], [2, 8, 5, 0], [2, 1, 0, 0]] {
        let case = Case { input, shape: [6, input[1], 2, 2], groups: 1, params, seed: 0 };
        run(&case);
    }
}

#[test]
fn views_that_overlap_or_leave_their_slice_are_refused() {
    let weights = PackedConv::new(&values(8 * 8, 1), [8, 8, 1, 1], 1);
    let good = Nhwc::padded([3, 4], 8, [0; 4]);
    let x = values(good.len(2, 1), 2);
    let views = [
        Nhwc { pixel: 7, ..good },
        Nhwc { row: 31, ..good },
        Nhwc { image: 95, ..good },
        Nhwc { start: usize::MAX - 5, ..good },
        Nhwc { row: 1 << 63, ..good },
        Nhwc { pixel: 0xeeee_eeee_eeee_eeef, row: 0xeeee_eeee_eeee_eeef, ..good },
    ];
    let run = |from: Nhwc, to: Nhwc| {
        let (kernels, epilogue, params) = (&contexts()[0], Epilogue::default(), ConvParams::default());
        let (mut out, mut scratch) = (vec![f16::ZERO; x.len()], Scratch::new());
        let (read, write) = ((&x[..], &from), (&mut out[..], &to));
        conv2d_nhwc(kernels, read, [2, 8, 3, 4], &weights, &params, &epilogue, &mut scratch, write);
    };
    run(good, good);
    for view in views {
        for (from, to) in [(view, good), (good, view)] {
            let result = std::panic::catch_unwind(|| run(from, to));
            assert!(result.is_err(), "{from:?} to {to:?}");
        }
    }
}
