//! Attributes from outside may be anything: every op takes them or says why not.

use crate::support::{build, numbers};
use aneforge::compile::{CompileError, compile_graph};
use aneforge::ir::attr::Attr;
use aneforge::ir::op::{Case, OPS, find};
use aneforge::ir::text;
use aneforge::passes::PassError;
use aneforge::{CompileOptions, Graph, Routes, Target};
use proptest::prelude::*;

const INTS: [i64; 14] = [
    i64::MIN,
    -(1 << 32),
    -(1 << 31) - 1,
    -(1 << 31),
    -1,
    0,
    1,
    2,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 62,
    i64::MAX,
];
const REALS: [f64; 9] = [0.0, -0.0, 1e-300, 65519.0, 65520.0, -1e300, f64::MAX, f64::INFINITY, f64::NAN];

/// How many values of its own an attribute may be given: one for a scalar, one per element of a list.
fn places(attr: &Attr) -> usize {
    match attr {
        Attr::Ints(list) => list.len(),
        Attr::Int(_) | Attr::Real(_) => 1,
        Attr::Bool(_) | Attr::Str(_) => 0,
    }
}

/// The attribute with an extreme value at one place.
fn extreme(attr: &Attr, place: usize, pick: usize) -> Attr {
    match attr {
        Attr::Int(_) => Attr::Int(INTS[pick % INTS.len()]),
        Attr::Real(_) => Attr::Real(REALS[pick % REALS.len()]),
        Attr::Ints(list) => {
            let mut list = list.clone();
            list[place] = INTS[pick % INTS.len()];
            Attr::Ints(list)
        }
        other => other.clone(),
    }
}

/// An op with these attributes on a case's inputs is refused in words, or compiles, or is refused then; and
/// the same from graph text.
fn held(case: &Case, attrs: &[(&'static str, Attr)]) {
    let get = |name: &str| attrs.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
    let made = (find(case.op.name()).unwrap().from_attrs)(&get);
    let what = format!("{}{attrs:?}", case.op.name());
    from_text(case, attrs, &what);
    let Ok(op) = made else { return };
    let built = build(&Case { op, ..case.clone() }, false);
    match built.output.check() {
        Err(e) => assert!(!e.why.is_empty(), "{what}"),
        Ok(_) => compiled(&Graph::freeze(&[numbers(&built.output)]).unwrap(), &what),
    }
}

fn compiled(graph: &Graph, what: &str) {
    for (chip, routes) in [("h13", Routes::Native), ("h17s", Routes::WrittenOut)] {
        let options =
            CompileOptions { target: Target::named(chip).unwrap(), routes, ..CompileOptions::default() };
        match compile_graph(graph, &options) {
            Ok(_) | Err(CompileError::Pass(PassError::Build(_) | PassError::Legal(_))) => {}
            Err(bug) => panic!("{what} for {chip}: {bug}"),
        }
    }
}

fn from_text(case: &Case, attrs: &[(&'static str, Attr)], what: &str) {
    let graph = Graph::freeze(&[build(case, false).output]).unwrap();
    let mut source = text::print(&graph);
    for ((name, before), (_, after)) in case.op.attrs().iter().zip(attrs) {
        source = source.replace(&format!("{name}={before}"), &format!("{name}={after}"));
    }
    match text::parse(&source) {
        Err(e) => assert!(!e.to_string().is_empty(), "{what}"),
        Ok(graph) => drop(aneforge::ir::verify::verify(&graph)),
    }
}

/// Cases of ops that have attributes.
fn cases() -> Vec<Case> {
    let some = |case: &Case| case.op.attrs().iter().any(|(_, attr)| places(attr) > 0);
    OPS.iter().flat_map(|entry| (entry.cases)()).filter(some).collect()
}

#[test]
fn one_extreme_attribute_is_taken_or_refused() {
    for case in cases() {
        let attrs = case.op.attrs();
        for (at, place) in (0..attrs.len()).flat_map(|at| (0..places(&attrs[at].1)).map(move |p| (at, p))) {
            for pick in 0..INTS.len() {
                let mut attrs = attrs.clone();
                attrs[at].1 = extreme(&attrs[at].1, place, pick);
                held(&case, &attrs);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn several_extreme_attributes_are_taken_or_refused(
        case in proptest::sample::select(cases()),
        picks in proptest::collection::vec((any::<bool>(), any::<usize>(), any::<usize>()), 8),
    ) {
        let mut attrs = case.op.attrs();
        for (slot, (change, place, pick)) in attrs.iter_mut().zip(picks) {
            let places = places(&slot.1);
            if change && places > 0 {
                slot.1 = extreme(&slot.1, place % places, pick);
            }
        }
        held(&case, &attrs);
    }
}
