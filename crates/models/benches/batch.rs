//! Times a batch on all threads: in one call, sample after sample, and with the samples divided among the threads.
//!
//! `cargo bench -p aneforge-models --bench batch`. Prints JSON: the medians of rounds in which the three alternate, in
//! milliseconds for the whole batch.

use aneforge::device::Device;
use aneforge::device::host::{self, HostOptions};
use aneforge::{CompileOptions, Session, Shape, Var, compile};
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::random_weights;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

const BATCH: usize = 8;
const ROUNDS: usize = 15;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("a valid shape")
}

fn resnet_18(batch: usize) -> Var {
    let x = Var::input(shape(&[batch, 3, 224, 224]));
    resnet(Depth::D18, &x, 1000, &mut random_weights(1)).expect("random weights fit")
}

/// A sentence encoder of MiniLM's shape: 6 layers of 384 with 12 heads, 128 tokens.
fn encoder(batch: usize) -> Var {
    let (tokens, d, heads) = (128, 384, 12);
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

fn load(output: Var, threads: Option<usize>) -> Session {
    let plan = compile(&[output], &CompileOptions::default()).expect("it compiles");
    let host = host::shared_with(&HostOptions::default().threads(threads)).expect("so many threads are fine");
    Session::new(plan, &*host).expect("the host loads it")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    (times[times.len() / 2].as_secs_f64() * 1e5).round() / 1e2
}

/// The times of a batch in one call, of its samples in turns, and of its samples on threads of their own.
fn measure(network: fn(usize) -> Var) -> Value {
    let threads = host::shared().threads();
    let (mut whole, mut single) = (load(network(BATCH), None), load(network(1), None));
    let mut alone: Vec<Session> = (0..threads).map(|_| load(network(1), Some(1))).collect();
    let run = |session: &mut Session| session.execute().expect("it runs");
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..=ROUNDS {
        let mut now = |kind: usize, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            if round > 0 {
                times[kind].push(start.elapsed());
            }
        };
        now(0, &mut || run(&mut whole));
        now(1, &mut || (0..BATCH).for_each(|_| run(&mut single)));
        now(2, &mut || {
            thread::scope(|scope| {
                for (at, session) in alone.iter_mut().enumerate() {
                    scope.spawn(move || (at..BATCH).step_by(threads).for_each(|_| run(session)));
                }
            });
        });
    }
    let [batch, turns, divided] = times.map(median);
    json!({ "one_call": batch, "sample_after_sample": turns, "samples_divided": divided })
}

fn main() {
    let machine = json!({ "processor": std::env::consts::ARCH, "host": host::shared().describe() });
    let networks = json!({
        "resnet18 8x3x224x224": measure(resnet_18),
        "encoder 6x384, 8 times 128 tokens": measure(encoder),
    });
    let report = json!({ "machine": machine, "batch_of_8_ms": networks });
    println!("{}", serde_json::to_string_pretty(&report).expect("numbers and names"));
}
