//! Times a server's clients: threads that share one loaded model, each with a session of its own, and call it in turns
//! without a pause.
//!
//! `cargo bench -p aneforge-models --bench clients`. Prints JSON: calls per second and per second of processor time, which
//! does not depend on what else the machine does, the median and the 99th percentile of the time of a call, and how many
//! threads of the process were running at a time, on average; in turns with the same on a pool that helps
//! whoever finds it free, however many programs run. Medians of some rounds.

use aneforge::device::Device;
use aneforge::device::host::{self, Host};
use aneforge::nn::{AttentionWeights, mha};
use aneforge::{CompileOptions, Feed, Plan, Session, Shape, Var, compile};
use aneforge_kernels::Kernels;
use aneforge_models::weights::random_weights;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: [usize; 4] = [1, 2, 8, 64];
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);
/// Ticks of a second of processor time, in `/proc`.
const TICKS: f64 = 100.0;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("a valid shape")
}

fn draw(weights: &mut impl FnMut(&str, Shape) -> Var, dims: &[usize]) -> Var {
    weights("", shape(dims))
}

/// A sentence encoder of MiniLM's shape: 6 layers of 384, and 32 tokens.
fn encoder() -> Var {
    let weights = &mut random_weights(1);
    let d = 384;
    let mut x = Var::input(shape(&[32, d]));
    for _ in 0..6 {
        let [wq, wk, wv, wo] = [0; 4].map(|_| draw(weights, &[d, d]));
        let [bq, bk, bv, bo] = [0; 4].map(|_| Some(draw(weights, &[d])));
        let mixed = mha(&x, &AttentionWeights { wq, bq, wk, bk, wv, bv, wo, bo }, 12, None);
        x = (x + mixed).layer_norm(&draw(weights, &[d]), &draw(weights, &[d]), 1e-5);
        let up = x.linear(&draw(weights, &[4 * d, d]), Some(&draw(weights, &[4 * d]))).gelu();
        let down = up.linear(&draw(weights, &[d, 4 * d]), Some(&draw(weights, &[d])));
        x = (x + down).layer_norm(&draw(weights, &[d]), &draw(weights, &[d]), 1e-5);
    }
    x
}

/// Two small layers: a few microseconds.
fn tiny() -> Var {
    let weights = &mut random_weights(2);
    let x = Var::input(shape(&[1, 64]));
    x.linear(&draw(weights, &[64, 64]), None).relu().linear(&draw(weights, &[8, 64]), None)
}

/// Threads of this process that run or could.
fn running() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" R"))).count()
}

/// Seconds of processor time that this process has had.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Calls the model on so many threads, and says how long each call took.
fn call(plan: &Arc<Plan>, device: &Host, clients: usize) -> Value {
    let (stop, start) = (AtomicBool::new(false), Barrier::new(clients + 1));
    let client = || {
        let mut session = Session::new(Arc::clone(plan), device).expect("the host loads it");
        let ty = plan.feeds[0].ty;
        let input = vec![0.5f32; ty.shape.count()];
        let mut times = Vec::with_capacity(1 << 16);
        let mut turn = || {
            session.set(0, Feed::F32(&input), ty.shape.dims()).expect("the shape fits");
            session.execute().expect("it runs");
        };
        turn();
        start.wait();
        loop {
            let start = Instant::now();
            turn();
            if stop.load(Ordering::Relaxed) {
                return times;
            }
            times.push(start.elapsed());
        }
    };
    let (mut times, elapsed, used, busy) = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        start.wait();
        let (begin, used, mut busy) = (Instant::now(), processor_time(), Vec::new());
        while begin.elapsed() < TIME {
            thread::sleep(Duration::from_millis(50));
            // This thread is running too.
            busy.push(running().saturating_sub(1));
        }
        stop.store(true, Ordering::Relaxed);
        let (elapsed, used) = (begin.elapsed(), processor_time() - used);
        let times: Vec<Duration> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
        (times, elapsed, used, busy)
    });
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    json!({
        "calls_per_second": times.len() as f64 / elapsed.as_secs_f64(),
        "calls_per_processor_second": times.len() as f64 / used,
        "median_us": at(0.5),
        "p99_us": at(0.99),
        "running_threads": busy.iter().sum::<usize>() as f64 / busy.len() as f64,
    })
}

/// Of every number of several objects.
fn medians(rounds: Vec<Value>) -> Value {
    let names = rounds[0].as_object().into_iter().flat_map(|object| object.keys());
    let median = |name: &String| {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round[name].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        (name.clone(), json!((values[values.len() / 2] * 10.0).round() / 10.0))
    };
    Value::Object(names.map(median).collect())
}

fn main() {
    let host = host::shared();
    // Engines of their own kernels do not count who runs programs.
    let uncounted = Host::with_kernels(Kernels::with_threads(host.threads()));
    let mut models = serde_json::Map::new();
    for (name, output) in [("encoder 6x384, 32 tokens", encoder()), ("linear 64, relu, linear 8", tiny())] {
        let plan = Arc::new(compile(&[output], &CompileOptions::default()).expect("it compiles"));
        // Someone keeps the packed weights, so that clients share them.
        let _kept = [&*host, &uncounted].map(|host| Session::new(Arc::clone(&plan), host).expect("it loads"));
        let row = CLIENTS.map(|clients| {
            let rounds = (0..ROUNDS).map(|_| [&*host, &uncounted].map(|host| call(&plan, host, clients)));
            let (host, uncounted) = rounds.map(|[host, uncounted]| (host, uncounted)).unzip();
            (clients.to_string(), json!({ "host": medians(host), "uncounted": medians(uncounted) }))
        });
        models.insert(name.into(), Value::Object(row.into_iter().collect()));
    }
    let machine = json!({ "processor": std::env::consts::ARCH, "host": host.describe() });
    let report = json!({ "machine": machine, "clients": models });
    println!("{}", serde_json::to_string_pretty(&report).expect("numbers and names"));
}
