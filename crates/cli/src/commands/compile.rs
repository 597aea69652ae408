//! `aneforge compile`: from the text of a graph to a program on disk.

use crate::context::Context;
use crate::output::{self, grouped};
use crate::program;
use aneforge::Plan;
use aneforge::artifact::{self, PROGRAM_FILE, REPORT_FILE, WEIGHTS_FILE};
use anyhow::Result;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What follows the options in `aneforge help compile`.
pub const JSON: &str = "\
JSON keys:
  target, family              the chip compiled for
  ops                         ops of the graph as written
  statements, program_bytes   size of the MIL text
  weight_bytes                size of the weights file
  inputs, outputs             for each: dtype, shape
  folders                     folders that hold a program, in the order they run
  report                      path of the report";

/// Compile a graph to a MIL program, its weights and a report
///
/// Writes `model.mil`, `weights.bin` and `report.txt`. A file is replaced only when its successor is
/// complete. Needs no device.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, or a compiled program to compile again for another target
    graph: PathBuf,

    /// Folder to write to; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let graph = program::open(&args.graph)?;
    let plan = context.compile(&graph)?;
    let folders = artifact::write(&plan, &args.output)?;
    if context.json {
        return output::print_json(out, &machine(&plan, &folders, &args.output));
    }
    write!(out, "{plan}")?;
    for folder in &folders {
        for file in [PROGRAM_FILE, WEIGHTS_FILE] {
            let path = folder.join(file);
            let bytes = path.metadata().map_or(0, |m| m.len());
            writeln!(out, "wrote {}, {} bytes", path.display(), grouped(bytes))?;
        }
    }
    writeln!(out, "wrote {}", args.output.join(REPORT_FILE).display())?;
    Ok(())
}

fn machine(plan: &Plan, folders: &[PathBuf], output: &Path) -> serde_json::Value {
    let program_bytes: usize = plan.segments.iter().map(|s| s.text().len()).sum();
    json!({
        "target": plan.target.name(),
        "family": plan.target.family().to_string(),
        "ops": plan.n_ops,
        "statements": plan.n_statements(),
        "program_bytes": program_bytes,
        "weight_bytes": plan.weight_bytes(),
        "inputs": plan.feeds.iter().map(|f| output::type_json(f.ty)).collect::<Vec<_>>(),
        "outputs": plan.outputs.iter().map(|&(ty, _)| output::type_json(ty)).collect::<Vec<_>>(),
        "folders": folders,
        "report": output.join(REPORT_FILE),
    })
}
