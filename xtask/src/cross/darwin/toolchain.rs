//! What links for macOS: rustup's linker, a list of the symbols of Apple's C library from zig, and zig for what is in C.

use super::super::folder;
use super::super::kept::{Kept, written_in};
use super::OLDEST;
use crate::python::{self, Environment};
use crate::run::Step;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that has Apple's symbols and a compiler of C for Apple's processors.
const ZIG: &str = "ziglang==0.17.1";
/// The cargo of maturin, which tells every package how the extension is linked and which Python it is for: they would all
/// be built again. `python/build.rs` says the former, and the latter does not matter to an extension for any of them.
const CARGO: &str = "#!/bin/sh
unset CARGO_ENCODED_RUSTFLAGS PYO3_BUILD_EXTENSION_MODULE PYO3_CONFIG_FILE PYO3_ENVIRONMENT_SIGNATURE
unset PYO3_PYTHON PYTHON_SYS_EXECUTABLE
exec cargo \"$@\"
";

/// The tools.
pub struct Toolchain(Kept);

/// Makes them, unless they are there.
pub fn prepare() -> Result<Toolchain> {
    let linker = linker()?;
    let maturin = python::pinned("maturin")?;
    let recipe = written_in(file!(), include_str!("toolchain.rs"))
        + &format!("{ZIG}\n{maturin}\n{}\nmacOS {OLDEST:?}", linker.display());
    let kept = Kept::prepare(folder("darwin"), &recipe, |kept| {
        let environment = Environment::new(kept.path("venv"))?;
        environment.install(&[ZIG, &maturin])?;
        let zig = zig(&kept.path("venv"))?;
        symbols(kept, &zig)?;
        linker_script(kept, &linker)?;
        c_scripts(kept, &zig)?;
        kept.script("cargo", CARGO)?;
        Ok(String::new())
    })?;
    Ok(Toolchain(kept))
}

impl Toolchain {
    /// A step that runs maturin.
    pub fn maturin(&self, args: &str) -> Step {
        Step::new(self.python("maturin"), args).env("CARGO", self.0.shown("bin/cargo"))
    }

    /// A program of the environment of Python.
    pub fn python(&self, name: &str) -> String {
        Environment::at(self.0.path("venv")).program(name)
    }

    /// A step that runs cargo, with these tools.
    pub fn with(&self, step: Step) -> Step {
        let kept = &self.0;
        step.env("SDKROOT", kept.shown("sdk"))
            .env("MACOSX_DEPLOYMENT_TARGET", format!("{}.{}", OLDEST.0, OLDEST.1))
            .env("CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER", kept.shown("bin/ld64"))
            .env("CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS", "-Clinker-flavor=ld64.lld")
            .env("CC_aarch64_apple_darwin", kept.shown("bin/cc"))
            .env("AR_aarch64_apple_darwin", kept.shown("bin/ar"))
    }
}

/// The linker that comes with rustup's toolchains.
fn linker() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = output.context("cannot start `rustc`")?.stdout;
    let linker = Path::new(String::from_utf8_lossy(&sysroot).trim())
        .join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
    ensure!(
        linker.exists(),
        "{} does not exist; `cargo xtask cross` links with the linker of a toolchain of rustup's for x86-64 Linux",
        linker.display()
    );
    Ok(linker)
}

/// rustc's flavor of arguments is the linker's own, but packages also pass what a compiler's driver would split.
fn linker_script(kept: &Kept, linker: &Path) -> Result<()> {
    let text = format!(
        "#!/bin/bash\n\
         a=()\n\
         for x in \"$@\"; do\n\
         \x20   case \"$x\" in\n\
         \x20       -Wl,*) IFS=, read -ra parts <<<\"${{x#-Wl,}}\"; a+=(\"${{parts[@]}}\");;\n\
         \x20       *) a+=(\"$x\");;\n\
         \x20   esac\n\
         done\n\
         # Debian's compiler runs with its own LLVM.\n\
         unset LD_LIBRARY_PATH\n\
         exec '{}' \"${{a[@]}}\"\n",
        linker.display()
    );
    kept.script("ld64", &text)
}

