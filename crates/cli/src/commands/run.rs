//! `aneforge run`: a program on a device, with arrays from files.

use crate::context::Context;
use crate::exit::caller;
use crate::feeds;
use crate::output::{self, grouped, time};
use crate::program;
use crate::store;
use crate::timing::{self, Timing};
use aneforge::artifact::{self, ArtifactError};
use aneforge::ir::graph::InputInfo;
use aneforge::ir::ops::leaf::Role;
use aneforge::profile::{Profile, ProfiledStep};
use aneforge::{Session, Tensor};
use aneforge_tensor::npy;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What follows the options in `aneforge help run`.
pub const JSON: &str = "\
JSON keys:
  target, device, numerics   what it was compiled for and ran on
  inputs                     for each: dtype, shape, source
  outputs                    for each: shape; min, mean, max of the finite elements, null if there are none;
                             not_finite (the number of others); file (if written)
  overflows                  nodes that made infinities or NaN of finite operands: op, at (the line that built it), values (in
                             the first call in which it did), calls
  time                       calls, median_us, p10_us; null without --repeat
  profile                    calls; steps: segment, name, result, us, flops, bytes, of_roof (the least time that the
                             machine allows over the time); null without --profile";

/// Run a compiled program or a graph
///
/// Takes a file or folder that `aneforge compile` wrote, the `model.mil` of one, or the text of a graph. A compiled
/// program runs as it is, for the chip that it was compiled for, unless options ask for another; then, if it is in one
/// segment, it is compiled again. The text of a program is read back, verified, and compiled again in any case.
#[derive(clap::Args)]
pub struct Args {
    /// A compiled program, its folder, or the text of a graph; `-` is standard input
    program: PathBuf,

    /// An input as an .npy file, or `-` for standard input; once per input, in their order
    #[arg(short, long = "input", value_name = "FILE.npy")]
    inputs: Vec<PathBuf>,

    /// Feed normally distributed numbers instead (bytes to ports that take bytes)
    #[arg(long, value_name = "SEED", conflicts_with = "inputs")]
    random: Option<u64>,

    /// Folder to write output0.npy and so on to; made if it is missing. `-` writes the one output of a program
    /// to standard output, which then has nothing else
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Keep state in this file: it is read before the run, if it is there, and written after it; runs that --repeat and
    /// --profile measure do not count. State is then no input
    #[arg(long, value_name = "FILE.safetensors")]
    state: Option<PathBuf>,

    /// Run this many times and report the time per call
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,

    /// Say where the time goes: each step's time, FLOP/s and bytes/s, and how near it comes to what this machine can
    /// do, as medians of as many calls as --repeat says (20)
    #[arg(long)]
    profile: bool,

    /// Profile, and write it as a trace for Perfetto or chrome://tracing; `-` is standard output, which then has
    /// nothing else
    #[arg(long, value_name = "FILE.json")]
    profile_trace: Option<PathBuf>,

    /// Profile, and write it as a picture; `-` is standard output, which then has nothing else
    #[arg(long, value_name = "FILE.svg")]
    profile_svg: Option<PathBuf>,

    #[command(flatten)]
    store: store::Use,
}

impl Args {
    /// Where programs are kept.
    pub fn folder(&self) -> Result<PathBuf> {
        self.store.folder()
    }
}

/// Calls that a profile is made of when nothing is said.
const PROFILED: u32 = 20;

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let read = args.inputs.iter().chain([&args.program]).filter(|path| output::is_standard(path));
    if read.count() > 1 {
        return Err(caller("standard input can be read once; name files for all but one of `-`"));
    }
    let printed = printed(args, context)?;
    let device = context.device()?;
    let cache = args.store.open()?;
    let plan = program::read(&args.program)?.plan(&args.program, context, cache.as_ref())?;
    if printed == Some("--output") && plan.returned().len() != 1 {
        let count = plan.returned().len();
        return Err(caller(format!("--output - takes one output, the program has {count}; name a folder")));
    }
    let inputs = if args.state.is_some() { feeds::without_state(&plan) } else { plan.feeds.clone() };
    let feeds = args.random.is_none().then(|| feeds::from_files(&args.inputs, &inputs)).transpose()?;
    let mut session = context.session(plan, &device)?;
    // Random feeds wait until loading has found room for what is run.
    let feeds = feeds.map_or_else(|| feeds::drawn(args.random.unwrap_or_default(), &inputs), Ok)?;
    if let Some(path) = args.state.as_deref().filter(|path| path.exists()) {
        artifact::load_state(&mut session, path)?;
    }
    let run = if args.state.is_some() { session.run(&feeds) } else { session.run_all(&feeds) };
    let outputs = run.map_err(|error| feeds::named(error, &args.inputs))?;
    drop(feeds);
    let after = session.snapshot()?;
    let timing = args.repeat.map(|n| timing::measure(n as usize, || session.execute())).transpose()?;
    session.restore(&after)?;
    let profile = profile(args, &mut session, out)?;
    if let Some(path) = &args.state {
        artifact::save_state(&session, path)?;
    }
    if let ([output], Some("--output")) = (&outputs[..], printed) {
        return Ok(npy::write(output, out)?);
    }
    let files = args.output.as_deref().map(|folder| save(folder, &outputs)).transpose()?;
    if printed.is_some() {
        return Ok(());
    }
    let report = Report {
        session: &session,
        args,
        outputs: &outputs,
        files: files.unwrap_or_default(),
        timing,
        profile,
    };
    if context.json {
        return output::print_json(out, &report.json());
    }
    report.print(out)
}

