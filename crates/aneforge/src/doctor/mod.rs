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
pub use probe::{Bench, Outcome, PROBES, Probe, UNPROBED, Verdict, probe, probes};

use crate::device::STANDS_IN;
use crate::device::ane::AneOptions;
use crate::target::{Target, family_of_brand};
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time now, in UTC, such as `2026-11-29T21:37:18Z`.
pub fn now() -> String {
    let now = OffsetDateTime::now_utc().truncate_to_second();
    now.format(&Rfc3339).expect("invariant: this year has four digits")
}

/// What one run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// This library's version.
    pub version: String,
    /// When it was made, in UTC, such as `2026-11-29T21:37:18Z`.
    pub date: String,
    /// The chip that programs were compiled for.
    pub target: String,
    /// How that was chosen.
    pub chosen: Chosen,
    /// What programs ran on: `host`, `ane` or `ane (stand-in)`; none where nothing ran.
    pub device: Option<String>,
    /// Why nothing ran, if so.
    pub absent: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// Every case of every op.
    pub ops: Vec<OpCheck>,
    /// Every probe.
    pub probes: Vec<Found>,
    /// Constants that no probe is about, and why; none where only some probes were asked for.
    pub unprobed: Vec<Unprobed>,
}

/// How the chip that programs are compiled for was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// The caller named it.
    Named,
    /// It is this machine's.
    Detected,
    /// Neither, so that it is the default.
    Default,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Chosen::Named => "as asked for",
            Chosen::Detected => "this machine's",
            Chosen::Default => "the default",
        })
    }
}

/// A constant that no probe is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unprobed {
    /// Its name.
    pub name: String,
    /// Why not.
    pub why: String,
}

impl Unprobed {
    /// All of them.
    pub fn all() -> Vec<Unprobed> {
        let one = |&(name, why): &(&str, &str)| Unprobed { name: name.into(), why: why.into() };
        UNPROBED.iter().map(one).collect()
    }
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
    /// Whether its process crashed, or was ended as it took too long. It then says nothing of what it is about.
    pub ended: bool,
}

impl Found {
    /// What a probe found.
    pub fn of(probe: &Probe, outcome: Outcome) -> Found {
        let (name, about, expected) = (probe.name.into(), probe.about.into(), probe.expected.to_string());
        Found { name, about, expected, outcome, ended: false }
    }

    /// That a probe's process ended before it had found anything.
    pub fn ended(probe: &Probe, why: String) -> Found {
        Found { ended: true, ..Found::of(probe, Outcome::not_run(why)) }
    }
}

/// The chip to compile for: the one that was named, else that of the processor, else the default.
pub fn target(named: Option<Target>, processor: Option<&str>) -> (Target, Chosen) {
    if let Some(named) = named {
        return (named, Chosen::Named);
    }
    let detected = processor.and_then(|brand| {
        let of = family_of_brand(brand)?;
        // `Apple M5 Pro` is of the generation `M5`; a newer one takes what the newest known family takes.
        match (of.newer, brand.strip_prefix("Apple ")?.split(' ').next()?) {
            (None, generation) => Target::named(generation).ok(),
            (Some(_), _) => of.family.representative(),
        }
    });
    detected.map_or((Target::default(), Chosen::Default), |target| (target, Chosen::Detected))
}

/// Why the engine cannot be reached in this way, if so.
pub fn absent(options: &AneOptions) -> Option<String> {
    crate::device::ane::absent(options)
}

impl Report {
    /// Whether everything is as expected: every op agrees with the host, no probe refutes anything, and no process crashed.
    pub fn is_well(&self) -> bool {
        self.absent.is_none()
            && self.ops.iter().all(OpCheck::is_well)
            && self.probes.iter().all(|found| found.outcome.verdict != Verdict::Refuted && !found.ended)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.probes.iter().filter(|found| found.outcome.verdict == verdict).count()
    }

    /// What the whole of it is worth, in its first line.
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { version, date, target, chosen, .. } = self;
        write!(f, "aneforge {version} ")?;
        match (self.device.as_deref(), &self.absent) {
            (Some("ane"), _) => write!(f, "on ane")?,
            (Some(STANDS_IN), _) => write!(f, "on {STANDS_IN}: nothing about silicon follows from it")?,
            (Some(device), _) => {
                write!(f, "on the {device}: there is no engine here, so that nothing is compared")?
            }
            (None, why) => write!(f, "did not run: {}", why.as_deref().unwrap_or("nothing was asked for"))?,
        }
        writeln!(f, "\ncompiled for {target} ({chosen}), {date}")
    }

    fn cases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |verdict| self.ops.iter().filter(move |op| op.verdict == verdict);
        let ran = of(Verdict::NotRun).filter(|op| op.failed.is_none()).count();
        write!(f, "\nops: {} cases, {} as on the host", self.ops.len(), of(Verdict::Confirmed).count())?;
        write!(f, ", {} not, {} not run", of(Verdict::Refuted).count(), of(Verdict::NotRun).count())?;
        writeln!(f, "{}", if ran > 0 { format!(" ({})", ops::ITSELF) } else { String::new() })?;
        self.ops.iter().filter(|op| !op.is_well()).try_for_each(|op| writeln!(f, "  {op}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        write!(f, "{}", self.machine)?;
        if self.device.is_none() {
            return Ok(());
        }
        self.cases(f)?;
        let of = |verdict| self.count(verdict);
        writeln!(
            f,
            "\nprobes: {} confirmed, {} refuted, {} measured, {} not run",
            of(Verdict::Confirmed),
            of(Verdict::Refuted),
            of(Verdict::Measured),
            of(Verdict::NotRun)
        )?;
        for Found { name, about, expected, outcome: Outcome { verdict, found }, .. } in &self.probes {
            writeln!(f, "  {verdict:<9} {name}: {found}")?;
            writeln!(f, "            {about}; expected: {expected}")?;
        }
        if !self.unprobed.is_empty() {
            writeln!(f, "\nnot probed")?;
            self.unprobed.iter().try_for_each(|Unprobed { name, why }| writeln!(f, "  {name}: {why}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chip_is_the_one_that_was_named_or_this_machines() {
        let named = Target::named("h14").unwrap();
        let of = |processor| target(None, Some(processor));
        assert_eq!(target(Some(named), Some("Apple M1")), (named, Chosen::Named));
        for (brand, chip) in
            [("Apple M1", "h13"), ("Apple M1 Ultra", "h13"), ("Apple M5 Pro", "h17"), ("Apple M9", "h16s")]
        {
            assert_eq!(of(brand), (Target::named(chip).unwrap(), Chosen::Detected), "{brand}");
        }
        assert_eq!(of("Intel(R) Xeon(R)"), (Target::default(), Chosen::Default));
        assert_eq!(target(None, None), (Target::default(), Chosen::Default));
    }
}
