//! What the feature `emulate-amx` promises, names of instruction sets, and the probe.

use aneforge_kernels::Isa;

#[test]
fn emulation_gives_every_processor_both_kinds_of_tiles() {
    if cfg!(feature = "emulate-amx") && (std::env::consts::ARCH, std::env::consts::OS) == ("x86_64", "linux")
    {
        for isa in [Isa::AmxBf16, Isa::AmxFp16] {
            assert!(Isa::available().contains(&isa), "{isa:?}");
        }
    }
}

#[test]
fn instruction_sets_have_names() {
    for isa in Isa::available() {
        assert_eq!(Isa::named(&format!("{isa:?}").to_lowercase()), Some(isa));
    }
    assert_eq!(Isa::named("AmxBf16"), Some(Isa::AmxBf16));
    assert_eq!(Isa::named("amx"), None);
}

#[test]
fn what_is_available_needs_no_probe() {
    for isa in Isa::available() {
        assert!(isa.probe(), "{isa:?}");
    }
}

/// A processor may conceal that its tiles multiply `f16`; one that cannot ends the child, and nothing else.
#[test]
fn a_child_probes_for_tiles_of_halves() {
    use std::process::{Command, Stdio};

    const CHILD: &str = "ANEFORGE_TEST_PROBES";
    // Elsewhere there are no tiles, and a program that is emulated cannot start itself.
    if std::env::consts::ARCH != "x86_64" {
        return assert!(!Isa::AmxFp16.probe());
    }
    if std::env::var_os(CHILD).is_some() {
        let found = Isa::AmxFp16.probe();
        assert_eq!(found, Isa::available().contains(&Isa::AmxFp16));
        std::process::exit(if found { 17 } else { 18 });
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "it::tiles::a_child_probes_for_tiles_of_halves"]).env(CHILD, "1");
    let status = child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    match status.code() {
        Some(17) => assert!(Isa::AmxFp16.probe() && Isa::available().contains(&Isa::AmxFp16)),
        // No tiles, or ended by the signal.
        Some(18) | None => assert!(!Isa::available().contains(&Isa::AmxFp16)),
        other => panic!("{other:?}"),
    }
}
