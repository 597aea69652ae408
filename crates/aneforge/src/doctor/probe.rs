//! Probes: what each is about, and how it is run.

use super::probes::{limits, numerics, runtime};
use super::silicon;
use crate::device::Device;
use crate::device::ane::{Ane, AneOptions};
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What a probe says of what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as expected.
    Confirmed,
    /// It is not.
    Refuted,
    /// Nothing was expected, or what was found is for a reader to judge.
    Measured,
    /// It could not be run here.
    NotRun,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Confirmed => "confirmed",
            Verdict::Refuted => "REFUTED",
            Verdict::Measured => "measured",
            Verdict::NotRun => "not run",
        })
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What that says.
    pub verdict: Verdict,
    /// The measured value, or why there is none.
    pub found: String,
}

impl Outcome {
    /// As expected or not.
    pub fn is(expected: bool, found: impl Into<String>) -> Outcome {
        let verdict = if expected { Verdict::Confirmed } else { Verdict::Refuted };
        Outcome { verdict, found: found.into() }
    }

    /// For a reader to judge.
    pub fn measured(found: impl Into<String>) -> Outcome {
        Outcome { verdict: Verdict::Measured, found: found.into() }
    }

    /// Not run.
    pub fn not_run(why: impl Into<String>) -> Outcome {
        Outcome { verdict: Verdict::NotRun, found: why.into() }
    }
}

/// What probes are run with.
pub struct Bench {
    /// What programs run on.
    pub device: Arc<dyn Device>,
    /// The engine, or what stands in for it, where `device` is one.
    pub engine: Option<Arc<Ane>>,
    /// How it is reached.
    pub options: AneOptions,
    /// The chip that programs are compiled for.
    pub target: Target,
}

/// A probe. Each is run in a process of its own, as some of what is asked may end one.
#[derive(Clone)]
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// The constant, or the rule, that it is about.
    pub about: &'static str,
    /// What is expected, and of whom that is known.
    pub expected: Cow<'static, str>,
    /// Finds out.
    run: Run,
}

