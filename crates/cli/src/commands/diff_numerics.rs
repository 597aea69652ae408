//! `aneforge diff-numerics`: where settings of the arithmetic part.

use crate::context::Context;
use crate::exit::caller;
use crate::feeds::{self, Data};
use crate::output;
use crate::program::{self, Program};
use aneforge::Device;
use aneforge::compile_graph;
use aneforge::device::host::{Sums, shared_with};
use aneforge::diagnose::{all_settings, departures};
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;

/// What follows the options in `aneforge help diff-numerics`.
pub const JSON: &str = "\
JSON keys:
  target, baseline, nodes   what it was compiled for, what the others are compared with, and how many nodes compute
  settings                  for each: numerics, chips (that compute so, as far as published), first (the first node whose bits are
                            others, or null: segment, op, at, type, values, difference), nodes (how many differ), outputs (the
                            largest difference of each result, by the largest magnitude; null is infinite)";

/// Say where settings of the arithmetic part: the first node, how far, and on which chips
///
/// Computes every node with `ieee`, and for each family of chips with what costs nothing of its published arithmetic (`ane`) and with
/// all of it (`faithful`), on the same inputs, and compares each with --numerics bit by bit. None of it has run on an engine.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, a compiled program or its folder; `-` is standard input
    program: PathBuf,

    #[command(flatten)]
    data: Data,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let read = args.data.inputs.iter().chain([&args.program]).filter(|path| output::is_standard(path));
    if read.count() > 1 {
        return Err(caller("standard input can be read once; name files for all but one of `-`"));
    }
    if !args.data.is_given() {
        return Err(caller(
            "settings part on values; give them with --input, or draw them with --random SEED",
        ));
    }
    let plan = match program::read(&args.program)? {
        Program::Plan(plan) if context.takes(&plan) => *plan,
        other => compile_graph(&other.graph(&args.program)?, &context.options())?,
    };
    let feeds = args.data.fed(&plan)?;
    let host = shared_with(&context.host().sums(Sums::Defined))?;
    let baseline = host.numerics(plan.target);
    let found = {
        let _spinner = context.spinner("comparing");
        departures(&host, &plan, &feeds, baseline, &all_settings())
            .map_err(|error| feeds::named(error, &args.data.inputs))?
    };
    match context.json {
        true => output::print_json(out, &found.to_json()),
        false => Ok(write!(out, "{found}")?),
    }
}
