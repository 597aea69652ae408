//! What a diagnosis costs beside a call of the network.
//!
//! `cargo bench -p aneforge-models --bench diagnose`. Prints JSON: the median of a call on the host, and of the half-precision and
//! the double-precision run of a diagnosis, in milliseconds, and how many calls the first of the two takes.

use aneforge::device::host::{Sums, shared};
use aneforge::diagnose::{TOLERANCE, diagnose};
use aneforge::{CompileOptions, Graph, Session, Shape, Tensor, Var, compile_graph};
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::random_weights;
use aneforge_tensor::random;
use serde_json::json;
use std::time::{Duration, Instant};

const CALLS: usize = 15;
const DIAGNOSES: usize = 3;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("a valid shape")
}

fn resnet_18() -> Var {
    let x = Var::input(shape(&[1, 3, 224, 224]));
    resnet(Depth::D18, &x, 1000, &mut random_weights(1)).expect("random weights fit")
}

/// A sentence encoder of MiniLM's shape: 6 layers of 384 with 12 heads, 128 tokens.
fn encoder() -> Var {
    let (batch, tokens, d, heads) = (1, 128, 384, 12);
    let mut weights = random_weights(1);
    let mut draw = |dims: &[usize]| weights("", shape(dims));
    let mut x = Var::input(shape(&[batch * tokens, d]));
    for _ in 0..6 {
        let mut projected = || {
            let flat = x.linear(&draw(&[d, d]), Some(&draw(&[d])));
            flat.reshape(&[batch as i64, tokens as i64, heads, (d as i64) / heads]).transpose(&[0, 2, 1, 3])
        };
        let [query, key, value] = [projected(), projected(), projected()];
        let scores =
            query.matmul_value(&key.transpose(&[0, 1, 3, 2])).muls((d as f64 / heads as f64).powf(-0.5));
        let mixed = scores.softmax(-1).matmul_value(&value).transpose(&[0, 2, 1, 3]);
        let mixed = mixed.reshape(&[(batch * tokens) as i64, d as i64]);
        let mixed = mixed.linear(&draw(&[d, d]), Some(&draw(&[d])));
        x = (x + mixed).layer_norm(&draw(&[d]), &draw(&[d]), 1e-5);
        let up = x.linear(&draw(&[4 * d, d]), Some(&draw(&[4 * d]))).gelu();
        let down = up.linear(&draw(&[d, 4 * d]), Some(&draw(&[d])));
        x = (x + down).layer_norm(&draw(&[d]), &draw(&[d]), 1e-5);
    }
    x
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    (times[times.len() / 2].as_secs_f64() * 1e5).round() / 1e2
}

fn main() {
    let host = (*shared()).clone().with_sums(Sums::Defined);
    for (name, output) in [("resnet_18", resnet_18()), ("encoder", encoder())] {
        let graph = Graph::freeze(&[output]).expect("it is well built");
        let options = CompileOptions::default();
        let ty = graph.feed_types()[0].ty;
        let values: Vec<f32> = (0..ty.shape.count() as u64).map(|i| random::normal(5, i)).collect();
        let feed = Tensor::from_slice(ty.shape, &values).expect("as many values as the shape has");
        let plan = compile_graph(&graph, &options).expect("it compiles");
        let mut session = Session::new(plan, &host).expect("the host loads it");
        session.run(std::slice::from_ref(&feed)).expect("it runs");
        let call = |_| {
            let start = Instant::now();
            session.execute().expect("it runs");
            start.elapsed()
        };
        let calls = median((0..CALLS).map(call).collect());
        let found =
            |_| diagnose(&host, &graph, &options, std::slice::from_ref(&feed), TOLERANCE).expect("it runs");
        let found: Vec<_> = (0..DIAGNOSES).map(found).collect();
        let [half, double] = [0, 1].map(|at| median(found.iter().map(|found| found.took[at]).collect()));
        let line = json!({
            "network": name, "call_ms": calls, "half_precision_ms": half, "double_precision_ms": double,
            "calls": (half / calls * 10.0).round() / 10.0, "nodes": found[0].nodes.len(), "safe": found[0].is_safe(),
        });
        println!("{line}");
    }
}
