//! What native layers become: kept, or written out.

use super::{Bench, TuneError, Way, array, error, frozen, least, routed};
use crate::artifact::Measured;
use crate::compile::CompileError;
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Mil;
use crate::ir::var::Var;
use crate::passes::{CompileOptions, Routes};
use crate::target::cost;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Which ways are measured, and when a way may win.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// How many ways are measured at most.
    pub budget: usize,
    /// How far results may be from the first way's, in units of the largest.
    pub tolerance: f64,
    /// Ways with a loss of precision are skipped beyond this multiple of the least estimate.
    pub prune_factor: f64,
    /// How much faster than the first way one with a loss of precision must be.
    pub min_lossy_speedup: f64,
}

impl Default for Search {
    fn default() -> Search {
        Search { budget: 8, tolerance: 5e-3, prune_factor: 1.5, min_lossy_speedup: 1.10 }
    }
}

impl Search {
    /// Whether a way is worth measuring after some that were.
    fn tries(&self, candidate: &Candidate, least_estimate: f64, measured: &[Way]) -> bool {
        let cheap = candidate.estimate <= self.prune_factor * least_estimate;
        !candidate.lossy || !measured.is_empty() && cheap
    }

    /// Whether a way that was measured may win over none; `baseline` is the first one's time.
    fn admits(&self, lossy: bool, way: &Way, baseline: f64) -> bool {
        let fast = !lossy || way.time * self.min_lossy_speedup <= baseline;
        way.error <= self.tolerance && fast
    }
}

/// A way that may be measured.
struct Candidate {
    name: &'static str,
    routes: Routes,
    /// Whether it computes something else, though not much.
    lossy: bool,
    estimate: f64,
}

impl Candidate {
    fn new(name: &'static str, routes: Routes, graph: &Graph) -> Candidate {
        Candidate { name, routes, lossy: false, estimate: cost::estimate(graph, false) }
    }
}

/// Options that compile `out` into the fastest program whose results are right, measured on the bench's device.
///
/// Tried are native layers kept, and written out. Where none can run, the options are those of the bench, and compiling
/// says why. `each` is told of every way that is measured.
///
/// ```
/// use aneforge::tune::{Bench, Search, tune};
/// use aneforge::{Routes, Shape, Var, compile, device};
/// let y = Var::input(Shape::new(&[1, 2, 4, 8])?).relu();
/// let bench = Bench::on(device::named("host")?).reps(1);
/// let options = tune(&y, &bench, &Search::default(), &mut |way| println!("{way}"))?;
/// assert_eq!(options.routes, Routes::WrittenOut);
/// let plan = compile(&[y], &options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tune(
    out: &Var,
    bench: &Bench,
    search: &Search,
    each: &mut dyn FnMut(&Way),
) -> Result<CompileOptions, TuneError> {
    let graph = frozen(out)?;
    let candidates = candidates(&graph)?;
    let cache = bench.cache.as_deref().map(|folder| (Measured::new(folder), key(&graph)));
    if let Some((measured, key)) = &cache
        && let Some(known) = measured.get(key)
        && let Some(candidate) = candidates.iter().find(|c| known["config"] == c.name)
    {
        return Ok(bench.compile.routes(candidate.routes));
    }
    let feeds = bench.arrays(&graph)?;
    let least_estimate = candidates.iter().map(|c| c.estimate).fold(f64::INFINITY, f64::min);
    let mut measured: Vec<Way> = Vec::new();
    let mut reference = None;
    let mut best: Option<(&Candidate, f64)> = None;
    for candidate in candidates.iter().take(search.budget.max(1)) {
        if !search.tries(candidate, least_estimate, &measured) {
            continue;
        }
        let Some((result, times)) = bench.run(out, candidate.routes, &feeds)? else { continue };
        let result = array(&result);
        let error = error(&result, reference.get_or_insert_with(|| result.clone()), 1e-6);
        let way = Way { name: candidate.name, estimate: candidate.estimate, time: least(&times), error };
        each(&way);
        let baseline = measured.first().map_or(way.time, |first| first.time);
        if search.admits(candidate.lossy, &way, baseline) && best.is_none_or(|(_, time)| way.time < time) {
            best = Some((candidate, way.time));
        }
        measured.push(way);
    }
    let Some((winner, time)) = best else { return Ok(bench.compile) };
    if let Some((measured, key)) = &cache {
        measured.put(key, entry(winner.name, time))?;
    }
    Ok(bench.compile.routes(winner.routes))
}

