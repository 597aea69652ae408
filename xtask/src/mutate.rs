//! `cargo xtask mutate`: plants the faults of `tests/mutations.md`, one at a time, and demands that each is caught.

use crate::run::root;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Which faults.
#[derive(clap::Args)]
pub struct Args {
    /// Only faults whose title, file or command contains this
    filter: Option<String>,
}

/// The list, from the root.
const LIST: &str = "tests/mutations.md";

/// Plants each fault, runs its command, and reports those that no test noticed.
pub fn run(args: &Args) -> Result<()> {
    let text = fs::read_to_string(root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let mutations = parse(&text)?;
    let wanted = |m: &&Mutation<'_>| {
        args.filter.as_ref().is_none_or(|f| [m.title, m.path, m.command].iter().any(|part| part.contains(f)))
    };
    let wanted: Vec<&Mutation<'_>> = mutations.iter().filter(wanted).collect();
    let mut missed = Vec::new();
    for (at, mutation) in wanted.iter().enumerate() {
        println!("{:>3} of {}: {} ({})", at + 1, wanted.len(), mutation.title, mutation.path);
        let verdict = mutation.verdict()?;
        println!("{:>8} {verdict}", "");
        missed.extend((verdict != "caught").then_some(mutation.title));
    }
    ensure!(
        missed.is_empty(),
        "{} of {} faults were not caught: {}",
        missed.len(),
        wanted.len(),
        missed.join("; ")
    );
    println!("all {} faults were caught", wanted.len());
    Ok(())
}

/// One fault: lines of a file, what replaces them, and the command that must fail then.
#[derive(Debug, PartialEq, Eq)]
struct Mutation<'a> {
    title: &'a str,
    path: &'a str,
    command: &'a str,
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

/// Reads the list: a heading, a line with the file and the command, and a diff, each time.
fn parse(text: &str) -> Result<Vec<Mutation<'_>>> {
    text.split("\n## ").skip(1).map(Mutation::read).collect()
}

impl<'a> Mutation<'a> {
    fn read(section: &'a str) -> Result<Mutation<'a>> {
        let (title, rest) = section.split_once('\n').unwrap_or((section, ""));
        let place = || format!("{LIST}: `{title}`");
        let (head, rest) =
            rest.split_once("```diff\n").with_context(|| format!("{} has no diff", place()))?;
        let (diff, _) = rest.split_once("```").with_context(|| format!("{} has an open diff", place()))?;
        let quoted: Vec<&str> = head.split('`').skip(1).step_by(2).collect();
        let &[path, command] = &quoted[..] else {
            bail!("{} needs a line: `FILE`, caught by `COMMAND`", place())
        };
        let side = |sign: char| {
            let lines = diff.lines().filter_map(|line| line.strip_prefix(sign));
            lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>()
        };
        let (before, after) = (side('-'), side('+'));
        ensure!(!before.is_empty(), "{} takes nothing away", place());
        Ok(Mutation { title, path, command, before, after })
    }

    /// The file with the fault in it.
    fn planted(&self, source: &str) -> Result<String> {
        let starts = source.match_indices(self.before[0]).map(|(at, _)| at);
        let places: Vec<_> = starts.filter_map(|at| Some(at..self.end(source, at)?)).collect();
        let [place] = &places[..] else {
            bail!("{}: the lines of `{}` occur {} times; mend {LIST}", self.path, self.title, places.len())
        };
        Ok(format!("{}{}{}", &source[..place.start], self.after.join("\n"), &source[place.end..]))
    }

    /// Where the lines end if they begin at `start`, however they are indented.
    fn end(&self, source: &str, start: usize) -> Option<usize> {
        let mut lines = self.before.iter();
        let rest = lines.try_fold(&source[start..], |rest, line| rest.trim_start().strip_prefix(line))?;
        Some(source.len() - rest.len())
    }

    /// Plants the fault, runs the command, and takes the fault out again.
    fn verdict(&self) -> Result<&'static str> {
        let path = root().join(self.path);
        let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", self.path))?;
        let planted = self.planted(&source)?;
        let restore = Restore::of(self.path)?;
        fs::write(&path, planted).with_context(|| format!("cannot write {}", self.path))?;
        let ran = Command::new("sh").args(["-c", self.command]).current_dir(root()).output();
        drop(restore);
        let ran = ran.with_context(|| format!("cannot run `{}`", self.command))?;
        let output = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        // Code that does not build fails no test. The last two are pytest's.
        let failed = ["test result: FAILED", " failed, ", " failed in "].iter().any(|s| output.contains(s));
        Ok(match (ran.status.success(), failed) {
            (false, true) => "caught",
            (true, _) => "NOT CAUGHT",
            (false, false) => "NO TEST FAILED, but the command did",
        })
    }
}

/// Brings a file back to what is committed when it is dropped, and also when this process is killed: another process,
/// out of reach of Ctrl-C, waits for the end of its input.
struct Restore {
    waiting: Child,
    until: Option<ChildStdin>,
}

impl Restore {
    fn of(path: &str) -> Result<Restore> {
        let clean =
            Command::new("git").args(["diff", "--quiet", "HEAD", "--", path]).current_dir(root()).status();
        ensure!(clean.context("cannot start `git`")?.success(), "{path} has changes; commit them before");
        let mut waiting = Command::new("sh")
            .args(["-c", "cat; exec git checkout --quiet HEAD -- \"$0\"", path])
            .current_dir(root())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start `sh`")?;
        let until = waiting.stdin.take();
        Ok(Restore { waiting, until })
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        drop(self.until.take());
        if !self.waiting.wait().is_ok_and(|status| status.success()) {
            eprintln!("the fault could not be taken out; see `git diff`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted() {
        let text = fs::read_to_string(root().join(LIST)).unwrap();
        let mutations = parse(&text).unwrap();
        assert!(mutations.len() >= 30, "{} faults", mutations.len());
        let unplantable = mutations.iter().filter_map(|mutation| {
            let source = fs::read_to_string(root().join(mutation.path)).unwrap();
            match mutation.planted(&source) {
                Ok(planted) => (planted == source).then(|| format!("{}: no change", mutation.title)),
                Err(error) => Some(error.to_string()),
            }
        });
        assert_eq!(unplantable.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn lines_are_found_however_they_are_indented_and_only_once() {
        let text = "# List\n\n## One\n\n`a.rs`, caught by `cargo test one`\n\n\
                    ```diff\n-if x {\n-y();\n+if false {\n+y();\n```\n";
        let [one] = &parse(text).unwrap()[..] else { panic!("one entry") };
        assert_eq!((one.title, one.path, one.command), ("One", "a.rs", "cargo test one"));
        assert_eq!(one.planted("  if x {\n      y();\n  }").unwrap(), "  if false {\ny();\n  }");
        let error = |source| one.planted(source).unwrap_err().to_string();
        assert!(error("if x { z(); }").contains("occur 0 times"));
        assert!(error("if x { y(); } if x { y(); }").contains("occur 2 times"));
    }
}
