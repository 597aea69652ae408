//! Where the engine's arithmetic departs from IEEE 754: a row for each rule and family, with who says so.
//!
//! *Guide* is arXiv 2606.22283, whose author measured an M1 (and M1 Max), an M2 Pro and an M5 Pro; *reference* is ANEForge 0.4.0
//! (arXiv 2606.17090). Nothing here has been measured by this project: `aneforge doctor` on a Mac confirms or refutes rows by name.

use super::numerics::Family::{self, A13, A14, A15, A16};
use std::fmt;

/// How a value came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Measured by the guide on the chip named.
    Measured,
    /// Reported by the reference's authors or users, of the chip named.
    Reported,
    /// Read from the vendor's compiler or tables.
    Decompiled,
    /// Interpolated from the families that were measured, for one that was not.
    Interpolated,
    /// Our own reading, which fits what is published.
    Inferred,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tag::Measured => "measured",
            Tag::Reported => "reported",
            Tag::Decompiled => "decompiled",
            Tag::Interpolated => "interpolated",
            Tag::Inferred => "inferred",
        })
    }
}

/// A way in which engines compute otherwise than IEEE 754 says, or than we do by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Where a result halfway between two halves goes.
    TieAtStore,
    /// What a NaN that is fed becomes.
    NanFed,
    /// What an op stores that makes a NaN of numbers.
    NanMade,
    /// The greatest finite magnitude of a product of more than one term, or of a matrix.
    ProductLimit,
    /// The greatest finite magnitude of what is summed so far.
    PartialLimit,
    /// The greatest finite magnitude after a slice that starts past zero on the last axis.
    OffsetSliceLimit,
    /// The greatest finite magnitude of a value that is multiplied by weights of eight bits.
    ByteOperandLimit,
    /// Whether products take subnormal numbers for zeros.
    SubnormalsInProducts,
    /// How many bits the sum of four lanes keeps, in sums of plain values.
    SumTile,
    /// Whether a square is rounded before it is summed.
    SquareInSum,
    /// `sqrt(-0)`.
    SqrtOfMinusZero,
    /// `log(0)`.
    LogOfZero,
    /// From where the engine's own `softplus` is 0.
    SoftplusEnd,
    /// `gelu(0)`.
    GeluAtZero,
    /// `silu(0)`.
    SiluAtZero,
    /// Where the table of `sigmoid` ends, below.
    SigmoidLow,
    /// Where the table of `sigmoid` ends, above.
    SigmoidHigh,
    /// Whether the engine's own `round` adds a half, in half precision.
    RoundByAdding,
}

/// What is known of a rule in one family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// As IEEE 754 says.
    Ieee,
    /// Ties go away from zero.
    Away,
    /// It becomes positive infinity.
    Infinity,
    /// It becomes positive zero.
    Zero,
    /// A number: a limit or a result.
    Number(f64),
    /// So many significant bits.
    Bits(u32),
    /// It is so.
    Yes,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Ieee => f.write_str("as IEEE 754 says"),
            Value::Away => f.write_str("away from zero"),
            Value::Infinity => f.write_str("+infinity"),
            Value::Zero => f.write_str("+0"),
            Value::Number(v) => write!(f, "{v}"),
            Value::Bits(bits) => write!(f, "{bits} bits"),
            Value::Yes => f.write_str("yes"),
        }
    }
}

/// One row: what a rule is in some families, and who says so.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The rule.
    pub rule: Rule,
    /// Families that follow it.
    pub families: &'static [Family],
    /// What it is there.
    pub value: Value,
    /// How that is known.
    pub tag: Tag,
    /// The chip that was looked at.
    pub chip: &'static str,
    /// Who says so, and of what inputs.
    pub evidence: &'static str,
}

