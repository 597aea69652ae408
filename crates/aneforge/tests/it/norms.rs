//! Norms of rows that half precision squares badly.

use super::support::engine;
use aneforge::ir::precision::{Array, Precision};
use aneforge::{
    CompileOptions, Family, Graph, Norms, Numerics, Session, Shape, Target, Tensor, Var, compile,
};
use proptest::prelude::*;

fn tensor(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(Shape::new(dims).unwrap(), values).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

fn ones(n: usize) -> Var {
    Var::full(Shape::new(&[n]).unwrap(), 1.0)
}

fn run(y: &Var, feed: &Tensor, norms: Norms, numerics: Numerics) -> (Vec<f32>, usize) {
    let options = CompileOptions { norms, ..CompileOptions::default() };
    let plan = compile(std::slice::from_ref(y), &options).unwrap();
    let mut session = Session::new(plan, engine(1).with_numerics(numerics)).unwrap();
    let out = session.run(std::slice::from_ref(feed)).unwrap()[0].to_f32();
    (out, session.overflows().count())
}

fn exact(y: &Var, feed: &Tensor) -> Vec<f64> {
    let graph = Graph::freeze(std::slice::from_ref(y)).unwrap();
    let feed = Array::from_tensor(&Tensor::from_slice(feed.shape(), &feed.to_f16()).unwrap(), Precision::F64);
    let values = graph.eval(&[feed], Precision::F64);
    values[graph.outputs()[0].index()].data.clone()
}

const NUMERICS: [Numerics; 2] = [Numerics::Ieee, Numerics::Ane(Family::A16)];

/// Robust norms are right, and make no infinity on the way; returns what plain ones give.
#[track_caller]
fn robust_is_right(y: &Var, feed: &Tensor, tolerance: f64) -> Vec<f32> {
    let want = exact(y, feed);
    let scale = want.iter().fold(1.0f64, |most, v| most.max(v.abs()));
    for numerics in NUMERICS {
        let (got, overflows) = run(y, feed, Norms::Robust, numerics);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= tolerance * scale, "element {i}: {got}, not {want} ({numerics})");
        }
        assert_eq!(overflows, 0, "{numerics}");
    }
    run(y, feed, Norms::Plain, NUMERICS[0]).0
}

#[test]
fn a_row_with_one_large_value() {
    let mut row: Vec<f32> = (0..768).map(|i| ((i * 37 % 101) as f32 - 50.0) / 29.0).collect();
    row[7] = 795.0;
    let y = input(&[1, 768]).layer_norm(&ones(768), &ones(768).muls(0.0), 1e-5);
    let feed = tensor(&[1, 768], &row);
    let plain = robust_is_right(&y, &feed, 2e-3);
    assert!(plain.iter().all(|&v| v == 0.0 || !v.is_finite()), "this is what robust norms are for");
    let (robust, _) = run(&y, &feed, Norms::Robust, NUMERICS[1]);
    assert!((robust[7] - 27.678).abs() < 0.05, "{}", robust[7]);
}

#[test]
fn a_difference_to_the_mean_that_half_precision_cannot_hold() {
    let y = input(&[1, 8]).layer_norm(&ones(8), &ones(8).muls(0.0), 1e-5);
    let mut row = [-5.0e4f32; 8];
    row[3] = 5.0e4;
    robust_is_right(&y, &tensor(&[1, 8], &row), 2e-3);
}

/// Half precision holds no mean of these.
#[test]
fn neighbouring_numbers_far_from_zero() {
    for [low, high] in
        [[2000.0f32, 2001.0], [30000.0, 30016.0], [1000.0, 1000.5], [60000.0, 60032.0], [1.0, 1.000_976_6]]
    {
        let row: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { low } else { high }).collect();
        let y = input(&[1, 64]).layer_norm(&ones(64), &ones(64).muls(0.0), 0.0);
        robust_is_right(&y, &tensor(&[1, 64], &row), 2e-3);
        let y = input(&[1, 4, 4, 4]).group_norm(&ones(4), &ones(4).muls(0.0), 2, 0.0);
        robust_is_right(&y, &tensor(&[1, 4, 4, 4], &row), 2e-3);
        let y = input(&[1, 4, 4, 4]).instance_norm(&ones(4), &ones(4).muls(0.0), 0.0);
        robust_is_right(&y, &tensor(&[1, 4, 4, 4], &row), 2e-3);
    }
}

