//! How sums are written: as they are, or as products, by the error they make.

use super::{Bench, TuneError, Way, array, error, frozen, general, least, routed};
use crate::ir::precision::{Array, Precision};
use crate::ir::var::Var;
use crate::passes::Routes;
use crate::rewrite::reduce_sum_to_matmul;
use crate::risk::{self, Finding};
use crate::session::RunError;
use crate::target::cost::package;
use aneforge_tensor::Tensor;

/// What precision is chosen by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The most precise way.
    Precise,
    /// The cheapest way within this relative error, or else the most precise.
    Error(f64),
    /// The most precise way within this many estimated microseconds, or else of all.
    Time(f64),
}

/// The way that was chosen, and all that were measured.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The graph to compile.
    pub out: Var,
    /// Every way, with errors against the graph in double precision.
    pub ways: Vec<Way>,
    /// Where the graph as it was may lose precision.
    pub findings: Vec<Finding>,
    /// Which of `ways` won.
    pub chosen: usize,
    /// Why.
    pub reason: String,
}

/// The cheapest way to write `out` that is precise enough.
///
/// Tried are the graph as it is, and with its long sums as products with ones. `each` is told of every way.
///
/// ```
/// use aneforge::tune::{Bench, Goal, tune_precision};
/// use aneforge::{Shape, Var, device};
/// let y = Var::input(Shape::new(&[4, 1024])?).sum(&[1]);
/// let bench = Bench::on(device::named("host")?).reps(1);
/// let chosen = tune_precision(&y, &bench, Goal::Error(0.5), &mut |_| ())?;
/// assert_eq!((chosen.ways.len(), &*chosen.reason), (2, "the cheapest within 0.5"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tune_precision(
    out: &Var,
    bench: &Bench,
    goal: Goal,
    each: &mut dyn FnMut(&Way),
) -> Result<Chosen, TuneError> {
    let graph = frozen(out)?;
    let findings = risk::findings(&graph);
    let hotspots: Vec<usize> = findings.iter().filter(|f| f.is_hotspot()).map(|f| f.index).collect();
    let mut outs = vec![("baseline", out.clone())];
    if !hotspots.is_empty() {
        // From the last on, as a sum that is rewritten moves those after it.
        let products = |y: Var, at: &usize| reduce_sum_to_matmul(&y, Some(*at));
        outs.push(("reduce_sum->matmul", hotspots.iter().rev().fold(out.clone(), products)));
    }
    let feeds = bench.arrays(&graph)?;
    let want = {
        let mut values = graph.eval(&checked(&graph.feed_types(), &feeds)?, Precision::F64);
        values.swap_remove(graph.outputs()[0].index())
    };
    let mut ways = Vec::new();
    for (name, out) in &outs {
        let estimate = package::estimate(&routed(&frozen(out)?, Routes::WrittenOut)?, false);
        let measured = bench.run(out, &bench.compile.routes(Routes::WrittenOut), &feeds)?;
        let (time, error) = measured.map_or((f64::INFINITY, f64::INFINITY), |(result, times)| {
            (least(&times), error(&array(&result), &want, 1e-9))
        });
        let way = Way { name, estimate, time, error };
        each(&way);
        ways.push(way);
    }
    let (chosen, reason) = choose(&ways, goal);
    let out = outs.swap_remove(chosen).1;
    Ok(Chosen { out, ways, findings, chosen, reason })
}

/// What is fed, in double precision.
fn checked(want: &[crate::ir::graph::InputInfo], feeds: &[Tensor]) -> Result<Vec<Array>, RunError> {
    let wrong = want.iter().zip(feeds).position(|(want, got)| want.ty.shape != got.shape());
    if let Some(index) = wrong {
        let got = feeds[index].shape().dims().to_vec();
        return Err(RunError::Shape { index, want: want[index].ty.shape, got });
    }
    match want.len() == feeds.len() {
        true => Ok(feeds.iter().map(array).collect()),
        false => Err(RunError::Count { want: want.len(), got: feeds.len() }),
    }
}

/// Which way wins, and why.
fn choose(ways: &[Way], goal: Goal) -> (usize, String) {
    let first = |of: &dyn Fn(&Way) -> f64, within: &dyn Fn(&Way) -> bool| {
        let within = (0..ways.len()).filter(|&i| within(&ways[i]));
        within.min_by(|&a, &b| of(&ways[a]).total_cmp(&of(&ways[b])))
    };
    let precise = first(&|way| way.error, &|_| true).expect("invariant: the graph as it is is a way");
    match goal {
        Goal::Precise => (precise, "the most precise".into()),
        Goal::Error(most) => {
            let within = general(most, 6);
            match first(&|way| way.estimate, &|way| way.error <= most) {
                Some(cheapest) => (cheapest, format!("the cheapest within {within}")),
                None => (precise, format!("none is within {within}; the most precise")),
            }
        }
        Goal::Time(most) => {
            let within = general(most, 6);
            match first(&|way| way.error, &|way| way.estimate <= most) {
                Some(best) => (best, format!("the most precise within {within} us")),
                None => (precise, format!("none is within {within} us; the most precise")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Shape, device};

    #[test]
    fn what_wins_is_what_was_asked_for() {
        let way = |name, estimate, error| Way { name, estimate, time: estimate, error };
        let ways = [way("cheap", 10.0, 1e-2), way("precise", 20.0, 1e-4)];
        let choose = |goal| choose(&ways, goal);
        assert_eq!(choose(Goal::Precise), (1, "the most precise".into()));
        assert_eq!(choose(Goal::Error(0.5)), (0, "the cheapest within 0.5".into()));
        assert_eq!(choose(Goal::Error(1e-3)), (1, "the cheapest within 0.001".into()));
        assert_eq!(choose(Goal::Error(1e-9)), (1, "none is within 1e-09; the most precise".into()));
        assert_eq!(choose(Goal::Time(15.0)), (0, "the most precise within 15 us".into()));
        assert_eq!(choose(Goal::Time(1e6)), (1, "the most precise within 1e+06 us".into()));
        assert_eq!(choose(Goal::Time(1.0)), (1, "none is within 1 us; the most precise".into()));
    }

    #[test]
    fn errors_are_against_double_precision() {
        let host = device::named("host").unwrap();
        let bench = Bench::on(host).reps(1);
        let x = Var::input(Shape::new(&[4, 1024]).unwrap());
        let mut said = Vec::new();
        let chosen =
            tune_precision(&x.sum(&[1]), &bench, Goal::Precise, &mut |way| said.push(way.to_string()))
                .unwrap();
        assert!(chosen.ways.iter().all(|way| way.error < 1e-3), "{:?}", chosen.ways);
        assert!(said[0].starts_with("baseline: ") && said[1].starts_with("reduce_sum->matmul: "), "{said:?}");
        let safe = tune_precision(&x.relu(), &bench, Goal::Precise, &mut |_| ()).unwrap();
        assert_eq!((safe.ways.len(), safe.findings.len()), (1, 0));
        let wrong = Tensor::from_slice(Shape::new(&[2]).unwrap(), &[0.0f32; 2]).unwrap();
        let error = tune_precision(&x, &bench.feeds(vec![wrong]), Goal::Precise, &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "input 0 must have shape [4, 1024], got [2]");
        assert_eq!(error.kind(), Kind::Caller);
    }
}
