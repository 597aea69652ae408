//! `cargo xtask bench`: latency beside onnxruntime and OpenVINO, in one run; lowering and call overhead; or the kernels alone.

use crate::python;
use crate::run::{Step, root};
use anyhow::Result;
use clap::ValueEnum;
use std::fs;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Whole models, or the kernels by shape
    #[arg(default_value = "models")]
    what: What,
    /// Rounds in which the engines take turns
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Threads for both engines of whole models; all that the machine has by default
    #[arg(long)]
    threads: Option<usize>,
    /// Kernels whose row has this in its name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where the results go, below benches/results; for kernels without an extension
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Whole models beside onnxruntime and OpenVINO, lowering, and the overhead of a call
    Models,
    /// Every kernel beside the machine's roofs, the gemm crate and onnxruntime
    Kernels,
    /// Bytes, error and time of two real models in each encoding of weights, written to docs/compression.md
    Compress,
    /// Accuracy of three real models under every setting of the arithmetic, written to docs/numerics.md
    Numerics,
}

/// Prepares the Python environment, then runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    python::venv()?;
    match args.what {
        What::Models => models(args),
        What::Kernels => kernels(args),
        What::Compress => compress(args),
        What::Numerics => numerics(),
    }
}

fn models(args: &Args) -> Result<()> {
    python::install()?;
    peers()?;
    Step::cargo("bench -p aneforge-models --bench lowering").run()?;
    let output = root().join("benches/results").join(args.output.as_deref().unwrap_or("models.json"));
    let mut step = Step::new(python::program("python"), "benches/models.py")
        .arg("--rounds")
        .arg(args.rounds.to_string())
        .arg("--output")
        .arg(output.to_string_lossy());
    if let Some(threads) = args.threads {
        step = step.arg("--threads").arg(threads.to_string()).env("ANEFORGE_THREADS", threads.to_string());
    }
    step.run()
}

/// Installs what benchmarks need beside what tests do.
fn peers() -> Result<()> {
    let install = "install --quiet --disable-pip-version-check --no-deps -r";
    Step::new(python::program("pip"), install).arg("benches/requirements.txt").run()
}

fn numerics() -> Result<()> {
    python::install()?;
    peers()?;
    Step::new(python::program("python"), "benches/numerics.py").run()
}

fn compress(args: &Args) -> Result<()> {
    python::install()?;
    peers()?;
    Step::new(python::program("python"), "benches/compress.py")
        .arg("--rounds")
        .arg(args.rounds.to_string())
        .run()
}

fn kernels(args: &Args) -> Result<()> {
    let mut step = Step::cargo("run --release --manifest-path benches/kernels/Cargo.toml --")
        .arg("--rounds")
        .arg(args.rounds.to_string())
        .arg("--python")
        .arg(python::program("python"))
        .arg("--machine")
        .arg(machine());
    if let Some(only) = &args.only {
        step = step.arg("--only").arg(only);
    }
    // Some rows are no result for others to compare with.
    if let Some(name) = args.output.as_deref().or(args.only.is_none().then_some("kernels")) {
        step = step.arg("--output").arg(root().join("benches/results").join(name).to_string_lossy());
    }
    step.run()
}

/// The processor's name as the system tells it, and how many of it there are.
fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let (family, model) = (field("cpu family").unwrap_or_default(), field("model\t").unwrap_or_default());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, family {family}, model {model}, {count} threads")
}