#[test]
fn long_rows_of_large_values() {
    let rms = input(&[2, 4096]).rms_norm(&ones(4096), 1e-5);
    assert_eq!(robust_is_right(&rms, &tensor(&[2, 4096], &[2000.0; 8192]), 2e-3)[0], 0.0);
    let l2 = input(&[2, 64]).l2_norm(-1, 1e-12);
    assert_eq!(robust_is_right(&l2, &tensor(&[2, 64], &[9000.0; 128]), 2e-3)[0], 0.0);
    assert!(
        (run(&l2, &tensor(&[2, 64], &[9000.0; 128]), Norms::Robust, NUMERICS[1]).0[0] - 0.125).abs() < 1e-3
    );
}

#[test]
fn small_rows_and_an_eps_that_half_precision_loses() {
    let row: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 1e-4 } else { -1e-4 }).collect();
    let y = input(&[1, 64]).layer_norm(&ones(64), &ones(64).muls(0.0), 1e-12);
    let feed = tensor(&[1, 64], &row);
    let plain = robust_is_right(&y, &feed, 5e-3);
    assert!(plain.iter().all(|v| v.is_finite()), "eps is 2^-24 at least");
    let image = |y: &Var| robust_is_right(y, &tensor(&[1, 4, 1, 16], &row), 5e-3);
    let x = input(&[1, 4, 1, 16]);
    image(&x.group_norm(&ones(4), &ones(4), 2, 1e-12));
    let columns: Vec<f32> = (0..64).map(|i| if i / 16 % 2 == 0 { 1e-4 } else { -1e-4 }).collect();
    let y = x.channel_layer_norm(&ones(4), &ones(4), 1e-12);
    robust_is_right(&y, &tensor(&[1, 4, 1, 16], &columns), 5e-3);
}

/// With a scale and an offset, and an `eps` that decides how small rows come out.
#[test]
fn small_rows_stay_small_beside_a_large_eps() {
    let vector = |n: usize, first: f32| {
        Var::constant(tensor(&[n], &(0..n).map(|i| first + i as f32 / 4.0).collect::<Vec<_>>()))
    };
    let (row, image) = (input(&[1, 32]), input(&[1, 4, 1, 8]));
    for eps in [1e-3, 0.25, 16.0, 1e4] {
        for magnitude in [2e-3f32, 0.05, 1.0, 300.0] {
            let values: Vec<f32> = (0..32).map(|i| ((i * 37 % 19) as f32 - 9.0) * magnitude / 9.0).collect();
            let check = |y: &Var, dims: &[usize]| {
                let feed = tensor(dims, &values);
                let (got, overflows) = run(y, &feed, Norms::Robust, NUMERICS[1]);
                let want = exact(y, &feed);
                let most = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
                for (got, want) in got.iter().zip(&want) {
                    let error = (f64::from(*got) - want).abs();
                    let (op, allowed) = (y.op(), 6e-3 * most + 1e-6);
                    assert!(error <= allowed, "{op:?}, {magnitude}, eps {eps}: {got}, not {want}");
                }
                assert_eq!(overflows, 0);
            };
            let zero = |n: usize| ones(n).muls(0.0);
            check(&row.l2_norm(-1, eps), &[1, 32]);
            check(&row.rms_norm(&vector(32, 0.5), eps), &[1, 32]);
            check(&row.layer_norm(&vector(32, 0.5), &zero(32), eps), &[1, 32]);
            let (gamma, zero) = (vector(4, 2.0), zero(4));
            check(&image.channel_layer_norm(&gamma, &zero, eps), &[1, 4, 1, 8]);
            check(&image.group_norm(&gamma, &zero, 2, eps), &[1, 4, 1, 8]);
            check(&image.instance_norm(&gamma, &zero, eps), &[1, 4, 1, 8]);
        }
    }
}

