//! `aneforge doctor`: whether the engine is reached, and whether it does what this library takes from reports.

use crate::context::Context;
use crate::exit::{self, caller};
use crate::output;
use aneforge::Device;
use aneforge::device;
use aneforge::device::ane::{Ane, AneOptions};
use aneforge::doctor::{self, Bench, Chosen, Found, OpCheck, Outcome, Report, Unprobed, Verdict};
use aneforge_ane::Libraries;
use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What follows the options in `aneforge help doctor`.
pub const JSON: &str = "\
JSON keys:
  version, date    of this library, and of the report, in UTC
  target, chosen   the chip that programs were compiled for, and whether it was named, detected or is the default
  device, absent   what programs ran on: host, ane or ane (stand-in); where nothing ran, null and the reason
  machine          platform, processor, family, system, device, folder, and libraries (path, purpose, absent, found, missing,
                   lacking)
  ops              for every case of every op: op, case, text (the types that it takes, and its attributes), verdict (confirmed: as
                   on the host; refuted; not_run: on the host alone, or a process that ended), values, different, ulp, absolute,
                   within, failed
  probes           for each: name, about (the constant), expected, outcome (verdict: confirmed, refuted, measured or not_run;
                   found), and ended (whether its process crashed or took too long)
  unprobed         constants that no probe is about: name, why; empty with --only";

/// Say whether the engine is reached, and whether it does what is reported of it
///
/// Looks at the machine and the system's libraries, compiles and runs every case of every op against the host, and asks of each number
/// that this library takes from reports whether it is so here, for this machine's chip unless --target names another. On a Mac the
/// report turns such numbers into measured ones: please attach its file (--output) to an issue. Without an engine the ops run on the
/// host, which confirms nothing, and it says so; with --standin, everything runs on what stands in for the engine. Each op and each
/// probe runs in a process of its own; some of it takes minutes.
#[derive(clap::Args)]
pub struct Args {
    /// Ops and probes whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,

    /// Also write the report to this file, as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Seconds that a probe, or an op's cases, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// Examine the library that stands in for the engine: this one, or that beside this program
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "")]
    standin: Option<OsString>,

    /// What one process does of it: `op NAME` or `probe NAME`
    #[arg(long, hide = true, num_args = 2, value_names = ["WHAT", "NAME"])]
    part: Option<Vec<String>>,
}

/// The rest that the engine's compiler needs after a failure.
const REST: Duration = Duration::from_secs(15);

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    // One folder for all processes of a report, and no rest that only a failed compile of this process would call for.
    let mut options = AneOptions { blame: false, ..context.engine.clone() };
    if let Some(path) = &args.standin {
        options.libraries = Libraries::all(stand_in(Path::new(path))?);
    }
    let machine = || doctor::machine(&options);
    if let Some(part) = &args.part {
        let bench = bench(args, context, &options)?.map_err(exit::device)?;
        return one(part, &bench, out);
    }
    let report = match bench(args, context, &options)? {
        Ok(bench) => examined(args, context, &bench)?,
        Err(why) => {
            // What is missing is what is asked.
            let machine = machine();
            let (target, chosen) = doctor::target(context.chosen(), machine.processor.as_deref());
            Report { absent: Some(why), device: None, ..empty(target, chosen, machine) }
        }
    };
    let save = |path: &PathBuf, out: &mut dyn Write| {
        output::save(path, out, |to| Ok(serde_json::to_writer_pretty(to, &report)?))
    };
    // A report that cannot be written is printed all the same.
    let saved = args.output.as_ref().map_or(Ok(()), |path| save(path, out));
    match (context.json, args.output.as_deref().is_some_and(output::is_standard)) {
        (_, true) => {}
        (true, _) => output::print_json(out, &serde_json::to_value(&report)?)?,
        (false, _) => write!(out, "{report}")?,
    }
    out.flush()?;
    saved?;
    match (report.absent.as_deref(), report.is_well()) {
        (Some(why), _) => Err(exit::device(why)),
        (None, true) => Ok(()),
        (None, false) => Err(exit::device("the report has what is not as expected")),
    }
}

/// The library that stands in for the engine, as named or beside this program.
fn stand_in(named: &Path) -> Result<PathBuf> {
    if !named.as_os_str().is_empty() {
        return Ok(named.to_owned());
    }
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let folders = program.parent().into_iter().flat_map(|folder| [folder.to_owned(), folder.join("deps")]);
    let names = ["so", "dylib"].map(|extension| format!("libaneforge_standin.{extension}"));
    let mut places = folders.flat_map(|folder| names.clone().map(|name| folder.join(name)));
    let beside = program.parent().unwrap_or(Path::new(".")).display();
    places.find(|path| path.is_file()).ok_or_else(|| {
        caller(format!(
            "there is no stand-in beside this program, in {beside}; build it with `cargo build -p aneforge-ane-standin`, or name it: \
             --standin PATH"
        ))
    })
}

