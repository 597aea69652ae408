//! The arithmetic that a session models: IEEE 754's, what costs nothing of an engine's, or all that is published of one. The
//! rules are data, in [`super::rules`].

use super::rules::{Rule, Value};
use aneforge_kernels::map::Unary;
use aneforge_tensor::{f16, round_f16};
use std::fmt;
use std::sync::LazyLock;

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
    /// Those published of a family of engines that cost nothing to follow.
    Ane(Family),
    /// All that is published of a family of engines.
    Faithful(Family),
}

/// The largest magnitude a product of matrices, or of more than one term, returns; when it is beyond after it is rounded, infinity.
///
/// Evidence: guide (arXiv 2606.22283) ch. 3, M1; reference, M1 Max, M2 Pro, M4, M5, M5 Pro, near 32759 (measured).
pub const MATMUL_LIMIT: f64 = 32752.0;

/// The largest magnitude that survives a slice with an offset on the last axis, or a product by weights of eight bits: 65504/16, a
/// fixed-point format with a factor of sixteen.
///
/// Evidence: guide ch. 3, 12 and 19, M1, M2 Pro; exact on M5 Pro; A15 was not measured (measured).
pub const OFFSET_SLICE_LIMIT: f64 = 4094.0;

/// What the rules come to in one setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Whether results halfway between two halves go away from zero, and not to the even one.
    pub ties_away: bool,
    /// Whether a NaN that an op makes becomes zero, inside of it, too.
    pub flushes_nan: bool,
    /// Whether a NaN that is fed becomes infinity.
    pub takes_nan_for_infinity: bool,
    /// Whether `sqrt(-0)` is +0.
    pub positive_root: bool,
    /// `log(0)`.
    pub log_of_zero: Option<f64>,
    /// From where the engine's own `softplus` is 0.
    pub softplus_end: Option<f64>,
    /// The largest finite magnitude of a product.
    pub product_limit: f64,
    /// The largest finite magnitude after a slice that starts past zero on the last axis.
    pub offset_slice_limit: f64,
    /// The largest finite magnitude of the sum of the first terms of a product.
    pub partial_limit: f64,
    /// The largest finite magnitude of what is multiplied by weights of eight bits.
    pub byte_operand_limit: f64,
    /// Whether products take subnormal numbers for zeros.
    pub flushes_subnormals: bool,
    /// How many bits the sum of four plain values keeps.
    pub tile_bits: Option<u32>,
    /// Whether squares are rounded before they are summed.
    pub rounds_squares: bool,
    /// The values at zero of `gelu` and `silu`.
    pub at_zero: Option<[f64; 2]>,
    /// Where the table of `sigmoid` begins and ends.
    pub sigmoid: Option<[f64; 2]>,
    /// Whether the engine's own `round` adds a half.
    pub rounds_by_adding: bool,
}

impl Arithmetic {
    fn of(numerics: Numerics) -> Arithmetic {
        let value = |rule| numerics.follows(rule);
        let number = |rule| match value(rule) {
            Value::Number(number) => Some(number),
            _ => None,
        };
        let limit = |rule| number(rule).unwrap_or(f64::INFINITY);
        let pair = |a, b| Some([number(a)?, number(b)?]);
        Arithmetic {
            ties_away: value(Rule::TieAtStore) == Value::Away,
            flushes_nan: value(Rule::NanMade) == Value::Zero,
            takes_nan_for_infinity: value(Rule::NanFed) == Value::Infinity,
            positive_root: value(Rule::SqrtOfMinusZero) == Value::Zero,
            log_of_zero: number(Rule::LogOfZero),
            softplus_end: number(Rule::SoftplusEnd),
            product_limit: limit(Rule::ProductLimit),
            offset_slice_limit: limit(Rule::OffsetSliceLimit),
            partial_limit: limit(Rule::PartialLimit),
            byte_operand_limit: limit(Rule::ByteOperandLimit),
            flushes_subnormals: value(Rule::SubnormalsInProducts) == Value::Zero,
            tile_bits: match value(Rule::SumTile) {
                Value::Bits(bits) => Some(bits),
                _ => None,
            },
            rounds_squares: value(Rule::SquareInSum) == Value::Yes,
            at_zero: pair(Rule::GeluAtZero, Rule::SiluAtZero),
            sigmoid: pair(Rule::SigmoidLow, Rule::SigmoidHigh),
            rounds_by_adding: value(Rule::RoundByAdding) == Value::Yes,
        }
    }

