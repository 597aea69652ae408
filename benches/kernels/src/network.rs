//! Attention, softmax and layer_norm in the sizes of transformers.

use std::cell::RefCell;

use aneforge_kernels::attention::{Attention, Mask, Shape, attention as attention_of};
use aneforge_kernels::gemm::{BatchShape, bmm};
use aneforge_kernels::map::{Unary, unary_in_place};
use aneforge_kernels::norm::{Norm, Normalize, ScaleShift, normalize};
use aneforge_kernels::softmax::softmax;
use aneforge_kernels::{Epilogue, Scratch, f16};

use crate::product::label;
use crate::timing::{Variant, Work, measure};
use crate::{Bench, halves};

pub fn run(bench: &mut Bench) {
    attention(bench, [12, 128, 32]);
    attention(bench, [12, 197, 64]);
    small_softmax(bench);
    small_norm(bench);
}

/// Attention without a mask.
fn plain<'a>(shape: Shape, [q, k, v]: [&'a [f16]; 3], scale: f32) -> Attention<'a> {
    let (q, k, v, scale) = ((q, None), (k, None), (v, None), Some(f16::from_f32(scale)));
    Attention { shape, q, k, v, scale, masks: [Mask::None; 2], limit: None, flush_nan: false, watch: None }
}

fn attention(bench: &mut Bench, [heads, tokens, width]: [usize; 3]) {
    let name = format!("attention {heads}x{tokens}x{width}");
    if !bench.wants(&name) {
        return;
    }
    let size = heads * tokens * width;
    let (q, k, v) = (halves(size, 1, 1.0), halves(size, 2, 1.0), halves(size, 3, 1.0));
    let scale = 1.0 / (width as f32).sqrt();
    let state =
        RefCell::new((vec![f16::ZERO; heads * tokens * tokens], vec![f16::ZERO; size], Scratch::new()));
    let mut variants = Vec::new();
    let batch = [heads];
    for kernels in bench.contexts() {
        let (q, k, v, state, batch) = (&q, &k, &v, &state, &batch);
        let scores = BatchShape {
            batch,
            a_batch: batch,
            b_batch: batch,
            rows: tokens,
            terms: width,
            columns: tokens,
            transpose_a: false,
            transpose_b: true,
        };
        let mixed = BatchShape { terms: tokens, columns: width, transpose_b: false, ..scores };
        variants.push(Variant::new(format!("unfused {}", label(&kernels)), move || {
            let (weights, out, scratch) = &mut *state.borrow_mut();
            bmm(&kernels, q, k, &scores, &Epilogue::default(), scratch, weights);
            unary_in_place(&kernels, Unary::MulScalar { k: scale }, weights);
            let copy = weights.clone();
            softmax(&kernels, &copy, &[heads * tokens, tokens], 1, weights);
            bmm(&kernels, weights, v, &mixed, &Epilogue::default(), scratch, out);
        }));
    }
    for kernels in bench.contexts() {
        let shape = Shape { heads, queries: tokens, keys: tokens, width, values: width };
        let (state, task) = (&state, plain(shape, [&q, &k, &v], scale));
        variants.push(Variant::new(label(&kernels), move || {
            let (_, out, scratch) = &mut *state.borrow_mut();
            attention_of(&kernels, &task, 1, scratch, out);
        }));
    }
    let nodes = nodes([heads, tokens, width], scale);
    variants.extend(bench.peers(&nodes));
    let work = 4.0 * (heads * tokens * tokens * width) as f64;
    let mut row = measure(&name, Work::Flops(work), bench.rounds, variants);
    if let Some(peer) = &bench.peer {
        row = row.mark("4 times as fast as onnxruntime", &label(&bench.best()), &peer.name(), 4.0);
    }
    bench.push(row);
}

/// The same attention as onnxruntime's nodes.
fn nodes([heads, tokens, width]: [usize; 3], scale: f32) -> String {
    let (shape, other) = (format!("[{heads}, {tokens}, {width}]"), format!("[{heads}, {width}, {tokens}]"));
    format!(
        "[{{\"kind\": \"MatMul\", \"inputs\": [{shape}, {other}]}}, \
             {{\"kind\": \"Mul\", \"inputs\": [0], \"scalars\": [{scale}]}}, \
             {{\"kind\": \"Softmax\", \"inputs\": [1], \"attributes\": {{\"axis\": -1}}}}, \
             {{\"kind\": \"MatMul\", \"inputs\": [2, {shape}], \"own\": 1}}]"
    )
}

fn small_softmax(bench: &mut Bench) {
    let name = "softmax 12x128x128";
    if !bench.wants(name) {
        return;
    }
    let shape = [12, 128, 128];
    let count: usize = shape.iter().product();
    let x = halves(count, 5, 1.0);
    let out = RefCell::new(vec![f16::ZERO; count]);
    let mut variants = Vec::new();
    for kernels in bench.contexts() {
        let (x, out) = (&x, &out);
        variants.push(Variant::new(label(&kernels), move || {
            softmax(&kernels, x, &shape, 2, &mut out.borrow_mut());
        }));
    }
    let node = "{\"kind\": \"Softmax\", \"inputs\": [[12, 128, 128]], \"attributes\": {\"axis\": -1}}";
    variants.extend(bench.peers(&format!("[{node}]")));
    let mut row = measure(name, Work::Bytes(4.0 * count as f64), bench.rounds, variants);
    if let Some(peer) = &bench.peer {
        row = row.mark("4 times as fast as onnxruntime", &label(&bench.best()), &peer.name(), 4.0);
    }
    bench.push(row);
}

fn small_norm(bench: &mut Bench) {
    const SIZE: usize = 384;
    let name = "layer_norm 128x384";
    if !bench.wants(name) {
        return;
    }
    let x = halves(128 * SIZE, 5, 1.0);
    let (gamma, beta) = (halves(SIZE, 6, 1.0), halves(SIZE, 7, 1.0));
    let out = RefCell::new(vec![f16::ZERO; x.len()]);
    let mut variants = Vec::new();
    let affine = Some(ScaleShift { gamma: &gamma, beta: Some(&beta), span: 1 });
    let norm = Normalize {
        norm: Norm::Variance { eps: f16::from_f32(1e-5) },
        affine,
        flush_nan: false,
        watch: None,
    };
    for kernels in bench.contexts() {
        let (x, out, norm) = (&x, &out, &norm);
        variants.push(Variant::new(label(&kernels), move || {
            normalize(&kernels, x, SIZE, norm, &mut out.borrow_mut());
        }));
    }
    let node = "{\"kind\": \"LayerNormalization\", \"inputs\": [[128, 384]], \"weights\": [[384], [384]]}";
    variants.extend(bench.peers(&format!("[{node}]")));
    let mut row = measure(name, Work::Bytes(4.0 * x.len() as f64), bench.rounds, variants);
    if let Some(peer) = &bench.peer {
        row = row.mark("4 times as fast as onnxruntime", &label(&bench.best()), &peer.name(), 4.0);
    }
    bench.push(row);
}
