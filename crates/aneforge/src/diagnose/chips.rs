//! The same network on every chip: is it safe there, how long may it take, and is the engine the right place for it.

use super::{Diagnosis, diagnose};
use crate::compile::compile_graph;
use crate::device::host::Host;
use crate::ir::graph::Graph;
use crate::ir::numerics::Family;
use crate::passes::CompileOptions;
use crate::session::{RunError, Session};
use crate::target::cost::{Estimate, measured};
use crate::target::{CHIPS, Target};
use aneforge_tensor::Tensor;
use serde_json::{Value, json};
use std::fmt;
use std::time::Instant;

/// Calls of which the median is taken for the host's time.
const CALLS: usize = 5;

/// A network on one chip.
#[derive(Clone, Debug)]
pub struct ChipReport {
    /// The chip.
    pub target: Target,
    /// What becomes of it there.
    pub verdict: Verdict,
    /// What a call may cost there: no measurement. Absent where the network does not compile, and for chips known by name only.
    pub estimate: Option<Estimate>,
}

/// What becomes of a network on a chip.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every node within the tolerance, and every result.
    Safe,
    /// Nodes in trouble, the first of them in words; or only results that differ.
    Risky(String),
    /// It does not compile for the chip.
    Refused(String),
}

impl Verdict {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Safe => "safe",
            Verdict::Risky(_) => "risky",
            Verdict::Refused(_) => "refused",
        }
    }

    /// Why it is not safe; empty where it is.
    pub fn why(&self) -> &str {
        match self {
            Verdict::Safe => "",
            Verdict::Risky(why) | Verdict::Refused(why) => why,
        }
    }
}

/// A network on all chips.
#[derive(Clone, Debug)]
pub struct AllChips {
    /// One for each chip that runs programs, oldest family first.
    pub chips: Vec<ChipReport>,
    /// The time of a call on this machine's processor, in microseconds, a median; absent where it compiles for no chip.
    pub host_us: Option<f64>,
    /// One diagnosis for each family that it compiles for.
    pub families: Vec<Diagnosis>,
}

/// Diagnoses a graph for every family, and asks the cost model of every chip.
pub fn on_all_chips(
    host: &Host,
    graph: &Graph,
    options: &CompileOptions,
    feeds: &[Tensor],
    tolerance: f64,
) -> Result<AllChips, RunError> {
    // Each chip is asked about its own arithmetic.
    let host = &host.of_each_chip();
    let mut families: Vec<(Family, Result<Diagnosis, String>)> = Vec::new();
    let mut chips = Vec::new();
    let mut host_us = None;
    for chip in CHIPS.iter().filter(|chip| chip.family.runs_mil()) {
        let target = Target::named(chip.name).expect("invariant: it is in the table");
        let options = CompileOptions { target, ..*options };
        if !families.iter().any(|(family, _)| *family == chip.family) {
            let found = match diagnose(host, graph, &options, feeds, tolerance) {
                Ok(found) => Ok(found),
                Err(RunError::Compile(error)) => Err(error.to_string()),
                Err(other) => return Err(other),
            };
            if host_us.is_none() && found.is_ok() {
                host_us = Some(time_of_host(host, graph, &options, feeds)?);
            }
            families.push((chip.family, found));
        }
        let (_, found) =
            families.iter().find(|(family, _)| *family == chip.family).expect("invariant: just pushed");
        let (verdict, estimate) = match found {
            Ok(found) => (verdict(found), measured(graph, target, false).ok()),
            Err(why) => (Verdict::Refused(why.clone()), None),
        };
        chips.push(ChipReport { target, verdict, estimate });
    }
    let families = families.into_iter().filter_map(|(_, found)| found.ok()).collect();
    Ok(AllChips { chips, host_us, families })
}

fn verdict(found: &Diagnosis) -> Verdict {
    if found.is_safe() {
        return Verdict::Safe;
    }
    let worst = found.outputs.iter().fold(0.0f64, |worst, error| worst.max(*error));
    Verdict::Risky(match found.first() {
        Some(node) => format!("{} at {} ({})", node.troubles[0].trouble.name(), node.at, node.op),
        None => format!("results differ by {worst:.2e}"),
    })
}

/// The median of some calls, in microseconds.
fn time_of_host(
    host: &Host,
    graph: &Graph,
    options: &CompileOptions,
    feeds: &[Tensor],
) -> Result<f64, RunError> {
    let mut session = Session::new(compile_graph(graph, options)?, host)?;
    session.run_all(feeds)?;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        session.execute()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[CALLS / 2])
}

impl ChipReport {
    /// The estimated time with what it may be, in words; empty where there is none.
    pub(super) fn time(&self) -> String {
        let words = |e: &Estimate| format!("{:.0} us ({:.0} to {:.0})", e.microseconds, e.low, e.high);
        self.estimate.as_ref().map_or_else(String::new, words)
    }

    /// The estimated time.
    pub fn microseconds(&self) -> Option<f64> {
        Some(self.estimate.as_ref()?.microseconds)
    }
}

impl AllChips {
    /// Whether the engine is the right place for the network, in a sentence.
    pub fn place(&self) -> String {
        let estimates = self.chips.iter().filter_map(|chip| chip.estimate.as_ref());
        let best = estimates.min_by(|a, b| a.microseconds.total_cmp(&b.microseconds));
        let (Some(best), Some(host)) = (best, self.host_us) else {
            return "no chip's engine runs this network".into();
        };
        let Estimate { microseconds: estimate, low, high, target, place, .. } = best;
        if *estimate >= host {
            return format!(
                "the engine is the wrong place: the fastest estimate is {estimate:.0} us on {target}, and this processor \
                 takes {host:.0} us; larger batches or longer programs may change that"
            );
        }
        let floor = match *estimate <= 1.5 * best.terms.floor {
            true => "; starting the program is most of it, so larger batches cost little more",
            false => "",
        };
        format!(
            "estimated at {estimate:.0} us ({low:.0} to {high:.0}) on {target}, {host:.0} us on this processor{floor}; {place}"
        )
    }

    /// One page of HTML that stands alone: the chips, and what was found for each family.
    pub fn to_html(&self) -> String {
        super::page::all_chips(self)
    }

    /// As JSON: `chips` with `target`, `family`, `verdict`, `why`, `estimate_us`, and `estimate`, all of it (see
    /// [`Estimate::to_json`]); `host_us`, `place`, and `families`, each a
    /// diagnosis.
    pub fn to_json(&self) -> Value {
        let chips = self.chips.iter().map(|chip| {
            let why = chip.verdict.why();
            json!({
                "target": chip.target.name(), "family": chip.target.family().to_string(),
                "verdict": chip.verdict.name(), "why": why, "estimate_us": chip.microseconds(),
                "estimate": chip.estimate.as_ref().map(Estimate::to_json),
            })
        });
        let families: Vec<Value> = self.families.iter().map(Diagnosis::to_json).collect();
        json!({
            "chips": chips.collect::<Vec<_>>(), "host_us": self.host_us, "place": self.place(), "families": families,
        })
    }
}

impl fmt::Display for AllChips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chip in &self.chips {
            let time = chip.time();
            let why = match chip.verdict.why() {
                "" => String::new(),
                why => format!("  {why}"),
            };
            let (name, family) = (chip.target.name(), chip.target.family().to_string());
            writeln!(f, "{name:<5} {family:<4} {time:>24}  {:<7}{why}", chip.verdict.name())?;
        }
        writeln!(f, "{}", self.place())
    }
}
