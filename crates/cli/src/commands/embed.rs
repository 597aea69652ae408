//! `aneforge embed`: sentences to vectors.

use crate::context::Context;
use crate::exit::caller;
use crate::output;
use crate::program::MOST_TEXT;
use aneforge::passes::Form;
use aneforge::{Shape, Tensor};
use aneforge_models::resolve::{HubOptions, truth};
use aneforge_models::{EncodeOptions, Encoder, EncoderOptions, Pooling};
use aneforge_tensor::npy;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;
use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What follows the options in `aneforge help embed`.
pub const JSON: &str = "\
JSON keys:
  model, target, device   what was loaded, compiled for and ran on
  dim                     components of a vector
  pooling                 mean, cls or max
  normalized              whether vectors have unit length
  embeddings              for each text: text, vector";

/// Turn sentences into vectors with a pretrained encoder
///
/// Prints the vector of one text, and of several how similar they are (the cosine of their vectors). One
/// program is compiled per length and number of texts.
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, tokenizer.json and model.safetensors, or a hub id such as
    /// sentence-transformers/all-MiniLM-L6-v2
    #[arg(short, long, value_name = "DIR_OR_HUB_ID")]
    model: String,

    /// The texts, or `-` for one per line of standard input, blank lines included
    #[arg(value_name = "TEXT", required = true)]
    texts: Vec<String>,

    /// Scale vectors to unit length; this is the default
    #[arg(long, overrides_with = "no_normalize")]
    normalize: bool,

    /// Leave vectors at their length
    #[arg(long)]
    no_normalize: bool,

    /// How token states become one vector [default: as the model's files say]
    #[arg(long, value_enum, ignore_case = true)]
    pooling: Option<PoolingName>,

    /// Write the vectors to this file, one row per text; `-` is standard output, which then has nothing else
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingName {
    /// Their mean
    Mean,
    /// The state of the first token
    Cls,
    /// The greatest of each component
    Max,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Pooling {
        match name {
            PoolingName::Mean => Pooling::Mean,
            PoolingName::Cls => Pooling::Cls,
            PoolingName::Max => Pooling::Max,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let standard = args.npy.as_deref().is_some_and(output::is_standard);
    if standard && context.json {
        return Err(caller("--npy - and --json both print to standard output; name a file for one"));
    }
    let texts = texts(&args.texts)?;
    let int8 = match context.compression.map(|compression| compression.form) {
        None => false,
        Some(Form::Int8) => true,
        Some(_) => {
            return Err(caller(
                "an encoder's weights are stored in half precision or as int8; give --compress int8",
            ));
        }
    };
    let options = EncoderOptions {
        int8,
        pooling: args.pooling.map(Pooling::from),
        target: context.target,
        device: Some(context.device()?),
        hub: HubOptions { offline: args.offline, progress: context.progress(), ..HubOptions::default() },
        ..EncoderOptions::default()
    };
    let mut encoder = Encoder::load(&args.model, options)?;
    let vectors = encode(&mut encoder, &texts, !args.no_normalize, context)?;
    if let Some(path) = &args.npy {
        let shape = Shape::new(&[vectors.len(), encoder.dim()])?;
        let tensor = Tensor::from_slice(shape, &vectors.concat())?;
        output::save(path, out, |file| npy::write(&tensor, file))?;
    }
    if standard {
        return Ok(());
    }
    if context.json {
        let rows = texts.iter().zip(&vectors).map(|(text, vector)| json!({ "text": text, "vector": vector }));
        let value = json!({
            "model": args.model,
            "target": encoder.target().name(),
            "device": encoder.device().title(),
            "dim": encoder.dim(),
            "pooling": encoder.pooling().name(),
            "normalized": !args.no_normalize,
            "embeddings": rows.collect::<Vec<_>>(),
        });
        return output::print_json(out, &value);
    }
    match &vectors[..] {
        [vector] => print_vector(out, vector)?,
        _ if texts.len() <= MOST_COLUMNS => print_table(out, &texts, &vectors)?,
        _ => print_nearest(out, &texts, &vectors)?,
    }
    if let Some(path) = &args.npy {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(())
}

/// The texts as given, with `-` standing for the lines of standard input.
pub(super) fn texts(given: &[String]) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for text in given {
        if text != "-" {
            texts.push(text.clone());
            continue;
        }
        let mut input = std::io::stdin().lock().take(MOST_TEXT + 1);
        for (number, line) in (1..).zip(input.by_ref().lines()) {
            texts.push(line.with_context(|| format!("line {number} of standard input"))?);
        }
        if input.limit() == 0 {
            return Err(caller(format!("standard input has more than {MOST_TEXT} bytes; embed it in parts")));
        }
    }
    if texts.is_empty() {
        return Err(caller("standard input has no text; give one per line"));
    }
    Ok(texts)
}

fn encode(
    encoder: &mut Encoder,
    texts: &[String],
    normalize: bool,
    context: &Context,
) -> Result<Vec<Vec<f32>>> {
    let bar = context.bar("encoding", texts.len());
    let vectors = encoder.encode_with(
        texts,
        EncodeOptions { normalize, ..EncodeOptions::default() },
        &mut |done, _| {
            bar.set_position(done as u64);
            ControlFlow::Continue(())
        },
    );
    bar.finish_and_clear();
    Ok(vectors?)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Numbers in a line of a vector: with their blanks they fit eighty columns.
const PER_LINE: usize = 8;

fn print_vector(out: &mut dyn Write, vector: &[f32]) -> std::io::Result<()> {
    for line in vector.chunks(PER_LINE) {
        let numbers: Vec<String> = line.iter().map(|v| format!("{v:9.6}")).collect();
        writeln!(out, "{}", numbers.join(" "))?;
    }
    Ok(())
}

/// The widest table of similarities that fits eighty columns.
const MOST_COLUMNS: usize = 10;
/// Characters of a text that are repeated.
const SHOWN: usize = 60;

/// The beginning of a text.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn print_table(out: &mut dyn Write, texts: &[String], vectors: &[Vec<f32>]) -> std::io::Result<()> {
    for (i, text) in texts.iter().enumerate() {
        writeln!(out, "{:4}  {}", i + 1, shortened(text))?;
    }
    let head: String = (1..=texts.len()).map(|i| format!("{i:7}")).collect();
    writeln!(out, "\n    {head}")?;
    for (i, row) in vectors.iter().enumerate() {
        let cells: String =
            vectors[..=i].iter().map(|column| format!("{:7.3}", cosine(row, column))).collect();
        writeln!(out, "{:4}{cells}", i + 1)?;
    }
    Ok(())
}

/// For each text, the most similar other one.
fn print_nearest(out: &mut dyn Write, texts: &[String], vectors: &[Vec<f32>]) -> std::io::Result<()> {
    for (i, row) in vectors.iter().enumerate() {
        let others = vectors.iter().enumerate().filter(|(j, _)| *j != i);
        let nearest = others.map(|(j, other)| (cosine(row, other), j)).max_by(|a, b| a.0.total_cmp(&b.0));
        writeln!(out, "{:4}  {}", i + 1, shortened(&texts[i]))?;
        if let Some((similarity, j)) = nearest {
            writeln!(out, "      {similarity:.3} {:4}  {}", j + 1, shortened(&texts[j]))?;
        }
    }
    Ok(())
}
