//! `cargo xtask cross`: the kernels on aarch64, under qemu's user emulation.
//!
//! The toolchain is Debian's, unpacked below the target folder without being installed: a compiler whose
//! standard library exists for aarch64, a linker, the C library, and qemu. rustup's own compiler has no
//! standard library for other machines where only package registries are reached.

use crate::run::{Step, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is built for, and run under emulation.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The instruction sets that the emulated processor has and the tests must run on.
const ISAS: &str = "Scalar Neon NeonFhm";
/// Seconds after which a test program hangs: it takes some 200 here.
const LIMIT: u32 = 1500;
/// Packages whose names do not change with versions. Two more are looked up: the compiler's library and LLVM.
const PACKAGES: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev",
    "libstd-rust-web-dev:arm64",
    "gcc-12-aarch64-linux-gnu",
    "cpp-12-aarch64-linux-gnu",
    "binutils-aarch64-linux-gnu",
    "libc6-arm64-cross",
    "libc6-dev-arm64-cross",
    "libgcc-12-dev-arm64-cross",
    "libgcc-s1-arm64-cross",
    "linux-libc-dev-arm64-cross",
    "qemu-user-static",
];

/// Unpacks the toolchain if it is not there, and runs the kernels' tests.
pub fn run() -> Result<()> {
    let tools = Tools { folder: target_dir().join("xtask").join("cross") };
    tools.prepare()?;
    println!("==> kernels on {TARGET}, under qemu: {ISAS}");
    let (emulator, root) = (tools.program("qemu-aarch64-static"), tools.shown("root/usr/aarch64-linux-gnu"));
    let runner = format!("timeout {LIMIT} {emulator} -cpu max -L {root}");
    // Without documentation tests: rustup's rustdoc cannot read the other compiler's libraries.
    Step::cargo("test -p aneforge-tensor -p aneforge-kernels --lib --tests --target")
        .arg(TARGET)
        .env("RUSTC", tools.shown("bin/rustc"))
        .env("CARGO_TARGET_DIR", tools.shown("target"))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tools.shown("bin/cc"))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner)
        .env("ANEFORGE_ISAS", ISAS)
        .run()
}

struct Tools {
    folder: PathBuf,
}

impl Tools {
    fn shown(&self, inside: &str) -> String {
        self.folder.join(inside).to_string_lossy().into_owned()
    }

    fn program(&self, name: &str) -> String {
        self.shown(&format!("root/usr/bin/{name}"))
    }

    fn prepare(&self) -> Result<()> {
        let ready = self.folder.join("ready");
        if ready.exists() {
            println!("reusing {}", self.folder.display());
            return Ok(());
        }
        println!("==> unpacking a toolchain for {TARGET} in {}", self.folder.display());
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        for inside in ["bin", "debs", "root", "apt/state/lists/partial", "apt/cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(inside)).context("cannot make the toolchain's folder")?;
        }
        self.apt("apt-get", &["-q", "update"]).context("`cargo xtask cross` needs Debian's packages")?;
        let library = self.dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
        let llvm = self.dependency(&library, "libllvm")?;
        let mut download = vec!["-q", "download"];
        download.extend(PACKAGES);
        download.extend([library.as_str(), llvm.as_str()]);
        self.apt("apt-get", &download)?;
        self.unpack()?;
        let usr = self.shown("root/usr");
        let libraries = format!("LD_LIBRARY_PATH={usr}/lib/x86_64-linux-gnu");
        self.script("rustc", &format!("{libraries} exec {usr}/bin/rustc \"$@\""))?;
        let root = self.shown("root");
        let compiler = format!(
            "{libraries} exec {usr}/bin/aarch64-linux-gnu-gcc-12 --sysroot={root} -I{usr}/aarch64-linux-gnu/include \"$@\""
        );
        self.script("cc", &compiler)?;
        Ok(fs::write(ready, "")?)
    }

    /// Runs one of apt's programs with lists and caches of its own, for both machines' packages.
    fn apt(&self, program: &str, args: &[&str]) -> Result<String> {
        let state = self.shown("apt/state");
        let options = [
            format!("Dir::State={state}"),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::Cache={}", self.shown("apt/cache")),
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

    /// The package that `package` needs whose name begins so.
    fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let listed = self.apt("apt-cache", &["depends", package])?;
        let named = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
        let found = listed.lines().filter_map(named).find(|name| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        found.with_context(|| {
            format!("package {package} needs no {prefix}*; see `apt-cache depends {package}`")
        })
    }

    fn unpack(&self) -> Result<()> {
        let packages = fs::read_dir(self.folder.join("debs"))?;
        for package in packages {
            let (package, root) = (package?.path(), self.folder.join("root"));
            Step::new("dpkg", "-x").arg(package.to_string_lossy()).arg(root.to_string_lossy()).run()?;
        }
        Ok(())
    }

    fn script(&self, name: &str, body: &str) -> Result<()> {
        let path: PathBuf = Path::new(&self.folder).join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }
}
