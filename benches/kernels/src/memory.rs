//! What is bound by memory: roofs, elementwise functions, norms and copies on 4M values.

use std::cell::RefCell;

use aneforge_kernels::layout::transpose;
use aneforge_kernels::map::{Argument, Binary, Chain, Data, DataMut, Function, Link, Unary, binary, unary};
use aneforge_kernels::norm::{Norm, Normalize, ScaleShift, normalize};
use aneforge_kernels::pool::{Window, avg_pool, max_pool};
use aneforge_kernels::reduce::{Reduction, reduce};
use aneforge_kernels::softmax::softmax;
use aneforge_kernels::{Kernels, Scratch, Stores, View, Watch, f16, roof};

use crate::product::label;
use crate::timing::{Variant, Work, measure};
use crate::{Bench, halves};

const COUNT: usize = 4 << 20;

/// The bandwidths of this machine, and what a parallel region costs.
pub fn roofs(bench: &mut Bench) {
    for (place, size) in [("L2", 512 << 10), ("L3", 24 << 20), ("DRAM", 480 << 20)] {
        let name = format!("read, {place}");
        if !bench.wants(&name) {
            continue;
        }
        let data = vec![0x3c01_3c02_3c03_3c04_u64; size / 8];
        let variants = bench.contexts().into_iter().map(|kernels| {
            let data = &data;
            Variant::new(label(&kernels), move || {
                std::hint::black_box(roof::read(&kernels, data));
            })
        });
        let variants = variants.collect();
        bench.push(measure(&name, Work::Bytes(size as f64), bench.rounds, variants));
    }
    let name = "parallel region, spinning";
    if bench.wants(name) {
        let best = bench.best();
        let run = move || best.pool().run(&|_, _| {});
        let mut row = measure(name, Work::Time, bench.rounds, vec![Variant::new("pool", run)]);
        row.cells.push(crate::timing::Cell { name: "2 us".into(), roof: None, median: 2e-6, best: 2e-6 });
        bench.push(row.mark("under 2 us", "pool", "2 us", 1.0));
    }
}

type Body<'a> = Box<dyn Fn(&Kernels, &mut [f16]) + 'a>;

/// A routine beside one copy of the bytes that it must move.
fn beside_copy(bench: &mut Bench, name: &str, bytes: usize, limit: f64, body: Body<'_>) {
    if !bench.wants(name) {
        return;
    }
    let out = RefCell::new(vec![f16::ZERO; COUNT]);
    let source = halves(bytes / 4, 9, 1.0);
    let target = RefCell::new(vec![f16::ZERO; bytes / 4]);
    let mut variants = Vec::new();
    let mut marks = Vec::new();
    for kernels in bench.contexts() {
        let (out, source, target, body) = (&out, &source, &target, &body);
        let (context, ours, roof) = (kernels.clone(), label(&kernels), format!("copy, {}", label(&kernels)));
        let run = move || body(&context, &mut out.borrow_mut());
        variants.push(Variant::new(ours.clone(), run).under(roof.clone()));
        variants
            .push(Variant::new(roof.clone(), move || roof::copy(&kernels, source, &mut target.borrow_mut())));
        if limit > 0.0 {
            marks.push((format!("{ours}: within {limit} of a copy"), ours, roof));
        }
    }
    let mut row = measure(name, Work::Bytes(bytes as f64), bench.rounds, variants);
    for (text, ours, roof) in marks {
        row = row.mark(&text, &ours, &roof, 1.0 / limit);
    }
    bench.push(row);
}

pub fn run(bench: &mut Bench) {
    let (x, y) = (halves(COUNT, 5, 1.0), halves(COUNT, 6, 1.0));
    for function in [Unary::Relu, Unary::MulScalar { k: 0.37 }, Unary::Square] {
        let body = |k: &Kernels, out: &mut [f16]| unary(k, function, &x, Stores::default(), out);
        beside_copy(bench, &format!("{function:?}, 4M"), 4 * COUNT, 1.3, Box::new(body));
    }
    for function in [
        Unary::Exp,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Tanh,
        Unary::Gelu,
        Unary::Erf,
        Unary::Sin,
        Unary::Rsqrt { eps: 1e-3 },
        Unary::Log { eps: 8.0 },
        Unary::Softplus,
    ] {
        let body = |k: &Kernels, out: &mut [f16]| unary(k, function, &x, Stores::default(), out);
        beside_copy(bench, &format!("{function:?}, 4M"), 4 * COUNT, 0.0, Box::new(body));
    }
    let (shape, scale) = ([64, 256, 256], halves(64, 7, 1.0));
    let both = |b: View<'_, f16>, function: Binary, k: &Kernels, out: &mut [f16]| {
        binary(k, function, View::new(&x, &shape), b, &shape, Stores::default(), out);
    };
    for (name, function) in [("add, 4M", Binary::Add), ("div, 4M", Binary::RealDiv)] {
        let body = |k: &Kernels, out: &mut [f16]| both(View::new(&y, &shape), function, k, out);
        beside_copy(bench, name, 6 * COUNT, 1.3, Box::new(body));
    }
    let body = |k: &Kernels, out: &mut [f16]| both(View::new(&scale, &[64, 1, 1]), Binary::Mul, k, out);
    beside_copy(bench, "mul per channel, 4M", 4 * COUNT, 1.3, Box::new(body));
    chains(bench, &x);
    rows(bench, &x);
    images(bench, &x);
}

