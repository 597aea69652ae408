//! Prints the speed of matrix products and of the convolutions of ResNet-18, per instruction set and thread
//! count. Arguments choose: `bench Avx512 2` runs one instruction set on two threads.

use std::sync::Arc;
use std::time::Instant;

use aneforge_kernels::conv::{ConvParams, PackedConv, conv2d};
use aneforge_kernels::gemm::{BatchShape, PackedB, bmm, gemm};
use aneforge_kernels::layout::transpose;
use aneforge_kernels::map::{Binary, Unary, binary, unary};
use aneforge_kernels::pool::{Window, avg_pool, max_pool};
use aneforge_kernels::reduce::{Reduction, reduce};
use aneforge_kernels::softmax::softmax;
use aneforge_kernels::threads::Pool;
use aneforge_kernels::{Epilogue, Isa, Kernels, Scratch, View, f16};

/// Channels in, size, channels out, kernel, stride, and how often ResNet-18 has it.
const RESNET_18: [[usize; 6]; 11] = [
    [3, 224, 64, 7, 2, 1],
    [64, 56, 64, 3, 1, 4],
    [64, 56, 128, 3, 2, 1],
    [128, 28, 128, 3, 1, 3],
    [64, 56, 128, 1, 2, 1],
    [128, 28, 256, 3, 2, 1],
    [256, 14, 256, 3, 1, 3],
    [128, 28, 256, 1, 2, 1],
    [256, 14, 512, 3, 2, 1],
    [512, 7, 512, 3, 1, 3],
    [256, 14, 512, 1, 2, 1],
];

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |at: usize, name: String| only.get(at).is_none_or(|only| *only == name);
    for threads in [1, 2].into_iter().filter(|threads| wanted(1, threads.to_string())) {
        let pool = Arc::new(Pool::new(threads));
        for isa in Isa::available().into_iter().filter(|isa| wanted(0, format!("{isa:?}"))) {
            let Some(kernels) = Kernels::new(isa, Arc::clone(&pool)) else { continue };
            let samples = if isa == Isa::Scalar { 1 } else { 30 };
            println!("{isa:?}, {threads} threads");
            for [rows, terms, columns] in
                [[512, 512, 512], [128, 384, 1536], [197, 768, 3072], [1, 768, 3072]]
            {
                bench_gemm(&kernels, [rows, terms, columns], samples);
            }
            bench_attention(&kernels, samples);
            let mut total = 0.0;
            for conv in RESNET_18 {
                total += bench_conv(&kernels, conv, samples) * conv[5] as f64;
            }
            println!("  ResNet-18 convolutions: {:.2} ms", total * 1e3);
            bench_others(&kernels, samples);
        }
    }
}

