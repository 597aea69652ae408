//! Chips that the engine's compiler knows by name, and their families.

pub use crate::ir::numerics::Family;
use std::fmt;

/// A chip that the engine's compiler knows by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Chip {
    /// The compiler's name for it, such as `h17s`.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// Cores of its engine, where they are known.
    pub cores: Option<u32>,
    /// What it is, or is said to be.
    pub is: &'static str,
    /// What is doubtful about it; empty for most.
    pub note: &'static str,
}

/// Said of chips that are only known by name.
const BY_NAME: &str =
    "known by name only, from one community report; its limits are those of the family before";

/// Every chip with a known family. The compiler also knows `u1`, `u2` and `u3`, which have none.
///
/// Names and families are ANEForge 0.4.0's. Cores of `t1` are too, as the guide has 4 in one place and 16 in another; `h18p`,
/// `h19p` and the chip of `h16c` are from one community repository. How many cores a chip that is sold has was measured of none.
/// Evidence: the compiler's table as arXiv 2606.22283 c34 reads it, every chip (decompiled).
#[rustfmt::skip]
pub static CHIPS: [Chip; 27] = {
    use Family::{A13, A14, A15, A16, Older};
    const fn chip(name: &'static str, family: Family, cores: u32, is: &'static str, note: &'static str) -> Chip {
        let cores = if cores == 0 { None } else { Some(cores) };
        Chip { name, family, cores, is, note }
    }
    [
        chip("h11", Older, 4, "A11 class", ""),
        chip("h12", Older, 0, "A12 class", ""),
        chip("m9", Older, 1, "watch", ""),
        chip("t0", Older, 0, "test part", ""),
        chip("h13", A13, 4, "M1", ""),
        chip("h13g", A13, 8, "M1 Pro, Max, Ultra", ""),
        chip("t1", A13, 16, "reference of A13", "not a product; 4 cores by another reading"),
        chip("h14", A14, 4, "M2", ""),
        chip("h14g", A14, 8, "M2 Pro, Max", ""),
        chip("h14c", A14, 32, "Max class", ""),
        chip("h15", A15, 4, "M3", ""),
        chip("h15g", A15, 8, "M3 Pro, Max", ""),
        chip("h15c", A15, 32, "Max class", ""),
        chip("m11", A15, 1, "small embedded engine", "family inferred"),
        chip("h16", A16, 4, "M4", ""),
        chip("h16g", A16, 8, "M4 Pro, Max", ""),
        chip("h16c", A16, 32, "M4 Max", "by what one M4 Max reports"),
        chip("h16s", A16, 16, "Pro class", ""),
        chip("h17", A16, 4, "M5", "one M5 Max reports this name with more cores"),
        chip("h17a", A16, 4, "variant of M5", ""),
        chip("h17g", A16, 8, "Pro and Max class", ""),
        chip("h17s", A16, 16, "M5 Pro, Max", ""),
        chip("h17c", A16, 32, "Max class", ""),
        chip("h17d", A16, 64, "Ultra class", ""),
        chip("h18", A16, 4, "A18 class", "also takes fp8, which is not used here"),
        chip("h18p", A16, 0, "iPhone 17 Pro", BY_NAME),
        chip("h19p", A16, 0, "iPhone 18 Pro", BY_NAME),
    ]
};

/// The chips of Macs by the names they are sold under, with the first of each generation's targets.
const MARKETED: [(&str, &str); 5] =
    [("m1", "h13"), ("m2", "h14"), ("m3", "h15"), ("m4", "h16"), ("m5", "h17")];

/// The compiler's targets that stand for no chip.
const PROFILES: [&str; 3] = ["u1", "u2", "u3"];

/// The chip a program is compiled for. Where it runs is the device's business.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target(&'static Chip);

/// There is no chip of this name. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown target `{0}`{why}; known are m1 to m5 and {known}", why = no_chip(.0), known = known())]
pub struct UnknownTarget(pub String);

/// The chip is too old for programs. The target's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target {0} is {family}, which runs no MIL program; the oldest that does is h13", family = .0.family())]
pub struct TooOld(pub Target);

/// What a name is that is not a chip's, if it is known otherwise.
fn no_chip(name: &str) -> &'static str {
    if PROFILES.contains(&name) {
        return ", which the compiler knows as a profile of no chip";
    }
    match FAMILIES.iter().any(|(family, _)| *family == name) {
        true => ", which is a family of chips and not one of them",
        false => "",
    }
}

fn known() -> String {
    CHIPS.iter().map(|c| c.name).collect::<Vec<_>>().join(" ")
}

impl Target {
    /// The chip of this name, which may also be that of a Mac's chip (`M1`), in any case, with blanks around it
    /// ignored.
    pub fn named(name: &str) -> Result<Target, UnknownTarget> {
        let name = name.trim().to_ascii_lowercase();
        let wanted = MARKETED.iter().find(|(m, _)| *m == name).map_or(name.as_str(), |(_, chip)| chip);
        CHIPS.iter().find(|c| c.name == wanted).map(Target).ok_or(UnknownTarget(name))
    }

    /// The chip's name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The chip's family.
    pub fn family(self) -> Family {
        self.0.family
    }

