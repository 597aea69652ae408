//! `aneforge diagnose`: what half precision and an engine's arithmetic do to every node of a network.

use crate::context::Context;
use crate::exit::caller;
use crate::feeds::{self, Data};
use crate::output;
use crate::program::{self, Program};
use aneforge::device::host::{Host, Sums, shared_with};
use aneforge::diagnose::{self, Diagnosis, TOLERANCE};
use aneforge::{CompileOptions, Graph, Plan, Tensor, compile_graph};
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// What follows the options in `aneforge help diagnose`.
pub const JSON: &str = "\
JSON keys:
  target, numerics, tolerance   what it was compiled for and computed with
  safe                          whether no result has an error beyond the tolerance, and no node a trouble but such an error
  outputs                       the relative error of each result against the graph in double precision; null is infinite
  nodes                         op, at (the line that built it), type, largest, error, narrow_error; troubles: trouble
                                (saturation, overflow, invalid, lost_integers, narrow_sum, error), values, remedy
  notes                         what structure, bounds and constants say: op, at, kind, reason, remedy, risk
  seconds                       of the half-precision run, and of the double-precision one
With --all-chips: chips (target, family, verdict, why, estimate_us, estimate: as `aneforge explain`), host_us, place, families (each as above)

Exit codes beside those of `aneforge help`: 0 also where nodes are in trouble";

/// Say what half precision and a chip's arithmetic do to every node of a network
///
/// Compiles the network for the target, computes every node with the published behaviour of its family and, beside it, in
/// double precision. Saturations, overflows, results that are no number, whole numbers that are lost, sums that need a wide
/// accumulator, and the first node whose error exceeds the tolerance are told by the line that built them, with a remedy where
/// one is known. Without inputs, only what structure, constants and the bounds that inputs declare (max_abs) say is told. None of
/// it has run on an engine.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, a compiled program or its folder; `-` is standard input
    program: PathBuf,

    #[command(flatten)]
    data: Data,

    /// The relative error that is allowed: the largest difference by the largest magnitude of a node
    #[arg(long, value_name = "ERROR", default_value_t = TOLERANCE, value_parser = tolerance)]
    tolerance: f64,

    /// Ask for every chip: is the network safe there, how long is it estimated to take, and is the engine the place for it
    #[arg(long)]
    all_chips: bool,

    /// Write one page of HTML: the errors as a curve, and the table; `-` is standard output, which then has nothing else
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,

    /// Print every node, not only those in trouble
    #[arg(long)]
    every: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| *value > 0.0 && value.is_finite());
    value.ok_or_else(|| "a number greater than 0 is needed, such as 0.01".into())
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let read = args.data.inputs.iter().chain([&args.program]).filter(|path| output::is_standard(path));
    if read.count() > 1 {
        return Err(caller("standard input can be read once; name files for all but one of `-`"));
    }
    if context.json && args.html.as_deref().is_some_and(output::is_standard) {
        return Err(caller("--html - and --json both print to standard output; name a file"));
    }
    let host = shared_with(&context.host().sums(Sums::Defined))?;
    let has_data = args.data.is_given();
    let found = match program::read(&args.program)? {
        Program::Plan(plan) if context.takes(&plan) && !args.all_chips && has_data => {
            let feeds = args.data.fed(&plan)?;
            let _spinner = context.spinner("diagnosing");
            diagnose::diagnose_plan(&host, &plan, &feeds, args.tolerance)
        }
        other if !has_data && !args.all_chips => {
            diagnose::without_data(&other.graph(&args.program)?, &context.options())
        }
        other => {
            let graph = other.graph(&args.program)?;
            let feeds = args.data.fed(&compiled(args, context, &graph)?)?;
            if args.all_chips {
                return all_chips(args, context, (&host, &graph, &feeds), out);
            }
            let _spinner = context.spinner("diagnosing");
            diagnose::diagnose(&host, &graph, &context.options(), &feeds, args.tolerance)
        }
    };
    let found = found.map_err(|error| feeds::named(error, &args.data.inputs))?;
    if page(args, &found.to_html(), out)? {
        return Ok(());
    }
    if context.json {
        return output::print_json(out, &found.to_json());
    }
    print(args, &found, out)
}

/// A program of the graph, whose inputs are those of any other of it: where all chips are asked, of any that compiles. What
/// there is to warn of is part of the report.
fn compiled(args: &Args, context: &Context, graph: &Graph) -> Result<Plan> {
    match compile_graph(graph, &context.options()) {
        Err(_) if args.all_chips => Ok(compile_graph(graph, &CompileOptions::default())?),
        compiled => Ok(compiled?),
    }
}

/// Writes the page, if one is wanted; whether it has taken standard output.
fn page(args: &Args, html: &str, out: &mut dyn Write) -> Result<bool> {
    let Some(path) = &args.html else { return Ok(false) };
    output::save(path, out, |file| file.write_all(html.as_bytes()))?;
    Ok(output::is_standard(path))
}

fn all_chips(
    args: &Args,
    context: &Context,
    (host, graph, feeds): (&Arc<Host>, &Graph, &[Tensor]),
    out: &mut dyn Write,
) -> Result<()> {
    let found = {
        let _spinner = context.spinner("diagnosing for every chip");
        diagnose::on_all_chips(host, graph, &context.options(), feeds, args.tolerance)
            .map_err(|error| feeds::named(error, &args.data.inputs))?
    };
    if page(args, &found.to_html(), out)? {
        return Ok(());
    }
    match context.json {
        true => output::print_json(out, &found.to_json()),
        false => Ok(write!(out, "{found}")?),
    }
}

fn print(args: &Args, found: &Diagnosis, out: &mut dyn Write) -> Result<()> {
    write!(out, "{found}")?;
    if args.every {
        for node in &found.nodes {
            writeln!(out, "  {node}")?;
        }
    }
    Ok(())
}
