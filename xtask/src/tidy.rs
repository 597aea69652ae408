//! `cargo xtask tidy`: rules of the tree that no compiler checks.

mod allow;
mod evidence;
mod layering;
mod links;
mod ops;
mod places;
mod sizes;
mod source;

use crate::run::root;
use anyhow::{Context, Result, bail};
use source::Source;
use std::fs;
use std::path::Path;

/// A broken rule, with the place and the way out.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A path from the root.
    path: String,
    /// From 1; 0 for a whole file.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, what: what.into() }
    }
}

/// A text file of the tree.
struct File {
    /// From the root, with forward slashes.
    path: String,
    text: String,
}

/// Checks every rule and reports all that are broken.
pub fn run() -> Result<()> {
    let mut files = Vec::new();
    collect(root(), "", &mut files)?;
    let sources: Vec<Source> =
        files.iter().filter(|f| f.path.ends_with(".rs")).map(|f| Source::new(&f.path, &f.text)).collect();
    let mut findings = layering::check(&sources);
    findings.extend(layering::check_manifests(files.iter().filter(|f| f.path.ends_with("Cargo.toml"))));
    findings.extend(places::check(&sources));
    findings.extend(ops::check(&sources, allow::NAMES));
    let architecture = files.iter().find(|f| f.path == "ARCHITECTURE.md").map_or("", |f| &f.text);
    findings.extend(places::check_named(architecture));
    findings.extend(evidence::check(&files));
    findings.extend(sizes::check(&sources, allow::SIZES));
    findings.extend(links::check(files.iter().filter(|f| f.path.ends_with(".md")), root()));
    if !files.iter().any(|f| f.path == "CHANGELOG.md") {
        findings.push(Finding::new("CHANGELOG.md", 0, "is missing; say there what changes for users"));
    }
    report(findings, sources.len(), files.len())
}

fn report(mut findings: Vec<Finding>, sources: usize, files: usize) -> Result<()> {
    findings.sort();
    for Finding { path, line, what } in &findings {
        match line {
            0 => println!("{path}: {what}"),
            _ => println!("{path}:{line}: {what}"),
        }
    }
    match findings.len() {
        0 => println!("tidy: {sources} Rust files of {files} files, nothing found"),
        n => bail!(
            "tidy found {n} broken rules; fix them, or allow a size in xtask/src/tidy/allow.rs with a reason"
        ),
    }
    Ok(())
}

/// Reads the files that rules look at, in a defined order.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<()> {
    let context = || format!("cannot read {}", folder.display());
    let mut entries =
        fs::read_dir(folder).with_context(context)?.collect::<Result<Vec<_>, _>>().with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().with_context(context)?;
        if kind.is_dir() {
            let built = ["build", "node_modules", "__pycache__", "proptest-regressions"];
            // A module may be called so.
            let built_by_cargo = name == "target" && !prefix.ends_with("src/");
            // Folders that cargo or Python made carry their own marks.
            let marked = ["CACHEDIR.TAG", "pyvenv.cfg"].iter().any(|mark| entry.path().join(mark).exists());
            if !name.starts_with('.') && !built.contains(&name.as_str()) && !built_by_cargo && !marked {
                collect(&entry.path(), &format!("{path}/"), files)?;
            }
        } else if [".rs", ".md", "Cargo.toml"].iter().any(|end| name.ends_with(end)) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is called as cargo's is looked at where it is source.
    #[test]
    fn every_source_is_looked_at() {
        let mut files = Vec::new();
        collect(root(), "", &mut files).expect("the tree can be read");
        let has = |path: &str| files.iter().any(|file| file.path == path);
        assert!(has("crates/aneforge/src/target/limits.rs") && has("xtask/src/tidy.rs"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
