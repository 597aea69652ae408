//! What a diagnosis costs beside a call of the network.
//!
//! `cargo bench -p aneforge-models --bench diagnose`. Prints JSON: the median of a call on the host, and of the half-precision and
//! the double-precision run of a diagnosis, in milliseconds, and how many calls the first of the two takes.

mod networks;

use aneforge::device::host::{Sums, shared};
use aneforge::diagnose::{TOLERANCE, diagnose};
use aneforge::{CompileOptions, Graph, Session, Tensor, compile_graph};
use aneforge_tensor::random;
use networks::{encoder, resnet_18};
use serde_json::json;
use std::time::{Duration, Instant};

const CALLS: usize = 15;
const DIAGNOSES: usize = 3;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    (times[times.len() / 2].as_secs_f64() * 1e5).round() / 1e2
}

fn main() {
    let host = (*shared()).clone().with_sums(Sums::Defined);
    for (name, output) in [("resnet_18", resnet_18(1)), ("encoder", encoder(1))] {
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
