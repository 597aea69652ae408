//! The `aneforge` command: arguments, one file per command, and the reference page made of both.
//!
//! This is the edge of the system: the only place that reads the environment, and the only one that turns
//! errors into exit codes.

mod args;
mod commands;
mod context;
mod curve;
mod data;
mod digits;
mod exit;
mod feeds;
mod learner;
mod lesson;
mod live;
mod output;
mod picture;
mod program;
mod reference;
mod store;
mod timing;

pub use reference::reference;

use clap::CommandFactory;
use std::process::ExitCode;

/// The definitions of all commands and options.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    // The line that cannot be read may still say how errors are wanted.
    let json = words.iter().any(|word| word == "--json");
    match args::Cli::read(words) {
        Ok(cli) => exit::finish(exit::guarded(|| commands::run(&cli)), json),
        Err(error) => exit::usage(&error, json),
    }
}