fn values(count: usize, seed: u32) -> Vec<f16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn best(samples: usize, mut body: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..samples {
        let start = Instant::now();
        body();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn bench_gemm(kernels: &Kernels, [rows, terms, columns]: [usize; 3], samples: usize) {
    let a = values(rows * terms, 1);
    let b = PackedB::from_nk(&values(columns * terms, 2), columns, terms);
    let (mut out, mut scratch) = (vec![f16::ZERO; rows * columns], Scratch::new());
    let seconds = best(samples, || gemm(kernels, &a, rows, &b, &Epilogue::default(), &mut scratch, &mut out));
    let work = 2.0 * (rows * terms * columns) as f64;
    println!("  gemm {rows}x{terms}x{columns}: {:.1} us, {:.1} GFLOP/s", seconds * 1e6, work / seconds / 1e9);
}

/// Scores and values of 12 heads of 32 columns over 128 positions.
fn bench_attention(kernels: &Kernels, samples: usize) {
    let batch = &[12_usize][..];
    let mut shape = BatchShape {
        batch,
        a_batch: batch,
        b_batch: batch,
        rows: 128,
        terms: 32,
        columns: 128,
        transpose_a: false,
        transpose_b: true,
    };
    let (a, b) = (values(12 * 128 * 128, 7), values(12 * 128 * 32, 8));
    let (mut out, mut scratch) = (vec![f16::ZERO; 12 * 128 * 128], Scratch::new());
    let mut show = |name: &str, shape: &BatchShape<'_>| {
        let (a, out) = (&a[..12 * 128 * shape.terms], &mut out[..12 * 128 * shape.columns]);
        let seconds = best(samples, || bmm(kernels, a, &b, shape, &Epilogue::default(), &mut scratch, out));
        let work = 2.0 * (12 * 128 * 128 * 32) as f64;
        println!("  bmm {name}: {:.1} us, {:.1} GFLOP/s", seconds * 1e6, work / seconds / 1e9);
    };
    show("scores", &shape);
    (shape.terms, shape.columns, shape.transpose_b) = (128, 32, false);
    show("values", &shape);
}

/// Routines that move or map, in nanoseconds per thousand elements of input.
fn bench_others(kernels: &Kernels, samples: usize) {
    const SHAPE: [usize; 4] = [1, 64, 112, 112];
    let count = SHAPE.iter().product();
    let (x, mut out) = (values(count, 5), vec![f16::ZERO; count]);
    let mut show = |name: &str, body: &mut dyn FnMut(&mut [f16])| {
        let seconds = best(samples, || body(&mut out));
        println!("  {name}: {:.0} us, {:.0} ns per 1000", seconds * 1e6, seconds * 1e12 / count as f64);
    };
    for function in [Unary::Relu, Unary::Gelu, Unary::Tanh, Unary::Exp, Unary::Silu, Unary::Sin] {
        show(&format!("{function:?}"), &mut |out| unary(kernels, function, &x, out));
    }
    let view = View::new(&x, &SHAPE);
    let channel = View::new(&x[..64], &[1, 64, 1, 1]);
    show("add", &mut |out| binary(kernels, Binary::Add, view, view, &SHAPE, out));
    show("add per channel", &mut |out| binary(kernels, Binary::Add, view, channel, &SHAPE, out));
    show("pow", &mut |out| binary(kernels, Binary::Pow, view, channel, &SHAPE, out));
    for (axes, len) in [(0b1100, 64), (0b0010, 12_544), (0b1000, 7168)] {
        show(&format!("mean over {axes:04b}"), &mut |out| {
            reduce(kernels, Reduction::Mean, &x, &SHAPE, axes, &mut out[..len]);
        });
    }
    show("softmax of 112", &mut |out| softmax(kernels, &x, &SHAPE, 3, out));
    show("softmax of 64 across", &mut |out| softmax(kernels, &x, &SHAPE, 1, out));
    show("NCHW to NHWC", &mut |out| transpose(kernels, view, &[0, 2, 3, 1], out));
    show("swap of axes 1 and 2", &mut |out| transpose(kernels, view, &[0, 2, 1, 3], out));
    let window = Window { kernel: [3, 3], stride: [2, 2], pad: [1; 4] };
    let small = count / 4;
    show("max_pool 3x3 stride 2", &mut |out| {
        max_pool(kernels, &x, SHAPE, &window, [56, 56], &mut out[..small])
    });
    show("avg_pool 3x3 stride 2", &mut |out| {
        avg_pool(kernels, &x, SHAPE, &window, false, [56, 56], &mut out[..small]);
    });
    let weights = PackedConv::new(kernels, &values(64 * 9, 6), [64, 1, 3, 3], 64);
    let params = ConvParams { pad: [1; 4], ..ConvParams::default() };
    let mut scratch = Scratch::new();
    show("depthwise 3x3", &mut |out| {
        conv2d(kernels, &x, SHAPE, &weights, &params, &Epilogue::default(), &mut scratch, out);
    });
}

fn bench_conv(kernels: &Kernels, conv: [usize; 6], samples: usize) -> f64 {
    let [channels, size, outputs, kernel, stride, _] = conv;
    let params = ConvParams { stride: [stride; 2], pad: [kernel / 2; 4], dilation: [1, 1] };
    let [height, width] = params.output_size([size; 2], [kernel; 2]);
    let x = values(channels * size * size, 3);
    let shape = [outputs, channels, kernel, kernel];
    let weights = PackedConv::new(kernels, &values(shape.iter().product(), 4), shape, 1);
    let (mut out, mut scratch) = (vec![f16::ZERO; outputs * height * width], Scratch::new());
    let input = [1, channels, size, size];
    let epilogue = Epilogue::default();
    let seconds = best(samples, || {
        conv2d(kernels, &x, input, &weights, &params, &epilogue, &mut scratch, &mut out);
    });
    let work = 2.0 * (shape.iter().product::<usize>() * height * width) as f64;
    println!(
        "  conv {channels}x{size}x{size} to {outputs}, {kernel}x{kernel} stride {stride}: {:.0} us, {:.1} GFLOP/s",
        seconds * 1e6,
        work / seconds / 1e9
    );
    seconds
}
