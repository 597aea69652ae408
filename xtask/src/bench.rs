//! `cargo xtask bench`: latency beside onnxruntime, in one run; lowering and call overhead.

use crate::python;
use crate::run::{Step, root};
use anyhow::Result;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of three calls each, alternating between the two engines
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Threads for both engines; all that the machine has by default
    #[arg(long)]
    threads: Option<usize>,
    /// Where the results go, below benches/results
    #[arg(long, value_name = "NAME", default_value = "models.json")]
    output: String,
}

/// Prepares the Python environment, then runs both benchmarks.
pub fn run(args: &Args) -> Result<()> {
    python::venv()?;
    python::install()?;
    Step::cargo("bench -p aneforge --bench lowering").run()?;
    let output = root().join("benches/results").join(&args.output);
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
