//! Where the engine's arithmetic departs from IEEE 754, in one table.
//!
//! None of this has been run on silicon by this project: each constant names the evidence it rests on.

use std::fmt;

/// A generation of engines. Chips of one family accept the same programs and compute alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// A11 and A12 class engines, which run no MIL program.
    Older,
    /// M1 and A14 class (`h13`).
    A13,
    /// M2 class (`h14`).
    A14,
    /// M3 class (`h15`).
    A15,
    /// M4, M5 and later (`h16`, `h17`, `h18`).
    A16,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Older => "older than A13",
            Family::A13 => "A13",
            Family::A14 => "A14",
            Family::A15 => "A15",
            Family::A16 => "A16",
        })
    }
}

/// Which departures from IEEE 754 a session models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// None: infinities and NaN propagate as IEEE 754 says.
    Ieee,
    /// Those documented for a family of engines.
    Ane(Family),
}

/// The largest magnitude a matrix product returns; when it is beyond after it is rounded, infinity.
///
/// Evidence: device measurements reported for M1, M1 Max, M2 Pro, M4, M5 and M5 Pro put the cliff near
/// 32752, half of the largest half-precision value; 32752 is the half-precision value next to it.
pub const MATMUL_LIMIT: f64 = 32752.0;

/// The largest magnitude that survives a slice with an offset on the last axis.
///
/// Evidence: measured on M1, M1 Max and M2 Pro as a clamp at 65504/16, a fixed-point format with a factor
/// of sixteen; exact on M4, M5 and M5 Pro; not measured on A15, where it is taken to be exact.
pub const OFFSET_SLICE_LIMIT: f64 = 4094.0;

/// Whether a NaN result is stored as zero.
///
/// Evidence: modelled. The documentation says only that the engine does not propagate NaN, and the
/// published solvers behave as if zero were stored.
pub const NAN_IS_STORED_AS_ZERO: bool = true;

impl Numerics {
    /// Whether NaN results are stored as zero.
    pub fn flushes_nan(self) -> bool {
        matches!(self, Numerics::Ane(_)) && NAN_IS_STORED_AS_ZERO
    }

    /// The largest finite magnitude of a matrix product.
    pub fn matmul_limit(self) -> f64 {
        match self {
            Numerics::Ieee => f64::INFINITY,
            Numerics::Ane(_) => MATMUL_LIMIT,
        }
    }

    /// The largest finite magnitude after a slice that starts past zero on the last axis.
    pub fn offset_slice_limit(self) -> f64 {
        match self {
            Numerics::Ane(Family::A13 | Family::A14) => OFFSET_SLICE_LIMIT,
            _ => f64::INFINITY,
        }
    }
}

impl Numerics {
    /// The name that options call it by: `ieee`, or that of a family.
    pub fn name(self) -> &'static str {
        match self {
            Numerics::Ieee => "ieee",
            Numerics::Ane(Family::Older) => "older",
            Numerics::Ane(Family::A13) => "a13",
            Numerics::Ane(Family::A14) => "a14",
            Numerics::Ane(Family::A15) => "a15",
            Numerics::Ane(Family::A16) => "a16",
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numerics::Ieee => f.write_str("ieee"),
            Numerics::Ane(family) => write!(f, "ane({family})"),
        }
    }
}
