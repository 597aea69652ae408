//! Fused attention against its unfused ops.

use aneforge_kernels::attention::{Attention, Heads, Mask, Shape, attention, attention_scratch};
use aneforge_kernels::gemm::{BatchShape, bmm};
use aneforge_kernels::map::{Binary, Unary, binary, unary_in_place};
use aneforge_kernels::softmax::softmax;
use aneforge_kernels::{Epilogue, Kernels, Scratch, Stores, View, Watch, f16};
use proptest::prelude::*;

use super::support::{Order, assert_same, cases, contexts, summing_contexts, values};

/// A mask of the separate ops, with its shape.
type Added<'a> = Option<(&'a [f16], &'a [usize])>;

/// The separate ops.
fn unfused(kernels: &Kernels, task: &Attention<'_>, masks: [Added<'_>; 2]) -> Vec<f16> {
    let Shape { heads, queries, keys, width, values } = task.shape;
    let batch = [heads];
    let scores = BatchShape {
        batch: &batch,
        a_batch: &batch,
        b_batch: &batch,
        rows: queries,
        terms: width,
        columns: keys,
        transpose_a: false,
        transpose_b: true,
    };
    let mixed = BatchShape { terms: keys, columns: values, transpose_b: false, ..scores };
    let mut weights = vec![f16::ZERO; heads * queries * keys];
    let epilogue = Epilogue { limit: task.limit, ..Epilogue::default() };
    bmm(kernels, task.q.0, task.k.0, &scores, &epilogue, &mut Scratch::new(), &mut weights);
    if let Some(scale) = task.scale {
        unary_in_place(kernels, Unary::MulScalar { k: scale.to_f32() }, &mut weights);
    }
    let shape = [heads, queries, keys];
    for (mask, mask_shape) in masks.into_iter().flatten() {
        let before = weights.clone();
        let (a, b) = (View::new(&before, &shape), View::new(mask, mask_shape));
        binary(kernels, Binary::Add, a, b, &shape, Stores::default(), &mut weights);
    }
    let before = weights.clone();
    softmax(kernels, &before, &shape, 2, task.flush_nan, &mut weights);
    let mut out = vec![f16::ZERO; heads * queries * values];
    bmm(kernels, &weights, task.v.0, &mixed, &epilogue, &mut Scratch::new(), &mut out);
    out
}

/// The rows of all heads side by side, as a projection leaves them.
fn side_by_side(heads: usize, rows: usize, parts: &[(&[f16], usize)]) -> Vec<f16> {
    let mut both = Vec::new();
    for row in 0..rows {
        for &(from, size) in parts {
            (0..heads).for_each(|head| both.extend(&from[(head * rows + row) * size..][..size]));
        }
    }
    both
}

