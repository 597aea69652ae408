//! Pooling.

use aneforge_kernels::f16;
use aneforge_kernels::order::LaneSum;
use aneforge_kernels::pool::{Window, avg_pool, max_pool};
use proptest::prelude::*;

use super::support::{cases, check, values, wild_values};

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