impl Rule {
    /// Every rule, in the order of the table.
    pub const ALL: [Rule; 18] = [
        Rule::TieAtStore,
        Rule::NanFed,
        Rule::NanMade,
        Rule::ProductLimit,
        Rule::PartialLimit,
        Rule::OffsetSliceLimit,
        Rule::ByteOperandLimit,
        Rule::SubnormalsInProducts,
        Rule::SumTile,
        Rule::SquareInSum,
        Rule::SqrtOfMinusZero,
        Rule::LogOfZero,
        Rule::SoftplusEnd,
        Rule::GeluAtZero,
        Rule::SiluAtZero,
        Rule::SigmoidLow,
        Rule::SigmoidHigh,
        Rule::RoundByAdding,
    ];

    /// Whether it costs nothing to follow, so that `ane` does; `faithful` follows all.
    pub const fn is_free(self) -> bool {
        matches!(
            self,
            Rule::NanFed
                | Rule::NanMade
                | Rule::ProductLimit
                | Rule::OffsetSliceLimit
                | Rule::SqrtOfMinusZero
                | Rule::LogOfZero
                | Rule::SoftplusEnd
        )
    }

    /// The ops that it is about.
    pub const fn ops(self) -> &'static str {
        match self {
            Rule::TieAtStore => "all that round",
            Rule::NanFed => "inputs",
            Rule::NanMade => "all",
            Rule::ProductLimit | Rule::PartialLimit | Rule::SubnormalsInProducts => {
                "`matmul`, `bmm`, convolutions but those of one term"
            }
            Rule::OffsetSliceLimit => "`slice_by_size`, `crop`",
            Rule::ByteOperandLimit => "`matmul` by int8 weights",
            Rule::SumTile => "reductions, pooled means, products by ones",
            Rule::SquareInSum => "`reduce_sum_square`, `reduce_l2_norm`",
            Rule::SqrtOfMinusZero => "`sqrt`",
            Rule::LogOfZero => "`log`",
            Rule::SoftplusEnd => "`native_softplus`",
            Rule::GeluAtZero => "`gelu`",
            Rule::SiluAtZero => "`silu`",
            Rule::SigmoidLow | Rule::SigmoidHigh => "`sigmoid`",
            Rule::RoundByAdding => "`native_round`",
        }
    }

    /// What is known of it in a family; of families older than A13, what A13 does.
    pub fn row(self, family: Family) -> &'static Row {
        let family = family.max(A13);
        let mut rows = RULES.iter().filter(|row| row.rule == self);
        rows.find(|row| row.families.contains(&family))
            .expect("invariant: a test finds every rule in every family")
    }
}

const fn row(
    rule: Rule,
    families: &'static [Family],
    value: Value,
    tag: Tag,
    chip: &'static str,
    evidence: &'static str,
) -> Row {
    Row { rule, families, value, tag, chip, evidence }
}

use Tag::{Decompiled, Inferred, Interpolated, Measured, Reported};
use Value::{Away, Bits, Ieee, Infinity, Number, Yes, Zero};

