//! What programs may be compiled for: chips, families, and the limits of each. Data first.
//!
//! Nothing here has been run on silicon by this project. Figures are from ANEForge 0.4.0's tables and the device
//! measurements its authors report, and from the public guide arXiv 2606.22283, which restates what was measured on M1,
//! M2 Pro and M5 Pro and what the vendor's compiler has in its tables; each says which.

pub mod catalog;
mod chips;
mod clocks;
pub mod cost;
pub mod divergence;
mod floors;
pub mod functions;
pub mod layers;
mod limits;
mod streams;
mod systems;

use crate::ir::numerics::Numerics;
pub use chips::{Brand, CHIPS, Chip, Family, Target, TooOld, UnknownTarget, family_of, family_of_brand};
pub use floors::{Availability, FLOORS, FLOORS_ELSEWHERE, Floor, floor, has_texture_engine, op_status};
pub use limits::{Limits, TALLEST_KERNEL, WIDEST_KERNEL};
pub use streams::{INT8_ACTIVATIONS, native_streams};
pub use systems::System;

/// There is no arithmetic of this name. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown numerics `{0}`{why}; known are `ane` (as the target, what costs nothing), `faithful` (as the target, all that is published), \
     `ieee`, a family (`a13` to `a16`) or a chip such as `m1`, and those after `faithful-`",
    why = no_arithmetic(.0)
)]
pub struct UnknownNumerics(pub String);

/// Why a chip that there is has no arithmetic to follow.
fn no_arithmetic(name: &str) -> String {
    match family_of(parts(&name.trim().to_ascii_lowercase()).1) {
        Some(family) => format!(" (a chip that is {family}, and runs no program)"),
        None => String::new(),
    }
}

/// The setting and the family of a name: of `faithful-m1`, and of `faithful(A13)`, as it is printed.
fn parts(name: &str) -> (fn(Family) -> Numerics, &str) {
    let of = |setting: &str| {
        let rest = name.strip_prefix(setting)?;
        rest.strip_prefix('-').or_else(|| rest.strip_prefix('(')?.strip_suffix(')'))
    };
    match (of("faithful"), of("ane")) {
        (Some(family), _) => (Numerics::Faithful, family),
        (None, family) => (Numerics::Ane, family.unwrap_or(name)),
    }
}

/// The host's arithmetic by name: `ieee`; what is free of that of the target (`ane`), or of a family, by any name that
/// [`family_of`] knows; or all of it (`faithful`, or such a name after `faithful-`). Names as they are printed count too.
///
/// ```
/// use aneforge::target::numerics_named;
/// use aneforge::{Family, Numerics, Target};
/// for name in ["faithful-m1", "faithful(A13)", "Faithful-h13"] {
///     assert_eq!(numerics_named(name, Target::default())?, Numerics::Faithful(Family::A13));
/// }
/// assert_eq!(numerics_named("ane", Target::default())?, Numerics::Ane(Family::A16));
/// # Ok::<(), aneforge::target::UnknownNumerics>(())
/// ```
pub fn numerics_named(name: &str, target: Target) -> Result<Numerics, UnknownNumerics> {
    let lower = name.trim().to_ascii_lowercase();
    let (of, family) = parts(&lower);
    match lower.as_str() {
        "ieee" => Ok(Numerics::Ieee),
        "ane" => Ok(Numerics::Ane(target.family())),
        "faithful" => Ok(Numerics::Faithful(target.family())),
        _ => match family_of(family) {
            Some(family) if family.runs_mil() => Ok(of(family)),
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
        let names = FLOORS.iter().map(|floor| floor.op).chain(cost::package::layers());
        names.for_each(|name| assert!(find(name).is_some(), "{name}"));
        let elsewhere = FLOORS_ELSEWHERE.iter().map(|floor| floor.op);
        elsewhere.for_each(|name| assert!(find(name).is_none(), "{name} is an op now"));
    }
}
