//! `aneforge run`: a program on a device, with arrays from files.

use crate::context::Context;
use crate::exit::caller;
use crate::output::{self, counted, grouped, time};
use crate::program;
use crate::timing::{self, Timing};
use aneforge::artifact::{self, ArtifactError};
use aneforge::{DType, Plan, Session, Tensor, TensorType};
use aneforge_formats::map;
use aneforge_tensor::{Bytes, npy, random};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What follows the options in `aneforge help run`.
pub const JSON: &str = "\
JSON keys:
  target, device, numerics   what it was compiled for and ran on
  inputs                     for each: dtype, shape, source
  outputs                    for each: shape, min, mean, max, not_finite (elements left out of the others),
                             file (if written)
  time                       calls, median_us, p10_us; null without --repeat";

/// Run a compiled program or a graph
///
/// Takes a folder that `aneforge compile` wrote, its `model.mil`, or the text of a graph. A compiled
/// program is read back, verified, and compiled for the target again.
#[derive(clap::Args)]
pub struct Args {
    /// A compiled program, its folder, or the text of a graph
    program: PathBuf,

    /// An input as an .npy file; once per input, in their order
    #[arg(short, long = "input", value_name = "FILE.npy")]
    inputs: Vec<PathBuf>,

    /// Feed normally distributed numbers instead (bytes to ports that take bytes)
    #[arg(long, value_name = "SEED", conflicts_with = "inputs")]
    random: Option<u64>,

    /// Folder to write output0.npy and so on to; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Run this many times and report the time per call
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let device = context.device()?;
    let plan = context.compile(&program::open(&args.program)?)?;
    let feeds = feeds(args, &plan)?;
    let mut session = context.session(plan, &*device)?;
    let outputs = session.run(&feeds).map_err(|error| named(error, &args.inputs))?;
    let timing = args.repeat.map(|n| timing::measure(n as usize, || session.execute())).transpose()?;
    let files = args.output.as_deref().map(|folder| save(folder, &outputs)).transpose()?;
    let report =
        Report { session: &session, args, outputs: &outputs, files: files.unwrap_or_default(), timing };
    if context.json {
        return output::print_json(out, &report.json());
    }
    report.print(out)
}

/// An array for every port.
fn feeds(args: &Args, plan: &Plan) -> Result<Vec<Tensor>> {
    if let Some(seed) = args.random {
        return Ok((seed..).zip(&plan.feeds).map(|(seed, feed)| drawn(seed, feed.ty)).collect());
    }
    if args.inputs.len() != plan.feeds.len() {
        let types: Vec<String> = plan.feeds.iter().map(|f| f.ty.to_string()).collect();
        return Err(caller(format!(
            "the program takes {} ({}), got {}; give --input FILE.npy for each, or --random SEED",
            counted(types.len(), "input"),
            types.join(", "),
            args.inputs.len()
        )));
    }
    args.inputs.iter().map(|path| array(path)).collect()
}

fn drawn(seed: u64, ty: TensorType) -> Tensor {
    match ty.dtype {
        DType::U8 => {
            let bytes = (0..ty.shape.count() as u64).map(|i| random::word(seed, i) as u8).collect::<Vec<_>>();
            Tensor::new(DType::U8, ty.shape, Bytes::new(bytes)).expect("invariant: one byte per element")
        }
        _ => random::normal_tensor(seed, ty.shape, 1.0),
    }
}

fn array(path: &Path) -> Result<Tensor> {
    npy::read(&map(path)?).with_context(|| path.display().to_string())
}

/// Says which file an input came from.
fn named(error: aneforge::RunError, files: &[PathBuf]) -> anyhow::Error {
    use aneforge::RunError::{DType, Shape};
    let file = match &error {
        Shape { index, .. } | DType { index, .. } => files.get(*index),
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match file {
        Some(file) => error.context(file.display().to_string()),
        None => error,
    }
}

fn save(folder: &Path, outputs: &[Tensor]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|source| ArtifactError {
        action: "make folder",
        path: folder.to_owned(),
        source,
    })?;
    let mut files = Vec::with_capacity(outputs.len());
    for (i, tensor) in outputs.iter().enumerate() {
        let path = folder.join(format!("output{i}.npy"));
        artifact::replace(&path, |file| npy::write(tensor, file))?;
        files.push(path);
    }
    Ok(files)
}

/// The finite elements of an output in three numbers.
struct Summary {
    min: f32,
    mean: f64,
    max: f32,
    not_finite: usize,
}

fn summary(tensor: &Tensor) -> Summary {
    let values = tensor.to_f32();
    let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let sum: f64 = finite.iter().map(|&v| f64::from(v)).sum();
    Summary {
        min: finite.iter().copied().fold(f32::INFINITY, f32::min),
        mean: sum / finite.len() as f64,
        max: finite.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        not_finite: values.len() - finite.len(),
    }
}

struct Report<'a> {
    session: &'a Session,
    args: &'a Args,
    outputs: &'a [Tensor],
    files: Vec<PathBuf>,
    timing: Option<Timing>,
}

impl Report<'_> {
    fn source(&self, index: usize) -> String {
        match self.args.random {
            Some(seed) => format!("random {}", seed + index as u64),
            None => self.args.inputs.get(index).map_or_else(String::new, |p| p.display().to_string()),
        }
    }

    fn json(&self) -> Value {
        let inputs = self.session.plan().feeds.iter().enumerate().map(|(i, feed)| {
            let mut value = output::type_json(feed.ty);
            value["source"] = self.source(i).into();
            value
        });
        let outputs = self.outputs.iter().enumerate().map(|(i, tensor)| {
            let Summary { min, mean, max, not_finite } = summary(tensor);
            let shape = tensor.shape();
            let mut value = json!({
                "shape": shape.dims(), "min": min, "mean": mean, "max": max, "not_finite": not_finite
            });
            if let Some(file) = self.files.get(i) {
                value["file"] = file.display().to_string().into();
            }
            value
        });
        json!({
            "target": self.session.plan().target.name(),
            "device": self.session.device(),
            "numerics": self.session.numerics().to_string(),
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": outputs.collect::<Vec<_>>(),
            "time": self.timing.map(|t| t.json()),
        })
    }

    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let session = self.session;
        let (device, target, numerics) = (session.device(), session.plan().target, session.numerics());
        writeln!(out, "ran on {device}, compiled for {target}, numerics {numerics}")?;
        for (i, feed) in session.plan().feeds.iter().enumerate() {
            writeln!(out, "  input {i}: {} from {}", feed.ty, self.source(i))?;
        }
        for (i, tensor) in self.outputs.iter().enumerate() {
            let Summary { min, mean, max, not_finite } = summary(tensor);
            write!(out, "  output {i}: {}, min {min}, mean {mean:.6}, max {max}", tensor.shape())?;
            if not_finite > 0 {
                write!(out, ", {not_finite} not finite")?;
            }
            let file = self.files.get(i).map_or_else(String::new, |f| format!(", in {}", f.display()));
            writeln!(out, "{file}")?;
        }
        if let Some(Timing { calls, median, p10 }) = self.timing {
            let calls = grouped(calls as u64);
            writeln!(out, "  {} per call, median of {calls} (p10 {})", time(median), time(p10))?;
        }
        Ok(())
    }
}