/// How something is found out.
#[derive(Clone, Copy)]
enum Run {
    /// By this function.
    Asking(fn(&Bench) -> Result<Outcome, String>),
    /// By computing what was published.
    Row(&'static silicon::Row),
}

const fn row(
    name: &'static str,
    about: &'static str,
    expected: &'static str,
    run: fn(&Bench) -> Result<Outcome, String>,
) -> Probe {
    Probe { name, about, expected: Cow::Borrowed(expected), run: Run::Asking(run) }
}

/// Every probe of a constant, in the order in which they are run: what is most likely to end well goes first.
pub const PROBES: &[Probe] = &[
    row(
        "product_limit",
        "ir::numerics::MATMUL_LIMIT",
        "the largest finite product is 32752 (reference: M1, M1 Max, M2 Pro, M4, M5)",
        numerics::product_limit,
    ),
    row(
        "offset_slice",
        "ir::numerics::OFFSET_SLICE_LIMIT",
        "4094 before A15, 65504 later (reference; not measured on A15)",
        numerics::offset_slice,
    ),
    row("nan_made", "ir::rules::RULES", "infinity minus infinity is stored as 0 (guide)", numerics::nan_made),
    row("nan_fed", "ir::rules::RULES", "a NaN that is fed becomes +infinity (guide, M1)", numerics::nan_fed),
    row(
        "subnormal",
        "docs/numerics.md",
        "2^-24 times 1 stays, or is flushed to 0, by generation (guide)",
        numerics::subnormal,
    ),
    row(
        "tie",
        "docs/numerics.md",
        "2048 plus 1 is 2048 (ties to even) before A16, 2050 (away from zero) from A16 on (guide)",
        numerics::tie,
    ),
    row(
        "softplus",
        "target::functions::SOFTPLUS_UP_TO",
        "softplus is right up to 10 (reference)",
        numerics::softplus,
    ),
    row("round", "target::functions::ROUND_BELOW", "round is right below 1024 (reference)", numerics::round),
    row("wide_sum", "ir::numerics", "16,384 ones sum to 16,384 (reference)", numerics::wide_sum),
    row("integers", "docs/numerics.md", "whole numbers are exact up to 2048 (reference)", numerics::integers),
    row(
        "floor",
        "target::cost::package::FLOOR_US",
        "a call of the smallest program takes 63 us at best on M5 Pro, 190 us on M1 (reference, guide)",
        runtime::floor,
    ),
    row(
        "state",
        "docs/engine.md",
        "a port that is read and written in one buffer counts 1, 2, 3, 4 (reference, guide)",
        runtime::state,
    ),
    row("rebind", "docs/engine.md", "ports can be bound again after a reset (clients)", runtime::rebind),
    row(
        "dense_ports",
        "docs/engine.md",
        "ports of programs lie dense for rows of 1, 8 and 33 (reference)",
        runtime::dense_ports,
    ),
    row(
        "native_rows",
        "aneforge_ane::limits::ROW_UNIT",
        "rows of native layers begin at multiples of 64 bytes (guide)",
        limits::native_rows,
    ),
    row(
        "buffer_unit",
        "aneforge_ane::limits::BUFFER_UNIT",
        "a buffer of 64 bytes serves a port of 2 (reference)",
        limits::buffer_unit,
    ),
    row(
        "error_texts",
        "aneforge_ane::limits::meaning",
        "statuses 0 to 6 have these names (clients); more may have others",
        runtime::error_texts,
    ),
    row(
        "soft_functions",
        "aneforge_ane::symbols::E5RT",
        "functions that need not be there",
        runtime::soft_functions,
    ),
    row(
        "force",
        "aneforge_ane::Options::force",
        "about 30 ms when forced with a warm cache, 750 ms cold (reference)",
        runtime::force,
    ),
    row(
        "same_program_again",
        "device::ane",
        "a program that was compiled in this process is loaded without another compile",
        runtime::same_program_again,
    ),
    row(
        "bundle_of_another_process",
        "device::ane",
        "a bundle of a child of this process is opened (clients), or refused (reference)",
        runtime::bundle_of_another_process,
    ),
    row(
        "other_chip",
        "aneforge_ane::Framework::check",
        "the option for another chip is heeded (reference), or inert (clients); unknown names pass",
        runtime::other_chip,
    ),
    row(
        "ports",
        "aneforge_ane::Program",
        "programs with 8 to 64 ports run (clients guess a limit of 128)",
        runtime::ports,
    ),
    row(
        "asynchronous",
        "aneforge_ane::Program::submit",
        "the block is called after the work (clients)",
        runtime::asynchronous,
    ),
    row(
        "two_threads",
        "docs/engine.md",
        "two programs on two threads gain 1.0 to 1.3 times (reference, guide)",
        runtime::two_threads,
    ),
    row("idle", "docs/engine.md", "after 5 s the first call takes some 260 ms (guide, M1)", runtime::idle),
    row(
        "kernel_width",
        "target::limits::WIDEST_KERNEL",
        "cross-correlation takes templates up to 15 wide from A16, 13 on A13 (reference)",
        limits::kernel_width,
    ),
    row(
        "attention_shorter",
        "target::layers::ATTENTION_SHORTER",
        "native attention is right below 512 positions, and wrong from there on (reference)",
        limits::attention_shorter,
    ),
    row(
        "topk_three",
        "ir::ops::native::Topk",
        "k of 3 and 4 does not compile (reference)",
        limits::topk_three,
    ),
    row(
        "programs",
        "aneforge_ane::limits::MOST_PROGRAMS",
        "128 programs can be loaded, and the next is refused when its operation is made (reference, guide)",
        limits::programs,
    ),
];

/// Constants that no probe is about, and why.
pub const UNPROBED: &[(&str, &str)] = &[
    ("MOST_PROGRAMS_OF_ALL", "it would take the places of other processes"),
    ("ENGINE_MASK", "it is read back in every compile, and another value is an error"),
    ("HOST_VISIBLE", "every buffer of every probe is of this type"),
    ("FUNCTION", "every program has this one function"),
    ("SEGMENTER", "every compile asks for it, and no other is known"),
    ("QUALITY_OF_SERVICE", "every call of a native layer has it, and no other is known to be needed"),
    ("UNSAID_STRIDE", "it counts where a model does not say its strides, which `native_rows` shows"),
    ("PAGE", "a surface that is too small stops the machine"),
    ("CALL_LIMIT", "`idle` shows the longest call that is known; a hang is not provoked"),
    ("COMPILE_LIMIT", "a hang is not provoked"),
    ("FLOORS", "the cases of ops show which compile for this chip"),
    ("FLOORS_ELSEWHERE", "the cases of ops show which compile for this chip"),
    ("ATTENTION_LONGER", "longer attention is written out before it reaches the engine"),
    ("ATTENTION_QUERIES", "a choice of this library"),
    ("TALLEST_KERNEL", "taller kernels are refused before they reach the engine"),
    (
        "INT8_ACTIVATIONS",
        "bytes stream only within larger programs, whose results the cases of ops do not show",
    ),
    ("RECORDED", "times by clock rate, of chips that are not this one"),
    ("BAND_ELSEWHERE", "the error of a model on chips that are not this one"),
    ("COLD_FIRST_CALL_US", "`idle` shows the longest call after each pause"),
    ("CATALOG", "a table of names; the cases of ops show those that compile"),
    ("CHIPS", "a table of names; `machine` says which this is"),
];

/// Every probe: of constants, and of every published value.
pub fn probes() -> impl Iterator<Item = Probe> {
    let row = |row: &'static silicon::Row| Probe {
        name: &row.id,
        about: "tests/silicon/probes.toml",
        expected: row.says().into(),
        run: Run::Row(row),
    };
    PROBES.iter().cloned().chain(silicon::ROWS.iter().map(row))
}

/// Runs the probe of this name.
pub fn probe(name: &str, bench: &Bench) -> Option<Outcome> {
    let probe = probes().find(|probe| probe.name == name)?;
    // What the host answers is what this library was told; it says nothing of an engine.
    let outcome = match bench.engine {
        None => Outcome::not_run("it asks the engine, and there is none here"),
        Some(_) => match probe.run {
            Run::Asking(ask) => ask(bench),
            Run::Row(row) => row.probe(bench),
        }
        .unwrap_or_else(Outcome::not_run),
    };
    if let Some(folder) = &bench.options.folder {
        runtime::clean(folder);
    }
    Some(outcome)
}
