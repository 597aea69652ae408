//! Nodes that make infinities or NaN of finite operands are found by name, and no others.

use super::support::engine;
use aneforge::ir::ops::conv::Conv;
use aneforge::{CompileOptions, Family, Numerics, Session, Shape, Tensor, Var, compile};

const POINTWISE: Conv = Conv { strides: [1; 2], pad: [0; 4], dilations: [1; 2], groups: 1 };

fn tensor(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(Shape::new(dims).unwrap(), values).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

/// Op, values and calls of every overflow after the model has run on each of the feeds.
fn overflows_of(y: &Var, calls: &[Vec<Tensor>], numerics: Numerics) -> Vec<(&'static str, usize, u64)> {
    let plan = std::sync::Arc::new(compile(std::slice::from_ref(y), &CompileOptions::default()).unwrap());
    let mut found = Vec::new();
    for host in [engine(2), engine(1).unfused()] {
        let mut session = Session::new(plan.clone(), host.with_numerics(numerics)).unwrap();
        for feeds in calls {
            session.run(feeds).unwrap();
        }
        found.push(session.overflows().map(|o| (o.op, o.values, o.calls)).collect::<Vec<_>>());
    }
    assert_eq!(found[0], found[1], "fused and not");
    found.swap_remove(0)
}

#[test]
fn the_node_that_overflows_is_named_also_inside_a_fused_step() {
    let x = input(&[2, 2]);
    let weight = Var::constant(tensor(&[2, 2], &[200.0, 0.0, 0.0, 1.0]));
    let hidden = |bias: f32| {
        let bias = Var::constant(tensor(&[2], &[bias, 0.0]));
        (x.linear(&weight, None) + bias).sigmoid()
    };
    let feed = |v: f32| vec![tensor(&[2, 2], &[v, 1.0, 1.0, 1.0])];
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        // 200 * 400 is above 65504; the sigmoid hides it.
        let calls = [feed(1.0), feed(400.0), feed(2.0), feed(500.0)];
        assert_eq!(overflows_of(&hidden(0.0), &calls, numerics), [("matmul", 1, 2)], "{numerics}");
        // 200 * 150 = 30000 fits, and so does the bias; their sum does not.
        assert_eq!(overflows_of(&hidden(4.0e4), &[feed(150.0)], numerics), [("add", 1, 1)], "{numerics}");
    }
    // One step, and in every call another of its nodes.
    let by_turns = [feed(150.0), feed(400.0), feed(1.0), feed(150.0)];
    let found = overflows_of(&hidden(4.0e4), &by_turns, Numerics::Ieee);
    assert_eq!(found, [("add", 1, 2), ("matmul", 1, 1)]);
    let beyond = [feed(164.0)];
    assert_eq!(overflows_of(&hidden(0.0), &beyond, Numerics::Ieee), [], "32800 is finite");
    assert_eq!(overflows_of(&hidden(0.0), &beyond, Numerics::Ane(Family::A16)), [("matmul", 1, 1)]);
}

/// The convolution, what is added to it, and the function after, by turns; a value that is added has overflowed before.
#[test]
fn the_node_that_overflows_is_named_inside_a_convolution_that_adds() {
    let x = input(&[1, 2, 3, 3]);
    let kernel = |centre: f32| {
        let one = |i: usize| if i % 9 == 4 && (i / 9).is_multiple_of(3) { centre } else { 0.0 };
        Var::constant(tensor(&[2, 2, 3, 3], &(0..36).map(one).collect::<Vec<_>>()))
    };
    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let added = input(&[1, 2, 3, 3]);
    let outputs = (added.relu() + x.conv(op.clone(), &kernel(200.0), None)).sigmoid();
    let found = outputs.conv(op, &kernel(0.5), None);
    let feed = |values: [f32; 2]| {
        let fed = |v: f32| {
            let mut values = [1.0; 18];
            values[4] = v;
            tensor(&[1, 2, 3, 3], &values)
        };
        values.map(fed).to_vec()
    };
    // 200 * 150 = 30000 fits, and 90000 does not; 200 * 400 does not fit.
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        let calls = [feed([1.0, 1.0]), feed([150.0, 6e4]), feed([400.0, 1.0]), feed([1.0, 1.0])];
        assert_eq!(overflows_of(&found, &calls, numerics), [("add", 1, 1), ("conv", 1, 1)], "{numerics}");
    }
}

