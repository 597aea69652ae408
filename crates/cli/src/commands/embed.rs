//! `aneforge embed`: sentences to vectors.

use crate::context::Context;
use anyhow::Result;
use std::io::Write;

/// What follows the options in `aneforge help embed`.
pub const JSON: &str = "";

/// Turn sentences into vectors with a pretrained encoder
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args, _: &Context, _: &mut dyn Write) -> Result<()> {
    Ok(())
}
