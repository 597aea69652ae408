//! The Python steps of `cargo xtask test`: an environment of its own, the wheel in it, and the tests.

use crate::run::{Step, root, target_dir};
use anyhow::{Context, Result, bail};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the tests import, with exact versions.
const REQUIREMENTS: &str = "python/requirements-test.txt";
/// Packages that only carry files for the tests; what they declare to need is not installed.
const REQUIREMENTS_ALONE: &str = "python/requirements-test-alone.txt";
/// Python's minor versions for which the pinned requirements have wheels.
const MINORS: std::ops::RangeInclusive<u32> = 11..=13;

/// An environment of Python, in a folder.
pub struct Environment(PathBuf);

impl Environment {
    /// One that is there.
    pub fn at(folder: PathBuf) -> Environment {
        Environment(folder)
    }

    /// Makes one without packages.
    pub fn new(folder: PathBuf) -> Result<Environment> {
        Environment::with(&find_python()?, folder)
    }

    fn with(python: &Python, folder: PathBuf) -> Result<Environment> {
        println!("making {} with {} {}", folder.display(), python.path, python.version);
        let make = Step::new(&python.path, "-m venv").arg(folder.to_string_lossy());
        make.run().context("cannot make the environment; on Debian, apt-get install python3-venv")?;
        Ok(Environment(folder))
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> String {
        self.0.join("bin").join(name).to_string_lossy().into_owned()
    }

    /// Installs packages, which are arguments of pip.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        let pip = Step::new(self.program("pip"), "install --quiet --disable-pip-version-check");
        packages.iter().fold(pip, |pip, &package| pip.arg(package)).run()
    }
}

fn venv_dir() -> PathBuf {
    target_dir().join("xtask").join("venv")
}

/// A program of the tests' environment.
pub fn program(name: &str) -> String {
    Environment::at(venv_dir()).program(name)
}

/// A package of the tests, with its version as pip takes it.
pub fn pinned(package: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(REQUIREMENTS))
        .with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    let line = text.lines().find(|line| line.split_once("==").is_some_and(|(name, _)| name == package));
    Ok(line.with_context(|| format!("{REQUIREMENTS} has no line {package}==VERSION"))?.into())
}

/// Makes the environment, unless it is there and made from the same requirements.
pub fn venv() -> Result<()> {
    let python = find_python().context("--no-python leaves the Python steps out")?;
    let stamp = venv_dir().join("requirements.hash");
    let wanted = stamp_of(&python)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        println!("reusing {}: the requirements are those it was made from", venv_dir().display());
        return Ok(());
    }
    if venv_dir().exists() {
        fs::remove_dir_all(venv_dir()).with_context(|| format!("cannot remove {}", venv_dir().display()))?;
    }
    let environment = Environment::with(&python, venv_dir())?;
    environment.install(&["-r", REQUIREMENTS])?;
    environment.install(&["--no-deps", "-r", REQUIREMENTS_ALONE])?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Builds the extension as a user would, but with the pinned build tool, and installs it.
pub fn install() -> Result<()> {
    need_venv()?;
    // pip must find the environment's maturin, and cargo our target folder.
    let path = env::join_paths(
        std::iter::once(venv_dir().join("bin"))
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    Step::new(program("pip"), "install --disable-pip-version-check --no-deps --no-build-isolation")
        .arg("--force-reinstall")
        .arg(".")
        .env("PATH", path.to_string_lossy())
        .env("CARGO_TARGET_DIR", target_dir().to_string_lossy())
        .run()
}

/// Tests of models that are also run on what stands in for the engine, as a second device. Not those of what only the host knows.
const ON_THE_ENGINE: &str = "-m pytest python/tests/test_attention.py python/tests/test_encoder.py \
    python/tests/test_layers.py python/tests/test_model.py python/tests/test_norms.py --numprocesses auto --maxprocesses 4 \
    --deselect python/tests/test_norms.py::test_an_overflow_of_a_norm_is_not_silent \
    --deselect python/tests/test_attention.py::test_measurements_are_kept_on_disk_and_used";

/// Runs the tests against what [`install`] installed.
pub fn pytest() -> Result<()> {
    need_venv()?;
    Step::cargo("build -p aneforge-ane-standin -p aneforge-cli").run()?;
    let built = ["so", "dylib"].map(|end| target_dir().join(format!("debug/libaneforge_standin.{end}")));
    let standin = built.iter().find(|path| path.exists()).context("cargo has built no stand-in")?;
    let standin = standin.to_string_lossy();
    let command = target_dir().join("debug/aneforge");
    if !browser() {
        println!(
            "NOT TESTED: the page of `aneforge serve`, as there is no chromium; apt-get install chromium"
        );
    }
    Step::new(program("python"), "-m pytest python/tests --numprocesses auto --maxprocesses 4")
        .env("ANEFORGE_TEST_STANDIN", &*standin)
        .env("ANEFORGE_TEST_COMMAND", command.to_string_lossy())
        .run()?;
    Step::new(program("python"), ON_THE_ENGINE)
        .env("ANEFORGE_DEVICE", "ane")
        .env("ANEFORGE_ENGINE_LIBRARY", &*standin)
        .run()
}

/// Whether there is a browser for the tests of pages, as `python/tests/browser.py` looks for one.
fn browser() -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    env::var_os("ANEFORGE_TEST_BROWSER").is_some_and(|named| !named.is_empty())
        || env::split_paths(&paths).any(|folder| names.iter().any(|name| folder.join(name).exists()))
}

fn need_venv() -> Result<()> {
    if Path::new(&program("python")).exists() {
        return Ok(());
    }
    bail!("{} does not exist; run `cargo xtask test --only venv` first", venv_dir().display())
}

struct Python {
    path: String,
    version: String,
}

/// A Python for which the pinned requirements have wheels.
fn find_python() -> Result<Python> {
    let mut seen = Vec::new();
    let named = MINORS.rev().map(|minor| format!("python3.{minor}"));
    for path in std::iter::once("python3".to_string()).chain(named) {
        let Ok(output) = Command::new(&path).arg("--version").output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(version) = text.trim().strip_prefix("Python ").filter(|_| output.status.success()) else {
            continue;
        };
        if supported(version) {
            return Ok(Python { path, version: version.into() });
        }
        seen.push(format!("{path} is {version}"));
    }
    let found = if seen.is_empty() { "none was found".into() } else { seen.join(", ") };
    bail!(
        "Python 3.{} to 3.{} is needed, as python3 on the PATH ({found}). Install one \
         (Debian: apt-get install python3 python3-venv; macOS: brew install python@3.{1})",
        MINORS.start(),
        MINORS.end(),
    )
}

fn supported(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    matches!((parts.next(), parts.next()), (Some(Ok(3)), Some(Ok(minor))) if MINORS.contains(&minor))
}

/// Names the Python and everything installed for it.
fn stamp_of(python: &Python) -> Result<String> {
    let mut hash = DefaultHasher::new();
    for file in [REQUIREMENTS, REQUIREMENTS_ALONE] {
        fs::read(root().join(file)).with_context(|| format!("cannot read {file}"))?.hash(&mut hash);
    }
    Ok(format!("python {} requirements {:016x}\n", python.version, hash.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_are_chosen_by_version() {
        for (version, good) in
            [("3.11.7", true), ("3.13.0rc1", true), ("3.10.13", false), ("2.7.18", false), ("", false)]
        {
            assert_eq!(supported(version), good, "{version}");
        }
    }
}
