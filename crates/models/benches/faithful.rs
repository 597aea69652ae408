//! What all that is published of the engine's arithmetic costs beside what is free of it.
//!
//! `cargo bench -p aneforge-models --bench faithful`. Prints JSON: medians of calls of a network with the default numerics, and with
//! the faithful ones of the first and the last family, by turns, in milliseconds, and how many times as long those take.

mod networks;

use aneforge::device::host::shared;
use aneforge::{CompileOptions, Family, Graph, Numerics, Session, Tensor, compile_graph};
use aneforge_tensor::random;
use networks::{encoder, resnet_18};
use serde_json::json;
use std::time::Instant;

const CALLS: usize = 15;

fn main() {
    for (name, output) in [("resnet_18", resnet_18(1)), ("encoder", encoder(1))] {
        let graph = Graph::freeze(&[output]).expect("it is well built");
        let ty = graph.feed_types()[0].ty;
        let values: Vec<f32> = (0..ty.shape.count() as u64).map(|i| random::normal(5, i)).collect();
        let feed = Tensor::from_slice(ty.shape, &values).expect("as many values as the shape has");
        let plan = compile_graph(&graph, &CompileOptions::default()).expect("it compiles");
        let settings =
            [Numerics::Ane(Family::A16), Numerics::Faithful(Family::A13), Numerics::Faithful(Family::A16)];
        let mut sessions = settings.map(|numerics| {
            let host = (*shared()).clone().with_numerics(numerics);
            let mut session = Session::new(plan.clone(), &host).expect("the host loads it");
            session.run(std::slice::from_ref(&feed)).expect("it runs");
            session
        });
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..CALLS {
            for (session, times) in sessions.iter_mut().zip(&mut times) {
                let start = Instant::now();
                session.execute().expect("it runs");
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [fast, a13, a16] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[CALLS / 2]
        });
        let round = |v: f64| (v * 100.0).round() / 100.0;
        let line = json!({
            "network": name, "ane_ms": round(fast), "faithful_a13_ms": round(a13), "faithful_a16_ms": round(a16),
            "a13_times": round(a13 / fast), "a16_times": round(a16 / fast),
        });
        println!("{line}");
    }
}