/// Infinite operands hide nothing that happens elsewhere in a fused step, and count for nothing where they are added.
#[test]
fn the_node_that_overflows_is_named_beside_what_was_infinite_before() {
    let (x, added) = (input(&[2, 2]), input(&[2, 2]));
    let weight = Var::constant(tensor(&[2, 2], &[200.0, 0.0, 0.0, 1.0]));
    let hidden = (&added + x.linear(&weight, None)).sigmoid();
    let infinite = f32::INFINITY;
    let feeds =
        vec![tensor(&[2, 2], &[infinite, 1.0, 100.0, 1.0]), tensor(&[2, 2], &[1.0, 1.0, 6e4, infinite])];
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        let found = overflows_of(&hidden, std::slice::from_ref(&feeds), numerics);
        assert_eq!(found, [("add", 1, 1)], "{numerics}");
    }
}

/// A norm and attention are steps of their own, of which any node may overflow, in one row and not in others.
#[test]
fn the_node_that_overflows_is_named_inside_norms_and_attention() {
    let x = input(&[3, 4]);
    let (gamma, beta) = (tensor(&[4], &[1.0, 1.0, 1.0, 6e4]), tensor(&[4], &[0.0; 4]));
    let (gamma, beta) = (Var::constant(gamma), Var::constant(beta));
    let row = |row: [f32; 4]| {
        let calm = [1.0, 2.0, 3.0, 2.0];
        vec![tensor(&[3, 4], &[calm, row, calm].concat())]
    };
    let calls = [
        row([1.0, 2.0, 3.0, 2.0]),
        // The square of a difference; a difference, too; the product with gamma.
        row([0.0, 1000.0, 0.0, 1000.0]),
        row([-6e4, 6e4, 6e4, 6e4]),
        row([0.0, 0.0, 0.0, 1.0]),
    ];
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        let norm = overflows_of(&x.layer_norm(&gamma, &beta, 1e-5), &calls, numerics);
        assert_eq!(norm, [("mul", 4, 2), ("sub", 1, 1), ("mul", 1, 1)], "{numerics}");
        let length = overflows_of(&x.l2_norm(-1, 1e-5), &calls, numerics);
        assert_eq!(length, [("reduce_l2_norm", 1, 1)], "{numerics}");
        let scores = x.matmul_value(&x.swap_last()).muls(4.0);
        let attention = overflows_of(&scores.softmax(-1).matmul_value(&x), &calls, numerics);
        let found: Vec<&str> = attention.iter().map(|(op, ..)| *op).collect();
        // On the engine an infinite score takes all the weight, and then 6e4 is beyond the range of products.
        let want: &[&str] = if numerics == Numerics::Ieee { &["bmm"] } else { &["bmm", "bmm"] };
        assert_eq!(found, want, "{numerics}: {attention:?}");
    }
}

/// The transpose of the keys is read as it lies for the scores, and as it is for the values.
#[test]
fn the_node_that_overflows_is_named_inside_attention_to_keys_that_are_values() {
    let (q, k) = (input(&[3, 4]), input(&[4, 4]));
    let keys = k.swap_last();
    let mixed = q.matmul_value(&keys).softmax(-1).matmul_value(&keys);
    let calls = [vec![tensor(&[3, 4], &[300.0; 12]), tensor(&[4, 4], &[300.0; 16])]];
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        let found = overflows_of(&mixed, &calls, numerics);
        assert_eq!(found[0], ("bmm", 12, 1), "{numerics}: {found:?}");
    }
}

