//! How many bytes of weights one program may have: a limit of the operating system's compiler, not of a chip.

/// A generation of the system whose compiler a program is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum System {
    /// macOS up to 26.
    #[default]
    MacOs26,
    /// macOS 27.
    MacOs27,
}

impl System {
    /// Every system.
    pub const ALL: [System; 2] = [System::MacOs26, System::MacOs27];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            System::MacOs26 => "macos26",
            System::MacOs27 => "macos27",
        }
    }

    /// The system of this name, in any case.
    pub fn named(name: &str) -> Option<System> {
        System::ALL.into_iter().find(|system| system.name().eq_ignore_ascii_case(name.trim()))
    }

    /// The longest weight file of one program, in bytes.
    pub fn most_bytes(self) -> u64 {
        match self {
            System::MacOs26 => 2 << 30,
            System::MacOs27 => 1 << 30,
        }
    }

    /// What the number rests on.
    pub fn evidence(self) -> &'static str {
        match self {
            System::MacOs26 => {
                "reported message of the compiler: `Weight file size (2525476480 bytes) exceeds the maximum (2147483648 \
                 bytes)` (apple/coremltools#2593, 2025-09); ANEForge's authors compiled 1.5 GB and not 3.4 GB"
            }
            System::MacOs27 => {
                "this project's requirement, half of before to be safe; no public measurement was found. Reported of \
                 iOS 18 is 1 GB (Anemll/Anemll#28)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_go_by_name() {
        for system in System::ALL {
            assert_eq!(System::named(&system.name().to_uppercase()), Some(system));
            assert!(!system.evidence().is_empty());
        }
        assert_eq!(System::named("macos15"), None);
        assert_eq!(System::ALL.map(System::most_bytes), [2_147_483_648, 1_073_741_824]);
        assert_eq!(System::default(), System::MacOs26);
    }
}
