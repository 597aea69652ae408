//! macOS on Apple silicon: everything is compiled and linked, and nothing runs. What was linked must say that it is for
//! it, and may import the system's C library and nothing else: the engine's frameworks are found at run time.

mod imports;
mod toolchain;

use super::compiler::Compiler;
use super::{Clock, folder};
use crate::run::Step;
use anyhow::{Context, Result, ensure};
use imports::Summary;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::Toolchain;

/// What is built for.
const TARGET: &str = "aarch64-apple-darwin";
/// Optimising the kernels would take most of the time, and nothing runs.
const PLAIN: &str = "profile.dev.package.aneforge-kernels.opt-level=0";
/// The oldest system that what is built runs on: the first on Apple silicon.
const OLDEST: (u32, u32) = (11, 0);

/// Makes the toolchain if it is not there, links everything, and checks what was linked.
pub fn run(compiler: &Compiler, clock: &mut Clock) -> Result<()> {
    let tools = clock.part("darwin: tools", toolchain::prepare)?;
    clock.part("darwin: standard library", || compiler.build_library(TARGET))?;
    let mut files = clock.part("darwin: workspace", || {
        linked(&compiler.cargo("build --workspace --target").arg(TARGET), &tools)
    })?;
    files.extend(clock.part("darwin: tests, not run", || {
        linked(&compiler.cargo("test --workspace --no-run --target").arg(TARGET), &tools)
    })?);
    files.push(clock.part("darwin: wheel", || wheel(compiler, &tools))?);
    clock.part("darwin: imports", || check(files))
}

/// Runs cargo; what it linked for the target.
fn linked(step: &Step, tools: &Toolchain) -> Result<Vec<PathBuf>> {
    let messages = tools
        .with(step.clone())
        .arg("--message-format=json-render-diagnostics")
        .arg("--config")
        .arg(PLAIN)
        .output()?;
    let files = linked_files(&messages)?;
    ensure!(!files.is_empty(), "`{step}` linked nothing");
    Ok(files)
}

/// The programs and libraries in cargo's messages. What runs while building is for this machine and left out.
fn linked_files(messages: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).with_context(|| format!("cargo's message is not JSON: {line}"))?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        files.extend(message["executable"].as_str().map(PathBuf::from));
        let all = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        files.extend(all.filter(|file| file.ends_with(".dylib")).map(PathBuf::from));
    }
    Ok(files)
}

/// Builds the wheel; the extension that is in it.
fn wheel(compiler: &Compiler, tools: &Toolchain) -> Result<PathBuf> {
    let (wheels, unpacked) = (emptied("wheels")?, emptied("wheel")?);
    let step = compiler.with(tools.maturin("build --profile dev --target"));
    let step = step.arg(TARGET).arg("--out").arg(wheels.to_string_lossy()).arg("--config").arg(PLAIN);
    tools.with(step).run()?;
    let mut found = fs::read_dir(&wheels)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(found.len() == 1, "maturin made {} wheels in {}, and not 1", found.len(), wheels.display());
    let wheel = found.remove(0).path();
    let tag = format!("-cp310-abi3-macosx_{}_{}_arm64.whl", OLDEST.0, OLDEST.1);
    ensure!(
        wheel.to_string_lossy().ends_with(&tag),
        "the wheel is {}, and should end with {tag}; pip on a Mac chooses by it",
        wheel.display()
    );
    Step::new(tools.python("python"), "-m zipfile -e")
        .arg(wheel.to_string_lossy())
        .arg(unpacked.to_string_lossy())
        .run()?;
    println!("{}", wheel.display());
    Ok(unpacked.join("aneforge").join("_native.abi3.so"))
}

fn emptied(name: &str) -> Result<PathBuf> {
    let path = folder("darwin-out").join(name);
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn check(mut files: Vec<PathBuf>) -> Result<()> {
    files.sort();
    files.dedup();
    let mut summary = Summary::default();
    for file in &files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let python = is_extension(file);
        summary.add(imports::check(&bytes, python).with_context(|| format!("{}", file.display()))?);
    }
    println!("{summary}");
    Ok(())
}

/// Whether Python loads it, and gives it Python's symbols.
fn is_extension(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("_native"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_linked_for_the_target_is_found_in_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","filenames":["/t/build/x/build-script-build"],"executable":null}"#,
            r#"{"reason":"compiler-artifact","filenames":["/t/libmacros.so"],"executable":null}"#,
            r#"{"reason":"compiler-artifact","filenames":["/t/liba.rlib","/t/liba.rmeta"],"executable":null}"#,
            r#"{"reason":"compiler-artifact","filenames":["/t/lib_native.dylib"],"executable":null}"#,
            r#"{"reason":"compiler-artifact","filenames":["/t/it-1"],"executable":"/t/it-1"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let files = linked_files(&messages.join("\n")).expect("they are messages");
        assert_eq!(files, ["/t/lib_native.dylib", "/t/it-1"].map(PathBuf::from));
        assert!(linked_files("no json").is_err());
    }

    #[test]
    fn extensions_are_known_by_name() {
        for (file, extension) in [("a/lib_native.dylib", true), ("_native.abi3.so", true), ("a/it-1", false)]
        {
            assert_eq!(is_extension(Path::new(file)), extension, "{file}");
        }
    }
}
