//! Times lowering and calling: ResNet-18 from graph to artifacts in memory and in files, in half precision and in 4-bit
//! tables, and the overhead of a one-op model.
//!
//! `cargo bench -p aneforge-models --bench lowering`. Prints medians, the allocator's peak during lowering, and how
//! often a session allocates after its first call.

use aneforge::passes::{Compression, Form};
use aneforge::{CompileOptions, Feed, Session, Shape, Tensor, Var, compile, device};
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::random_weights;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts live bytes and their peak.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that counts must implement GlobalAlloc")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Times that a median is of, after the first of each kind.
const REPEATS: usize = 15;

/// The text and the weights of every program, as they would be on disk.
fn artifacts(plan: &aneforge::Plan) -> usize {
    let mut bytes = 0;
    for segment in &plan.segments {
        let (program, blob) = segment.mil().expect("ResNet-18 has no native layers");
        let room = usize::try_from(blob.layout.file_len()).expect("the file fits in memory");
        let weights = blob.write(&segment.graph, Vec::with_capacity(room)).expect("memory is written");
        bytes += program.to_string().len() + weights.len();
    }
    bytes
}

fn say(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "lowering ResNet-18, {what}: {:.1} ms (median of {}), least {:.1} ms",
        ms(times[times.len() / 2]),
        times.len(),
        ms(times[0])
    );
}

fn timed(what: &str, mut work: impl FnMut()) {
    work();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let times = (0..REPEATS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    say(what, times.collect());
    println!("  allocator's peak beyond what was there {} bytes", PEAK.load(Ordering::Relaxed) - before);
}

/// From values to the text and weights in memory, and what the parts of it take.
fn in_memory(network: &dyn Fn() -> Var) {
    let options = CompileOptions::default();
    timed("graph to artifacts in memory", || {
        let plan = compile(&[network()], &options).expect("ResNet-18 compiles");
        std::hint::black_box(artifacts(&plan));
    });
    timed("of that, building the graph", || {
        std::hint::black_box(network());
    });
    let y = network();
    timed("of that, compiling", || {
        std::hint::black_box(compile(std::slice::from_ref(&y), &options).expect("ResNet-18 compiles"));
    });
    let plan = compile(&[y], &options).expect("ResNet-18 compiles");
    timed("of that, writing", || {
        std::hint::black_box(artifacts(&plan));
    });
}

/// The same with weights in 4-bit tables; the tolerance is that of the reference's examples.
fn int4(network: &dyn Fn() -> Var) {
    let options = CompileOptions::default().compression(Compression::new(Form::Int4).tolerance(0.5));
    timed("int4, graph to artifacts in memory", || {
        let plan = compile(&[network()], &options).expect("ResNet-18 compiles");
        std::hint::black_box(artifacts(&plan));
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let shape = |dims: &[usize]| Shape::new(dims).expect("a valid shape");
    let mut weights = random_weights(1);
    let mut kept = Vec::new();
    let x = Var::input(shape(&[1, 3, 224, 224]));
    // The source weights exist before lowering starts, as they would in a mapped file.
    let keep = &mut |name: &str, shape| {
        let var = weights(name, shape);
        kept.push(var.clone());
        var
    };
    resnet(Depth::D18, &x, 1000, keep).expect("random weights fit");
    let network = || {
        let mut given = kept.iter().cloned();
        let mut again = |_: &str, _| given.next().expect("as many as before");
        resnet(Depth::D18, &x, 1000, &mut again).expect("they fit as before")
    };
    in_memory(&network);
    int4(&network);
    let folder = std::env::temp_dir().join(format!("aneforge-lowering-{}", std::process::id()));
    let (mut times, mut peak, mut bytes) = (Vec::new(), 0, 0);
    for _ in 0..REPEATS {
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let start = Instant::now();
        let plan = compile(&[network()], &CompileOptions::default()).expect("ResNet-18 compiles");
        aneforge::artifact::write(&plan, &folder).expect("the temporary folder is writable");
        times.push(start.elapsed());
        peak = peak.max(PEAK.load(Ordering::Relaxed) - before);
        bytes = plan.weight_bytes();
    }
    std::fs::remove_dir_all(&folder).expect("the folder was written");
    say("graph to files", times);
    println!(
        "  artifact {bytes} bytes, allocator's peak beyond the source weights {peak} bytes: {:.2} of the artifact",
        peak as f64 / bytes as f64
    );
    allocations(&[network()], shape(&[1, 3, 224, 224]));
    one_op(shape(&[64]));
}

/// Allocations of later calls, from writing the input to reading the output.
fn allocations(outputs: &[Var], shape: Shape) {
    let plan = compile(outputs, &CompileOptions::default()).expect("ResNet-18 compiles");
    let host = device::named("host").expect("the host is always there");
    let mut session = Session::new(plan, &host).expect("the host loads it");
    let image = vec![0.5f32; shape.count()];
    let mut logits = vec![0.0f32; 1000];
    let mut call = || {
        session.set(0, Feed::F32(&image), shape.dims()).expect("the shape fits");
        session.execute().expect("it runs");
        session.read(0, &mut logits);
    };
    call();
    let before = CALLS.load(Ordering::Relaxed);
    (0..10).for_each(|_| call());
    let after = CALLS.load(Ordering::Relaxed);
    println!("allocations in 10 calls of ResNet-18 after the first: {}", after - before);
}

fn one_op(shape: Shape) {
    let plan = compile(&[Var::input(shape).relu()], &CompileOptions::default()).expect("one op compiles");
    let host = device::named("host").expect("the host is always there");
    let mut session = Session::new(plan, &host).expect("the host loads it");
    let values: Vec<f32> = (0..64).map(|i| i as f32 - 32.0).collect();
    let feed = [Tensor::from_slice(shape, &values).expect("64 values")];
    let times = (0..2000).map(|_| {
        let start = Instant::now();
        for _ in 0..10 {
            session.run(&feed).expect("it runs");
        }
        start.elapsed() / 10
    });
    println!(
        "calling a one-op model of 64 elements: {:.2} us (median)",
        median(times.collect()).as_secs_f64() * 1e6
    );
}
