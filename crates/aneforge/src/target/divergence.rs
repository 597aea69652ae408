//! Where two families compute other values of the same program.

use super::Family;
use crate::ir::numerics::OFFSET_SLICE_LIMIT;

/// How the results of an op differ between two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Divergence {
    /// Not that it is known.
    None,
    /// On one of them magnitudes above [`OFFSET_SLICE_LIMIT`] become infinite.
    Saturation,
    /// By the last place.
    Ulp1,
}

impl Divergence {
    /// Its name in ANEForge 0.4.0. Its `round1`, of squares after reductions, never occurs: nothing differs there on any
    /// chip that was measured (arXiv 2606.22283).
    pub fn name(self) -> &'static str {
        match self {
            Divergence::None => "none",
            Divergence::Saturation => "saturation",
            Divergence::Ulp1 => "ulp1",
        }
    }
}

/// Words in the names of windows, and of what reduces.
const WINDOWS: [&str; 2] = ["slice", "crop"];
const REDUCTIONS: [&str; 7] = ["reduce", "softmax", "norm", "mean", "sum", "variance", "rms"];

/// How results of an op of this kind differ between two families: `begin` is where a window starts on the last axis,
/// `max_abs` what its magnitudes do not exceed, if that is known.
///
/// Evidence: the windows are [`OFFSET_SLICE_LIMIT`]'s; reductions take another route from A15 on (see
/// [`Limits::reduction_route`](super::Limits)), and were measured to be equal on M1 and M2 and within one place on M5.
pub fn divergence(kind: &str, [a, b]: [Family; 2], begin: Option<i64>, max_abs: Option<f64>) -> Divergence {
    let kind = kind.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    let clamps = |family: Family| family <= Family::A14;
    let small = max_abs.is_some_and(|most| most <= OFFSET_SLICE_LIMIT);
    if has(&WINDOWS) && begin.is_some_and(|begin| begin > 0) && clamps(a) != clamps(b) && !small {
        return Divergence::Saturation;
    }
    let route = |family: Family| family.limits().reduction_route;
    if has(&REDUCTIONS) && route(a) != route(b) {
        return Divergence::Ulp1;
    }
    Divergence::None
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{A13, A14, A15, A16};

    #[test]
    fn rules_are_the_references() {
        use Divergence::{None as Same, Saturation, Ulp1};
        type Row = (&'static str, [Family; 2], Option<i64>, Option<f64>, Divergence);
        let rows: [Row; 16] = [
            ("slice", [A13, A16], Some(1), None, Saturation),
            ("slice", [A16, A14], Some(1), Some(4096.0), Saturation),
            ("Slice_By_Size", [A14, A15], Some(3), None, Saturation),
            ("crop", [A13, A16], Some(1), None, Saturation),
            ("slice", [A13, A16], Some(1), Some(4094.0), Same),
            ("slice", [A13, A16], Some(0), None, Same),
            ("slice", [A13, A16], None, None, Same),
            ("slice", [A13, A14], Some(1), None, Same),
            ("slice", [A15, A16], Some(1), None, Same),
            ("reduce", [A13, A15], None, None, Ulp1),
            ("softmax", [A14, A16], None, None, Ulp1),
            ("layer_norm", [A16, A13], None, None, Ulp1),
            ("reduce_square", [A13, A16], None, None, Ulp1),
            ("reduce_sum", [A13, A14], None, None, Same),
            ("mean", [A15, A16], None, None, Same),
            ("matmul", [A13, A16], None, None, Same),
        ];
        for (kind, families, begin, max_abs, want) in rows {
            assert_eq!(
                divergence(kind, families, begin, max_abs),
                want,
                "{kind} {families:?} {begin:?} {max_abs:?}"
            );
        }
    }
}
