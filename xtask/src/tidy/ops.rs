//! Ops are asked what they are; nobody else tells them by name.

use super::Finding;
use super::allow::Names;
use super::source::{Source, identifier};

/// Where ops are defined and rewritten.
const HOMES: &[&str] = &["crates/aneforge/src/ir/ops/", "crates/aneforge/src/passes/"];
/// Ports and constants are part of what a graph is.
const LEAVES: &[&str] = &["Input", "Constant"];

/// Checks that `Op::Name` occurs in ops, in passes, in integration tests and in the files allowed, only.
pub fn check(sources: &[Source], allowed: &[Names]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut needed = Vec::new();
    for source in sources {
        let home = HOMES.iter().any(|home| source.path.starts_with(home)) || source.path.contains("/tests/");
        for (offset, name) in named(source).filter(|_| !home) {
            if allowed.iter().any(|a| a.path == source.path && a.ops.contains(&name)) {
                needed.push((source.path.as_str(), name));
                continue;
            }
            let what = format!(
                "tells Op::{name} by name; ask for its form or facts (ir/form.rs), or allow it in NAMES in allow.rs"
            );
            findings.push(Finding::new(&source.path, source.line(offset), what));
        }
    }
    for (names, name) in allowed.iter().flat_map(|a| a.ops.iter().map(move |name| (a, name))) {
        if !needed.contains(&(names.path, name)) {
            let what = format!("Op::{name} is allowed but gone; remove it from NAMES in allow.rs");
            findings.push(Finding::new(names.path, 0, what));
        }
    }
    findings
}

/// Variants of the op enum that a file names, with offsets.
fn named(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.words("Op").filter_map(|at| {
        let name = identifier(source.code[at + 2..].strip_prefix("::")?);
        let variant = name.starts_with(|c: char| c.is_ascii_uppercase()) && !LEAVES.contains(&name);
        variant.then_some((at, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, allowed: &[Names]) -> Vec<String> {
        check(&[Source::new(path, text)], allowed).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn names_are_found_where_they_do_not_belong() {
        let text = "fn f(op: &Op) { matches!(op, Op::Relu(_) | Op::Input(_)); Op::from(x); } // Op::Abs";
        let findings = found("crates/aneforge/src/risk/mod.rs", text, &[]);
        assert!(findings.len() == 1 && findings[0].contains("Op::Relu by name"), "{findings:?}");
        assert_eq!(found("crates/aneforge/src/passes/fold.rs", text, &[]), [""; 0]);
        assert_eq!(found("crates/aneforge/tests/it/a.rs", text, &[]), [""; 0]);
        let allowed = [Names { path: "a.rs", ops: &["Relu", "Gelu"], reason: "" }];
        let findings = found("a.rs", text, &allowed);
        assert!(findings.len() == 1 && findings[0].contains("Op::Gelu is allowed but gone"), "{findings:?}");
    }
}
