//! One file per command: its arguments, the keys of its JSON, and what it does.

pub mod cache;
pub mod check;
pub mod classify;
pub mod compile;
pub mod completions;
pub mod demo;
pub mod devices;
pub mod diagnose;
pub mod diff_numerics;
pub mod doctor;
pub mod draw;
pub mod embed;
pub mod explain;
pub mod fetch;
pub mod index;
pub mod inspect;
pub mod ops;
pub mod rerank;
pub mod run;
pub mod search;
#[cfg(feature = "serve")]
pub mod serve;
pub mod targets;
pub mod train;
pub mod worker;

use crate::args::{Cli, Command};
use crate::context::Context;
use anyhow::Result;
use std::io::{BufWriter, Write};
use tracing::level_filters::LevelFilter;

/// Runs the command of `cli` and prints its result.
pub fn run(cli: &Cli) -> Result<()> {
    // What another process asks for, by its standard input; nothing else is written to the output.
    if let Command::Worker(args) = &cli.command {
        return worker::run(args);
    }
    let mut context = Context::new(&cli.global, usual_level(&cli.command))?;
    if let Command::Run(args) = &cli.command
        && let Ok(folder) = args.folder()
    {
        context = context.kept_in(&folder);
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match &cli.command {
        Command::Demo(args) => demo::run(args, &context, &mut out),
        Command::Embed(args) => embed::run(args, &context, &mut out),
        Command::Rerank(args) => rerank::run(args, &context, &mut out),
        Command::Classify(args) => classify::run(args, &context, &mut out),
        Command::Index(args) => index::run(args, &context, &mut out),
        Command::Search(args) => search::run(args, &context, &mut out),
        Command::Draw(args) => draw::run(args, &context, &mut out),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, &context, &mut out),
        Command::Compile(args) => compile::run(args, &context, &mut out),
        Command::Run(args) => run::run(args, &context, &mut out),
        Command::Explain(args) => explain::run(args, &context, &mut out),
        Command::Inspect(args) => inspect::run(args, &context, &mut out),
        Command::Check(args) => check::run(args, &context, &mut out),
        Command::Diagnose(args) => diagnose::run(args, &context, &mut out),
        Command::DiffNumerics(args) => diff_numerics::run(args, &context, &mut out),
        Command::Doctor(args) => doctor::run(args, &context, &mut out),
        Command::Cache(args) => cache::run(args, &context, &mut out),
        Command::Ops(args) => ops::run(args, &context, &mut out),
        Command::Fetch(args) => fetch::run(args, &context, &mut out),
        Command::Train(args) => train::run(args, &context, &mut out),
        Command::Targets(args) => targets::run(args, &context, &mut out),
        Command::Devices(args) => devices::run(args, &context, &mut out),
        Command::Completions(args) => completions::run(args, &mut out),
        Command::Worker(_) => unreachable!("answered above"),
    }?;
    Ok(out.flush()?)
}

/// What a command says on standard error unless it is told to say more or less.
fn usual_level(command: &Command) -> LevelFilter {
    match command {
        // A line for every request.
        #[cfg(feature = "serve")]
        Command::Serve(_) => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    }
}
