//! `aneforge index`: folders of texts or pictures to a file that is searched.

use crate::context::Context;
use crate::exit::caller;
use crate::output::{self, counted};
use aneforge_models::resolve::{HubOptions, truth};
use aneforge_search::{Index, Kind, Model, ModelOptions, Progress, Report, Wanted, build};
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What follows the options in `aneforge help index`.
pub const JSON: &str = "\
JSON keys:
  index                   the file
  kind                    texts or pictures
  model, title            what makes the vectors
  target, device          what it was compiled for and ran on
  files, rows             files that are in it, and their passages or pictures
  added, changed, removed files since it was made before
  skipped                 files that could not be read: path, why";

/// Make an index of folders of texts or pictures, or bring it up to date
///
/// Texts are taken in passages, each of whole paragraphs or sentences where that is possible. An index that is there is brought up
/// to date: files that are as they were keep their vectors, others are read, and those that are gone are left out. What is done is
/// written about once a minute, and whole; whoever stops it goes on by calling it again.
#[derive(clap::Args)]
pub struct Args {
    /// The index, a safetensors file
    #[arg(value_name = "INDEX")]
    index: PathBuf,

    /// Folders, and files; of an index that is there more of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// What makes vectors: a sentence encoder, or with --pictures CLIP, SigLIP or another network that looks at pictures; by its
    /// directory or hub id. Of an index that is there, where its model is now
    #[arg(short, long, value_name = "DIR_OR_HUB_ID")]
    model: Option<String>,

    /// Take pictures instead of texts
    #[arg(long)]
    pictures: bool,

    /// Take files with these endings from folders [default: txt,md,markdown,rst,adoc,org,tex or png,jpg,jpeg,webp,bmp]
    #[arg(long, value_name = "ENDING", value_delimiter = ',')]
    endings: Vec<String>,

    /// The most bytes of a passage [default: 1000]
    #[arg(long, value_name = "BYTES", value_parser = RangedU64ValueParser::<usize>::new().range(16..=1 << 20))]
    passage: Option<usize>,

    /// Make it anew, and look at nothing of the index that is there
    #[arg(long)]
    rebuild: bool,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let before = match args.rebuild || !args.index.exists() {
        true => None,
        false => Some(Index::open(&args.index)?),
    };
    let wanted = wanted(args, before.as_ref())?;
    let mut model = Model::open(&wanted.model, wanted.kind, model_options(context, args.offline)?)?;
    let bar = context.bar(if wanted.kind == Kind::Texts { "reading" } else { "looking" }, 0);
    let mut tell = |progress: Progress| {
        bar.set_length(progress.files as u64);
        bar.set_position(progress.done as u64);
        ControlFlow::Continue(())
    };
    let report = build(&args.index, &mut model, &wanted, before.as_ref(), &mut tell);
    bar.finish_and_clear();
    let report = report?;
    if context.json {
        let skipped = report
            .skipped
            .iter()
            .map(|(path, why)| json!({ "path": path.display().to_string(), "why": why }));
        let value = json!({
            "index": args.index.display().to_string(),
            "kind": wanted.kind.to_string(),
            "model": wanted.model,
            "title": model.title(),
            "target": model.target().name(),
            "device": model.device().title(),
            "files": report.files,
            "rows": report.rows,
            "added": report.added,
            "changed": report.changed,
            "removed": report.removed,
            "skipped": skipped.collect::<Vec<_>>(),
        });
        return output::print_json(out, &value);
    }
    let Report { files, rows, added, changed, removed, skipped } = report;
    let things = counted(rows, if wanted.kind == Kind::Texts { "passage" } else { "picture" });
    let files = counted(files, "file");
    writeln!(
        out,
        "{}: {things} of {files} ({added} new, {changed} changed, {removed} gone)",
        args.index.display()
    )?;
    for (_, why) in skipped {
        writeln!(out, "left out: {why}")?;
    }
    Ok(())
}

/// What is asked for, and for the rest what an index that is there says.
fn wanted(args: &Args, before: Option<&Index>) -> Result<Wanted> {
    let asked = if args.pictures { Kind::Pictures } else { Kind::Texts };
    let Some(about) = before.map(Index::about) else {
        let Some(model) = args.model.clone() else {
            return Err(caller("a new index needs --model, which makes its vectors"));
        };
        if args.paths.is_empty() {
            return Err(caller("a new index needs folders or files; name some"));
        }
        let (roots, endings) = (args.paths.clone(), args.endings.clone());
        let passage = args.passage.unwrap_or(Wanted::default().passage);
        return Ok(Wanted { model, kind: asked, roots, endings, passage });
    };
    let other = args.pictures && about.kind == Kind::Texts
        || args.passage.is_some_and(|passage| passage != about.passage)
        || !args.endings.is_empty() && args.endings != about.endings;
    if other {
        let (kind, passage, endings) = (about.kind, about.passage, about.endings.join(","));
        return Err(caller(format!(
            "the index that is there is one of {kind}, of up to {passage} bytes, in files that end in {endings}; leave that out, or \
             give --rebuild"
        )));
    }
    let mut roots = about.roots.clone();
    roots.extend(args.paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())));
    roots.sort();
    roots.dedup();
    let model = args.model.clone().unwrap_or_else(|| about.model.clone());
    Ok(Wanted { model, kind: about.kind, roots, endings: about.endings.clone(), passage: about.passage })
}

/// How a model is loaded by the global options.
pub(super) fn model_options(context: &Context, offline: bool) -> Result<ModelOptions> {
    Ok(ModelOptions {
        target: context.target,
        device: Some(context.device()?),
        hub: HubOptions { offline, progress: context.progress(), ..HubOptions::default() },
    })
}
