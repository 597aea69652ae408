//! Debian's compiler of Rust. rustup's has no standard library for other machines where only package registries are
//! reached, and no sources of one; Debian has both, of one version.

use super::debian::Debian;
use super::folder;
use super::kept::Kept;
use crate::run::Step;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Packages whose names do not change with versions. Two more are looked up: the compiler's library and LLVM.
const PACKAGES: [&str; 4] = ["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev:arm64", "rust-web-src"];

/// The parts of the standard library that programs and tests are linked with.
const PARTS: &str = "-Zbuild-std=core,alloc,std,panic_unwind,proc_macro,test";
/// The package whose dependency they are when they are built. It is not optimised: nothing runs.
const SEED: &str = "[package]
name = \"seed\"
version = \"0.0.0\"
edition = \"2024\"

[profile.dev]
debug = false

[workspace]
";

/// A compiler for this machine and for Linux on aarch64, with the sources of its standard library.
pub struct Compiler(Kept);

/// Unpacks it if it is not there.
pub fn prepare(debian: &Debian) -> Result<Compiler> {
    let usr = folder("compiler").join("root/usr").display().to_string();
    let start =
        format!("#!/bin/sh\nLD_LIBRARY_PATH={usr}/lib/x86_64-linux-gnu exec {usr}/bin/rustc \"$@\"\n");
    let recipe = format!("{}\n{start}", PACKAGES.join(" "));
    let kept = Kept::prepare(folder("compiler"), &recipe, |kept| {
        let library = debian.dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
        let llvm = debian.dependency(&library, "libllvm")?;
        let packages: Vec<&str> = PACKAGES.into_iter().chain([library.as_str(), llvm.as_str()]).collect();
        let unpacked = debian.unpack(&packages, &kept.path("root"))?;
        same_version(&unpacked)?;
        kept.script("rustc", &start)?;
        Ok(unpacked)
    })?;
    Ok(Compiler(kept))
}

/// A library is only read by the compiler that built it, and sources are only for it.
fn same_version(unpacked: &str) -> Result<()> {
    let of_rust = |line: &&str| line.contains("rust") && line.contains("-web");
    let mut versions: Vec<&str> =
        unpacked.lines().filter(of_rust).filter_map(|line| line.split('_').nth(1)).collect();
    versions.dedup();
    ensure!(
        versions.len() == 1,
        "Debian's packages of Rust have different versions; try again when its mirror has all of one:\n{unpacked}"
    );
    Ok(())
}

impl Compiler {
    /// Builds the standard library for a target from its sources, if it is not there.
    pub fn build_library(&self, target: &str) -> Result<()> {
        let recipe = format!("{SEED}\n{PARTS}\n{}", self.0.made_of().replace("\n\n", "\n"));
        let library = self.0.path(&format!("root/usr/lib/rustlib/{target}"));
        Kept::prepare(library, &recipe, |kept| {
            // What was built with another one cannot be linked with this.
            remove(&self.target_dir().join(target))?;
            kept.subfolder("seed/src")?;
            kept.write("seed/Cargo.toml", SEED)?;
            kept.write("seed/src/lib.rs", "")?;
            let build = self.cargo("build").arg(PARTS).arg("--target").arg(target).arg("--manifest-path");
            build
                .arg(kept.shown("seed/Cargo.toml"))
                .env("CARGO_TARGET_DIR", kept.shown("seed/target"))
                .env("RUSTC_BOOTSTRAP", "1")
                .run()?;
            let (built, library) =
                (kept.path(&format!("seed/target/{target}/debug/deps")), kept.subfolder("lib")?);
            let files = fs::read_dir(&built).with_context(|| format!("cannot read {}", built.display()))?;
            for file in files {
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                if name.ends_with(".rlib") && !name.starts_with("libseed") {
                    fs::copy(file.path(), library.join(name))?;
                }
            }
            remove(&kept.path("seed"))?;
            Ok(String::new())
        })?;
        Ok(())
    }

    /// A run of cargo with it, in a target folder of its own.
    pub fn cargo(&self, args: &str) -> Step {
        self.with(Step::cargo(args))
    }

    /// The same for a program that runs cargo.
    pub fn with(&self, step: Step) -> Step {
        step.env("RUSTC", self.0.shown("bin/rustc"))
            .env("CARGO_TARGET_DIR", self.target_dir().to_string_lossy())
    }

    /// Inside, so that it goes when the compiler does: cargo does not tell apart two of the same version.
    fn target_dir(&self) -> PathBuf {
        self.0.path("target")
    }
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder)
        .with_context(|| format!("cannot remove {}; remove it yourself", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_version_are_demanded() {
        let good = "libllvm22_1%3a22.1_amd64\nlibstd-rust-web-1.96_1.96.0_amd64\nrustc-web_1.96.0_amd64";
        assert!(same_version(good).is_ok());
        let error = same_version(&format!("{good}\nrust-web-src_1.85.0_all")).expect_err("two versions");
        assert!(error.to_string().contains("different versions"), "{error}");
    }
}
