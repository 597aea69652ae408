//! `aneforge compile`: from the text of a graph to a program on disk.

use crate::context::Context;
use crate::exit::caller;
use crate::feeds;
use crate::output::{self, grouped};
use crate::program;
use crate::store;
use aneforge::Plan;
use aneforge::artifact::{self, ArtifactError, EXTENSION, REPORT_FILE, Written};
use aneforge::passes::WeightReport;
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
  weights                     with --compress, for each weight: op, at, shape, encoding, bytes, dense_bytes, error, calibrated
                              (null where nothing was), why
  folders                     folders that hold a program, in the order they run; none where it is one file
  files                       for each file: path, bytes
  report                      path of the report, or null";

/// Compile a graph to a MIL program, its weights and a report
///
/// Writes `model.mil`, `weights.bin` and `report.txt`; of a graph that is cut, those of each segment in a
/// folder of its own; and `aneforge.manifest`, by which `run` notices when they are not those that were
/// compiled together. What an earlier compile left there is replaced in one step, when everything new is
/// complete. Other files stay, and one that is in the way is an error. Needs no device.
///
/// With `-o NAME.aneforge`, all of it is one file, which `run` and `inspect` take, `aneforge::Plan::load` in Rust and
/// `aneforge.load_model` in Python. It is replaced as a whole.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, or a compiled program to compile again for another target; `-` is standard input
    graph: PathBuf,

    /// Folder to write to, made if it is missing; or a file, if its name ends with `.aneforge`
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// With --compress, choose weights by what they are multiplied with when the graph is fed this `.npy` file; once for each
    /// input in their order, and then again for further sets of inputs
    #[arg(long, value_name = "FILE.npy", requires = "compress", conflicts_with = "cache")]
    calibrate: Vec<PathBuf>,

    #[command(flatten)]
    store: store::Use,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    if output::is_standard(&args.output) {
        return Err(caller(
            "a program is several files; name a folder, or print its text with `aneforge inspect --show mil`",
        ));
    }
    let graph = program::open(&args.graph)?;
    let plan = match &args.calibrate[..] {
        [] => context.cached(&graph, args.store.open()?.as_ref())?,
        files => context.calibrated(&graph, &feeds::sets(files, &graph)?)?,
    };
    let one = args.output.extension().is_some_and(|name| name == EXTENSION) && !args.output.is_dir();
    let written = match one {
        true => save(&plan, &args.output)?,
        false => artifact::write(&plan, &args.output)?,
    };
    if context.json {
        return output::print_json(out, &machine(&plan, &written, &args.output));
    }
    write!(out, "{plan}")?;
    for weight in &plan.weights {
        writeln!(out, "  {weight}")?;
    }
    for (path, bytes) in &written.files {
        writeln!(out, "wrote {}, {} bytes", path.display(), grouped(*bytes))?;
    }
    Ok(())
}

/// Writes one file.
fn save(plan: &Plan, path: &Path) -> Result<Written, ArtifactError> {
    plan.save(path)?;
    let about = std::fs::metadata(path);
    let about =
        about.map_err(|source| ArtifactError::Io { action: "read", path: path.to_owned(), source })?;
    Ok(Written { folders: Vec::new(), files: vec![(path.to_owned(), about.len())] })
}

fn machine(plan: &Plan, written: &Written, output: &Path) -> serde_json::Value {
    let file = |(path, bytes): &(PathBuf, u64)| json!({ "path": path, "bytes": bytes });
    let program_bytes: usize = plan.segments.iter().map(|s| s.text().len()).sum();
    json!({
        "target": plan.target.name(),
        "family": plan.target.family().to_string(),
        "ops": plan.n_ops,
        "statements": plan.n_statements(),
        "program_bytes": program_bytes,
        "weight_bytes": plan.weight_bytes(),
        "inputs": plan.feeds.iter().map(|f| output::type_json(f.ty)).collect::<Vec<_>>(),
        "outputs": plan.returned().iter().map(|&(ty, _)| output::type_json(ty)).collect::<Vec<_>>(),
        "weights": plan.weights.iter().map(WeightReport::to_json).collect::<Vec<_>>(),
        "folders": written.folders,
        "files": written.files.iter().map(file).collect::<Vec<_>>(),
        "report": (!written.folders.is_empty()).then(|| output.join(REPORT_FILE)),
    })
}
