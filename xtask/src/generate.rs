//! `cargo xtask gen`: files that are written from the op list and other tables, and committed.

mod cost_page;
mod examples;
mod ops_page;
mod python_ops;
mod silicon_page;

use crate::run::root;
use anyhow::{Context, Result, bail};
use std::fs;

/// Write, or only check.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail when a file is not what would be written
    #[arg(long)]
    check: bool,
}

/// A file that is generated.
struct Generated {
    path: &'static str,
    text: fn() -> Result<String>,
}

/// Every generated file. To add one, write its function in a module beside this file.
const FILES: &[Generated] = &[
    Generated { path: "docs/ops.md", text: ops_page::text },
    Generated { path: "docs/cost.md", text: cost_page::text },
    Generated { path: "docs/cli.md", text: || Ok(aneforge_cli::reference()) },
    Generated { path: "docs/silicon.md", text: silicon_page::text },
    Generated { path: "python/aneforge/_ops.py", text: python_ops::text },
];

/// Writes the files, or checks them.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    for file in FILES {
        let (path, text) = (root().join(file.path), (file.text)()?);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            println!("{} is up to date", file.path);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", file.path);
    }
    Ok(())
}

/// Fails when a file is not what would be written.
pub fn check() -> Result<()> {
    let mut stale = Vec::new();
    for file in FILES {
        let text = (file.text)()?;
        match fs::read_to_string(root().join(file.path)) {
            Ok(old) if old == text => {}
            Ok(old) => stale.push(format!("{} line {}", file.path, first_difference(&old, &text))),
            Err(error) => stale.push(format!("{}: {error}", file.path)),
        }
    }
    if !stale.is_empty() {
        bail!("stale: {}; run `cargo xtask gen` and commit what it writes", stale.join(", "));
    }
    println!("{} generated files are up to date", FILES.len());
    Ok(())
}

/// The first line, from 1, in which two texts differ.
fn first_difference(a: &str, b: &str) -> usize {
    a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_line_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
    }

    #[test]
    fn texts_are_the_same_every_time() {
        for file in FILES {
            let text = (file.text)().expect("it can be written");
            assert_eq!(text, (file.text)().expect("it can be written"), "{}", file.path);
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{}", file.path);
        }
    }
}
