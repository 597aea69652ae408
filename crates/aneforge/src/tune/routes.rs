//! What native layers, weights and chains of scalars become, by measuring.

use super::{Bench, Considered, TuneError, Way, array, consider, error, frozen, least};
use crate::artifact::Measured;
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::var::Var;
use crate::passes::CompileOptions;
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
    fn tries(&self, candidate: &Considered, least_estimate: f64, measured: &[Way]) -> bool {
        let cheap = candidate.estimate <= self.prune_factor * least_estimate;
        !candidate.lossy || !measured.is_empty() && cheap
    }

    /// Whether a way that was measured may win over none; `baseline` is the first one's time.
    fn admits(&self, lossy: bool, way: &Way, baseline: f64) -> bool {
        let fast = !lossy || way.time * self.min_lossy_speedup <= baseline;
        way.error <= self.tolerance && fast
    }
}

/// Options that compile `out` into the fastest program whose results are right, measured on the bench's device.
///
/// Tried are the ways of [`consider`](super::consider): native layers kept and written out, and on top of the cheaper of them
/// weights in bytes and chains of scalars as one, which must be faster by [`Search::min_lossy_speedup`]. No way wins whose
/// results are further than [`Search::tolerance`] from the first's. Where none can run, the options are those of the bench, and compiling
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
    let candidates = consider(&graph, &bench.compile)?;
    let cache = bench.cache.as_deref().map(|folder| (Measured::new(folder), key(&graph)));
    if let Some((measured, key)) = &cache
        && let Some(known) = measured.get(key)
        && known["device"].as_str().is_none_or(|device| device == bench.device.title())
        // The error of a way with a loss depends on weights, which the key does not have.
        && let Some(candidate) = candidates.iter().find(|c| !c.lossy && known["config"] == c.name)
    {
        return Ok(candidate.options);
    }
    let feeds = bench.arrays(&graph)?;
    let least_estimate = candidates.iter().map(|c| c.estimate).fold(f64::INFINITY, f64::min);
    let mut measured: Vec<Way> = Vec::new();
    let mut reference = None;
    let mut best: Option<(&Considered, f64)> = None;
    for candidate in candidates.iter().take(search.budget.max(1)) {
        if !search.tries(candidate, least_estimate, &measured) {
            continue;
        }
        let Some((result, times)) = bench.run(out, &candidate.options, &feeds)? else { continue };
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
        measured.put(key, entry(winner.name, bench.device.title(), time))?;
    }
    Ok(winner.options)
}

fn entry(name: &str, device: &str, time: f64) -> Value {
    json!({ "config": name, "device": device, "us": (10.0 * time).round() / 10.0 })
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
    use crate::{Routes, Shape, device};
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
        // On a graph as small as this one, a loss of precision may seem to pay.
        let search = Search { min_lossy_speedup: f64::INFINITY, ..Search::default() };
        let mut names = Vec::new();
        let options = tune(&layered(0.5), &bench, &search, &mut |way| names.push(way.name)).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["fused", "int8", "native"]);
        let kept = std::fs::read_to_string(folder.path().join(MEASURED_FILE)).unwrap();
        assert!(kept.contains(if options.routes == Routes::Native { "native" } else { "fused" }));
        // Weights do not change how long a graph takes, so neither do they change the entry.
        let again = tune(&layered(0.25), &bench, &search, &mut |way| panic!("measured {way}"));
        assert_eq!(again.unwrap(), options);
    }

    #[test]
    fn lossy_ways_must_earn_it() {
        let search = Search::default();
        let options = CompileOptions::default();
        let candidate =
            |estimate| Considered { name: "lossy", options, lossy: true, estimate, refused: None };
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
