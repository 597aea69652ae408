//! What a call costs on the host's side: through the interface that the engine has, on a stand-in whose runs compute nothing.
//!
//! `cargo bench -p aneforge-ane-standin` prints one line of JSON for each kind of call, in nanoseconds: medians and tenths of many
//! batches. The stand-in's own part, a lock and two look-ups of handles, is in them.

use aneforge::device::ane::{Ane, AneOptions};
use aneforge::{CompileOptions, Session, Shape, Var, compile};
use aneforge_ane::{Compiled, Framework, Libraries, Options, PortSpec, Program, Side, Source};
use std::path::PathBuf;
use std::time::Instant;

const BATCHES: usize = 200;
const CALLS: usize = 2000;

fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    let names = ["libaneforge_standin.so", "libaneforge_standin.dylib"];
    let folders = program.ancestors().skip(1).take(2);
    let found = folders.flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.exists());
    found.expect("the stand-in is built with its benchmarks")
}

fn measure(name: &str, mut call: impl FnMut()) {
    (0..CALLS).for_each(|_| call());
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (low, median, high) = (times[BATCHES / 10], times[BATCHES / 2], times[BATCHES * 9 / 10]);
    println!("{{\"call\":\"{name}\",\"median_ns\":{median:.0},\"tenths_ns\":[{low:.0},{high:.0}]}}");
}

fn main() {
    // SAFETY-free: set before any thread and before the library is opened.
    let settings = "execute=nothing";
    if std::env::var("ANEFORGE_STANDIN").as_deref() != Ok(settings) {
        let again = std::env::current_exe().expect("a program has a path");
        let status = std::process::Command::new(again).env("ANEFORGE_STANDIN", settings).status();
        std::process::exit(status.ok().and_then(|status| status.code()).unwrap_or(1));
    }
    let folder = std::env::temp_dir().join(format!("aneforge-bench-{}", std::process::id()));
    let x = Var::input(Shape::new(&[64]).expect("one axis"));
    let plan = compile(&[x.muls(2.0)], &CompileOptions::default()).expect("it compiles");
    let (program, blob) = plan.segments[0].mil().expect("one program");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = folder.join("model.mil");
    std::fs::write(&text, program.to_string()).expect("a file");
    let weights = std::fs::File::create(folder.join("weights.bin")).expect("a file");
    blob.write(&plan.segments[0].graph, weights).expect("weights");
    let port = |name: &str| [PortSpec { name: name.to_owned(), bytes: 128 }];
    let (inputs, outputs) =
        (port(&program.functions[0].params[0].name), port(&program.functions[0].returns[0]));
    let source = Source { text: &text, cache: &folder.join("cache"), inputs: &inputs, outputs: &outputs };
    let libraries = Libraries::all(library());
    let framework = Framework::open(&libraries).expect("the stand-in");
    let compiled = Compiled::new(&framework, &source, Options::default()).expect("it compiles");
    let mut program = Program::load(&framework, &compiled, &source, Options::default()).expect("it loads");
    let mut buffers = [0, 1].map(|_| framework.allocate(128).expect("memory"));
    program.bind(0, Side::Input(0), &buffers[0].handle()).expect("bound");
    program.bind(0, Side::Output(0), &buffers[1].handle()).expect("bound");
    measure("aneforge_ane::Program::execute", || program.execute(&mut buffers).expect("it runs"));
    let options = AneOptions { libraries, folder: Some(folder.clone()), ..AneOptions::default() };
    let engine = Ane::open(&options).expect("the stand-in");
    let mut session = Session::new(plan, &engine).expect("it loads");
    measure("aneforge::Session::execute", || session.execute().expect("it runs"));
    _ = std::fs::remove_dir_all(folder);
}