/// zig has its own headers and names of targets, so what the `cc` package says of both is left out. What it adds to find
/// undefined behaviour would need a library of its own.
fn c_scripts(kept: &Kept, zig: &Path) -> Result<()> {
    let (cache, zig) = (kept.subfolder("zig-cache")?, zig.display());
    let cache = cache.display();
    let start = format!(
        "export ZIG_GLOBAL_CACHE_DIR='{cache}' ZIG_LOCAL_CACHE_DIR='{cache}'\nunset LD_LIBRARY_PATH SDKROOT\nexec '{zig}'"
    );
    let (major, minor) = OLDEST;
    let cc = format!(
        "#!/bin/bash\n\
         a=()\n\
         while (($#)); do\n\
         \x20   case \"$1\" in\n\
         \x20       --target=*|-mmacosx-version-min=*) ;;\n\
         \x20       -arch|-isysroot) shift;;\n\
         \x20       # When asked for its version, zig also writes a.o into the folder it is in.\n\
         \x20       --version) cd '{cache}'; a+=(\"$1\");;\n\
         \x20       *) a+=(\"$1\");;\n\
         \x20   esac\n\
         \x20   shift\n\
         done\n\
         {start} cc -target aarch64-macos.{major}.{minor} -fno-sanitize=undefined \"${{a[@]}}\"\n"
    );
    kept.script("cc", &cc)?;
    kept.script("ar", &format!("#!/bin/sh\n{start} ar \"$@\"\n"))
}

/// Where zig is in an environment of Python.
fn zig(venv: &Path) -> Result<PathBuf> {
    let lib = venv.join("lib");
    for python in fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))? {
        let zig = python?.path().join("site-packages/ziglang/zig");
        if zig.exists() {
            return Ok(zig);
        }
    }
    anyhow::bail!("{ZIG} has no program zig below {}", lib.display())
}

/// A folder as Apple's kit has it, with the two libraries that Rust's standard library needs.
fn symbols(kept: &Kept, zig: &Path) -> Result<()> {
    let apple = zig.with_file_name("lib/libc/darwin");
    let read = |name: &str| {
        let path = apple.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    kept.subfolder("sdk/usr/lib")?;
    kept.write("sdk/SDKSettings.json", &read("SDKSettings.json")?)?;
    let system = with_known_targets(&read("libSystem.tbd")?);
    // Apple's kit has links by these names.
    for name in ["System", "c", "m", "pthread", "dl"] {
        kept.write(&format!("sdk/usr/lib/lib{name}.tbd"), &system)?;
    }
    kept.write(
        "sdk/usr/lib/libiconv.tbd",
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\n\
         install-name: '/usr/lib/libiconv.2.dylib'\ncurrent-version: 7\ncompatibility-version: 7\n\
         exports:\n  - targets: [ arm64-macos ]\n    symbols: [ _iconv, _iconv_close, _iconv_open ]\n...\n",
    )
}

/// A list of symbols whose lists of targets name none that the linker's reader does not know; with those it crashes
/// (LLVM 22, `arm64e.x1-macos`). What is for Apple's own pointers with signatures is there for others, too.
fn with_known_targets(tbd: &str) -> String {
    const LIST: &str = "targets:";
    let mut known = String::new();
    let mut rest = tbd;
    while let Some((before, list)) = rest.split_once(LIST) {
        let Some((targets, after)) = list.split_once(']') else { break };
        known += before;
        let whole_file = before.ends_with('\n');
        let mut names = targets.trim_start().trim_start_matches('[').split(',').map(str::trim);
        let ours = names.any(|name| matches!(name, "arm64-macos" | "arm64e-macos"));
        known += LIST;
        known += match (whole_file, ours) {
            (true, _) => " [ x86_64-macos, arm64-macos ]",
            (false, true) => " [ arm64-macos ]",
            (false, false) => " [ x86_64-macos ]",
        };
        rest = after;
    }
    known + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_symbols_are_for_targets_that_the_linker_knows() {
        let tbd = "--- !tapi-tbd\ntargets:   [ x86_64-macos, arm64e.x1-macos,\n    arm64e-macos ]\nexports:\n  \
                   - targets: [ arm64e-macos,\n     arm64e.x1-macos ]\n    symbols: [ _a ]\n  \
                   - targets: [ x86_64-macos, arm64e-maccatalyst ]\n    symbols: [ _b ]\n";
        let known = "--- !tapi-tbd\ntargets: [ x86_64-macos, arm64-macos ]\nexports:\n  \
                     - targets: [ arm64-macos ]\n    symbols: [ _a ]\n  \
                     - targets: [ x86_64-macos ]\n    symbols: [ _b ]\n";
        assert_eq!(with_known_targets(tbd), known);
    }
}