    /// The function that the host computes for one of an op.
    pub(crate) fn function(&self, function: Unary) -> Unary {
        match (function, self.log_of_zero, self.softplus_end) {
            (Unary::Sqrt, ..) if self.positive_root => Unary::EngineSqrt,
            (Unary::Log { eps }, Some(least), _) => Unary::EngineLog { eps, least: least as f32 },
            (Unary::Softplus, _, Some(end)) => Unary::EngineSoftplus { end: end as f32 },
            _ => function,
        }
    }

    /// What is stored for the computed value `v`.
    pub(crate) fn store(&self, v: f64) -> f64 {
        let stored = if self.ties_away { away(v) } else { round_f16(v) };
        if stored.is_nan() && self.flushes_nan { 0.0 } else { stored.to_f64() }
    }

    /// What a product stores for the accumulated value `v`.
    pub(crate) fn store_product(&self, v: f64) -> f64 {
        let stored = self.flushed(self.store(v));
        if stored.abs() > self.product_limit { f64::INFINITY.copysign(stored) } else { stored }
    }

    /// What a product takes a number for.
    pub(crate) fn flushed(&self, v: f64) -> f64 {
        if self.flushes_subnormals && v.abs() < f64::from(f16::MIN_POSITIVE) { 0.0 } else { v }
    }
}

/// `v` in half precision, ties away from zero.
fn away(v: f64) -> f16 {
    let even = round_f16(v);
    let next = f16::from_bits(even.to_bits().wrapping_add(1));
    let is_tie = even.is_finite() && next.is_finite() && v - even.to_f64() == next.to_f64() - v;
    if is_tie { next } else { even }
}

static SETTINGS: LazyLock<[[Arithmetic; Family::ALL.len()]; 3]> = LazyLock::new(|| {
    let each = |of: fn(Family) -> Numerics| Family::ALL.map(|family| Arithmetic::of(of(family)));
    [each(|_| Numerics::Ieee), each(Numerics::Ane), each(Numerics::Faithful)]
});

