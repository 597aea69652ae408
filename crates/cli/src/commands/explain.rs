//! `aneforge explain`: why a program is what it is.

use crate::context::Context;
use crate::output;
use crate::program;
use aneforge::explain::explain;
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;

/// What follows the options in `aneforge help explain`.
pub const JSON: &str = "\
JSON keys:
  target      the chip compiled for
  stages      for each stage: stage, nodes (left after it), events of rule, node (its op and the line that built it), refused
              (why, or null if it fired), said (what it did, where its name does not say it)
  estimate    of a call of the graph as it was built: microseconds, low, high, millijoules, energy_band (a factor), cold_us, programs,
              measured, terms, place and least_energy (engine, cpu, gpu or null), why; null for chips known by name only
  ways        the ways to compile it: name, estimate_us, lossy, taken, refused (why it is not taken unmeasured, or null)
  weights     with --compress, for each weight: op, at, shape, encoding, bytes, dense_bytes, error, calibrated,
              why
  segments    for each program: layer and at (of a native layer, else null), weight_bytes
  most_bytes  the longest weight file of one program
  notices     what the chip does in its own way: op, at, why, warning";

/// Say why a program is what it is
///
/// Compiles a graph and lists, stage by stage, the rules that fired and those that refused, with their reasons and the lines
/// that built their nodes; the ways to compile it and what ANEForge's formula says of each; what a call may cost; why weights are not in the form that
/// was asked for; and where it is cut: at native layers, and where one program would have more weights than the system takes.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, a compiled program, or its folder; `-` is standard input
    graph: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let graph = program::open(&args.graph)?;
    let told = {
        let _spinner = context.spinner("compiling");
        explain(&graph, &context.options())?
    };
    match context.json {
        true => output::print_json(out, &told.to_json()),
        false => Ok(write!(out, "{told}")?),
    }
}
