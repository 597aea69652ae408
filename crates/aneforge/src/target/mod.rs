//! What programs may be compiled for: chips, families, and the limits of each. Data first.
//!
//! Nothing here has been run on silicon by this project. Every figure is from ANEForge 0.4.0's
//! tables and the device measurements its authors report.

pub mod catalog;
mod clocks;
pub mod cost;
pub mod functions;
pub mod layers;

pub use crate::ir::numerics::Family;
use crate::ir::numerics::Numerics;
use std::fmt;

/// A chip that the engine's compiler knows by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Chip {
    /// The compiler's name for it, such as `h17s`.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
}

const fn chip(name: &'static str, family: Family) -> Chip {
    Chip { name, family }
}

/// Every chip with a known family. The compiler also knows `u1`, `u2` and `u3`, which have none.
pub static CHIPS: [Chip; 25] = {
    use Family::{A13, A14, A15, A16, Older};
    [
        chip("h11", Older),
        chip("h12", Older),
        chip("m9", Older),
        chip("t0", Older),
        chip("h13", A13),
        chip("h13g", A13),
        chip("t1", A13),
        chip("h14", A14),
        chip("h14g", A14),
        chip("h14c", A14),
        chip("h15", A15),
        chip("h15g", A15),
        chip("h15c", A15),
        chip("m11", A15),
        chip("h16", A16),
        chip("h16g", A16),
        chip("h16c", A16),
        chip("h16s", A16),
        chip("h17", A16),
        chip("h17a", A16),
        chip("h17g", A16),
        chip("h17s", A16),
        chip("h17c", A16),
        chip("h17d", A16),
        chip("h18", A16),
    ]
};

/// The chips of Macs by the names they are sold under, with the first of each generation's targets.
const MARKETED: [(&str, &str); 5] =
    [("m1", "h13"), ("m2", "h14"), ("m3", "h15"), ("m4", "h16"), ("m5", "h17")];

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

/// What a name is that is not a chip's, if it is a family's.
fn no_chip(name: &str) -> &'static str {
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

/// Limits that a family's compiler enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest extent of an axis, but for the two below.
    pub tensor_dim: usize,
    /// The largest extent of the channel axis of a rank-4 tensor.
    pub channels: usize,
    /// The largest extent of a value that is transposed, and of an input that feeds a transpose.
    pub transposed: usize,
    /// The widest convolution kernel.
    pub kernel_width: usize,
}

/// The widest kernel that any family accepts.
///
/// Evidence: ANEForge 0.4.0 rejects wider kernels when the graph is built, and its documentation
/// reports that widths of 16 and more fail in code generation.
pub const WIDEST_KERNEL: usize = 15;

impl Family {
    /// What this family's compiler enforces.
    ///
    /// Evidence: ANEForge 0.4.0's table of limits per family, held to its device tests on M1, M2 Pro
    /// and M5 Pro; A15 is extrapolated there from its neighbours.
    pub const fn limits(self) -> Limits {
        match self {
            Family::A16 => Limits {
                tensor_dim: 65_536,
                channels: 65_536,
                transposed: 16_777_215,
                kernel_width: WIDEST_KERNEL,
            },
            _ => Limits { tensor_dim: 16_384, channels: 65_536, transposed: 8_388_607, kernel_width: 13 },
        }
    }

    /// Whether this family runs MIL programs at all.
    pub const fn runs_mil(self) -> bool {
        !matches!(self, Family::Older)
    }
}

/// The first family whose engine computes an op; any family that runs MIL when it is not listed.
///
/// Evidence: ANEForge 0.4.0's table of floors; sine and cosine need the trigonometric unit of A15, and a
/// warp the texture unit of A14. The engine of A13 takes ranking and dynamic slices until it generates code.
pub const FLOORS: [(&str, Family); 6] = [
    ("sin", Family::A15),
    ("cos", Family::A15),
    ("affine", Family::A14),
    ("topk", Family::A14),
    ("sort", Family::A14),
    ("dynamic_slice", Family::A14),
];

/// The first family that computes the op called `name`.
pub fn floor(name: &str) -> Family {
    FLOORS.iter().find(|(n, _)| *n == name).map_or(Family::A13, |(_, f)| *f)
}

/// The family that a chip belongs to, by the family's name (`a13`) or any of the chip's ([`Target::named`]).
pub fn family_of(chip: &str) -> Option<Family> {
    let chip = chip.trim().to_ascii_lowercase();
    let named = FAMILIES.iter().find(|(name, _)| *name == chip).map(|(_, family)| *family);
    named.or_else(|| Some(Target::named(&chip).ok()?.family()))
}

/// Families that run programs, by name.
const FAMILIES: [(&str, Family); 5] = [
    ("a13", Family::A13),
    ("a14", Family::A14),
    ("a15", Family::A15),
    ("a16", Family::A16),
    ("a17", Family::A16),
];

/// There is no arithmetic of this name. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown numerics `{0}`{why}; known are `ane` (as the target), `ieee`, a family such as `a14`, and a chip such as `m1`",
    why = no_arithmetic(.0)
)]
pub struct UnknownNumerics(pub String);

/// Why a chip that there is has no arithmetic to follow.
fn no_arithmetic(name: &str) -> String {
    match family_of(name) {
        Some(family) => format!(" (a chip that is {family}, and runs no program)"),
        None => String::new(),
    }
}

/// The host's arithmetic by name: `ieee`, that of the target (`ane`), or that of a family, by any name that
/// [`family_of`] knows.
pub fn numerics_named(name: &str, target: Target) -> Result<Numerics, UnknownNumerics> {
    match name.trim().to_ascii_lowercase().as_str() {
        "ieee" => Ok(Numerics::Ieee),
        "ane" => Ok(Numerics::Ane(target.family())),
        other => match family_of(other) {
            Some(family) if family.runs_mil() => Ok(Numerics::Ane(family)),
            _ => Err(UnknownNumerics(name.into())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::op::find;

    #[test]
    fn tables_by_name_name_ops() {
        let names = FLOORS.iter().map(|(name, _)| *name).chain(cost::layers());
        names.for_each(|name| assert!(find(name).is_some(), "{name}"));
    }
}