impl Numerics {
    /// What the rules come to.
    pub fn arithmetic(self) -> &'static Arithmetic {
        let (setting, family) = match self {
            Numerics::Ieee => (0, Family::Older),
            Numerics::Ane(family) => (1, family),
            Numerics::Faithful(family) => (2, family),
        };
        &SETTINGS[setting][family as usize]
    }

    /// What a rule is in this setting.
    pub fn follows(self, rule: Rule) -> Value {
        match self {
            Numerics::Ane(family) if rule.is_free() => rule.row(family).value,
            Numerics::Faithful(family) => rule.row(family).value,
            Numerics::Ieee | Numerics::Ane(_) => Value::Ieee,
        }
    }

    /// Whether NaN results are stored as zero.
    pub fn flushes_nan(self) -> bool {
        self.arithmetic().flushes_nan
    }

    /// The largest finite magnitude of a matrix product.
    pub fn matmul_limit(self) -> f64 {
        self.arithmetic().product_limit
    }

    /// The largest finite magnitude after a slice that starts past zero on the last axis.
    pub fn offset_slice_limit(self) -> f64 {
        self.arithmetic().offset_slice_limit
    }

    /// Whether all that is published is followed, at the price of time.
    pub fn is_faithful(self) -> bool {
        matches!(self, Numerics::Faithful(_))
    }

    /// The same rules of `ane`: what the fast kernels follow.
    pub(crate) fn fast(self) -> Numerics {
        match self {
            Numerics::Faithful(family) => Numerics::Ane(family),
            other => other,
        }
    }

    /// The family that it models.
    pub fn family(self) -> Option<Family> {
        match self {
            Numerics::Ieee => None,
            Numerics::Ane(family) | Numerics::Faithful(family) => Some(family),
        }
    }

    /// The name that options call it by: `ieee`, or that of a family, after `faithful-` where it is faithful.
    pub fn name(self) -> &'static str {
        let names = |family| match family {
            Family::Older => ["older", "faithful-older"],
            Family::A13 => ["a13", "faithful-a13"],
            Family::A14 => ["a14", "faithful-a14"],
            Family::A15 => ["a15", "faithful-a15"],
            Family::A16 => ["a16", "faithful-a16"],
        };
        match self {
            Numerics::Ieee => "ieee",
            Numerics::Ane(family) => names(family)[0],
            Numerics::Faithful(family) => names(family)[1],
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numerics::Ieee => f.pad("ieee"),
            Numerics::Ane(family) => f.pad(&format!("ane({family})")),
            Numerics::Faithful(family) => f.pad(&format!("faithful({family})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_away_from_zero_differ_from_ties_to_even_in_ties_alone() {
        let halves = || (0..0x7c00u16).map(f16::from_bits);
        for (low, high) in halves().zip(halves().skip(1)) {
            let (low, high) = (low.to_f64(), high.to_f64());
            let middle = (low + high) / 2.0;
            for sign in [1.0, -1.0] {
                assert_eq!(away(sign * middle).to_f64(), sign * high);
                assert_eq!(away(sign * middle.next_down()).to_f64(), sign * low);
                assert_eq!(away(sign * low).to_f64(), sign * low);
            }
        }
        assert_eq!(away(65520.0), f16::INFINITY);
        assert_eq!(away(65519.99), f16::MAX);
        assert!(away(f64::NAN).is_nan());
        assert_eq!(away(f64::NEG_INFINITY), f16::NEG_INFINITY);
        assert_eq!(away(-0.0).to_bits(), 0x8000);
    }

    #[test]
    fn the_default_follows_what_is_free_and_faithful_all() {
        for family in Family::ALL {
            // One look-up serves both: what is free has one value, and all else is as IEEE 754 says in the default.
            for rule in Rule::ALL {
                let [ane, faithful] = [Numerics::Ane, Numerics::Faithful].map(|of| of(family).follows(rule));
                assert_eq!(faithful, rule.row(family).value, "{rule:?} in {family}");
                assert_eq!(ane, if rule.is_free() { faithful } else { Value::Ieee }, "{rule:?} in {family}");
                assert_eq!(Numerics::Ieee.follows(rule), Value::Ieee);
            }
        }
        for family in [Family::A13, Family::A16] {
            let (ane, faithful) =
                (Numerics::Ane(family).arithmetic(), Numerics::Faithful(family).arithmetic());
            assert_eq!(ane.product_limit, faithful.product_limit);
            assert_eq!(ane.offset_slice_limit, faithful.offset_slice_limit);
            assert!(ane.flushes_nan && faithful.flushes_nan && ane.takes_nan_for_infinity);
            assert!(!ane.ties_away && !ane.flushes_subnormals && ane.tile_bits.is_none());
            assert_eq!(faithful.ties_away, family == Family::A16);
            assert_eq!(faithful.flushes_subnormals, family == Family::A13);
            assert_eq!(faithful.tile_bits, Some(12));
        }
        let ieee = Numerics::Ieee.arithmetic();
        assert!(!ieee.flushes_nan && !ieee.positive_root && ieee.product_limit.is_infinite());
        assert_eq!(ieee.function(Unary::Log { eps: 0.0 }), Unary::Log { eps: 0.0 });
    }
}
