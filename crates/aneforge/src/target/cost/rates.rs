//! What the measured model takes a chip for: one table of constants per chip that was measured, each with its source and how it
//! is known, and the rule by which other chips are scaled from them.

use super::NoCurve;
use super::package::anchor_of;
use crate::target::clocks::Curve;
use crate::target::{Family, Target};

/// How a number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Measured on the chip by others.
    Measured,
    /// Set so that the rows of the validation table come out.
    Fitted,
    /// Derived from other figures, with reasons.
    Inferred,
    /// Taken from another chip, as nothing is known of this one.
    Assumed,
}

impl Tag {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tag::Measured => "measured",
            Tag::Fitted => "fitted",
            Tag::Inferred => "inferred",
            Tag::Assumed => "assumed",
        }
    }
}

/// A constant of a chip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In the unit of its row.
    pub value: f64,
    /// How it is known.
    pub tag: Tag,
    /// From where.
    pub source: &'static str,
}

/// The constants of a chip that was measured. Rates are in 10^9 bytes (or 10^12 operations) per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// The compiler's name of the chip.
    pub chip: &'static str,
    /// The machines that were measured.
    pub machines: &'static str,
    /// A call of an empty program in microseconds, the least of many.
    pub floor: Figure,
    /// The same between other work, or in a slower harness.
    pub loaded_floor: Figure,
    /// Bytes of a program's inputs and results.
    pub ports: Figure,
    /// Bytes of weights.
    pub weights: Figure,
    /// Bytes of a product's weight that is larger than `resident`.
    pub streamed_weights: Figure,
    /// Arithmetic.
    pub arithmetic: Figure,
    /// Arithmetic of a product whose weight is larger than `resident`.
    pub streamed_arithmetic: Figure,
    /// 10^6 bytes in half precision from which a product's weight is streamed.
    pub resident: Figure,
    /// 10^6 bytes from which a value between nodes goes through memory.
    pub spill: Figure,
    /// Bytes of such values, written and read.
    pub memory: Figure,
    /// Bytes of what a root-mean-square norm of long rows normalises.
    pub length_norm: Figure,
    /// The same of a layer norm.
    pub centred_norm: Figure,
    /// Watts while a program runs.
    pub base_watts: Figure,
    /// Watts more while it computes.
    pub arithmetic_watts: Figure,
    /// Watts more while it reads weights.
    pub weight_watts: Figure,
    /// By how much a time may be more or less than estimated, as a factor.
    pub band: Figure,
    /// How far the power model is off at worst, as a factor.
    pub worst_energy: Figure,
}

const fn figure(tag: Tag, value: f64, source: &'static str) -> Figure {
    Figure { value, tag, source }
}
const fn measured(value: f64, source: &'static str) -> Figure {
    figure(Tag::Measured, value, source)
}
const fn fitted(value: f64, source: &'static str) -> Figure {
    figure(Tag::Fitted, value, source)
}
const fn inferred(value: f64, source: &'static str) -> Figure {
    figure(Tag::Inferred, value, source)
}
const fn assumed(value: f64, source: &'static str) -> Figure {
    figure(Tag::Assumed, value, source)
}

