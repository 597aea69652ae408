//! `aneforge rerank`: which documents go best with a query.

use crate::commands::embed::{shortened, texts};
use crate::context::Context;
use crate::exit::caller;
use crate::output;
use aneforge::passes::Form;
use aneforge_models::resolve::{HubOptions, truth};
use aneforge_models::{CrossEncoder, CrossEncoderOptions};
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;

/// What follows the options in `aneforge help rerank`.
pub const JSON: &str = "\
JSON keys:
  model, target, device   what was loaded, compiled for and ran on
  query                   what documents were compared with
  ranked                  for each document, the best first: index (its place, from 0), score, text";

/// Rank documents by how well they go with a query, with a pretrained reranker
///
/// Prints scores, the best first: what the model's head gives, not made probabilities. Of a pair that is too long for the model,
/// the end of the longer text is cut off.
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, tokenizer.json and model.safetensors, or a hub id such as
    /// cross-encoder/ms-marco-MiniLM-L6-v2
    #[arg(short, long, value_name = "DIR_OR_HUB_ID")]
    model: String,

    /// What is looked for
    #[arg(value_name = "QUERY")]
    query: String,

    /// The documents, or `-` for one per line of standard input, blank lines included
    #[arg(value_name = "DOCUMENT", required = true)]
    documents: Vec<String>,

    /// Print so many of the best only
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: Option<usize>,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let documents = texts(&args.documents)?;
    let int8 = match context.compression.map(|compression| compression.form) {
        None => false,
        Some(Form::Int8) => true,
        Some(_) => {
            return Err(caller(
                "a reranker's weights are stored in half precision or as int8; give --compress int8",
            ));
        }
    };
    let options = CrossEncoderOptions {
        int8,
        target: context.target,
        device: Some(context.device()?),
        hub: HubOptions { offline: args.offline, progress: context.progress(), ..HubOptions::default() },
        ..CrossEncoderOptions::default()
    };
    let mut reranker = CrossEncoder::load(&args.model, options)?;
    if reranker.labels() != 1 {
        let labels = reranker.labels();
        return Err(caller(format!("the model has {labels} labels, and ranks need one; name a reranker")));
    }
    let pairs: Vec<(&str, &str)> =
        documents.iter().map(|document| (&args.query[..], &document[..])).collect();
    let bar = context.bar("scoring", pairs.len());
    let scores = reranker.predict_with(&pairs, &mut |done, _| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let mut ranked: Vec<(usize, f32)> = scores?.iter().map(|scores| scores[0]).enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(args.top.unwrap_or(usize::MAX));
    if context.json {
        let rows = ranked
            .iter()
            .map(|(index, score)| json!({ "index": index, "score": score, "text": documents[*index] }));
        let value = json!({
            "model": args.model,
            "target": reranker.target().name(),
            "device": reranker.device().title(),
            "query": args.query,
            "ranked": rows.collect::<Vec<_>>(),
        });
        return output::print_json(out, &value);
    }
    for (index, score) in ranked {
        writeln!(out, "{score:9.4} {:4}  {}", index + 1, shortened(&documents[index]))?;
    }
    Ok(())
}
