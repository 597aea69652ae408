//! `aneforge search`: what of an index is nearest to words, or to a picture.

use super::index::model_options;
use crate::context::Context;
use crate::output::{self, counted};
use aneforge_models::resolve::truth;
use aneforge_models::vision::Picture;
use aneforge_search::{Hit, Index, Kind, Model};
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// What follows the options in `aneforge help search`.
pub const JSON: &str = "\
JSON keys:
  index, kind, rows       the file, texts or pictures, and how many passages or pictures it has
  model, title            what makes the vectors
  target, device          what it was compiled for and ran on; absent without a question
  files, roots            how many files there are, and where was looked
  hits                    what was found, the nearest first: score, path, and of a passage line, start, length (in bytes) and text
                          (null where the file has changed)";

/// Look for passages or pictures by what they mean, in an index that `index` has made
///
/// Without a question it says what the index holds.
#[derive(clap::Args)]
pub struct Args {
    /// The index
    #[arg(value_name = "INDEX")]
    index: PathBuf,

    /// What is looked for, in words
    #[arg(value_name = "QUESTION")]
    question: Option<String>,

    /// Look for what is like this picture
    #[arg(long, value_name = "FILE", conflicts_with = "question")]
    picture: Option<PathBuf>,

    /// Print so many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: usize,

    /// Compare bytes first: half as much is read, and what is as near as bytes are coarse may be missed
    #[arg(long)]
    quantized: bool,

    /// Where the model of the index is now
    #[arg(short, long, value_name = "DIR_OR_HUB_ID")]
    model: Option<String>,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let index = Index::open(&args.index)?;
    let about = index.about();
    let mut value = json!({
        "index": args.index.display().to_string(),
        "kind": about.kind.to_string(),
        "model": about.model,
        "title": about.title,
        "files": index.files().len(),
        "rows": index.rows(),
        "roots": about.roots,
    });
    if args.question.is_none() && args.picture.is_none() {
        if context.json {
            return output::print_json(out, &value);
        }
        let thing = if about.kind == Kind::Texts { "passage" } else { "picture" };
        let (rows, files) = (counted(index.rows(), thing), counted(index.files().len(), "file"));
        writeln!(out, "{}: {rows} of {files}", args.index.display())?;
        writeln!(out, "by {}, {}", about.model, about.title)?;
        for root in &about.roots {
            writeln!(out, "from {}", root.display())?;
        }
        return Ok(());
    }
    let name = args.model.as_deref().unwrap_or(&about.model);
    let mut model = Model::open(name, about.kind, model_options(context, args.offline)?)?;
    about.is_of(&model)?;
    let query = match &args.picture {
        Some(picture) => {
            model.picture(&Picture::open(picture).map_err(aneforge_models::vision::VisionError::from)?)?
        }
        None => model.text(args.question.as_deref().unwrap_or_default())?,
    };
    let hits = match args.quantized {
        true => index.nearly(&query, args.top)?,
        false => index.nearest(&query, args.top)?,
    };
    if context.json {
        value["target"] = model.target().name().into();
        value["device"] = model.device().title().into();
        value["hits"] = hits.iter().map(|hit| row(&index, hit)).collect();
        return output::print_json(out, &value);
    }
    for hit in hits {
        match about.kind {
            Kind::Pictures => writeln!(out, "{:6.3}  {}", hit.score, hit.path.display())?,
            Kind::Texts => {
                writeln!(out, "{:6.3}  {}:{}", hit.score, hit.path.display(), hit.line)?;
                writeln!(
                    out,
                    "        {}",
                    start(&index.words(&hit).unwrap_or_else(|why| format!("({why})")))
                )?;
            }
        }
    }
    Ok(())
}

fn row(index: &Index, hit: &Hit) -> Value {
    let mut value = json!({ "score": hit.score, "path": hit.path.display().to_string() });
    if index.about().kind == Kind::Texts {
        value["line"] = hit.line.into();
        value["start"] = hit.start.into();
        value["length"] = hit.length.into();
        value["text"] = index.words(hit).ok().into();
    }
    value
}

/// The beginning of a text on one line.
fn start(text: &str) -> String {
    const MOST: usize = 160;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
        None => line,
    }
}
