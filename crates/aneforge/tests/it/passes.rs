//! File tests of the pipeline: `tests/ir/passes/*.ir` hold a graph, and after a line of `----` what the
//! pipeline makes of it and why rules refused. `cargo bless` rewrites the second half.

use aneforge::ir::text;
use aneforge::{Target, passes};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const RULE: &str = "----\n";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ir/passes");
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
    let traces = match passes::run(&graph, Target::named(target).unwrap()) {
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

#[test]
fn pipeline_files() {
    let bless = std::env::var_os("ANEFORGE_BLESS").is_some_and(|v| v == "1");
    let mut stale = Vec::new();
    let files = files();
    assert!(files.len() >= 20, "{} files", files.len());
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
    let target_rules = passes::LEGALIZE.iter().chain(passes::TRIGONOMETRY);
    for rule in passes::CANONICALIZE.iter().chain(passes::FOLD).chain(target_rules) {
        assert!(all.contains(&format!("{} fired", rule.name)), "{} fires in no file", rule.name);
        let not = format!("{}_not", rule.name);
        let path = files().into_iter().find(|p| p.file_stem().is_some_and(|s| *s == *not));
        let path = path.unwrap_or_else(|| panic!("no {not}.ir among {names:?}"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains(&format!("{} fired", rule.name)), "{not}.ir fires it");
    }
}
