//! `aneforge doctor`: whether the engine is reached, and whether it does what this library takes from reports.

use crate::context::Context;
use crate::exit::caller;
use crate::output;
use aneforge::Device;
use aneforge::device::ane::{Ane, AneOptions};
use aneforge::device::{self, DeviceError};
use aneforge::doctor::{self, Bench, Found, OpCheck, Outcome, PROBES, Report, Verdict};
use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What follows the options in `aneforge help doctor`.
pub const JSON: &str = "\
JSON keys:
  version, device  of this library, and what programs ran on: host, ane or ane (stand-in)
  machine          platform, processor, family, system, device, folder, and libraries (path, absent, found, missing, lacking)
  ops              for every case of every op: op, case, values, different, ulp, absolute, within, failed
  probes           for each: name, about (the constant), expected, and outcome (verdict: confirmed, refuted, measured or not_run;
                   found)";

/// Say whether the engine is reached, and whether it does what is reported of it
///
/// Looks at the machine and the system's libraries, compiles and runs every case of every op against the host, and asks of each number
/// that this library takes from reports whether it is so here. On a Mac the report turns such numbers into measured ones: please
/// attach its file (--output) to an issue. Without an engine it runs on the host, and says so; with --engine-library, on what stands
/// in for the engine. Everything runs in processes of its own; some of it takes minutes.
#[derive(clap::Args)]
pub struct Args {
    /// Ops and probes whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,

    /// Also write the report to this file, as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Seconds that a probe, or an op's cases, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,

    /// What one process does of it: `op NAME` or `probe NAME`
    #[arg(long, hide = true, num_args = 2, value_names = ["WHAT", "NAME"])]
    part: Option<Vec<String>>,
}

