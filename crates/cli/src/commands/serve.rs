//! `aneforge serve`: models over HTTP.

use crate::context::Context;
use crate::exit::caller;
use aneforge::artifact::size_named;
use aneforge_models::resolve::{HubOptions, truth};
use aneforge_serve::{Ended, Keys, LoadOptions, Model, Options, Server, Vocabulary};
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What follows the options in `aneforge help serve`.
pub const JSON: &str = "\
JSON keys, of the one line that is printed when it listens:
  address                 host and port
  models                  for each model: name, task (embeddings, rerank or classify)";

/// Keys, for those who keep no file of them.
const KEYS: &str = "ANEFORGE_API_KEYS";

/// Answer requests over HTTP: embeddings as OpenAI's API, ranks as those of Jina and Cohere, classes of pictures
///
/// Requests of many clients run together. There are a page to try it at /, /health, /health/ready, /metrics for Prometheus and
/// /v1/models. The signals INT and TERM end it once the requests that are there are answered; a second one ends it at once.
#[derive(clap::Args)]
pub struct Args {
    /// Directory, file of weights or hub id of an encoder, a reranker or a classifier, with the name that requests call it by
    /// [default name: that of the directory]. May be given several times
    #[arg(short, long = "model", value_name = "[NAME=]DIR_OR_HUB_ID", required = true)]
    models: Vec<String>,

    /// Address to listen at; with another than this machine's own, name keys too
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// Port to listen at; 0 is any that is free
    #[arg(long, default_value_t = 8000)]
    port: u16,

    /// File with API keys, one a line, of which a request must bring one. ANEFORGE_API_KEYS may hold more, parted by commas
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Most bytes of a body, such as `8M`; more is answered with 413. Bodies take 16 times as much together
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = body)]
    max_body: u64,

    /// Most texts or documents of a request; more is answered with 400
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = RangedU64ValueParser::<usize>::new().range(1..=65535))]
    max_batch: usize,

    /// Most texts that wait for a model; more is answered with 429. Of pictures 256 wait at most
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    queue: usize,

    /// Seconds that a body may take to arrive (then 408), and an answer to be computed (then 504)
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,

    /// Seconds for requests that are there when it is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,

    /// Cut texts for embeddings that are too long, where a request does not say; else they are answered with 400
    #[arg(long)]
    truncate: bool,

    /// File of tiktoken, such as cl100k_base.tiktoken, by which token ids that clients send are read as text
    #[arg(long, value_name = "FILE")]
    token_ids: Option<PathBuf>,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

fn body(text: &str) -> Result<u64, String> {
    let bytes = size_named(text).map_err(|error| error.to_string())?;
    match bytes {
        1..=0x4000_0000 => Ok(bytes),
        _ => Err("a size from 1 byte to 1G is needed".into()),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let options = options(args)?;
    let load = LoadOptions {
        target: context.target,
        device: Some(context.device()?),
        compression: context.compression,
        hub: HubOptions { offline: args.offline, progress: context.progress(), ..HubOptions::default() },
    };
    let models: Vec<Model> =
        args.models.iter().map(|given| Model::load(given, &load)).collect::<Result<_, _>>()?;
    let described: Vec<Value> =
        models.iter().map(|model| json!({ "name": model.name(), "task": model.does() })).collect();
    let names: Vec<String> =
        models.iter().map(|model| format!("  {:10}  {}", model.does(), model.name())).collect();
    let server = Server::bind(options, models)?;
    if context.json {
        writeln!(out, "{}", json!({ "address": server.address().to_string(), "models": described }))?;
    } else {
        writeln!(out, "listening on http://{}\n{}", server.address(), names.join("\n"))?;
    }
    out.flush()?;
    match server.run()? {
        Ended::Answered => tracing::info!("stopped: every request was answered"),
        Ended::Cut => tracing::warn!("stopped before every request was answered"),
    }
    Ok(())
}

fn options(args: &Args) -> Result<Options> {
    let mut keys = Keys::none();
    if let Some(path) = &args.api_key_file {
        keys.add_file(path)?;
    }
    if let Some(text) = std::env::var_os(KEYS).filter(|text| !text.is_empty()) {
        let text =
            text.into_string().map_err(|_| caller(format!("{KEYS} is not UTF-8; write the keys anew")))?;
        keys.add_text(&text, KEYS)?;
    }
    Ok(Options {
        host: args.host.clone(),
        port: args.port,
        keys,
        max_body: args.max_body,
        max_batch: args.max_batch,
        queue: args.queue,
        timeout: Duration::from_secs(args.timeout),
        grace: Duration::from_secs(args.grace),
        truncate: args.truncate,
        vocabulary: args.token_ids.as_deref().map(Vocabulary::read).transpose()?.map(Arc::new),
        signals: true,
        ..Options::default()
    })
}