#[test]
fn equal_values_give_zeros_in_every_numerics() {
    let zero = ones(8).muls(0.0);
    let x = input(&[2, 8]);
    let image = input(&[1, 8, 1, 4]);
    let image_norms = |eps: f64| {
        [image.group_norm(&ones(8), &zero, 2, eps), image.channel_layer_norm(&ones(8), &zero, eps)]
    };
    for value in [0.0f32, 3.0, 6.0e4, -6.0e-8] {
        for eps in [0.0, 1e-12, 1e-5] {
            for norms in [Norms::Plain, Norms::Robust] {
                for numerics in NUMERICS {
                    let y = x.layer_norm(&ones(8), &zero, eps);
                    let (out, _) = run(&y, &tensor(&[2, 8], &[value; 16]), norms, numerics);
                    assert_eq!(out, [0.0; 16], "{value}, eps {eps}, {norms:?}, {numerics}");
                    for y in image_norms(eps) {
                        let (out, _) = run(&y, &tensor(&[1, 8, 1, 4], &[value; 32]), norms, numerics);
                        assert_eq!(out, [0.0; 32], "{value}, eps {eps}, {norms:?}, {numerics}");
                    }
                    if value == 0.0 {
                        for y in [x.rms_norm(&ones(8), eps), x.l2_norm(-1, eps)] {
                            let (out, _) = run(&y, &tensor(&[2, 8], &[0.0; 16]), norms, numerics);
                            assert_eq!(out, [0.0; 16], "eps {eps}, {norms:?}, {numerics}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_norm_with_a_tiny_variance() {
    let x = input(&[1, 2, 2, 2]);
    let variance = Var::constant(tensor(&[2], &[1e-9, 4.0]));
    let mean = Var::constant(tensor(&[2], &[1e-4, 1.0]));
    let y = x.batch_norm(&ones(2), &ones(2), &mean, &variance, 1e-12);
    let feed = tensor(&[1, 2, 2, 2], &[1e-4, 2e-4, 0.0, -1e-4, 1.0, 2.0, 3.0, -5.0]);
    let plain = robust_is_right(&y, &feed, 2e-2);
    assert!(plain.iter().all(|v| v.is_finite()));
    let auto = run(&y, &feed, Norms::Auto, NUMERICS[1]).0;
    assert_eq!(auto, run(&y, &feed, Norms::Robust, NUMERICS[1]).0, "constants alone tell");
}

fn fired(y: &Var, norms: Norms) -> bool {
    let plan =
        compile(std::slice::from_ref(y), &CompileOptions { norms, ..CompileOptions::default() }).unwrap();
    plan.traces.iter().flat_map(|t| &t.events).any(|e| e.rule == "robust_norm" && e.refused.is_none())
}

#[test]
fn declared_bounds_choose() {
    let bounded = |max_abs: f64| {
        let ty = aneforge::TensorType::f16(Shape::new(&[1, 64]).unwrap());
        Var::bounded_leaf(ty, aneforge::ir::ops::leaf::Role::Feed, max_abs)
    };
    let norm = |x: &Var| x.layer_norm(&ones(64), &ones(64), 1e-5);
    // The squared difference to the mean reaches (2 * 127)^2, and (2 * 129)^2.
    assert!(!fired(&norm(&bounded(127.0)), Norms::Auto));
    assert!(fired(&norm(&bounded(129.0)), Norms::Auto));
    assert!(!fired(&norm(&bounded(129.0)), Norms::Plain));
    assert!(!fired(&norm(&input(&[1, 64])), Norms::Auto), "nothing is known");
    assert!(fired(&norm(&input(&[1, 64])), Norms::Robust));
    assert!(fired(&norm(&bounded(10.0).muls(20.0)), Norms::Auto), "bounds pass through ops");
    assert!(!fired(&norm(&bounded(1e4).tanh()), Norms::Auto), "a tanh is at most 1");
    assert!(fired(&bounded(9000.0).l2_norm(-1, 1e-12), Norms::Auto));
    assert!(!fired(&bounded(8000.0).l2_norm(-1, 1e-12), Norms::Auto));
}

/// A bound at the limit is none beyond it.
#[test]
fn the_length_of_a_row_may_reach_the_largest_number() {
    let ty = aneforge::TensorType::f16(Shape::new(&[1, 64]).unwrap());
    let norm =
        |max_abs| Var::bounded_leaf(ty, aneforge::ir::ops::leaf::Role::Feed, max_abs).l2_norm(-1, 1e-12);
    assert!(!fired(&norm(65504.0 / 8.0), Norms::Auto));
    assert!(fired(&norm(65504.0 / 8.0 + 1.0), Norms::Auto));
}

/// The worst case of sums of sums grows with every layer, and no data comes near it.
#[test]
fn deep_networks_are_not_suspects() {
    use aneforge::risk::{Finding, findings};
    let suspects = |y: &Var| -> Vec<Finding> { findings(&Graph::freeze(std::slice::from_ref(y)).unwrap()) };
    let ty = aneforge::TensorType::f16(Shape::new(&[8, 64]).unwrap());
    let x = Var::bounded_leaf(ty, aneforge::ir::ops::leaf::Role::Feed, 4.0);
    let weight =
        |k: f32| Var::constant(Tensor::from_slice(Shape::new(&[64, 64]).unwrap(), &[k; 4096]).unwrap());
    let layer = |x: &Var| x.linear(&weight(0.25), None).relu();
    // 4, 64, 1,024, 16,384 and 262,144, if every value were the largest.
    let deep = layer(&layer(&layer(&layer(&x))));
    assert_eq!(suspects(&deep), []);
    let once = suspects(&x.linear(&weight(200.0), None));
    assert_eq!(once.len(), 1, "one product of values with a bound is: {once:?}");
    let mask = |k: f32| Var::constant(Tensor::from_slice(Shape::new(&[2]).unwrap(), &[0.0, k]).unwrap());
    let scores = Var::bounded_leaf(
        aneforge::TensorType::f16(Shape::new(&[2, 2]).unwrap()),
        aneforge::ir::ops::leaf::Role::Feed,
        15.0,
    );
    assert_eq!(suspects(&(&scores + &mask(f32::NEG_INFINITY))), [], "an infinity of a mask is meant");
    assert_eq!(suspects(&(&scores + &mask(-65504.0))), [], "which rounds to -65504");
    assert_eq!(suspects(&(&scores.adds(1.0) + &mask(-65504.0))).len(), 1);
    // A row that is normalised has a bound as well, the root of its length.
    let block = |x: &Var| x.layer_norm(&ones(64), &ones(64), 1e-5).linear(&weight(4.0), None);
    let blocks = block(&block(&x));
    assert!(!fired(&blocks, Norms::Auto));
    assert_eq!(suspects(&blocks), []);
}

#[test]
fn instance_norms_of_tiny_and_large_channels() {
    for magnitude in [1e-4f32, 1.0, 9000.0] {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37 % 19) as f32 - 9.0) * magnitude / 9.0).collect();
        let y = input(&[1, 4, 4, 4]).instance_norm(&ones(4), &ones(4), 1e-12);
        robust_is_right(&y, &tensor(&[1, 4, 4, 4], &values), 1e-2);
    }
}

/// Plainly written it is one op in single precision, so robust is the same while half precision holds the variances.
#[test]
fn batch_norms_are_no_worse_for_being_robust() {
    let vector = |k: f32| Var::constant(tensor(&[1], &[k]));
    let y = input(&[1, 1, 1, 2]).batch_norm(&vector(0.25), &vector(0.0), &vector(0.0), &vector(0.0), 1e-5);
    let feed = tensor(&[1, 1, 1, 2], &[300.0, -100.0]);
    let plain = robust_is_right(&y, &feed, 1e-3);
    assert_eq!(plain, run(&y, &feed, Norms::Robust, NUMERICS[0]).0);
    // Variances that it does not hold, with a scale beyond half precision and a small factor after it.
    let tiny = vector(1e-10);
    let y = input(&[1, 1, 1, 2]).batch_norm(&vector(0.002), &vector(0.0), &vector(0.0), &tiny, 1e-12);
    robust_is_right(&y, &feed, 1e-3);
    // A scale that is computed.
    let x = input(&[1, 1, 1, 2]);
    let y =
        x.batch_norm(&x.mean(&[0, 1, 2, 3]).reshape(&[1]), &vector(0.0), &vector(0.0), &vector(1e-9), 0.0);
    robust_is_right(&y, &tensor(&[1, 1, 1, 2], &[0.5, 0.0]), 2e-3);
}

#[test]
fn what_bounds_and_constants_prove_is_found() {
    use aneforge::ir::ops::conv_transpose::ConvTranspose;
    use aneforge::risk::{Finding, findings};
    let role = aneforge::ir::ops::leaf::Role::Feed;
    let bounded = |dims: &[usize]| {
        Var::bounded_leaf(aneforge::TensorType::f16(Shape::new(dims).unwrap()), role, 60000.0)
    };
    let (x, image) = (bounded(&[2]), bounded(&[1, 1, 1, 2]));
    let one = |k: f32| Var::constant(tensor(&[1], &[k]));
    let transposed = ConvTranspose { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    let kernel = Var::constant(tensor(&[1, 1, 1, 1], &[50.0]));
    let pair = Var::constant(tensor(&[2], &[60000.0; 2]));
    let small = input(&[2]).clip(-1.0, 1.0);
    let halves = Var::constant(tensor(&[2, 2], &[3.0; 4])).split(2, 0);
    let found = [
        x.linear(&halves[1], None),
        x.pow(&one(2.0)),
        Var::constant(tensor(&[2], &[2.0, 0.001])).pow(&input(&[2]).clip(-9.0, 9.0)),
        x.real_div(&one(0.001)),
        x.linear_activation(3.0, 2.0),
        x.leaky_relu(4.0),
        x.scaled_elementwise(&x, "Add", 2.0),
        image.prelu(&one(9.0)),
        image.batch_norm(&one(0.25), &one(0.0), &one(0.0), &one(0.0), 1e-5),
        Var::apply(transposed, &[&image, &kernel]),
        small.layer_norm(&pair, &pair, 1e-5),
        image.instance_norm(&one(60000.0), &one(60000.0), 1e-5),
    ];
    let suspects = |y: &Var| -> Vec<Finding> { findings(&Graph::freeze(std::slice::from_ref(y)).unwrap()) };
    for y in &found {
        let suspects = suspects(y);
        assert!(
            suspects.iter().any(|f| f.kind == aneforge::risk::Concern::Overflow),
            "{:?}: {suspects:?}",
            y.op()
        );
    }
    let fine = [
        small.pow(&one(9.0)),
        small.real_div(&one(0.001)),
        x.leaky_relu(0.5),
        small.layer_norm(&pair.muls(0.5), &pair.muls(0.5), 1e-5),
        &small + &Var::from(-1e4),
    ];
    for y in &fine {
        assert_eq!(suspects(y), [], "{:?}", y.op());
    }
}

#[test]
fn robust_norms_are_legal_for_every_family() {
    let x = input(&[1, 8, 4, 4]);
    let y =
        x.group_norm(&ones(8), &ones(8), 2, 1e-5).reshape(&[8, 16]).layer_norm(&ones(16), &ones(16), 1e-5);
    for chip in ["h13", "h14", "h15", "h16", "h17s"] {
        let target = Target::named(chip).unwrap();
        compile(
            &[y.rms_norm(&ones(16), 1e-5)],
            &CompileOptions { target, norms: Norms::Robust, ..CompileOptions::default() },
        )
        .unwrap();
    }
}

proptest! {
    /// Any finite row, of any magnitude, with any offset.
    #[test]
    fn every_finite_row_comes_out_right(
        exponent in -24i32..15,
        offset in prop_oneof![Just(0.0f32), -2.0f32..2.0],
        size in 2usize..200,
        seed in any::<u32>(),
        eps in prop_oneof![Just(0.0), Just(1e-12), Just(1e-5)],
    ) {
        let scale = 2.0f32.powi(exponent);
        let value = |i: usize| {
            let h = (i as u32 ^ seed).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519);
            (h as f32 / u32::MAX as f32 * 2.0 - 1.0 + offset).clamp(-2.0, 2.0) * scale
        };
        let row: Vec<f32> = (0..size).map(value).collect();
        let feed = tensor(&[1, size], &row);
        let halves = feed.to_f16();
        prop_assume!(halves.iter().any(|v| v != &halves[0]));
        let x = input(&[1, size]);
        robust_is_right(&x.layer_norm(&ones(size), &ones(size).muls(0.0), eps), &feed, 4e-3);
        robust_is_right(&x.rms_norm(&ones(size), eps), &feed, 4e-3);
        robust_is_right(&x.l2_norm(-1, eps), &feed, 4e-3);
    }
}