/// Ten functions in one pass, and one after the other.
fn chains(bench: &mut Bench, x: &[f16]) {
    let functions = [
        Unary::MulScalar { k: 0.9 },
        Unary::AddScalar { k: 0.1 },
        Unary::Relu,
        Unary::Square,
        Unary::Linear { alpha: 0.5, beta: 0.2 },
        Unary::Abs,
        Unary::Clip { lo: 0.1, hi: 4.0 },
        Unary::Sqrt,
        Unary::LeakyRelu { alpha: 0.1 },
        Unary::MulScalar { k: 1.1 },
    ];
    let between = RefCell::new(vec![f16::ZERO; COUNT]);
    let watch = Watch::default();
    let stores = Stores { flush_nan: true, watch: Some(&watch) };
    let body = |k: &Kernels, out: &mut [f16]| {
        let mut between = between.borrow_mut();
        let [mut from, mut to] = [out, &mut between[..]];
        unary(k, functions[0], x, stores, from);
        for &function in &functions[1..] {
            unary(k, function, from, stores, to);
            std::mem::swap(&mut from, &mut to);
        }
    };
    beside_copy(bench, "ten functions one by one, 4M", 4 * COUNT, 0.0, Box::new(body));
    let link = |(at, &function): (usize, &Unary)| Link {
        function: Function::Unary(function),
        sources: vec![at.checked_sub(1).map_or(Argument::Operand(0), Argument::Link)],
        flush_nan: true,
        watched: true,
    };
    let links: Vec<Link> = functions.iter().enumerate().map(link).collect();
    let chain = Chain::new(&[COUNT], &[&[COUNT]], &links, None);
    let scratch = RefCell::new(Scratch::new());
    let body = |k: &Kernels, out: &mut [f16]| {
        chain.run(k, &[Data::Half(x)], &watch, &mut scratch.borrow_mut(), DataMut::Half(out));
    };
    beside_copy(bench, "chain of ten functions, 4M", 4 * COUNT, 1.4, Box::new(body));
}

fn rows(bench: &mut Bench, x: &[f16]) {
    let body = |k: &Kernels, out: &mut [f16]| softmax(k, x, &[COUNT / 512, 512], 1, out);
    beside_copy(bench, "softmax of 512, 4M", 4 * COUNT, 0.0, Box::new(body));
    let body = |k: &Kernels, out: &mut [f16]| softmax(k, x, &[64, 64, 1024], 1, out);
    beside_copy(bench, "softmax of 64 across, 4M", 4 * COUNT, 0.0, Box::new(body));
    let (gamma, beta) = (halves(512, 7, 1.0), halves(512, 8, 1.0));
    for (name, norm, beta) in [
        ("layer_norm of 512, 4M", Norm::Variance { eps: f16::from_f32(1e-5) }, Some(&beta[..])),
        ("rms_norm of 512, 4M", Norm::Length { floor: f16::from_f32(1e-2) }, None),
    ] {
        let affine = Some(ScaleShift { gamma: &gamma, beta, span: 1 });
        let norm = Normalize { norm, affine, flush_nan: false, watch: None };
        let body = |k: &Kernels, out: &mut [f16]| normalize(k, x, 512, &norm, out);
        beside_copy(bench, name, 4 * COUNT, 1.3, Box::new(body));
    }
    for (name, axes, len) in
        [("mean of rows of 512, 4M", 2_u32, COUNT / 512), ("mean of columns, 4M", 1, 512)]
    {
        let body = |k: &Kernels, out: &mut [f16]| {
            reduce(k, Reduction::Mean, x, &[COUNT / 512, 512], axes, &mut out[..len]);
        };
        beside_copy(bench, name, 2 * COUNT, 1.3, Box::new(body));
    }
}

fn images(bench: &mut Bench, x: &[f16]) {
    const SHAPE: [usize; 4] = [1, 64, 256, 256];
    let view = View::new(x, &SHAPE);
    for (name, perm) in [("NCHW to NHWC, 4M", [0, 2, 3, 1]), ("swap of rows and channels, 4M", [0, 2, 1, 3])]
    {
        let body = |k: &Kernels, out: &mut [f16]| transpose(k, view, &perm, out);
        beside_copy(bench, name, 4 * COUNT, 0.0, Box::new(body));
    }
    let window = Window { kernel: [3, 3], stride: [2, 2], pad: [1; 4] };
    let size = [128, 128];
    let body = |k: &Kernels, out: &mut [f16]| max_pool(k, x, SHAPE, &window, size, &mut out[..COUNT / 4]);
    beside_copy(bench, "max_pool 3x3 stride 2, 4M", COUNT * 5 / 2, 0.0, Box::new(body));
    let body =
        |k: &Kernels, out: &mut [f16]| avg_pool(k, x, SHAPE, &window, false, size, &mut out[..COUNT / 4]);
    beside_copy(bench, "avg_pool 3x3 stride 2, 4M", COUNT * 5 / 2, 0.0, Box::new(body));
}
