//! `aneforge cache`: the programs that are kept from call to call.

use crate::context::Context;
use crate::exit::file;
use crate::output::{self, counted, grouped, time};
use crate::store::Place;
use aneforge::artifact::{Cache, Checked, Collected, Kept};
use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// What follows the options in `aneforge help cache`.
pub const JSON: &str = "\
JSON keys:
  folder      where the programs lie
  limit       bytes that they may take
  programs    ls and verify, for each, the one used longest ago first: key, path, bytes, idle_s (since it was used), target and
              version (of aneforge; null where the file is damaged), fault (why it cannot be loaded, or null; ls reads the first
              bytes only)
  removed     gc: programs that were removed; freed (their bytes), left, bytes (of those left)";

/// List, bound or check the programs that `--cache` keeps
///
/// Programs lie in the folder `plans` of the cache, each as a file that `run` and `inspect` take, too. Any number of processes
/// may share a cache, and may be killed at any time. What is damaged counts as missing: it is compiled again.
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
    let cache = args.place.open()?;
    match args.action {
        Action::Ls => list(&cache, &cache.list()?, context, out),
        Action::Gc => {
            let done = cache.collect()?;
            if context.json {
                return output::print_json(out, &collected(&cache, done));
            }
            let Collected { removed, freed, left, bytes } = done;
            let (removed, left) = (counted(removed, "program"), counted(left, "program"));
            let (freed, bytes) = (grouped(freed), grouped(bytes));
            Ok(writeln!(out, "removed {removed}, {freed} bytes; {left} left, {bytes} bytes")?)
        }
        Action::Verify => verify(&cache, &cache.verify()?, context, out),
    }
}

fn list(cache: &Cache, all: &[Kept], context: &Context, out: &mut dyn Write) -> Result<()> {
    if context.json {
        let row = |kept: &Kept| program(kept, kept.about.as_ref().err().map(ToString::to_string));
        return output::print_json(out, &machine(cache, all.iter().map(row).collect()));
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
    Ok(writeln!(out, "{count}, {bytes} of {most} bytes, in {folder}")?)
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
