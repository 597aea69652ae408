//! Debian's packages, unpacked and not installed.

use crate::run::Step;
use anyhow::{Context, Result, bail, ensure};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lists of packages of our own, for both machines. They are fetched when something is first asked of them.
pub struct Debian {
    folder: PathBuf,
    fetched: OnceCell<()>,
}

impl Debian {
    pub fn new(folder: PathBuf) -> Debian {
        Debian { folder, fetched: OnceCell::new() }
    }

    /// The package that `package` needs whose name begins so and goes on with a digit.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        self.fetch()?;
        let listed = self.apt("apt-cache", &["depends", package])?;
        let named = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
        let found = listed.lines().filter_map(named).find(|name| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        found.with_context(|| {
            format!("package {package} needs no {prefix}*; see `apt-cache depends {package}`")
        })
    }

    /// Unpacks the newest of these packages; their names and versions, a line each.
    pub fn unpack(&self, packages: &[&str], root: &Path) -> Result<String> {
        self.fetch()?;
        let debs = self.folder.join("debs");
        clear(&debs)?;
        let mut download = vec!["-q", "download"];
        download.extend(packages);
        self.apt("apt-get", &download)?;
        let mut names = Vec::new();
        for package in fs::read_dir(&debs)? {
            let path = package?.path();
            Step::new("dpkg", "-x").arg(path.to_string_lossy()).arg(root.to_string_lossy()).run()?;
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
        let (asked, got) = (packages.len(), names.len());
        ensure!(asked == got, "asked Debian for {asked} packages and got {got}: {}", names.join(", "));
        clear(&debs)?;
        names.sort();
        Ok(names.join("\n"))
    }

    fn fetch(&self) -> Result<()> {
        if self.fetched.get().is_some() {
            return Ok(());
        }
        for inside in ["debs", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(inside))
                .context("cannot make a folder for Debian's lists")?;
        }
        self.apt("apt-get", &["-q", "update"])
            .context("`cargo xtask cross` takes its tools from Debian 12's packages, with apt")?;
        self.fetched.get_or_init(|| ());
        Ok(())
    }

    fn apt(&self, program: &str, args: &[&str]) -> Result<String> {
        let (state, cache) = (self.folder.join("state"), self.folder.join("cache"));
        let options = [
            format!("Dir::State={}", state.display()),
            format!("Dir::State::lists={}", state.join("lists").display()),
            format!("Dir::Cache={}", cache.display()),
            "APT::Architectures::=amd64".into(),
            "APT::Architectures::=arm64".into(),
            "APT::Sandbox::User=root".into(),
        ];
        let mut command = Command::new(program);
        options.iter().for_each(|option| _ = command.arg("-o").arg(option));
        let output = command.args(args).current_dir(self.folder.join("debs")).output();
        let output = output.with_context(|| format!("cannot start `{program}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{program} {}` failed with {}:\n{}", args.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn clear(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))
}
