//! `aneforge worker`: programs in a process of their own, for whoever started it.

use anyhow::{Context as _, Result};

/// Run programs on the engine for the process that started this one
///
/// It reads what to load and what to compute from standard input. Commands start it themselves.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    aneforge_ane::worker::serve_standard()
        .context("worker: standard input is no request of aneforge; commands start workers themselves")
}
