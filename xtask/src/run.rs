//! Running other programs from the root of the tree.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the tree, where the workspace manifest is.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("invariant: xtask is a folder of the workspace")
}

/// Where cargo builds, and where our own products go.
pub fn target_dir() -> PathBuf {
    // Joining an absolute path replaces the root.
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A command that runs in the root, and can be shown so that a person can run it there too.
#[derive(Clone, Debug)]
pub struct Step {
    program: String,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Step {
    /// `program` with arguments separated by single spaces.
    pub fn new(program: impl Into<String>, args: &str) -> Step {
        let args = args.split(' ').filter(|a| !a.is_empty()).map(String::from).collect();
        Step { program: program.into(), args, env: Vec::new() }
    }

    /// The cargo that runs this, with arguments separated by single spaces.
    pub fn cargo(args: &str) -> Step {
        Step::new("cargo", args)
    }

    /// With one more argument, which may hold spaces.
    pub fn arg(mut self, arg: impl Into<String>) -> Step {
        self.args.push(arg.into());
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Step {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it to its end; its output is ours.
    pub fn run(&self) -> Result<()> {
        self.finish(Stdio::inherit()).map(drop)
    }

    /// Runs it to its end; what it writes to standard output.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.finish(Stdio::piped())?).into_owned())
    }

    fn finish(&self, output: Stdio) -> Result<Vec<u8>> {
        let finished = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(root())
            .stdin(Stdio::inherit())
            .stdout(output)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start `{}`; is it installed?", self.program))?;
        if !finished.status.success() {
            bail!("failed with {}; to reproduce, run in {}:\n  {self}", finished.status, root().display());
        }
        Ok(finished.stdout)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "{}", quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shown_as_a_shell_takes_it() {
        let step = Step::cargo("doc  --no-deps").env("RUSTDOCFLAGS", "-D warnings").arg("it's");
        assert_eq!(step.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
    }

    #[test]
    fn a_failing_step_says_how_to_repeat_it() {
        let error = Step::new("sh", "-c").arg("exit 3").run().expect_err("it exits with 3").to_string();
        assert!(error.contains("exit status: 3") && error.contains("sh -c 'exit 3'"), "{error}");
    }
}
