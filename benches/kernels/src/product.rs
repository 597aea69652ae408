//! Products of matrices, and of a vector with a matrix.

use std::cell::RefCell;

use aneforge_kernels::gemm::{PackedB, gemm};
use aneforge_kernels::{Epilogue, Isa, Kernels, Scratch, f16, roof};

use crate::timing::{Variant, Work, measure};
use crate::{Bench, halves, normal, peers};

const SHAPES: [[usize; 3]; 5] =
    [[512, 512, 512], [128, 384, 1536], [128, 1536, 384], [197, 768, 3072], [1024, 1024, 1024]];

pub fn label(kernels: &Kernels) -> String {
    format!("{:?}, {}T", kernels.isa(), kernels.pool().threads())
}

pub fn run(bench: &mut Bench) {
    for shape in SHAPES {
        product(bench, shape);
    }
    for (place, bytes) in [("L3", 24 << 20), ("DRAM", 480 << 20)] {
        for form in [Held::Fp16, Held::Int8, Held::Lut4, Held::Sparse] {
            vector(bench, place, bytes, form);
        }
    }
}

fn product(bench: &mut Bench, shape: [usize; 3]) {
    let [rows, terms, columns] = shape;
    let name = format!("GEMM {rows}x{terms}x{columns}");
    if !bench.wants(&name) {
        return;
    }
    let (a, b) = (normal(rows * terms, 1, 1.0), normal(terms * columns, 2, 0.05));
    let half: Vec<f16> = a.iter().map(|&x| f16::from_f32(x)).collect();
    let packed = PackedB::from_kn(&b, terms, columns);
    let shared = RefCell::new((peers::Gemm::new(shape, a.clone(), b.clone()), Scratch::new()));
    let out = RefCell::new(vec![f16::ZERO; rows * columns]);
    let work = 2.0 * (rows * terms * columns) as f64;
    let (mut variants, mut marks) = (Vec::new(), Vec::new());
    for kernels in bench.contexts() {
        let (isa, threads) = (kernels.isa(), kernels.pool().threads());
        let (ours, roof) = (label(&kernels), format!("FMA peak {isa:?}, {threads}T"));
        let theirs = format!("gemm crate f32 {isa:?}, {threads}T");
        let (half, packed, shared, out) = (&half, &packed, &shared, &out);
        let context = kernels.clone();
        variants.push(
            Variant::new(ours.clone(), move || {
                let (scratch, out) = (&mut shared.borrow_mut().1, &mut out.borrow_mut());
                gemm(&context, half, rows, packed, &Epilogue::default(), scratch, out);
            })
            .under(roof.clone()),
        );
        if isa == Isa::Avx2 || isa == Isa::Avx512 {
            variants.push(
                Variant::new(theirs.clone(), move || shared.borrow_mut().0.run(isa, threads))
                    .under(roof.clone()),
            );
            marks.push((format!("{isa:?} on {threads}T, at least 0.7 of the gemm crate"), ours, theirs));
        }
        variants.push(fma_peak(&kernels, work, roof));
    }
    variants.extend(bench.peers(&format!(
        "[{{\"kind\": \"MatMul\", \"inputs\": [[{rows}, {terms}]], \"weights\": [[{terms}, {columns}]]}}]"
    )));
    let mut row = measure(&name, Work::Flops(work), bench.rounds, variants);
    for (text, ours, theirs) in marks {
        row = row.mark(&text, &ours, &theirs, 0.7);
    }
    bench.push(row);
}

/// As many operations as `work`, all in registers.
pub fn fma_peak<'a>(kernels: &Kernels, work: f64, name: String) -> Variant<'a> {
    let kernels = kernels.clone();
    let run = move |calls: usize| {
        let start = std::time::Instant::now();
        let done = roof::multiply_adds(&kernels, (work * calls as f64 / 2.0) as u64);
        start.elapsed().as_secs_f64() / calls as f64 * (work * calls as f64 / 2.0) / done as f64
    };
    Variant { name, roof: None, run: Box::new(run) }
}