/// Chains count where they compute: also in place of an operand, which is gone by the time that anyone could look again.
#[test]
fn the_node_that_overflows_is_named_inside_a_chain() {
    let x = input(&[3, 5000]);
    let row = input(&[5000]);
    let hidden = (x.softmax(-1) * 0.0 + &x).square().sigmoid() * &row;
    let shared = &hidden + &(&hidden * &row).real_div(&(&hidden - &hidden)).softsign();
    let found = shared.clip(-1.0, 1.0).softmax(-1);
    let feed = |at: usize, value: f32, row: f32| {
        let mut values = vec![1.0; 15_000];
        values[at] = value;
        vec![tensor(&[3, 5000], &values), tensor(&[5000], &[row; 5000])]
    };
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
        let squares = [feed(0, 2.0, 1.0), feed(4999, 300.0, 1.0), feed(14_999, -300.0, 1.0)];
        let twice = [("real_div", 15_000, 3), ("mul", 1, 2)];
        assert_eq!(overflows_of(&found, &squares, numerics), twice, "{numerics}");
        let infinite = overflows_of(&found, &[feed(7000, f32::INFINITY, 1.0)], numerics);
        assert!(infinite.iter().all(|(op, ..)| *op == "real_div"), "{numerics}: {infinite:?}");
    }
}

#[test]
fn nan_counts_and_what_was_infinite_before_does_not() {
    let (x, y) = (input(&[4]), input(&[4]));
    let two = |a: &[f32], b: &[f32]| vec![tensor(&[4], a), tensor(&[4], b)];
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A13)] {
        let quotient = x.real_div(&y);
        let zeros = two(&[0.0, 1.0, inf, 3.0], &[0.0, 0.0, 2.0, 2.0]);
        assert_eq!(overflows_of(&quotient, &[zeros], numerics), [("real_div", 2, 1)], "{numerics}");
        let large = || two(&[300.0, 1.0, 1.0, 1.0], &[300.0, 1.0, 1.0, 1.0]);
        let infinite = || two(&[inf, 1.0, 1.0, 1.0], &[1.0; 4]);
        let found = overflows_of(&(&x * &y), &[large(), infinite(), large()], numerics);
        assert_eq!(found, [("mul", 1, 2)], "{numerics}: what was fed as infinite does not count again");
        let passed_on = two(&[inf, nan, 1.0, 1.0], &[1.0, 1.0, inf, nan]);
        assert_eq!(overflows_of(&(&x * &y).exp(), &[passed_on], numerics), [], "{numerics}");
        let fed = vec![tensor(&[4], &[inf, 1.0, -2.0, 3.0])];
        assert_eq!(
            overflows_of(&x.sum(&[0]), &[fed], numerics),
            [],
            "{numerics}: the sum is infinite as it should be"
        );
        let quiet = two(&[-inf, 1.0, 2.0, 3.0], &[1.0; 4]);
        assert_eq!(overflows_of(&(&x + &y).softmax(-1), &[quiet], numerics), [], "{numerics}");
    }
}

#[test]
fn reductions_convolutions_and_slices_are_watched() {
    let x = input(&[1, 4, 8, 8]);
    let feed = |v: f32| vec![tensor(&[1, 4, 8, 8], &[v; 256])];
    let a16 = Numerics::Ane(Family::A16);
    let sum = x.sum(&[2, 3]);
    assert_eq!(overflows_of(&sum, &[feed(1000.0), feed(1024.0)], a16), [("reduce_sum", 4, 1)]);
    let weight = Var::constant(tensor(&[2, 4, 1, 1], &[1.0; 8]));
    let conv = x.conv(POINTWISE, &weight, None).relu();
    assert_eq!(overflows_of(&conv, &[feed(8000.0), feed(9000.0)], a16), [("conv", 128, 1)]);
    let slice = x.slice_by_size(&[0, 0, 0, 3], &[1, 4, 8, 5]);
    let a13 = Numerics::Ane(Family::A13);
    assert_eq!(overflows_of(&slice, &[feed(4000.0), feed(5000.0)], a13), [("slice_by_size", 160, 1)]);
}
