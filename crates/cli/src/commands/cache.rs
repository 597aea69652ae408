//! `aneforge cache`: the programs that are kept from call to call.

use crate::context::Context;
use crate::exit::file;
use crate::output::{self, counted, grouped, time};
use crate::store::{self, Place};
use aneforge::artifact::{ArtifactError, Cache, Checked, Collected, Kept};
use aneforge::device::ane::kept;
use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What follows the options in `aneforge help cache`.
pub const JSON: &str = "\
JSON keys:
  folder      where the programs lie
  limit       bytes that they may take
  programs    ls and verify, for each, the one used longest ago first: key, path, bytes, idle_s (since it was used), target and
              version (of aneforge; null where the file is damaged), fault (why it cannot be loaded, or null; ls reads the first
              bytes only)
  engine      ls: programs for the engine (folder, programs, bytes); gc: folder, removed, freed, left, bytes
  removed     gc: programs that were removed; freed (their bytes), left, bytes (of those left)";

/// List, bound or check the programs that `--cache` keeps
///
/// Programs lie in the folder `plans` of the cache, each as a file that `run` and `inspect` take, too. Any number of processes
/// may share a cache, and may be killed at any time. What is damaged counts as missing: it is compiled again. Programs that the
/// engine's compiler has made lie in the folder `engine`; they are kept without --cache, and are counted and bounded by themselves.
#[derive(clap::Args)]
pub struct Args {
    /// What to do
    #[arg(value_enum, ignore_case = true)]
    action: Action,

    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// List the programs, the one used longest ago first
    Ls,
    /// Remove what is damaged, what killed processes have left, and what exceeds the limit (all, with --cache-limit 0)
    Gc,
    /// Read every program as a whole; an error if one cannot be loaded
    Verify,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let (cache, engine) = (args.place.open()?, store::engine(&args.place.folder()?));
    let io = |source| ArtifactError::Io { action: "read folder", path: engine.clone(), source };
    match args.action {
        Action::Ls => {
            let programs = kept::list(&engine).map_err(io)?;
            list((&cache, &engine), &cache.list()?, &programs, context, out)
        }
        Action::Gc => {
            let (done, of_engine) =
                (cache.collect()?, kept::collect(&engine, args.place.limit()).map_err(io)?);
            if context.json {
                let mut value = collected(&cache, done);
                let kept::Collected { removed, freed, left, bytes } = of_engine;
                value["engine"] = json!({ "folder": engine, "removed": removed, "freed": freed, "left": left, "bytes": bytes });
                return output::print_json(out, &value);
            }
            let Collected { removed, freed, left, bytes } = done;
            let (removed, left) = (counted(removed, "program"), counted(left, "program"));
            let (freed, bytes) = (grouped(freed), grouped(bytes));
            writeln!(out, "removed {removed}, {freed} bytes; {left} left, {bytes} bytes")?;
            let kept::Collected { removed, freed, left, bytes } = of_engine;
            let (removed, left) = (counted(removed, "program"), counted(left, "program"));
            let (freed, bytes) = (grouped(freed), grouped(bytes));
            Ok(writeln!(out, "of the engine: removed {removed}, {freed} bytes; {left} left, {bytes} bytes")?)
        }
        Action::Verify => verify(&cache, &cache.verify()?, context, out),
    }
}

fn list(
    (cache, engine): (&Cache, &Path),
    all: &[Kept],
    programs: &[kept::Kept],
    context: &Context,
    out: &mut dyn Write,
) -> Result<()> {
    let of_engine: u64 = programs.iter().map(|program| program.bytes).sum();
    if context.json {
        let row = |kept: &Kept| program(kept, kept.about.as_ref().err().map(ToString::to_string));
        let mut value = machine(cache, all.iter().map(row).collect());
        value["engine"] = json!({ "folder": engine, "programs": programs.len(), "bytes": of_engine });
        return output::print_json(out, &value);
    }
    for kept in all {
        let about = match &kept.about {
            Ok(about) => format!("{}, aneforge {}", about.target, about.library),
            Err(fault) => fault.to_string(),
        };
        let (bytes, idle) = (grouped(kept.bytes), time(idle(kept)));
        writeln!(out, "{} {bytes} bytes, used {idle} ago, {about}", kept.key)?;
    }
    let (count, bytes) = (counted(all.len(), "program"), all.iter().map(|kept| kept.bytes).sum());
    let (bytes, most, folder) = (grouped(bytes), grouped(cache.most()), cache.folder().display());
    writeln!(out, "{count}, {bytes} of {most} bytes, in {folder}")?;
    let (count, bytes) = (counted(programs.len(), "program"), grouped(of_engine));
    Ok(writeln!(out, "of the engine: {count}, {bytes} bytes, in {}", engine.display())?)
}

fn verify(cache: &Cache, all: &[Checked], context: &Context, out: &mut dyn Write) -> Result<()> {
    let damaged = all.iter().filter(|checked| checked.fault.is_some()).count();
    if context.json {
        let row = |checked: &Checked| program(&checked.kept, checked.fault.as_ref().map(ToString::to_string));
        output::print_json(out, &machine(cache, all.iter().map(row).collect()))?;
    } else {
        for checked in all {
            match &checked.fault {
                None => writeln!(out, "{} is whole", checked.kept.key)?,
                Some(fault) => writeln!(out, "{} is not: {fault}", checked.kept.key)?,
            }
        }
    }
    out.flush()?;
    match damaged {
        0 => Ok(()),
        _ => Err(file(format!(
            "{damaged} of {} cannot be loaded; `aneforge cache gc` removes what cannot",
            counted(all.len(), "program")
        ))),
    }
}

/// How long ago a program was used.
fn idle(kept: &Kept) -> Duration {
    kept.used.elapsed().unwrap_or_default()
}

fn program(kept: &Kept, fault: Option<String>) -> Value {
    let about = kept.about.as_ref().ok();
    json!({
        "key": kept.key,
        "path": kept.path,
        "bytes": kept.bytes,
        "idle_s": idle(kept).as_secs_f64(),
        "target": about.map(|about| about.target.as_str()),
        "version": about.map(|about| about.library.as_str()),
        "fault": fault,
    })
}

fn machine(cache: &Cache, programs: Vec<Value>) -> Value {
    json!({ "folder": cache.folder(), "limit": cache.most(), "programs": programs })
}

fn collected(cache: &Cache, done: Collected) -> Value {
    let Collected { removed, freed, left, bytes } = done;
    json!({
        "folder": cache.folder(), "limit": cache.most(), "removed": removed, "freed": freed, "left": left,
        "bytes": bytes,
    })
}