/// Where the time goes, if that was asked for, also in the files that were named.
fn profile(args: &Args, session: &mut Session, out: &mut dyn Write) -> Result<Option<Profile>> {
    let files = args.profile_trace.iter().chain(&args.profile_svg);
    if !args.profile && files.count() == 0 {
        return Ok(None);
    }
    let profile = session.profile(args.repeat.unwrap_or(PROFILED) as usize)?;
    if let Some(path) = &args.profile_trace {
        output::save(path, out, |file| writeln!(file, "{:#}", profile.to_trace()))?;
    }
    if let Some(path) = &args.profile_svg {
        output::save(path, out, |file| file.write_all(profile.to_svg().as_bytes()))?;
    }
    Ok(Some(profile))
}

/// The option that takes standard output from the report, if one does. No two can.
fn printed(args: &Args, context: &Context) -> Result<Option<&'static str>> {
    let files = [
        ("--output", &args.output),
        ("--profile-trace", &args.profile_trace),
        ("--profile-svg", &args.profile_svg),
    ];
    let mut there = files.into_iter().filter(|(_, path)| path.as_deref().is_some_and(output::is_standard));
    let Some((first, _)) = there.next() else { return Ok(None) };
    let file = if first == "--output" { "folder" } else { "file" };
    let (second, remedy) = match there.next() {
        _ if context.json => ("--json".to_owned(), ""),
        Some((second, _)) => (format!("{second} -"), " for one"),
        None if args.profile && first == "--output" => {
            ("--profile".to_owned(), ", or use --profile-trace or --profile-svg")
        }
        None if args.profile => ("--profile".to_owned(), ""),
        None => return Ok(Some(first)),
    };
    Err(caller(format!("{first} - and {second} both print to standard output; name a {file}{remedy}")))
}

fn save(folder: &Path, outputs: &[Tensor]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|source| ArtifactError::Io {
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

/// An output in a few numbers.
struct Summary {
    /// The smallest, mean and greatest of its finite elements, if it has any.
    finite: Option<(f32, f64, f32)>,
    not_finite: usize,
}

fn summary(tensor: &Tensor) -> Summary {
    let values: &[f32] = tensor.as_slice().expect("invariant: sessions return single precision");
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (count, sum) = (finite().count(), finite().map(f64::from).sum::<f64>());
    let (min, max) = (finite().reduce(f32::min), finite().reduce(f32::max));
    Summary {
        finite: min.zip(max).map(|(min, max)| (min, sum / count as f64, max)),
        not_finite: values.len() - count,
    }
}

fn profile_json(profile: &Profile) -> Value {
    let steps = profile.steps.iter().map(|ProfiledStep { segment, step }| {
        json!({
            "segment": segment, "name": step.name, "result": step.ty.to_string(),
            "us": step.time.as_secs_f64() * 1e6, "flops": step.flops, "bytes": step.bytes,
            "of_roof": profile.share(step),
        })
    });
    json!({ "calls": profile.calls, "steps": steps.collect::<Vec<_>>() })
}

struct Report<'a> {
    session: &'a Session,
    args: &'a Args,
    outputs: &'a [Tensor],
    files: Vec<PathBuf>,
    timing: Option<Timing>,
    profile: Option<Profile>,
}

impl Report<'_> {
    /// Inputs that were given, with their numbers.
    fn given(&self) -> impl Iterator<Item = (usize, &InputInfo)> {
        let kept = |feed: &InputInfo| self.args.state.is_some() && feed.role != Role::Feed;
        self.session.plan().feeds.iter().filter(move |feed| !kept(feed)).enumerate()
    }

    fn source(&self, index: usize) -> String {
        match self.args.random {
            Some(seed) => format!("random {}", seed.wrapping_add(index as u64)),
            None => self.args.inputs.get(index).map_or_else(String::new, |path| program::name(path)),
        }
    }

    fn json(&self) -> Value {
        let inputs = self.given().map(|(i, feed)| {
            let mut value = output::type_json(feed.ty);
            value["source"] = self.source(i).into();
            value
        });
        let outputs = self.outputs.iter().enumerate().map(|(i, tensor)| {
            let Summary { finite, not_finite } = summary(tensor);
            let (min, mean, max) = finite.map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
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
            "overflows": self.session.overflows().map(output::overflow_json).collect::<Vec<_>>(),
            "time": self.timing.map(|t| t.json()),
            "profile": self.profile.as_ref().map(profile_json),
        })
    }

    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let session = self.session;
        let (device, target, numerics) = (session.device(), session.plan().target, session.numerics());
        writeln!(out, "ran on {device}, compiled for {target}, numerics {numerics}")?;
        for (i, feed) in self.given() {
            writeln!(out, "  input {i}: {} from {}", feed.ty, self.source(i))?;
        }
        for (i, tensor) in self.outputs.iter().enumerate() {
            let Summary { finite, not_finite } = summary(tensor);
            write!(out, "  output {i}: {}", tensor.shape())?;
            match finite {
                Some((min, mean, max)) => write!(out, ", min {min}, mean {mean:.6}, max {max}")?,
                None => write!(out, ", no finite element")?,
            }
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
        if let Some(profile) = &self.profile {
            write!(out, "{profile}")?;
        }
        Ok(())
    }
}
