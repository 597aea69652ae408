//! Programs with more weights than one may have become several, with the same bits.

use crate::random_graph::generate;
use crate::support::{engine, feed_tensors};
use aneforge::ir::precision::Array;
use aneforge::passes::{Compression, Form, PassError};
use aneforge::target::System;
use aneforge::{CompileError, CompileOptions, Graph, Plan, Session, Shape, Tensor, Var, compile};
use aneforge_tensor::random;
use proptest::prelude::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn weight(seed: u64, dims: &[usize]) -> Var {
    let values: Vec<f32> = (0..shape(dims).count() as u64).map(|i| random::normal(seed, i) * 0.2).collect();
    Var::constant(Tensor::from_slice(shape(dims), &values).unwrap())
}

fn under(most_bytes: u64) -> CompileOptions {
    CompileOptions::default().most_bytes(most_bytes)
}

/// The bits of every result.
fn results(plan: &Plan, graph: &Graph, feeds: &[Array]) -> Vec<Vec<u32>> {
    let mut session = Session::new(plan.clone(), engine(1)).unwrap();
    session.run(&feed_tensors(graph, feeds)).unwrap();
    let bits = |i| session.output(i).iter().map(|v| v.to_f32().to_bits()).collect();
    (0..plan.returned().len()).map(bits).collect()
}

fn longest(plan: &Plan) -> u64 {
    plan.segments.iter().map(|segment| segment.weight_bytes()).max().unwrap()
}

/// Weights of narrow and wide layers in turn.
fn layers(widths: &[usize]) -> Var {
    let mut x = Var::input(shape(&[2, widths[0]]));
    for (seed, pair) in (1..).zip(widths.windows(2)) {
        x = x.linear(&weight(seed, &[pair[1], pair[0]]), None).relu();
    }
    x
}

