//! What can be known of the engine from one run on one machine: whether it is reached, whether every op computes there what the host
//! computes, and whether each number that this library takes from reports is so here.
//!
//! Nothing in this library has been measured on an engine by this project. A report of this module is how that changes: each probe
//! names the constant it is about, what is expected of it and why, and says what was found.

mod machine;
mod ops;
mod probe;
mod probes;
pub mod silicon;

pub use machine::{Library, Machine, machine};
pub use ops::{OpCheck, check_op, ops};
pub use probe::{Bench, Outcome, PROBES, Probe, UNPROBED, Verdict, probe};

use serde::{Deserialize, Serialize};
use std::fmt;

/// What one run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// This library's version.
    pub version: String,
    /// What programs ran on: `host`, `ane` or `ane (stand-in)`.
    pub device: String,
    /// The machine.
    pub machine: Machine,
    /// Every case of every op.
    pub ops: Vec<OpCheck>,
    /// Every probe.
    pub probes: Vec<Found>,
}

/// What a probe found, with what it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The constant, or the rule, that it is about.
    pub about: String,
    /// What is expected.
    pub expected: String,
    /// What was found.
    pub outcome: Outcome,
}

impl Found {
    /// What a probe found.
    pub fn of(probe: &Probe, outcome: Outcome) -> Found {
        Found { name: probe.name.into(), about: probe.about.into(), expected: probe.expected.into(), outcome }
    }
}

impl Report {
    /// Whether everything is as expected: every op agrees with the host and no probe refutes anything.
    pub fn is_well(&self) -> bool {
        self.ops.iter().all(OpCheck::is_well)
            && self.probes.iter().all(|found| found.outcome.verdict != Verdict::Refuted)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.probes.iter().filter(|found| found.outcome.verdict == verdict).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "aneforge {} on {}", self.version, self.device)?;
        write!(f, "{}", self.machine)?;
        let failing: Vec<&OpCheck> = self.ops.iter().filter(|op| !op.is_well()).collect();
        writeln!(f, "\nops: {} cases, {} as on the host", self.ops.len(), self.ops.len() - failing.len())?;
        failing.iter().try_for_each(|op| writeln!(f, "  {op}"))?;
        let of = |verdict| self.count(verdict);
        writeln!(
            f,
            "\nprobes: {} confirmed, {} refuted, {} measured, {} not run",
            of(Verdict::Confirmed),
            of(Verdict::Refuted),
            of(Verdict::Measured),
            of(Verdict::NotRun)
        )?;
        for Found { name, about, expected, outcome: Outcome { verdict, found } } in &self.probes {
            writeln!(f, "  {verdict:<9} {name}: {found}")?;
            writeln!(f, "            {about}; expected: {expected}")?;
        }
        writeln!(f, "\nnot probed")?;
        UNPROBED.iter().try_for_each(|(name, why)| writeln!(f, "  {name}: {why}"))?;
        if self.device != "ane" {
            writeln!(f, "\nnone of this ran on an engine, so that nothing about silicon follows from it")?;
        }
        Ok(())
    }
}