fn empty(target: aneforge::Target, chosen: Chosen, machine: doctor::Machine) -> Report {
    Report {
        version: env!("CARGO_PKG_VERSION").into(),
        date: doctor::now(),
        target: target.name().into(),
        chosen,
        device: None,
        absent: None,
        machine,
        ops: Vec::new(),
        probes: Vec::new(),
        unprobed: Vec::new(),
    }
}

/// What is asked: the engine where there is one, and else the host; or why the engine that is asked for cannot be.
fn bench(args: &Args, context: &Context, options: &AneOptions) -> Result<Result<Bench, String>> {
    let asked = if args.standin.is_some() { Some("ane") } else { context.device_name() };
    if let (Some(_), Some(option)) = (&args.standin, context.elsewhere()) {
        return Err(exit::misuse(format!(
            "--standin names what stands in for the engine, and {option} something else; leave one out"
        )));
    }
    let apple = (std::env::consts::OS, std::env::consts::ARCH) == ("macos", "aarch64");
    let absent = if asked == Some("host") { None } else { doctor::absent(options) };
    let engine = match (asked, absent) {
        (Some("host"), _) => None,
        // A Mac whose engine is not reached is what is to be told, and not how its host does.
        (asked, Some(why)) if asked.is_some() || apple => {
            return Ok(Err(format!("device `ane` is not available: {why}")));
        }
        (_, Some(_)) => None,
        (_, None) => Some(Arc::new(Ane::open(options)?)),
    };
    let device: Arc<dyn Device> = match &engine {
        Some(engine) => Arc::clone(engine) as Arc<dyn Device>,
        None => device::open(Some("host"), &context.host(), options)?,
    };
    let processor = engine.as_ref().and_then(|engine| engine.framework().processor());
    let (target, _) = doctor::target(context.chosen(), processor.as_deref());
    Ok(Ok(Bench { device, engine, options: options.clone(), target }))
}

/// What one process finds out.
fn one(part: &[String], bench: &Bench, out: &mut dyn Write) -> Result<()> {
    let unknown =
        |what: &str| exit::misuse(format!("--part takes `op NAME` or `probe NAME`, and there is no {what}"));
    let line = match part {
        [what, name] if what == "op" => {
            let count = doctor::ops().find(|(op, _)| op == name).map(|(_, count)| count);
            let count = count.ok_or_else(|| unknown(&format!("op {name}")))?;
            let cases =
                (0..count).filter_map(|case| doctor::check_op(&*bench.device, bench.target, name, case));
            serde_json::to_string(&cases.collect::<Vec<_>>())?
        }
        [what, name] if what == "probe" => {
            let outcome = doctor::probe(name, bench).ok_or_else(|| unknown(&format!("probe {name}")))?;
            serde_json::to_string(&outcome)?
        }
        _ => return Err(unknown(&part.join(" "))),
    };
    Ok(writeln!(out, "{line}")?)
}

fn examined(args: &Args, context: &Context, bench: &Bench) -> Result<Report> {
    let chosen = |name: &str| name.contains(&args.only);
    let names: Vec<&str> = doctor::ops().map(|(name, _)| name).filter(|name| chosen(name)).collect();
    let probes: Vec<_> = doctor::probes().filter(|probe| chosen(probe.name)).collect();
    if names.is_empty() && probes.is_empty() {
        return Err(caller(format!("no op and no probe has {:?} in its name", args.only)));
    }
    let bar = output::bar("examining", names.len() + probes.len(), context.is_quiet());
    bar.enable_steady_tick(Duration::from_millis(200));
    let begin = |what: &str, name: &str| {
        bar.set_message(name.to_owned());
        tracing::info!("{what} {name} ({} of {})", bar.position() + 1, names.len() + probes.len());
    };
    let limit = Duration::from_secs(args.limit);
    let real = bench.device.title() == "ane";
    let rest = |failed: bool| {
        if failed && real {
            std::thread::sleep(REST);
        }
    };
    let mut ops = Vec::new();
    for name in &names {
        begin("op", name);
        let cases = apart::<Vec<OpCheck>>("op", name, limit);
        let cases = cases.unwrap_or_else(|why| vec![OpCheck::ended(name, why.to_string())]);
        rest(cases.iter().any(|case| case.failed.is_some()));
        ops.extend(cases);
        bar.inc(1);
    }
    let mut found = Vec::new();
    for probe in &probes {
        begin("probe", probe.name);
        // A process that ended says nothing of what it was about.
        let one = match apart::<Outcome>("probe", probe.name, limit) {
            Ok(outcome) => Found::of(probe, outcome),
            Err(why) => Found::ended(probe, why.to_string()),
        };
        rest(one.ended || matches!(one.outcome.verdict, Verdict::NotRun | Verdict::Refuted));
        found.push(one);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let machine = doctor::machine(&bench.options);
    let processor = bench.engine.as_ref().and_then(|engine| engine.framework().processor());
    let (_, how) = doctor::target(context.chosen(), processor.as_deref());
    let unprobed = if args.only.is_empty() { Unprobed::all() } else { Vec::new() };
    let device = Some(bench.device.title().into());
    Ok(Report { device, ops, probes: found, unprobed, ..empty(bench.target, how, machine) })
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
