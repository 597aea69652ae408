//! Pooling.

use aneforge_kernels::conv::Nhwc;
use aneforge_kernels::f16;
use aneforge_kernels::order::LaneSum;
use aneforge_kernels::pool::{Window, avg_pool, avg_pool_nhwc, max_pool, max_pool_nhwc};
use proptest::prelude::*;

use super::support::{cases, check, contexts, values, wild_values};

/// The cells of one window: `Some` element, or `None` in the padding.
fn cells(
    window: &Window,
    [height, width]: [usize; 2],
    [y, x]: [usize; 2],
) -> impl Iterator<Item = Option<usize>> + use<> {
    let Window { kernel, stride, pad } = *window;
    (0..kernel[0] * kernel[1]).map(move |cell| {
        let row = (y * stride[0] + cell / kernel[1]).checked_sub(pad[0]).filter(|&row| row < height)?;
        let column =
            (x * stride[1] + cell % kernel[1]).checked_sub(pad[2]).filter(|&column| column < width)?;
        Some(row * width + column)
    })
}

fn each_window(
    x: &[f16],
    size: [usize; 2],
    window: &Window,
    out_size: [usize; 2],
    value: impl Fn(&[f16], Vec<Option<usize>>) -> f16,
) -> Vec<f16> {
    let mut out = Vec::new();
    for plane in x.chunks_exact(size[0] * size[1]) {
        for at in 0..out_size[0] * out_size[1] {
            let cells = cells(window, size, [at / out_size[1], at % out_size[1]]);
            out.push(value(plane, cells.collect()));
        }
    }
    out
}

/// Two images and their results, pixel after pixel.
struct Pixels {
    channels: usize,
    sizes: [[usize; 2]; 2],
    from: Nhwc,
    to: Nhwc,
}

impl Pixels {
    fn new(channels: usize, size: [usize; 2], out_size: [usize; 2]) -> Pixels {
        let (from, to) =
            (Nhwc::padded(size, channels + 2, [1, 0, 2, 3]), Nhwc::padded(out_size, channels, [0, 1, 1, 0]));
        Pixels { channels, sizes: [size, out_size], from, to }
    }

    fn lay_out(&self, x: &[f16], [height, width]: [usize; 2], view: &Nhwc, around: f16) -> Vec<f16> {
        let mut out = vec![around; view.len(2, 0)];
        for (at, &value) in x.iter().enumerate() {
            let (plane, y, x) = (at / (height * width), at / width % height, at % width);
            let (image, channel) = (plane / self.channels, plane % self.channels);
            out[view.start + image * view.image + y * view.row + x * view.pixel + channel] = value;
        }
        out
    }

    /// With NaN around it.
    fn operand(&self, x: &[f16]) -> Vec<f16> {
        self.lay_out(x, self.sizes[0], &self.from, f16::NAN)
    }

