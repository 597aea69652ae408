//! The first family whose engine computes an op.

use super::Family;

/// What becomes of an op on a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Availability {
    /// The engine computes it.
    Native,
    /// It is written with ops that the engine computes.
    Decompose,
    /// Nothing computes it.
    Reject,
}

impl Availability {
    /// Its name: `native`, `decompose` or `reject`.
    pub fn name(self) -> &'static str {
        match self {
            Availability::Native => "native",
            Availability::Decompose => "decompose",
            Availability::Reject => "reject",
        }
    }
}

/// An op that not every family computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The op.
    pub op: &'static str,
    /// The first family that computes it.
    pub first: Family,
    /// What becomes of it before.
    pub below: Availability,
}

const fn floor_of(op: &'static str, first: Family, below: Availability) -> Floor {
    Floor { op, first, below }
}

use Availability::{Decompose, Reject};

/// Ops of this library that not every family computes.
///
/// Sine and cosine need the trigonometric unit of A15, and a warp the texture unit of A14. The engine of A13 takes ranking and
/// dynamic slices until it generates code.
/// Evidence: ANEForge 0.4.0's table of floors and arXiv 2606.22283 c35, M1 measured, others the compiler's (decompiled).
pub const FLOORS: [Floor; 6] = [
    floor_of("sin", Family::A15, Decompose),
    floor_of("cos", Family::A15, Decompose),
    floor_of("affine", TEXTURE, Reject),
    floor_of("topk", Family::A14, Reject),
    floor_of("sort", Family::A14, Reject),
    floor_of("dynamic_slice", Family::A14, Reject),
];

/// The same of ops that only the reference or MIL names. `global_argmax` and `global_argmin` are MIL's: the layer
/// `argmax` runs from A13 on (measured on M1, arXiv 2606.22283). The reference's `sq_after_reduce` is no entry: the
/// compiler's flag says A14, and nothing is fused, or differs, on any chip that was measured (same source).
///
/// Evidence: ANEForge 0.4.0's table of floors and arXiv 2606.22283 c35, every family (decompiled).
pub const FLOORS_ELSEWHERE: [Floor; 7] = [
    floor_of("crop_resize", TEXTURE, Reject),
    floor_of("resample", TEXTURE, Reject),
    floor_of("gather_hw", TEXTURE, Reject),
    floor_of("dropout", Family::A15, Decompose),
    floor_of("random", Family::A15, Decompose),
    floor_of("global_argmax", Family::A15, Reject),
    floor_of("global_argmin", Family::A15, Reject),
];

/// The first family with a texture unit, which resizes, crops, samples and warps.
///
/// Evidence: the compiler's feature byte 0x81d, as ANEForge 0.4.0 and arXiv 2606.22283 read it, M1 measured without (decompiled).
const TEXTURE: Family = Family::A14;

/// Whether a family has a texture unit.
pub fn has_texture_engine(family: Family) -> bool {
    family >= TEXTURE
}

/// The first family that computes the op called `name`: any that runs MIL when it is not listed.
pub fn floor(name: &str) -> Family {
    entry(name).map_or(Family::A13, |floor| floor.first)
}

/// What becomes of the op called `name` on a family.
pub fn op_status(name: &str, family: Family) -> Availability {
    match entry(name) {
        _ if !family.runs_mil() => Reject,
        Some(floor) if family < floor.first => floor.below,
        _ => Availability::Native,
    }
}

fn entry(name: &str) -> Option<&'static Floor> {
    static ALL: [&[Floor]; 2] = [&FLOORS, &FLOORS_ELSEWHERE];
    ALL.into_iter().flatten().find(|floor| floor.op == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's floors, on A13, A14 and A15.
    #[test]
    fn statuses_are_the_references() {
        use Availability::Native;
        let rows = [
            ("sin", [Decompose, Decompose, Native]),
            ("cos", [Decompose, Decompose, Native]),
            ("dropout", [Decompose, Decompose, Native]),
            ("random", [Decompose, Decompose, Native]),
            ("global_argmax", [Reject, Reject, Native]),
            ("global_argmin", [Reject, Reject, Native]),
            ("crop_resize", [Reject, Native, Native]),
            ("resample", [Reject, Native, Native]),
            ("affine", [Reject, Native, Native]),
            ("gather_hw", [Reject, Native, Native]),
            ("topk", [Reject, Native, Native]),
            ("sort", [Reject, Native, Native]),
            ("dynamic_slice", [Reject, Native, Native]),
            ("argmax", [Native; 3]),
            ("relu", [Native; 3]),
            // The reference rejects it on A13; nothing that was measured does.
            ("sq_after_reduce", [Native; 3]),
        ];
        for (name, want) in rows {
            let of = |family| op_status(name, family);
            assert_eq!([Family::A13, Family::A14, Family::A15].map(of), want, "{name}");
            assert_eq!((of(Family::Older), of(Family::A16)), (Reject, Native), "{name}");
        }
        assert_eq!(Family::ALL.map(has_texture_engine), [false, false, true, true, true]);
    }
}