/// The table, each row with its own tag. Evidence: guide and reference, the chip of each row (reported).
#[rustfmt::skip]
pub static RULES: &[Row] = &[
    row(Rule::TieAtStore, &[A13], Ieee, Measured, "M1", "guide ch. 3: a sum of 2049 is stored as 2048"),
    row(Rule::TieAtStore, &[A14], Ieee, Interpolated, "M2", "as M1, of whose training runs it repeats every digit (guide ch. 12)"),
    row(Rule::TieAtStore, &[A15], Ieee, Interpolated, "none", "A15 was never measured; the change lies between A14 and A16"),
    row(Rule::TieAtStore, &[A16], Away, Measured, "M5 Pro", "guide ch. 3: a sum of 2049 is stored as 2050; reference: bytes times f16(1/255) are f16(byte/255), which only ties away from zero give"),

    row(Rule::NanFed, &[A13], Infinity, Measured, "M1", "guide ch. 3: NaN through x + 0 has the bits of +infinity"),
    row(Rule::NanFed, &[A14, A15, A16], Infinity, Interpolated, "none", "only M1 was probed"),
    row(Rule::NanMade, &[A13], Zero, Measured, "M1", "guide ch. 3: inf - inf, 0 * inf, sqrt(-1), log(-1) are +0"),
    row(Rule::NanMade, &[A14, A15, A16], Zero, Interpolated, "none", "only M1 was probed; the reference's solvers need 0/0 = 0 on all"),

    row(Rule::ProductLimit, &[A13], Number(super::numerics::MATMUL_LIMIT), Measured, "M1", "guide ch. 3: 32752 stays, 32768 becomes infinity, for products of one and two terms and convolutions of two channels"),
    row(Rule::ProductLimit, &[A14], Number(super::numerics::MATMUL_LIMIT), Reported, "M2 Pro", "reference: infinity near 32759"),
    row(Rule::ProductLimit, &[A15], Number(super::numerics::MATMUL_LIMIT), Interpolated, "none", "the families on both sides have it"),
    row(Rule::ProductLimit, &[A16], Number(super::numerics::MATMUL_LIMIT), Reported, "M4, M5, M5 Pro", "reference: infinity near 32759"),
    row(Rule::PartialLimit, &[A13], Number(super::numerics::MATMUL_LIMIT), Measured, "M1", "guide ch. 3: infinity although later terms bring it back; no inputs published, and we take the order of the lanes"),
    row(Rule::PartialLimit, &[A14, A15, A16], Number(super::numerics::MATMUL_LIMIT), Interpolated, "none", "the limit of results is the same there"),
    row(Rule::OffsetSliceLimit, &[A13, A14], Number(super::numerics::OFFSET_SLICE_LIMIT), Measured, "M1, M2 Pro", "guide ch. 3, 12 and 19: 4094 stays, 4096 becomes infinity"),
    row(Rule::OffsetSliceLimit, &[A15], Ieee, Decompiled, "none", "guide ch. 35, whose text and table differ"),
    row(Rule::OffsetSliceLimit, &[A16], Ieee, Measured, "M5 Pro", "guide ch. 12; M4 reported by the reference"),
    row(Rule::ByteOperandLimit, &[A13, A14], Number(super::numerics::OFFSET_SLICE_LIMIT), Reported, "M1, M2 Pro", "reference: activations beyond become infinity"),
    row(Rule::ByteOperandLimit, &[A15], Number(super::numerics::OFFSET_SLICE_LIMIT), Interpolated, "none", "the families on both sides have it"),
    row(Rule::ByteOperandLimit, &[A16], Number(super::numerics::OFFSET_SLICE_LIMIT), Reported, "M5 Pro", "reference: activations beyond become infinity"),

    row(Rule::SubnormalsInProducts, &[A13], Zero, Measured, "M1", "guide ch. 3: two of 2^-24 sum to +0; operands and result are both taken to be flushed"),
    row(Rule::SubnormalsInProducts, &[A14], Zero, Interpolated, "M2", "as M1, its twin in every digit that was compared"),
    row(Rule::SubnormalsInProducts, &[A15], Ieee, Interpolated, "none", "A15 was never measured"),
    row(Rule::SubnormalsInProducts, &[A16], Ieee, Measured, "M5 Pro", "guide ch. 3: two of 2^-24 sum to 2^-23"),
    row(Rule::SumTile, &[A13], Bits(12), Measured, "M1", "guide ch. 3 and 20: (B, -B, 1) sixteen times sums to 16 below B = 4096 and to 4 from there, 4096 and 1024 ones to 5116; the one model of 4 lanes, 10 orders and 11 ways to round that gives all of it"),
    row(Rule::SumTile, &[A14, A15, A16], Bits(12), Interpolated, "none", "guide appendix F: the same accumulator in every family; only M1 has probes"),
    row(Rule::SquareInSum, &[A13, A14, A16], Yes, Measured, "M1, M2 Pro, M5 Pro", "guide ch. 12: no chip was seen to fuse the square"),
    row(Rule::SquareInSum, &[A15], Yes, Interpolated, "none", "the families on both sides round"),

    row(Rule::SqrtOfMinusZero, &[A13], Zero, Measured, "M1", "guide ch. 3"),
    row(Rule::SqrtOfMinusZero, &[A14, A15, A16], Zero, Interpolated, "none", "only M1 was probed"),
    row(Rule::LogOfZero, &[A13], Number(-45440.0), Measured, "M1", "guide ch. 3: 0xf98c, which is -65536 * f16(ln 2)"),
    row(Rule::LogOfZero, &[A14, A15, A16], Number(-45440.0), Interpolated, "none", "only M1 was probed"),
    row(Rule::SoftplusEnd, &[A13], Number(11.09375), Measured, "M1", "guide ch. 3: softplus of +infinity is +0; reference: 0 from 11.09, where exp overflows"),
    row(Rule::SoftplusEnd, &[A14, A15, A16], Number(11.09375), Reported, "not named", "reference: 0 from 11.09"),
    row(Rule::GeluAtZero, &[A13], Number(-0.000_543), Measured, "M1", "guide ch. 3, to three digits: 0x9072 or 0x9073"),
    row(Rule::GeluAtZero, &[A14, A15, A16], Number(-0.000_543), Interpolated, "none", "only M1 was probed"),
    row(Rule::SiluAtZero, &[A13], Number(-0.001_259), Measured, "M1", "guide ch. 3: 0x9528"),
    row(Rule::SiluAtZero, &[A14, A15, A16], Number(-0.001_259), Interpolated, "none", "only M1 was probed"),
    row(Rule::SigmoidLow, &[A13], Number(-9.9375), Measured, "M1", "guide ch. 3: the table begins at -9.938; what is below has its value"),
    row(Rule::SigmoidLow, &[A14, A15, A16], Number(-9.9375), Interpolated, "none", "only M1 was probed"),
    row(Rule::SigmoidHigh, &[A13], Number(8.320_312_5), Measured, "M1", "guide ch. 3: the table ends at 8.320; what is above has its value"),
    row(Rule::SigmoidHigh, &[A14, A15, A16], Number(8.320_312_5), Interpolated, "none", "only M1 was probed"),
    row(Rule::RoundByAdding, &[A13, A14, A15, A16], Yes, Inferred, "not named", "reference: 1024 rounds to 1025 and -2047 to -2048 on the engine; where ties go to even, 1024.5 is 1024"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::f16;

    #[test]
    fn every_rule_is_known_once_in_every_family() {
        for rule in Rule::ALL {
            for family in [A13, A14, A15, A16] {
                let rows = RULES.iter().filter(|row| row.rule == rule && row.families.contains(&family));
                assert_eq!(rows.count(), 1, "{rule:?} in {family}");
            }
        }
        assert_eq!(Rule::LogOfZero.row(Family::Older).value, Rule::LogOfZero.row(A13).value);
    }

    #[test]
    fn what_is_said_to_be_measured_names_the_chip() {
        for row in RULES {
            let named = row.chip.starts_with('M');
            assert_eq!(named, !matches!(row.chip, "none" | "not named"), "{row:?}");
            assert!(named || row.tag != Tag::Measured, "{row:?}");
            assert!(!row.evidence.is_empty());
        }
    }

    #[test]
    fn numbers_are_halves_or_round_to_what_was_printed() {
        let bits = |rule: Rule| match rule.row(A13).value {
            Value::Number(value) => f16::from_f64(value).to_bits(),
            other => panic!("{rule:?}: {other:?}"),
        };
        assert_eq!(bits(Rule::LogOfZero), 0xf98c);
        assert_eq!(bits(Rule::SiluAtZero), 0x9528);
        assert!([0x9072, 0x9073].contains(&bits(Rule::GeluAtZero)));
        for rule in [Rule::SigmoidLow, Rule::SigmoidHigh, Rule::SoftplusEnd] {
            let Value::Number(value) = rule.row(A13).value else { panic!() };
            assert_eq!(f16::from_f64(value).to_f64(), value, "{rule:?}");
        }
    }
}