/// The chips that were measured: an M1 and an M1 Max, pooled; an M2 Pro; an M5 Pro.
///
/// Evidence: arXiv 2606.22283 by chapter (`c10`), and the least of many calls that ANEForge 0.4.0 ships for an M5 Pro; M1,
/// M2 Pro, M5 Pro (measured), but for those that say otherwise. Nothing here has run on silicon by this project.
pub static MEASURED: [Constants; 3] = [
    Constants {
        chip: "h13",
        machines: "M1 and M1 Max, pooled",
        floor: measured(190.0, "c2, one tiny call"),
        loaded_floor: measured(260.0, "c9, c11: 230 to 260 in other harnesses"),
        ports: fitted(7.0, "rows of M1"),
        weights: fitted(10.7, "five rows of M1: convolutions, and products below the resident size"),
        streamed_weights: measured(51.0, "c9, a product of one row"),
        arithmetic: measured(12.0, "c9, slope of a fused chain"),
        streamed_arithmetic: measured(4.8, "c9, one product of 4096"),
        resident: measured(2.411_724_8, "c21, a step between 2.28 and 2.34 MiB"),
        spill: measured(2.097_152, "c9, c33, a chain of 96 products"),
        memory: measured(85.0, "c9, c33, at the memory controller"),
        length_norm: assumed(1.07, "the M5 Pro's"),
        centred_norm: assumed(2.9, "the M5 Pro's"),
        base_watts: fitted(0.85, "c10, c13, c31, c33"),
        arithmetic_watts: fitted(5.0, "c10, c13, c31, c33"),
        weight_watts: fitted(0.7, "c10"),
        band: fitted(1.96, "rows that a near twin was not fitted to; those here are within 1.39"),
        worst_energy: fitted(1.31, "the sheet of 15 readings, of which 12 have a shape (M1, M1 Max, M2 Pro)"),
    },
    Constants {
        chip: "h14g",
        machines: "M2 Pro",
        floor: fitted(145.0, "rows of M2 Pro"),
        loaded_floor: assumed(145.0, "the floor; no other harness is reported"),
        ports: fitted(10.0, "rows of M2 Pro"),
        weights: measured(55.0, "c7, c9: 54 to 56"),
        streamed_weights: measured(55.0, "c7, c9: 54 to 56"),
        arithmetic: assumed(12.0, "the M1's; hardly constrained"),
        streamed_arithmetic: fitted(4.6, "hardly constrained"),
        resident: assumed(2.411_724_8, "the M1's"),
        spill: assumed(2.097_152, "the M1's"),
        memory: assumed(85.0, "the M1's"),
        length_norm: assumed(1.07, "the M5 Pro's"),
        centred_norm: assumed(2.9, "the M5 Pro's"),
        base_watts: fitted(1.3, "c10"),
        arithmetic_watts: fitted(4.0, "c10"),
        weight_watts: fitted(1.2, "c10"),
        band: assumed(1.96, "the M1's, as no rows were held out; those here are within 1.31"),
        worst_energy: fitted(1.31, "the sheet of 15 readings, of which 12 have a shape (M1, M1 Max, M2 Pro)"),
    },
    Constants {
        chip: "h17s",
        machines: "M5 Pro",
        floor: fitted(72.0, "rows of M5 Pro; 63 to 90 measured"),
        loaded_floor: fitted(107.0, "five convolutions in another harness"),
        ports: measured(24.0, "c9, 24.1 through a standalone op"),
        weights: measured(150.0, "c9, c12: 145 over two channels; 150 by the rows"),
        streamed_weights: measured(150.0, "c9, c12: 145 over two channels; 150 by the rows"),
        arithmetic: measured(19.6, "c12, slope of a fused chain"),
        streamed_arithmetic: assumed(19.6, "the slope: two rows disagree with a lower one"),
        resident: measured(4.72, "c12"),
        spill: measured(4.72, "c12, soft"),
        memory: measured(145.0, "c9, c12"),
        length_norm: fitted(1.07, "one row of M5 Pro"),
        centred_norm: fitted(2.9, "one row of M5 Pro"),
        base_watts: assumed(1.3, "the M2 Pro's"),
        arithmetic_watts: inferred(7.1, "2289 GFLOP/s per watt of 16 convolutions in the model's time"),
        weight_watts: assumed(1.2, "the M2 Pro's"),
        band: fitted(1.49, "rows that a near twin was not fitted to; those here are within 1.39"),
        worst_energy: assumed(2.0, "one reading"),
    },
];

/// By how much a time may be more or less than estimated, as a factor, on a chip that was not measured, and where a term was never
/// measured on the chip.
///
/// Evidence: no measurement, any chip (assumed).
pub const BAND_ELSEWHERE: f64 = 2.0;

/// The largest microseconds of a call after some seconds without one: reported once, after 5 s. Shorter gaps add 500, or 1.2 to
/// 1.7 times; the first two calls after loading took 3.5 and 2.2 times as long as later ones.
///
/// Evidence: arXiv 2606.22283 c10 and c31, which disagree, M1 (measured).
pub const COLD_FIRST_CALL_US: f64 = 260_000.0;

