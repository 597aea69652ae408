//! `aneforge worker`: programs in a process of their own, for whoever started it.

use anyhow::{Context as _, Result};
use std::io::{BufReader, BufWriter, stdin, stdout};

/// Run programs on the engine for the process that started this one
///
/// It reads what to load and what to compute from standard input. Commands start it themselves.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    let served = aneforge_ane::worker::serve(BufReader::new(stdin()), BufWriter::new(stdout()));
    served.context("worker: standard input is no request of aneforge; commands start workers themselves")
}