    /// What is known of the chip.
    pub fn chip(self) -> &'static Chip {
        self.0
    }

    /// Whether the chip is new enough for programs.
    pub fn runs_programs(self) -> Result<(), TooOld> {
        if self.family().runs_mil() { Ok(()) } else { Err(TooOld(self)) }
    }
}

/// Without an engine at hand, programs are compiled for the M5 Pro.
impl Default for Target {
    fn default() -> Target {
        Target::named("h17s").expect("invariant: the default is in the table")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Families that run programs, by name. Of A16 there are no limits that later ones do not have.
const FAMILIES: [(&str, Family); 5] = [
    ("a13", Family::A13),
    ("a14", Family::A14),
    ("a15", Family::A15),
    ("a16", Family::A16),
    ("a17", Family::A16),
];

/// The family that a chip belongs to, by the family's name (`a13`) or any of the chip's ([`Target::named`]).
pub fn family_of(chip: &str) -> Option<Family> {
    let chip = chip.trim().to_ascii_lowercase();
    let named = FAMILIES.iter().find(|(name, _)| *name == chip).map(|(_, family)| *family);
    named.or_else(|| Some(Target::named(&chip).ok()?.family()))
}

impl Family {
    /// Every family, oldest first.
    pub const ALL: [Family; 5] = [Family::Older, Family::A13, Family::A14, Family::A15, Family::A16];

    /// Its number, from 1 for the oldest, as ANEForge 0.4.0 counts.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The family of this number.
    pub fn numbered(number: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.number() == number)
    }

    /// Whether this family runs MIL programs at all.
    pub const fn runs_mil(self) -> bool {
        !matches!(self, Family::Older)
    }

    /// The chip that programs for the whole family are compiled for.
    pub fn representative(self) -> Option<Target> {
        let name = match self {
            Family::Older => return None,
            Family::A13 => "h13",
            Family::A14 => "h14",
            Family::A15 => "h15",
            Family::A16 => "h16s",
        };
        Some(Target::named(name).expect("invariant: representatives are in the table"))
    }
}

/// What the brand of a Mac's processor says of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brand {
    /// The family, or the newest that is known.
    pub family: Family,
    /// The generation, if it is newer than those that are known.
    pub newer: Option<u32>,
}

/// The engine of a processor of this brand, such as `Apple M2 Pro`; none if it is no such processor.
///
/// Evidence: ANEForge 0.4.0: M1 to M5 are `h13` to `h17`. A newer one accepts what older ones do.
pub fn family_of_brand(brand: &str) -> Option<Brand> {
    let after = brand.split_once("Apple M")?.1;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let generation = digits.parse().ok().filter(|&generation: &u32| generation > 0)?;
    let known = MARKETED.get(generation as usize - 1).and_then(|(_, chip)| family_of(chip));
    Some(match known {
        Some(family) => Brand { family, newer: None },
        None => Brand { family: Family::A16, newer: Some(generation) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brands_of_macs() {
        let of = |brand| family_of_brand(brand).map(|b| (b.family.number(), b.newer));
        for (brand, number) in [
            ("Apple M1", 2),
            ("Apple M1 Max", 2),
            ("Apple M2 Pro", 3),
            ("Apple M3", 4),
            ("Apple M4", 5),
            ("Apple M5 Pro", 5),
        ] {
            assert_eq!(of(brand), Some((number, None)), "{brand}");
        }
        assert_eq!(of("Apple M6 Max"), Some((5, Some(6))));
        assert_eq!(of("Apple M12"), Some((5, Some(12))));
        for other in
            ["Intel(R) Core(TM) i7-8700B CPU @ 3.20GHz", "Apple M", "Apple M0", "Apple M99999999999", ""]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    /// The reference's table of chips and families, and the names reported since.
    #[test]
    fn chips_and_their_families() {
        let of = |number| {
            let chips = CHIPS.iter().filter(|c| c.family.number() == number).map(|c| c.name);
            chips.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(1), "h11 h12 m9 t0");
        assert_eq!(of(2), "h13 h13g t1");
        assert_eq!(of(3), "h14 h14g h14c");
        assert_eq!(of(4), "h15 h15g h15c m11");
        assert_eq!(of(5), "h16 h16g h16c h16s h17 h17a h17g h17s h17c h17d h18 h18p h19p");
        assert_eq!(
            (Family::numbered(0), Family::numbered(5), Family::numbered(6)),
            (None, Some(Family::A16), None)
        );
        for name in ["h18p", "h19p"] {
            assert!(Target::named(name).unwrap().chip().note.contains("family before"), "{name}");
        }
        for (name, cores) in [
            ("h14g", 8),
            ("h14c", 32),
            ("h15g", 8),
            ("h16g", 8),
            ("h16c", 32),
            ("h17a", 4),
            ("h17g", 8),
            ("h18", 4),
        ] {
            assert_eq!(Target::named(name).unwrap().chip().cores, Some(cores), "{name}");
        }
        let profile = Target::named("u1").unwrap_err().to_string();
        assert!(profile.starts_with("unknown target `u1`, which the compiler knows as a profile of no chip"));
    }
}