/// How the weights of a vector's product are held.
#[derive(Clone, Copy)]
enum Held {
    Fp16,
    Int8,
    Lut4,
    /// Half of the weights.
    Sparse,
}

impl Held {
    /// The name, the packed weights `[columns, terms]`, and their bytes.
    fn pack(self, weights: &[f32], columns: usize, terms: usize) -> (&'static str, PackedB, usize) {
        let count = weights.len();
        match self {
            Held::Fp16 => ("fp16", PackedB::from_nk(weights, columns, terms), 2 * count),
            Held::Int8 => {
                let bytes: Vec<i8> = weights.iter().map(|x| (x * 600.0).round() as i8).collect();
                let scales = vec![f16::from_f32(1.0 / 600.0); columns];
                ("int8", PackedB::from_int8(&bytes, &scales, columns, terms), count)
            }
            Held::Lut4 => {
                let place = |x: f32| (x * 60.0 + 8.0).clamp(0.0, 15.0) as u8;
                let indices: Vec<u8> =
                    weights.as_chunks().0.iter().map(|&[a, b]| place(a) | place(b) << 4).collect();
                let table = std::array::from_fn(|at| f16::from_f32((at as f32 - 7.5) / 60.0));
                ("lut4", PackedB::from_lut4(&indices, table, columns, terms), count / 2)
            }
            Held::Sparse => {
                let bit = |x: f32| u8::from(x > 0.0);
                let mask: Vec<u8> = (weights.as_chunks::<8>().0.iter())
                    .map(|eight| eight.iter().rev().fold(0, |byte, &x| byte << 1 | bit(x)))
                    .collect();
                let kept: Vec<f32> = weights.iter().copied().filter(|&x| x > 0.0).collect();
                let packed = PackedB::from_sparse(&mask, &kept, columns, terms);
                ("sparse", packed, count / 8 + 2 * kept.len())
            }
        }
    }
}

/// One row times so many different matrices that together they fill `bytes`.
fn vector(bench: &mut Bench, place: &str, bytes: usize, held: Held) {
    const TERMS: usize = 768;
    const COLUMNS: usize = 3072;
    let (form, one, size) = held.pack(&normal(TERMS * COLUMNS, 3, 0.05), COLUMNS, TERMS);
    let name = format!("GEMV 768x3072 {form}, weights in {place}");
    if !bench.wants(&name) {
        return;
    }
    let matrices = vec![one; bytes.div_ceil(size)];
    let raw = vec![0x3c01_3c02_3c03_3c04_u64; bytes / 8];
    let x = halves(TERMS, 4, 1.0);
    let out = RefCell::new((vec![f16::ZERO; COLUMNS], Scratch::new()));
    let (mut variants, mut marks) = (Vec::new(), Vec::new());
    for kernels in bench.contexts() {
        let threads = kernels.pool().threads();
        let roof = format!("plain read {:?}, {threads}T", kernels.isa());
        let (matrices, raw, x, out) = (&matrices, &raw, &x, &out);
        let (context, ours) = (kernels.clone(), label(&kernels));
        let mut next = 0;
        variants.push(
            Variant::new(ours.clone(), move || {
                let (out, scratch) = &mut *out.borrow_mut();
                next = (next + 1) % matrices.len();
                gemm(&context, x, 1, &matrices[next], &Epilogue::default(), scratch, out);
            })
            .under(roof.clone()),
        );
        let mut next = 0;
        variants.push(Variant::new(roof.clone(), move || {
            let parts = raw.len() / (size / 8);
            next = (next + 1) % parts;
            std::hint::black_box(roof::read(&kernels, &raw[next * size / 8..(next + 1) * size / 8]));
        }));
        marks.push((format!("{ours}: 85% of a plain read"), ours, roof));
    }
    let mut row = measure(&name, Work::Bytes(size as f64), bench.rounds, variants);
    for (text, ours, roof) in marks {
        row = row.mark(&text, &ours, &roof, 0.85);
    }
    bench.push(row);
}
