//! `cargo xtask fuzz`: the property tests with many cases.

use crate::run::Step;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// How much.
#[derive(clap::Args)]
pub struct Args {
    /// Cases per property and round
    #[arg(long, default_value_t = 4096)]
    cases: u32,
    /// Start new rounds, each with other cases, until this much time has passed; 0 is one round
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

/// Runs rounds of the tests, optimised, until the time is up or one fails.
pub fn run(args: &Args) -> Result<()> {
    // Documentation tests have no properties.
    let mut test =
        Step::cargo("test --release --workspace --lib --tests").env("PROPTEST_CASES", args.cases.to_string());
    if let Some(filter) = &args.filter {
        test = test.arg("--").arg(filter);
    }
    let start = Instant::now();
    let mut rounds = 0;
    loop {
        rounds += 1;
        println!("==> round {rounds}");
        test.run().with_context(|| {
            format!("round {rounds} failed; the failing case is printed above: make a test of it")
        })?;
        if start.elapsed() >= Duration::from_secs(args.seconds) {
            break;
        }
    }
    println!("{rounds} rounds of {} cases passed in {:.0} s", args.cases, start.elapsed().as_secs_f64());
    Ok(())
}