/// The rest that the engine's compiler needs after a failure.
const REST: Duration = Duration::from_secs(15);

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let bench = match bench(context) {
        Ok(bench) => bench,
        Err(error) if args.part.is_none() => {
            // What is missing is what is asked.
            let machine = doctor::machine(&context.engine);
            match context.json {
                true => output::print_json(out, &serde_json::json!({ "machine": machine }))?,
                false => write!(out, "{machine}")?,
            }
            out.flush()?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if let Some(part) = &args.part {
        return one(part, &bench, out);
    }
    let report = examined(args, context, &bench)?;
    if let Some(path) = &args.output {
        output::save(path, out, |to| Ok(serde_json::to_writer_pretty(to, &report)?))?;
    }
    match context.json {
        true => output::print_json(out, &serde_json::to_value(&report)?)?,
        false => write!(out, "{report}")?,
    }
    out.flush()?;
    match report.is_well() {
        true => Ok(()),
        false => Err(DeviceError::Failed { why: "the report has what is not as expected".into() }.into()),
    }
}

/// What is asked: the engine where there is one, and else the host.
fn bench(context: &Context) -> Result<Bench> {
    // One folder for all processes of a report, and no rest that only a failed compile of this process would call for.
    let options = AneOptions { blame: false, ..context.engine.clone() };
    let engine = match context.device_name() {
        Some("host") => None,
        asked => match Ane::open(&options) {
            Ok(engine) => Some(Arc::new(engine)),
            Err(error) if asked.is_some() => return Err(error.into()),
            Err(_) => None,
        },
    };
    let device: Arc<dyn Device> = match &engine {
        Some(engine) => Arc::clone(engine) as Arc<dyn Device>,
        None => device::open(Some("host"), &context.host(), &options)?,
    };
    Ok(Bench { device, engine, options, target: context.target })
}

/// What one process finds out.
fn one(part: &[String], bench: &Bench, out: &mut dyn Write) -> Result<()> {
    let [what, name] = part else { return Err(caller("doctor: --part takes two words")) };
    let line = match what.as_str() {
        "op" => {
            let count = doctor::ops().find(|(op, _)| op == name).map_or(0, |(_, count)| count);
            let cases =
                (0..count).filter_map(|case| doctor::check_op(&*bench.device, bench.target, name, case));
            serde_json::to_string(&cases.collect::<Vec<_>>())?
        }
        _ => {
            let outcome = doctor::probe(name, bench);
            serde_json::to_string(&outcome.with_context(|| format!("there is no probe {name}"))?)?
        }
    };
    Ok(writeln!(out, "{line}")?)
}

fn examined(args: &Args, context: &Context, bench: &Bench) -> Result<Report> {
    let chosen = |name: &str| name.contains(&args.only);
    let names: Vec<&str> = doctor::ops().map(|(name, _)| name).filter(|name| chosen(name)).collect();
    let probes: Vec<_> = PROBES.iter().filter(|probe| chosen(probe.name)).collect();
    if names.is_empty() && probes.is_empty() {
        return Err(caller(format!("no op and no probe has {:?} in its name", args.only)));
    }
    let bar = output::bar("examining", names.len() + probes.len(), context.is_quiet());
    let limit = Duration::from_secs(args.limit.max(1));
    let real = bench.device.title() == "ane";
    let rest = |failed: bool| {
        if failed && real {
            std::thread::sleep(REST);
        }
    };
    let mut ops = Vec::new();
    for name in names {
        bar.set_message(name);
        match apart::<Vec<OpCheck>>("op", name, limit) {
            Ok(cases) => {
                rest(cases.iter().any(|case| case.failed.is_some()));
                ops.extend(cases);
            }
            Err(why) => {
                rest(true);
                let nothing =
                    OpCheck { op: name.into(), failed: Some(why.to_string()), ..OpCheck::default() };
                ops.push(nothing);
            }
        }
        bar.inc(1);
    }
    let mut found = Vec::new();
    for probe in probes {
        bar.set_message(probe.name);
        let outcome = apart::<Outcome>("probe", probe.name, limit);
        let outcome =
            outcome.unwrap_or_else(|why| Outcome { verdict: Verdict::Refuted, found: why.to_string() });
        rest(outcome.verdict == Verdict::NotRun || outcome.verdict == Verdict::Refuted);
        found.push(Found::of(probe, outcome));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (version, device) = (env!("CARGO_PKG_VERSION").into(), bench.device.title().into());
    Ok(Report { version, device, machine: doctor::machine(&bench.options), ops, probes: found })
}

/// What another process of this program, with the same options, finds out.
fn apart<T: DeserializeOwned>(what: &str, name: &str, limit: Duration) -> Result<T> {
    let program = std::env::current_exe().context("the path of this program is not known")?;
    // The options of this command line, and in the place of what is to be written and shown, the part.
    let mut words: Vec<OsString> = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(word) = given.next() {
        match word.to_str() {
            Some("-o" | "--output" | "--only" | "--limit") => _ = given.next(),
            Some("--json") => {}
            _ => words.push(word),
        }
    }
    let spawned = Command::new(program)
        .args(words)
        .args(["--part", what, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.context("another process cannot be started")?;
    // What it prints is less than a pipe holds, but for what libraries say.
    let error = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        error.map(|mut error| std::io::Read::read_to_end(&mut error, &mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let output = child.stdout.take();
    let line = std::thread::spawn(move || {
        let mut text = Vec::new();
        output.map(|mut output| std::io::Read::read_to_end(&mut output, &mut text));
        text
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => {
                _ = child.kill();
                _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (line, said) = (line.join().unwrap_or_default(), said.join().unwrap_or_default());
    let Some(status) = status else {
        anyhow::bail!("it took more than {} s, and was ended", limit.as_secs())
    };
    let last = said.lines().last().unwrap_or_default().to_owned();
    if !status.success() {
        anyhow::bail!("its process ended with {status}: {last}");
    }
    serde_json::from_slice(&line)
        .with_context(|| format!("its process answered nothing that is understood: {last}"))
}
