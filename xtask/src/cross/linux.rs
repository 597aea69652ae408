//! Linux on aarch64, under qemu's user emulation.

use super::compiler::Compiler;
use super::debian::Debian;
use super::kept::Kept;
use super::{Clock, folder};
use crate::run::Step;
use anyhow::Result;

/// What is built for, and run under emulation.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The packages whose tests run: code for one processor, and what reads and writes bytes.
const TESTED: [&str; 4] = ["aneforge-tensor", "aneforge-kernels", "aneforge-mil", "aneforge-ane"];
/// Tests of the engine's interface that start no other process, which the emulator would not run: how this processor passes
/// arguments to functions and to methods.
const ON_THE_STANDIN: [&str; 7] = [
    "calls::a_program",
    "calls::an_input",
    "calls::ports_are",
    "calls::programs",
    "device::state",
    "native::a_cut_graph",
    "native::every_step",
];
/// The instruction sets that the emulated processor has and the tests must run on.
const ISAS: &str = "Scalar Neon NeonFhm";
/// Seconds after which a test program hangs: it takes some 200 here.
const LIMIT: u32 = 1500;
/// A linker, the C library, and qemu.
const PACKAGES: [&str; 9] = [
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

/// Unpacks the tools if they are not there, and runs the tests.
pub fn run(compiler: &Compiler, debian: &Debian, clock: &mut Clock) -> Result<()> {
    let tools = clock.part("linux: tools", || prepare(debian))?;
    clock.part("linux: tests under qemu", || {
        println!("{} on {TARGET}, with {ISAS}", TESTED.join(", "));
        let emulator = tools.shown("root/usr/bin/qemu-aarch64-static");
        let runner =
            format!("timeout {LIMIT} {emulator} -cpu max -L {}", tools.shown("root/usr/aarch64-linux-gnu"));
        let emulated = |step: Step| {
            step.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tools.shown("bin/cc"))
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner.clone())
                .env("ANEFORGE_ISAS", ISAS)
        };
        // Without documentation tests: rustup's rustdoc cannot read the other compiler's libraries.
        let tests = compiler.cargo("test --lib --tests --target").arg(TARGET);
        emulated(TESTED.iter().fold(tests, |tests, &package| tests.arg("-p").arg(package))).run()?;
        let tests = compiler.cargo("test -p aneforge-ane-standin --test it --target").arg(TARGET).arg("--");
        emulated(ON_THE_STANDIN.iter().fold(tests, |tests, &test| tests.arg(test))).run()
    })
}

fn prepare(debian: &Debian) -> Result<Kept> {
    let root = folder("linux").join("root").display().to_string();
    let start = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu exec {root}/usr/bin/aarch64-linux-gnu-gcc-12 \
         --sysroot={root} -I{root}/usr/aarch64-linux-gnu/include \"$@\"\n"
    );
    Kept::prepare(folder("linux"), &format!("{}\n{start}", PACKAGES.join(" ")), |kept| {
        kept.script("cc", &start)?;
        debian.unpack(&PACKAGES, &kept.path("root"))
    })
}
