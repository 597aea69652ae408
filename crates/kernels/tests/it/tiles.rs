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

/// A processor may conceal that its tiles multiply `f16`; trying one that cannot ends nothing.
#[test]
fn tiles_of_halves_are_probed_for() {
    let found = Isa::AmxFp16.probe();
    assert_eq!(found, Isa::available().contains(&Isa::AmxFp16));
    assert_eq!(found, Isa::AmxFp16.probe(), "an answer stays");
}
