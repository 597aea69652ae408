//! `aneforge check`: what a chip makes of a graph.

use crate::context::Context;
use crate::output::{self, counted};
use crate::program;
use aneforge::compile::compile_graph;
use aneforge::ir::graph::Graph;
use aneforge::passes::{NodeReport, Noticed, Preflight, notices, preflight};
use aneforge::{CompileError, CompileOptions, Family, Target};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// What follows the options in `aneforge help check`.
pub const JSON: &str = "\
JSON keys:
  checks  for each chip: target, family, native (how many nodes), decompose, reject and oversize (for each node: op,
          shape, at, why), ok (nothing rejected or too large), notices (for each: op, at, why, warning: whether results
          or the compile may be wrong), compiles, error (why not, or null)";

/// Say whether a chip can run a graph, and what it does in its own way
///
/// First from tables, node by node: which the chip's family computes, which are written with others, which are too large for
/// it. Then by compiling; a chip that the graph does not compile for is an error, but with --all. These are this project's
/// checks, not the vendor's compiler.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, a compiled program, or its folder; `-` is standard input
    graph: PathBuf,

    /// For one chip of every family, instead of the one of --target
    #[arg(long)]
    all: bool,
}

/// What is known of a graph on a chip.
struct Check {
    target: Target,
    report: Preflight,
    notices: Vec<Noticed>,
    error: Option<CompileError>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let graph = program::open(&args.graph)?;
    let chips: Vec<Target> = match args.all {
        true => Family::ALL.into_iter().filter_map(Family::representative).collect(),
        false => vec![context.target],
    };
    let checks: Vec<Check> = chips.into_iter().map(|target| check(&graph, target, context)).collect();
    match context.json {
        true => {
            let checks: Vec<Value> = checks.iter().map(Check::json).collect();
            output::print_json(out, &json!({ "checks": checks }))?;
        }
        false => checks.iter().try_for_each(|check| check.print(args.all, out))?,
    }
    out.flush()?;
    match checks.into_iter().next().and_then(|check| check.error) {
        Some(error) if !args.all => Err(error.into()),
        _ => Ok(()),
    }
}

fn check(graph: &Graph, target: Target, context: &Context) -> Check {
    let _spinner = context.spinner("compiling");
    Check {
        target,
        report: preflight(graph, target.family()),
        notices: notices(graph, target),
        error: compile_graph(graph, &CompileOptions { target, ..context.options() }).err(),
    }
}

impl Check {
    /// Prints it, with why it does not compile where that is not said of the command itself.
    fn print(&self, all: bool, out: &mut dyn Write) -> std::io::Result<()> {
        let Check { target, report, notices, error } = self;
        let verdict = if error.is_none() { "compiles" } else { "does not compile" };
        writeln!(out, "{target} ({}): {verdict}", target.family())?;
        let count = |rows: &[NodeReport]| rows.len();
        writeln!(
            out,
            "  {} computed, {} written with others, {} rejected, {} too large",
            counted(count(&report.native), "node"),
            count(&report.decompose),
            count(&report.reject),
            count(&report.oversize)
        )?;
        for (what, rows) in [
            ("written with others", &report.decompose),
            ("rejected", &report.reject),
            ("too large", &report.oversize),
        ] {
            for node in rows {
                let NodeReport { op, shape, at, .. } = node;
                let why = node.why(report.family).filter(|_| what != "written with others");
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                writeln!(out, "  {what}: {op} {shape}{why} (at {at})")?;
            }
        }
        for Noticed { kind, op, at, why } in notices {
            let what = if kind.is_warning() { "warning" } else { "note" };
            writeln!(out, "  {what}: {op} {why} (at {at})")?;
        }
        error.iter().filter(|_| all).try_for_each(|error| writeln!(out, "  error: {error}"))
    }

    fn json(&self) -> Value {
        let Check { target, report, notices, error } = self;
        let row = |n: &NodeReport| {
            let at = n.at.to_string();
            json!({ "op": n.op, "shape": n.shape.dims(), "at": at, "why": n.why(report.family) })
        };
        let rows = |list: &[NodeReport]| list.iter().map(row).collect::<Vec<_>>();
        let notice = |n: &Noticed| {
            let warning = n.kind.is_warning();
            json!({ "op": n.op, "at": n.at.to_string(), "why": n.why, "warning": warning })
        };
        json!({
            "target": target.name(),
            "family": target.family().to_string(),
            "native": report.native.len(),
            "decompose": rows(&report.decompose),
            "reject": rows(&report.reject),
            "oversize": rows(&report.oversize),
            "ok": report.ok(),
            "notices": notices.iter().map(notice).collect::<Vec<_>>(),
            "compiles": error.is_none(),
            "error": error.as_ref().map(ToString::to_string),
        })
    }
}
