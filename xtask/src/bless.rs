//! `cargo xtask bless`: golden tests write what they see instead of comparing it.

use crate::run::Step;
use anyhow::Result;

/// Which tests.
#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Packages with golden files, each with one integration-test binary called `it`.
const PACKAGES: [&str; 2] = ["aneforge", "aneforge-mil"];

/// Reruns the tests with `ANEFORGE_BLESS=1`.
pub fn run(args: &Args) -> Result<()> {
    for package in PACKAGES {
        let test = Step::cargo("test -p").arg(package).arg("--test").arg("it").env("ANEFORGE_BLESS", "1");
        match &args.filter {
            Some(filter) => test.arg("--").arg(filter).run()?,
            None => test.run()?,
        }
    }
    println!("read `git diff` before you commit: what was wrong is now expected too");
    Ok(())
}