proptest! {
    #[test]
    fn random_graphs_are_split_to_the_same_bits(seed in any::<u64>(), steps in 1usize..40, share in 0u64..100) {
        let (outputs, feeds) = generate(seed, steps);
        let graph = Graph::freeze(&outputs).unwrap();
        let whole = compile(&outputs, &CompileOptions::default()).unwrap();
        let most = 64 + (longest(&whole) - 64) * share / 100;
        match compile(&outputs, &under(most)) {
            Ok(split) => {
                prop_assert!(longest(&split) <= most, "{} of {most} bytes", longest(&split));
                prop_assert_eq!(results(&split, &graph, &feeds), results(&whole, &graph, &feeds));
            }
            Err(CompileError::Pass(PassError::Legal(error))) => {
                prop_assert!(error.why.contains(&format!("one program has at most {most}")), "{}", error);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn deep_networks_are_split_at_every_ceiling_where_the_fewest_bytes_cross() {
    let out = layers(&[16, 48, 8, 48, 8, 48, 16]);
    let graph = Graph::freeze(std::slice::from_ref(&out)).unwrap();
    let whole = compile(std::slice::from_ref(&out), &CompileOptions::default()).unwrap();
    let feeds = [Array::from_fn(shape(&[2, 16]), |i| (i % 7) as f64 / 4.0 - 0.5)];
    let want = results(&whole, &graph, &feeds);
    let mut programs = Vec::new();
    for most in (1700..longest(&whole) + 100).step_by(100) {
        let plan = compile(std::slice::from_ref(&out), &under(most)).unwrap();
        assert!(longest(&plan) <= most, "{} of {most}", longest(&plan));
        assert_eq!(results(&plan, &graph, &feeds), want, "at most {most}");
        programs.push(plan.segments.len());
    }
    assert!(programs.is_sorted_by(|a, b| a >= b), "a higher ceiling takes no more programs: {programs:?}");
    assert_eq!((programs.first(), programs.last()), (Some(&6), Some(&1)));
    // Both halves would fit if they were cut in the middle, too, where two rows of 48 numbers cross and not of 8.
    let plan = compile(std::slice::from_ref(&out), &under(4200)).unwrap();
    let said = plan.to_string();
    assert_eq!(said.matches("where 32 bytes cross").count(), plan.segments.len() - 1, "{said}");
}

#[test]
fn a_tie_is_broken_by_the_smallest_largest_program() {
    let out = layers(&[16; 9]);
    let plan = compile(&[out], &under(64 + 6 * (64 + 512))).unwrap();
    let sizes: Vec<u64> = plan.segments.iter().map(|segment| segment.weight_bytes()).collect();
    assert_eq!(sizes, [64 + 4 * (64 + 512); 2], "six and two would fit as well");
}

#[test]
fn one_weight_that_is_too_large_is_named() {
    let out = layers(&[16, 64, 16]);
    let error = compile(&[out], &under(2000)).unwrap_err().to_string();
    let want = "matmul: its weights take 2176 bytes, the largest of them [64, 16] 2112 bytes, and one program has at most \
                2000; store it in fewer bytes (compress), or split it into parts (at ";
    assert!(error.starts_with(want), "{error}");
    // In bytes it fits.
    let options = under(2000).compression(Compression::new(Form::Int8));
    assert!(longest(&compile(&[layers(&[16, 64, 16])], &options).unwrap()) <= 2000);
}

#[test]
fn native_layers_and_splits_go_together() {
    let x = layers(&[16, 32, 16]).reshape(&[1, 1, 2, 16]);
    let y = x.minmax_norm("Width", 1e-3).reshape(&[2, 16]);
    let out = y.linear(&weight(9, &[16, 16]), None).linear(&weight(10, &[16, 16]), None);
    let graph = Graph::freeze(std::slice::from_ref(&out)).unwrap();
    let native = CompileOptions::default().routes(aneforge::Routes::Native);
    let whole = compile(std::slice::from_ref(&out), &native).unwrap();
    let split = compile(std::slice::from_ref(&out), &native.most_bytes(1200)).unwrap();
    assert_eq!((whole.segments.len(), split.segments.len()), (3, 5), "{split}");
    let feeds = [Array::from_fn(shape(&[2, 16]), |i| (i % 5) as f64 / 4.0 - 0.5)];
    assert_eq!(results(&split, &graph, &feeds), results(&whole, &graph, &feeds));
}

#[test]
fn many_layers_take_no_time() {
    let mut x = Var::input(shape(&[1, 4]));
    for seed in 0..4000 {
        x = x.linear(&weight(seed, &[4, 4]), None);
    }
    let graph = Graph::freeze(&[x]).unwrap();
    let start = std::time::Instant::now();
    let plan = aneforge::compile_graph(&graph, &under(64 + 100 * 128)).unwrap();
    assert_eq!(plan.segments.len(), 40);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn what_is_computed_again_is_bounded() {
    // Large enough that it is not folded.
    let mut fixed = Var::full(shape(&[300, 300]), 0.5);
    let mut x = Var::input(shape(&[300, 300]));
    for _ in 0..2100 {
        fixed = fixed.tanh();
    }
    for _ in 0..2100 {
        x = x.tanh() + &fixed;
    }
    let graph = Graph::freeze(&[x.linear(&weight(2, &[300, 300]), None)]).unwrap();
    let compiled = aneforge::compile_graph(&graph, &under(200_000)).map(|plan| plan.segments.len());
    let error = compiled.unwrap_err().to_string();
    assert!(error.contains("too many values that would be computed again lie between"), "{error}");
}

#[test]
fn the_ceiling_is_the_systems() {
    let options = CompileOptions::default();
    assert_eq!(options.ceiling(), System::MacOs26.most_bytes());
    assert_eq!(options.system(System::MacOs27).ceiling(), 1 << 30);
    assert_eq!(options.system(System::MacOs27).most_bytes(5).ceiling(), 5);
}
