//! `aneforge completions`: what a shell needs to complete command lines.

use anyhow::Result;
use clap_complete::Shell;
use std::io::Write;

/// Print a script that completes commands and options in a shell
///
/// For bash, for example: `aneforge completions bash > ~/.local/share/bash-completion/completions/aneforge`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete in
    #[arg(value_enum, ignore_case = true)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    // Generation panics where it cannot write, which memory always can.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "aneforge", &mut script);
    Ok(out.write_all(&script)?)
}