fn entry(name: &str, time: f64) -> Value {
    json!({ "config": name, "us": (10.0 * time).round() / 10.0 })
}

/// The ways, the cheapest first.
fn candidates(graph: &Graph) -> Result<Vec<Candidate>, CompileError> {
    let written_out = routed(graph, Routes::WrittenOut)?;
    let layers = |graph: &Graph| graph.nodes().filter(|(_, n)| matches!(n.op.mil(), Mil::Native(_))).count();
    let mut found = vec![Candidate::new("fused", Routes::WrittenOut, &written_out)];
    if layers(graph) != layers(&written_out) {
        found.insert(0, Candidate::new("native", Routes::Native, graph));
    }
    found.sort_by(|a, b| a.lossy.cmp(&b.lossy).then(a.estimate.total_cmp(&b.estimate)));
    Ok(found)
}

/// What a choice is kept under: a hash of what the graph is made of, without the contents of its constants, so that it is
/// equal for graphs that take as long.
fn key(graph: &Graph) -> String {
    let line = |(_, node): (NodeId, &GraphNode)| {
        let attrs = node.op.attrs().into_iter().filter(|(name, _)| !matches!(*name, "id" | "index"));
        let attrs: Vec<String> = attrs.map(|(name, attr)| format!("{name}={attr}")).collect();
        format!("{}({:?}) {} {}\n", node.op.name(), node.inputs, attrs.join(" "), node.ty)
    };
    let structure: String = graph.nodes().map(line).collect();
    Sha256::digest(structure).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::MEASURED_FILE;
    use crate::{Shape, device};
    use aneforge_kernels::threads::stoppable;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn layered(scale: f64) -> Var {
        let x = Var::input(Shape::new(&[1, 2, 4, 8]).unwrap());
        let y = x.linear(&Var::full(Shape::new(&[8, 8]).unwrap(), scale), None);
        y.minmax_norm("Width", 1e-4)
    }

    #[test]
    fn routes_are_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let host = device::named("host").unwrap();
        let bench = Bench::on(host).reps(2).cache(folder.path());
        let mut names = Vec::new();
        let options =
            tune(&layered(0.5), &bench, &Search::default(), &mut |way| names.push(way.name)).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["fused", "native"]);
        let kept = std::fs::read_to_string(folder.path().join(MEASURED_FILE)).unwrap();
        assert!(kept.contains(if options.routes == Routes::Native { "native" } else { "fused" }));
        // Weights do not change how long a graph takes, so neither do they change the entry.
        let again = tune(&layered(0.25), &bench, &Search::default(), &mut |way| panic!("measured {way}"));
        assert_eq!(again.unwrap(), options);
    }

    #[test]
    fn lossy_ways_must_earn_it() {
        let search = Search::default();
        let candidate =
            |estimate| Candidate { name: "lossy", routes: Routes::WrittenOut, lossy: true, estimate };
        let way = |time, error| Way { name: "way", estimate: 1.0, time, error };
        let first = [way(11.0, 0.0)];
        assert!(!search.tries(&candidate(1.0), 1.0, &[]));
        assert!(search.tries(&candidate(1.5), 1.0, &first) && !search.tries(&candidate(1.6), 1.0, &first));
        assert!(search.admits(true, &way(10.0, 5e-3), 11.0) && !search.admits(true, &way(10.1, 0.0), 11.0));
        assert!(search.admits(false, &way(12.0, 0.0), 11.0) && !search.admits(false, &way(1.0, 6e-3), 11.0));
    }

    /// Keys are in files of users.
    #[test]
    fn keys_are_of_the_structure_alone() {
        let of = |y: &Var| key(&frozen(y).unwrap());
        assert_eq!(of(&layered(0.5)), of(&layered(0.25)));
        assert_ne!(of(&layered(0.5)), of(&layered(0.5).relu()));
        assert_eq!(of(&layered(0.5)), "f3802e1f91c17d2d1555aa84bf0ce10a");
    }

    #[test]
    fn measuring_can_be_stopped() {
        let host = device::named("host").unwrap();
        let stop = Arc::new(AtomicBool::new(true));
        let tuned = stoppable(&stop, || {
            tune(&layered(0.5), &Bench::on(host), &Search::default(), &mut |way| panic!("measured {way}"))
        });
        assert!(tuned.unwrap_err().to_string().contains("stopped"));
    }
}
