//! Development tasks: `cargo xtask NAME`, one file per command.

mod bench;
mod bless;
mod capi;
mod cross;
mod fuzz;
mod generate;
mod mutate;
mod new_op;
mod python;
mod run;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of aneforge", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything a stranger needs to trust the tree; stops at the first failure
    Test(test::Args),
    /// Write the generated files, or check that they are up to date
    #[command(name = "gen")]
    Generate(generate::Args),
    /// Check layering, unsafe code, platform code, sizes and links
    Tidy,
    /// Measure whole models beside onnxruntime, lowering, and the overhead of a call
    Bench(bench::Args),
    /// Rerun golden tests and rewrite what they expect
    Bless(bless::Args),
    /// Build the C library and put it, its headers and its pkg-config file below a folder
    Capi(capi::Args),
    /// Run the property tests with many cases, optimised
    Fuzz(fuzz::Args),
    /// Plant the faults of tests/mutations.md, one at a time, and demand that a test catches each
    Mutate(mutate::Args),
    /// Run tests on Linux on aarch64, under emulation, and link everything for macOS; needs Debian's packages
    Cross(cross::Args),
    /// Start the file of a new op
    NewOp(new_op::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Generate(args) => generate::run(&args),
        Task::Tidy => tidy::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Bless(args) => bless::run(&args),
        Task::Capi(args) => capi::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Mutate(args) => mutate::run(&args),
        Task::Cross(args) => cross::run(&args),
        Task::NewOp(args) => new_op::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
