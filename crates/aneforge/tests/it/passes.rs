//! File tests of the pipeline: `tests/ir/passes/*.ir` hold a graph, and after a line of `----` what the
//! pipeline makes of it and why rules refused; `tests/ir/partition/*.ir` the same with the segments of its
//! plan; `tests/ir/host/*.ir` with what the host engine runs. `cargo bless` rewrites the second half.

use super::support::engine;
use aneforge::compile::compile_graph;
use aneforge::ir::text;
use aneforge::passes::Scalars;
use aneforge::{CompileOptions, Routes, Target, passes, target};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const RULE: &str = "----\n";

fn files() -> Vec<PathBuf> {
    files_of("passes")
}

fn files_of(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ir").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// What the pipeline does to a graph: events of every stage, then the legal graph, or the error.
fn outcome(source: &str) -> String {
    let target = source.lines().find_map(|l| l.strip_prefix("# target: ")).unwrap_or("h17s");
    let graph = match text::parse(source) {
        Ok(graph) => graph,
        Err(e) => return format!("error: {e}\n"),
    };
    let folded = source.contains("# scalars: folded\n");
    let scalars = if folded { Scalars::Folded } else { Scalars::AsWritten };
    let options = CompileOptions::target(Target::named(target).unwrap()).scalars(scalars);
    let traces = match passes::run(&graph, &options) {
        Ok(traces) => traces,
        Err(e) => return format!("error: {e}\n"),
    };
    let mut out = String::new();
    for trace in &traces {
        for event in &trace.events {
            let what = event.refused.map_or_else(|| "fired".to_owned(), |why| format!("refused: {why}"));
            writeln!(out, "# {}: {} {what}", trace.stage, event.rule).unwrap();
        }
    }
    out + &text::print(&traces.last().unwrap().graph)
}

/// The segments of a graph's plan with native layers kept: where each is fed from, and its graph.
fn segments(source: &str) -> String {
    let most =
        source.lines().find_map(|l| l.strip_prefix("# most bytes: ")).map(|n| n.parse::<u64>().unwrap());
    let options = CompileOptions::default().routes(Routes::Native).most_bytes(most);
    let graph = text::parse(source).unwrap();
    let plan = match compile_graph(&graph, &options) {
        Ok(plan) => plan,
        Err(e) => return format!("error: {e}\n"),
    };
    let graphs = plan.segments.iter().enumerate();
    graphs.fold(plan.to_string(), |out, (i, s)| out + &format!("# segment {i}\n{}", text::print(&s.graph)))
}

#[test]
fn pipeline_files() {
    hold(files(), outcome);
}

#[test]
fn partition_files() {
    hold(files_of("partition"), segments);
}

/// What the host runs for a graph: the steps of every segment, with what happens to the values they store.
fn host_plan(source: &str) -> String {
    let setting = |name: &str| source.lines().find_map(|l| l.strip_prefix(&format!("# {name}: ")));
    let target = Target::named(setting("target").unwrap_or("h17s")).unwrap();
    let numerics = target::numerics_named(setting("numerics").unwrap_or("ane"), target).unwrap();
    let host = engine(1).with_numerics(numerics);
    let options = CompileOptions { target, ..CompileOptions::default() };
    let plan = compile_graph(&text::parse(source).unwrap(), &options).unwrap();
    let steps = plan.segments.iter().map(|s| host.plan(s, target).unwrap().to_string());
    steps.collect::<Vec<_>>().join("next segment\n")
}

#[test]
fn host_plan_files() {
    hold(files_of("host"), host_plan);
}

fn hold(files: Vec<PathBuf>, outcome: fn(&str) -> String) {
    let bless = std::env::var_os("ANEFORGE_BLESS").is_some_and(|v| v == "1");
    let mut stale = Vec::new();
    assert!(files.len() >= 6, "{} files", files.len());
    for path in files {
        let file = std::fs::read_to_string(&path).unwrap();
        let source = file.split(RULE).next().unwrap();
        let now = format!("{source}{RULE}{}", outcome(source));
        if now != file && bless {
            std::fs::write(&path, now).unwrap();
        } else if now != file {
            stale.push(format!("{}:\n{now}", path.display()));
        }
    }
    assert!(stale.is_empty(), "stale; run `cargo bless` and review the diff:\n{}", stale.join("\n"));
}

/// Every rule fires in one file and must not fire in another.
#[test]
fn every_rule_has_its_files() {
    let all: String = files().iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let names: Vec<String> =
        files().iter().map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let target_rules = passes::LEGALIZE.iter().chain(passes::FORMS).chain(passes::TRIGONOMETRY);
    let always = passes::ROUTE.iter().chain(passes::CANONICALIZE).chain(passes::FOLD).chain(passes::SCALARS);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lowering.md");
    let page = std::fs::read_to_string(page).unwrap();
    for rule in always.chain(target_rules) {
        assert!(all.contains(&format!("{} fired", rule.name)), "{} fires in no file", rule.name);
        assert!(page.contains(&format!("`{}`", rule.name)), "{} is not in docs/lowering.md", rule.name);
        let not = format!("{}_not", rule.name);
        let path = files().into_iter().find(|p| p.file_stem().is_some_and(|s| *s == *not));
        let path = path.unwrap_or_else(|| panic!("no {not}.ir among {names:?}"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains(&format!("{} fired", rule.name)), "{not}.ir fires it");
    }
    // These two are in no table: they look at a whole graph.
    for name in ["robust_norm", "identity_output"] {
        let [fires, not] = ["", "_not"]
            .map(|end| files().into_iter().find(|p| p.ends_with(format!("{name}{end}.ir"))).unwrap());
        let fired = |path: &Path| std::fs::read_to_string(path).unwrap().contains(&format!("{name} fired"));
        assert!(fired(&fires) && !fired(&not) && page.contains(&format!("`{name}`")), "{name}");
    }
}