    /// With NaN around it, as [`check`] fills results.
    fn result(&self, x: &[f16]) -> Vec<f16> {
        self.lay_out(x, self.sizes[1], &self.to, f16::NAN)
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn pools_equal_their_definition(
        size in (1..20_usize, prop_oneof![1..20_usize, Just(70), Just(290)]).prop_map(|(height, width)| [height, width]),
        kernel in (prop_oneof![1..6_usize, Just(11)], 1..6_usize).prop_map(|(height, width)| [height, width]),
        stride in [1..4_usize, 1..4],
        pad in [0..3_usize, 0..3, 0..3, 0..3],
        ceil in any::<[bool; 2]>(),
        exclude in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let window = Window { kernel, stride, pad };
        let out_size = [0, 1].map(|axis| {
            let padded = size[axis] + pad[2 * axis] + pad[2 * axis + 1];
            padded.saturating_sub(kernel[axis]) / stride[axis] + 1 + usize::from(ceil[axis])
        });
        let input = [2, 3, size[0], size[1]];
        let x = wild_values(6 * size[0] * size[1], seed);
        let want = each_window(&x, size, &window, out_size, |plane, cells| {
            let key = |x: &f16| if x.is_nan() { (2, 0.0) } else { (1, x.to_f32()) };
            let larger = |a: f16, b: f16| {
                let order = key(&a).partial_cmp(&key(&b)).unwrap();
                if order.is_gt() || order.is_eq() && a.is_sign_positive() { a } else { b }
            };
            cells.into_iter().flatten().map(|at| plane[at]).fold(f16::NEG_INFINITY, larger)
        });
        check(&want, "max_pool", |kernels, out| max_pool(kernels, &x, input, &window, out_size, out));
        let pixels = Pixels::new(3, size, out_size);
        check(&pixels.result(&want), "max_pool_nhwc", |kernels, out| {
            let (read, write) = ((&pixels.operand(&x)[..], &pixels.from), (out, &pixels.to));
            max_pool_nhwc(kernels, read, input, &window, out_size, write);
        });
        let x = values(x.len(), seed);
        let want = each_window(&x, size, &window, out_size, |plane, cells| {
            let mut sum = LaneSum::default();
            for cell in &cells {
                match cell {
                    Some(at) => sum.push(plane[*at].to_f32()),
                    None => sum.skip(),
                }
            }
            let inside = cells.iter().flatten().count();
            let count = if exclude { inside } else { cells.len() };
            if inside == 0 { f16::ZERO } else { f16::from_f32(sum.finish() / count as f32) }
        });
        check(&want, "avg_pool", |kernels, out| {
            avg_pool(kernels, &x, input, &window, exclude, out_size, out);
        });
        check(&pixels.result(&want), "avg_pool_nhwc", |kernels, out| {
            let (read, write) = ((&pixels.operand(&x)[..], &pixels.from), (out, &pixels.to));
            avg_pool_nhwc(kernels, read, input, &window, exclude, out_size, write);
        });
    }
}

#[test]
fn windows_as_large_as_the_image_and_very_wide_ones() {
    for [height, width] in [[7, 7], [1, 1500], [14, 14], [3, 600]] {
        let x = values(2 * height * width, 4);
        let window = Window { kernel: [height, width], stride: [1, 1], pad: [0; 4] };
        let mean = |plane: &[f16]| {
            let mut sum = LaneSum::default();
            plane.iter().for_each(|x| sum.push(x.to_f32()));
            f16::from_f32(sum.finish() / plane.len() as f32)
        };
        let want: Vec<f16> = x.chunks_exact(height * width).map(mean).collect();
        let input = [1, 2, height, width];
        check(&want, "mean", |kernels, out| avg_pool(kernels, &x, input, &window, false, [1, 1], out));
        let largest = |plane: &[f16]| plane.iter().copied().fold(f16::NEG_INFINITY, f16::max);
        let want: Vec<f16> = x.chunks_exact(height * width).map(largest).collect();
        check(&want, "max", |kernels, out| max_pool(kernels, &x, input, &window, [1, 1], out));
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// Of any number of channels, as of planes.
    #[test]
    fn pools_may_go_pixel_after_pixel(
        channels in 1..140_usize,
        size in [1..7_usize, 1..7],
        kernel in [1..6_usize, 1..6],
        stride in [1..3_usize, 1..3],
        pad in [0..2_usize, 0..2, 0..2, 0..2],
        seed in any::<u64>(),
    ) {
        let window = Window { kernel, stride, pad };
        let out_size = [0, 1].map(|axis| (size[axis] + pad[2 * axis]).div_ceil(stride[axis]));
        let input = [2, channels, size[0], size[1]];
        let kernels = &contexts()[0];
        let mut want = vec![f16::ZERO; 2 * channels * out_size[0] * out_size[1]];
        let pixels = Pixels::new(channels, size, out_size);
        let x = wild_values(input.iter().product(), seed);
        max_pool(kernels, &x, input, &window, out_size, &mut want);
        check(&pixels.result(&want), "max_pool_nhwc", |kernels, out| {
            let (read, write) = ((&pixels.operand(&x)[..], &pixels.from), (out, &pixels.to));
            max_pool_nhwc(kernels, read, input, &window, out_size, write);
        });
        let x = values(x.len(), seed);
        avg_pool(kernels, &x, input, &window, true, out_size, &mut want);
        check(&pixels.result(&want), "avg_pool_nhwc", |kernels, out| {
            let (read, write) = ((&pixels.operand(&x)[..], &pixels.from), (out, &pixels.to));
            avg_pool_nhwc(kernels, read, input, &window, true, out_size, write);
        });
    }
}