/// How arithmetic grows with cores times clock, from the M1 to the M5 Pro.
///
/// Evidence: arXiv 2606.22283's slopes of fused chains, M1 Max and M5 Pro (inferred).
const CORES_POWER: f64 = 0.56;

/// The part of a memory's rate that a stream of weights reaches at most.
///
/// Evidence: arXiv 2606.22283, 51 of 68.2 GB/s, M1 (inferred).
const STREAM_SHARE: f64 = 0.75;

/// Memory of the smallest chip of a family that has four cores, in 10^9 bytes per second; it grows with the cores.
///
/// Evidence: the compiler's rates per die in arXiv 2606.22283 c35, set beside the memory of M1, M2 and M4 (inferred).
fn memory_of_four_cores(family: Family) -> f64 {
    match family {
        Family::Older | Family::A13 => 68.2,
        Family::A14 | Family::A15 => 100.0,
        Family::A16 => 125.0,
    }
}

/// What the model takes a chip for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The constants, scaled where the chip was not measured.
    pub constants: Constants,
    /// Whether they are the chip's own.
    pub measured: bool,
}

impl Rates {
    /// The rates of a chip: its own, or those of the measured chip that its family is scaled from. Floors go with the clock,
    /// arithmetic with (cores times clock)^0.56, and rates of weights and memory stay, unless three quarters of the chip's
    /// memory are less.
    pub fn of(target: Target) -> Result<Rates, NoCurve> {
        let curve = Curve::of(target).ok_or(NoCurve(target))?;
        let anchor = anchor_of(target);
        let constants =
            *MEASURED.iter().find(|c| c.chip == anchor).expect("invariant: anchors were measured");
        // M1 and M1 Max are pooled.
        if target.name() == anchor || target.name() == "h13g" {
            return Ok(Rates { constants, measured: true });
        }
        let of = Target::named(anchor).ok().and_then(Curve::of).expect("invariant: anchors have curves");
        let clock = of.clock() / curve.clock();
        let speed = (curve.scale() / of.scale()).powf(CORES_POWER);
        let memory = memory_of_four_cores(target.family()) * f64::from(curve.cores) / 4.0;
        let by = |figure: Figure, factor: f64| Figure { value: figure.value * factor, ..figure };
        let within = |figure: Figure, most: f64| Figure { value: figure.value.min(most), ..figure };
        let stream = STREAM_SHARE * memory;
        let c = constants;
        let constants = Constants {
            floor: by(c.floor, clock),
            loaded_floor: by(c.loaded_floor, clock),
            weights: within(c.weights, stream),
            streamed_weights: within(c.streamed_weights, stream),
            memory: within(c.memory, memory),
            arithmetic: by(c.arithmetic, speed),
            streamed_arithmetic: by(c.streamed_arithmetic, speed),
            arithmetic_watts: by(c.arithmetic_watts, speed),
            band: assumed(BAND_ELSEWHERE, "no row"),
            worst_energy: assumed(BAND_ELSEWHERE, "no reading"),
            ..c
        };
        Ok(Rates { constants, measured: false })
    }
}

impl Constants {
    /// Every constant with its name and unit.
    pub fn named(&self) -> [(&'static str, &'static str, Figure); 17] {
        [
            ("floor", "us", self.floor),
            ("floor, loaded", "us", self.loaded_floor),
            ("ports", "GB/s", self.ports),
            ("weights", "GB/s", self.weights),
            ("weights, streamed", "GB/s", self.streamed_weights),
            ("arithmetic", "TFLOP/s", self.arithmetic),
            ("arithmetic, streamed", "TFLOP/s", self.streamed_arithmetic),
            ("resident weight", "MB", self.resident),
            ("spill", "MB", self.spill),
            ("memory", "GB/s", self.memory),
            ("rms norm of long rows", "GB/s", self.length_norm),
            ("layer norm of long rows", "GB/s", self.centred_norm),
            ("power", "W", self.base_watts),
            ("power of arithmetic", "W", self.arithmetic_watts),
            ("power of weights", "W", self.weight_watts),
            ("band", "times", self.band),
            ("worst error of energy", "times", self.worst_energy),
        ]
    }
}