/// The same of some batches, one after the other, behind 7 other values.
fn in_batches(heads: usize, rows: usize, parts: &[(&[f16], usize)]) -> Vec<f16> {
    let mut all = vec![f16::NAN; 7];
    let batches = parts[0].0.len() / (heads * rows * parts[0].1);
    for batch in 0..batches {
        let of = |&(from, size): &(&'_ [f16], usize)| (from.len() / batches, size);
        let part = |part| {
            let (len, size) = of(part);
            (&part.0[batch * len..][..len], size)
        };
        all.extend(side_by_side(heads, rows, &parts.iter().map(part).collect::<Vec<_>>()));
    }
    all
}

/// Part by part, last to first.
fn in_parts(kernels: &Kernels, task: &Attention<'_>) -> Vec<f16> {
    let Shape { heads, queries, values, .. } = task.shape;
    let (mut out, mut scratch) =
        (vec![f16::NAN; heads * queries * values], vec![f32::NAN; task.part_scratch()]);
    for part in (0..task.parts()).rev() {
        task.run(kernels, part, &mut scratch, &mut out[task.range(part)]);
    }
    out
}

#[test]
fn attention_to_nothing_is_zero() {
    let shape = Shape { heads: 2, queries: 3, keys: 0, width: 4, values: 5 };
    let q = values(24, 1);
    let nothing = (&[][..], None);
    let (masks, limit) = ([Mask::None; 2], None);
    let task = Attention {
        shape,
        q: (&q, None),
        k: nothing,
        v: nothing,
        scale: None,
        masks,
        limit,
        flush_nan: false,
        watch: None,
    };
    for kernels in contexts() {
        let mut out = [f16::NAN; 30];
        attention(kernels, &task, 1, &mut Scratch::new(), &mut out);
        assert_eq!(out, [f16::ZERO; 30]);
    }
}

/// Minus infinity for the keys that a query does not see, where the first sees `more` keys before its own.
fn causal(queries: usize, more: usize) -> Vec<f16> {
    let seen = |i: usize, j: usize| if j > i + more { f16::NEG_INFINITY } else { f16::ZERO };
    (0..queries).flat_map(|i| (0..queries + more).map(move |j| seen(i, j))).collect()
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn attention_is_its_separate_ops_bit_for_bit(
        heads in prop_oneof![1..5_usize, Just(6)],
        divisor in 1..7_usize,
        queries in prop_oneof![1..40_usize, Just(130)],
        more in 0..40_usize,
        width in prop_oneof![1..40_usize, Just(64)],
        columns in 1..70_usize,
        kinds in [0..6_usize, 0..6_usize],
        seed in any::<u64>(),
    ) {
        let keys = queries + more;
        let shape = Shape { heads, queries, keys, width, values: columns };
        let (q, k) = (values(heads * queries * width, seed), values(heads * keys * width, seed ^ 1));
        let v = values(heads * keys * columns, seed ^ 2);
        let mask = values(heads * queries * keys, seed ^ 3);
        let causal = causal(queries, more);
        let (pairs, lines, all) = ([queries, keys], [heads, 1, keys], [heads, queries, keys]);
        let choose = |kind: usize| -> (Mask<'_>, Added<'_>) {
            let added = |values, groups, shape| (Mask::Added { values, groups }, Some((values, shape)));
            match kind {
                0 => (Mask::None, None),
                1 => added(&mask[..keys], 1, &all[2..]),
                2 => added(&mask[..queries * keys], 1, &pairs[..]),
                3 => added(&mask, heads, &all),
                4 => added(&mask[..heads * keys], heads, &lines),
                _ => (Mask::Causal, Some((&causal, &pairs))),
            }
        };
        let [(first, one), (second, other)] = kinds.map(choose);
        let (masks, added) = ([first, second], [one, other]);
        let scale = (seed % 2 == 0).then(|| f16::from_f32(0.18));
        let limit = (seed % 5 == 0).then(|| f16::from_f32(4.0));
        let (q_, k_, v_) = ((&q[..], None), (&k[..], None), (&v[..], None));
        let task = Attention { shape, q: q_, k: k_, v: v_, scale, masks, limit, flush_nan: false, watch: None };
        // On portable code, and on the tiles that sum otherwise.
        let of_order = |order| summing_contexts().iter().find(|kernels| Order::of(kernels, true) == order);
        let want = [Order::Defined, Order::Parts]
            .map(|order| of_order(order).map_or_else(Vec::new, |kernels| unfused(kernels, &task, added)));
        let each = if heads % divisor == 0 { divisor } else { heads };
        let both = in_batches(each, keys, &[(&k, width), (&v, columns)]);
        let row = each * (width + columns);
        let at = |head| Some(Heads { each, batch: keys * row, head, row });
        let (k, v) = ((&both[7..], at(width)), (&both[7 + each * width..], at(columns)));
        let strided = Attention { q: (&q, Some(Heads::apart(queries, width))), k, v, ..task };
        let task = if seed % 3 == 0 { strided } else { task };
        for kernels in summing_contexts() {
            let want = &want[Order::of(kernels, true) as usize];
            let mut out = vec![f16::NAN; want.len()];
            let mut scratch = Scratch::with_capacity(attention_scratch(kernels, &task));
            attention(kernels, &task, 1, &mut scratch, &mut out);
            assert_same(kernels, &out, want, "attention");
            out.fill(f16::NAN);
            attention(kernels, &task, each, &mut scratch, &mut out);
            let beside = in_batches(each, queries, &[(want, columns)]);
            assert_same(kernels, &out, &beside[7..], "attention with heads side by side");
            assert_same(kernels, &in_parts(kernels, &task), want, "attention in parts");
        }
    }
}

/// Where the product, the scale, the mask or the second product overflows, and where a mask was infinite before.
#[test]
fn attention_tells_of_what_its_ops_make_infinite() {
    let one = |value: f32| [f16::from_f32(value)];
    let shape = Shape { heads: 1, queries: 1, keys: 2, width: 1, values: 1 };
    let of = |q: f32, k: f32, scale: f32, mask: f32, v: [f32; 2]| {
        let (q, k, mask) = (one(q), [one(1.0)[0], one(k)[0]], [one(0.0)[0], one(mask)[0]]);
        let v = v.map(|v| one(v)[0]);
        let mut told = Vec::new();
        for kernels in contexts() {
            let mask = Mask::Added { values: &mask, groups: 1 };
            for masks in [[mask, Mask::None], [Mask::None, mask]] {
                let mut watch = Watch::default();
                let task = Attention {
                    shape,
                    q: (&q, None),
                    k: (&k, None),
                    v: (&v, None),
                    scale: Some(f16::from_f32(scale)),
                    masks,
                    limit: Some(f16::from_f32(32752.0)),
                    flush_nan: true,
                    watch: Some(&watch),
                };
                attention(kernels, &task, 1, &mut Scratch::new(), &mut [f16::NAN]);
                told.push(watch.take());
            }
        }
        told.dedup();
        told
    };
    assert_eq!(of(1.0, 2.0, 3.0, 4.0, [5.0; 2]), [false]);
    assert_eq!(of(200.0, -200.0, 1.0, 0.0, [1.0; 2]), [true], "the product is above the limit");
    assert_eq!(of(100.0, -200.0, 4.0, 0.0, [1.0; 2]), [true], "the scale");
    assert_eq!(of(100.0, -200.0, 2.0, -6e4, [1.0; 2]), [true], "the mask");
    assert_eq!(of(1.0, 2.0, 3.0, f32::NEG_INFINITY, [1.0; 2]), [false], "the mask was infinite");
    assert_eq!(of(1.0, 2.0, 3.0, 0.0, [4e4; 2]), [true], "the second product");
}
