//! `cargo xtask test`: everything a stranger needs to trust the tree.

use crate::run::Step;
use crate::{generate, python, tidy};
use aneforge::device::host;
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::time::{Duration, Instant};

/// What to run of it.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the Python steps
    #[arg(long)]
    no_python: bool,
    /// Run these steps only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<Name>,
}

/// A step, in the order in which they run: what fails fastest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Formatting
    Fmt,
    /// Layering, unsafe code, platform code, sizes, links
    Tidy,
    /// Generated files are up to date
    Gen,
    /// Lints, with warnings denied
    Clippy,
    /// Every test in Rust
    Test,
    /// The kernels' tests once more, with the tiles that the processor lacks emulated
    Tiles,
    /// The rules of threads about the engine, over every order in which threads can meet
    Loom,
    /// The reference pages build, with warnings denied
    Doc,
    /// A private environment with what the Python tests need
    Venv,
    /// The extension is built and installed there
    Wheel,
    /// Every test in Python
    Pytest,
}

impl Name {
    fn is_python(self) -> bool {
        matches!(self, Name::Venv | Name::Wheel | Name::Pytest)
    }

    fn run(self) -> Result<()> {
        match self {
            Name::Fmt => Step::cargo("fmt --all --check").run(),
            Name::Tidy => tidy::run(),
            Name::Gen => generate::check(),
            Name::Clippy => {
                Step::cargo("clippy --workspace --all-targets -- -D warnings").run()?;
                // The command without what listens to networks.
                Step::cargo("clippy -p aneforge-cli --no-default-features -- -D warnings").run()
            }
            Name::Test => tests("test --workspace").run(),
            Name::Tiles => tests("test -p aneforge-kernels --features emulate-amx").run(),
            Name::Loom => tests("test -p aneforge-ane --features loom --lib rules").run(),
            Name::Doc => Step::cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings").run(),
            Name::Venv => python::venv(),
            Name::Wheel => python::install(),
            Name::Pytest => python::pytest(),
        }
    }

    fn flag(self) -> String {
        self.to_possible_value().expect("invariant: no step is hidden").get_name().into()
    }
}

/// Tests whose random cases are the same every time: the same tree passes or fails everywhere. New cases are what
/// `cargo xtask fuzz` is for.
fn tests(command: &str) -> Step {
    const SEED: &str = "20261128";
    Step::cargo(command).env("PROPTEST_RNG_SEED", SEED)
}

/// The processor's tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tiles {
    /// None, and none can be emulated.
    None,
    /// All or some of their instructions are missing, and can be emulated.
    Emulated,
    Whole,
}

impl Tiles {
    fn of_this_machine() -> Tiles {
        if host::instruction_sets().iter().any(|set| set == "amxfp16") {
            return Tiles::Whole;
        }
        let emulated = std::env::consts::ARCH == "x86_64" && std::env::consts::OS == "linux";
        if emulated { Tiles::Emulated } else { Tiles::None }
    }
}

impl Args {
    /// Why a step does not run, if it does not.
    fn left_out(&self, step: Name, tiles: Tiles) -> Option<&'static str> {
        if !self.only.is_empty() && !self.only.contains(&step) {
            return Some("--only names others");
        }
        match (step, tiles) {
            (Name::Tiles, Tiles::None) => Some("tiles are x86-64 Linux; the kernels on tiles are NOT TESTED"),
            (Name::Tiles, Tiles::Whole) => Some("all tiles are here; the step `test` covers them"),
            _ => (self.no_python && step.is_python()).then_some("--no-python"),
        }
    }
}

/// Runs the steps, announcing each, up to the first that fails.
pub fn run(args: &Args) -> Result<()> {
    let all = Name::value_variants();
    let tiles = Tiles::of_this_machine();
    let start = Instant::now();
    let mut report: Vec<(Name, Result<Duration, &'static str>)> = Vec::new();
    for (i, &step) in all.iter().enumerate() {
        if let Some(why) = args.left_out(step, tiles) {
            report.push((step, Err(why)));
            continue;
        }
        println!("\n==> step {} of {}: {}", i + 1, all.len(), step.flag());
        let began = Instant::now();
        step.run().with_context(|| format!("step {} (alone: cargo xtask test --only {0})", step.flag()))?;
        report.push((step, Ok(began.elapsed())));
    }
    println!("\nevery step that was asked for passed, in {:.0} s:", start.elapsed().as_secs_f64());
    for (step, outcome) in report {
        match outcome {
            Ok(time) => println!("  {:<8}{:>8.1} s", step.flag(), time.as_secs_f64()),
            Err(why) => println!("  {:<8}NOT RUN ({why})", step.flag()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_left_out_on_request_or_for_lack_of_tiles() {
        let args = |no_python, only: &[Name]| Args { no_python, only: only.to_vec() };
        let runs = |args: Args, tiles: Tiles| {
            Name::value_variants().iter().filter(|&&s| args.left_out(s, tiles).is_none()).count()
        };
        assert_eq!(runs(args(false, &[]), Tiles::Emulated), 11);
        assert_eq!(runs(args(false, &[]), Tiles::None), 10);
        assert_eq!(runs(args(false, &[]), Tiles::Whole), 10);
        assert_eq!(runs(args(true, &[]), Tiles::Emulated), 8);
        assert_eq!(runs(args(false, &[Name::Fmt, Name::Wheel]), Tiles::Emulated), 2);
    }
}
