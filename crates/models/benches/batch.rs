//! Times a batch on all threads: in one call, sample after sample, and with the samples divided among the threads.
//!
//! `cargo bench -p aneforge-models --bench batch`. Prints JSON: the medians of rounds in which the three alternate, in
//! milliseconds for the whole batch.

mod networks;

use aneforge::device::Device;
use aneforge::device::host::{self, HostOptions};
use aneforge::{CompileOptions, Session, Var, compile};
use networks::{encoder, resnet_18};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

const BATCH: usize = 8;
const ROUNDS: usize = 15;

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
