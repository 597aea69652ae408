//! `cargo xtask cross`: what machines that are not here would run. For Linux on aarch64 it runs, under qemu; for macOS
//! on Apple silicon it is compiled, linked and looked at.
//!
//! Everything that is needed is unpacked below the target folder without being installed.

mod compiler;
mod darwin;
mod debian;
mod kept;
mod linux;

use crate::run::target_dir;
use anyhow::{Context, Result};
use clap::ValueEnum;
use debian::Debian;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to build for.
#[derive(clap::Args)]
pub struct Args {
    /// Build for one of them only
    #[arg(long, value_name = "SYSTEM")]
    only: Option<System>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// The tests of the kernels, and of what the engine is given, under qemu
    Linux,
    /// The workspace, its tests and the wheel, linked; what they import is checked
    Darwin,
}

/// Builds for every system that is asked for, up to the first failure, and says how long each part took.
pub fn run(args: &Args) -> Result<()> {
    let mut clock = Clock::default();
    let debian = Debian::new(folder("apt"));
    let compiler = clock.part("the compiler", || compiler::prepare(&debian))?;
    for &system in System::value_variants().iter().filter(|&&s| args.only.is_none_or(|only| only == s)) {
        match system {
            System::Linux => linux::run(&compiler, &debian, &mut clock)?,
            System::Darwin => darwin::run(&compiler, &mut clock)?,
        }
    }
    clock.report();
    Ok(())
}

/// A folder of `cargo xtask cross`.
fn folder(name: &str) -> PathBuf {
    target_dir().join("xtask").join("cross").join(name)
}

/// How long parts took.
#[derive(Default)]
struct Clock {
    parts: Vec<(&'static str, Duration)>,
}

impl Clock {
    /// Announces a part and runs it.
    fn part<T>(&mut self, name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n==> {name}");
        let began = Instant::now();
        let result = run().with_context(|| format!("cross: {name}"))?;
        self.parts.push((name, began.elapsed()));
        Ok(result)
    }

    fn report(&self) {
        let all: Duration = self.parts.iter().map(|(_, time)| *time).sum();
        println!("\neverything that was asked for passed, in {:.0} s:", all.as_secs_f64());
        for (name, time) in &self.parts {
            println!("  {name:<32}{:>8.1} s", time.as_secs_f64());
        }
    }
}
