//! Files and functions that one can hold in the head.

use super::Finding;
use super::allow::Size;
use super::source::Source;

/// Most lines of a file with one op or family.
const OP_FILE: usize = 280;
/// Most lines of any other file.
const MODULE: usize = 500;
/// Most lines of a function.
const FUNCTION: usize = 60;

/// Something with a size and a limit.
struct Sized {
    /// The file's path, and for functions `#name`.
    id: String,
    path: String,
    line: usize,
    lines: usize,
    limit: usize,
}

/// Checks everything that has a size.
pub fn check(sources: &[Source], allowed: &[Size]) -> Vec<Finding> {
    let things: Vec<Sized> = sources.iter().flat_map(things).collect();
    let mut findings = Vec::new();
    for thing in &things {
        let raised = allowed.iter().find(|a| a.id == thing.id).map_or(thing.limit, |a| a.lines);
        if thing.lines > raised {
            let what = format!("{} lines, the limit is {raised}; split it", thing.lines);
            findings.push(Finding::new(&thing.path, thing.line, what));
        }
    }
    for entry in allowed {
        let path = entry.id.split('#').next().unwrap_or_default();
        let needed = things.iter().any(|t| t.id == entry.id && t.lines > t.limit);
        if !needed {
            let what = format!(
                "`{}` is allowed {} lines and needs none of them; remove it from SIZES in allow.rs",
                entry.id, entry.lines
            );
            findings.push(Finding::new(path, 0, what));
        }
        if entry.reason.trim().is_empty() {
            findings.push(Finding::new(path, 0, "is in SIZES in allow.rs without a reason"));
        }
    }
    findings
}

fn things(source: &Source) -> Vec<Sized> {
    let op = source.path.starts_with("crates/aneforge/src/ir/ops/");
    let file = Sized {
        id: source.path.clone(),
        path: source.path.clone(),
        line: 0,
        lines: source.lines,
        limit: if op { OP_FILE } else { MODULE },
    };
    let functions = source.functions.iter().map(|f| Sized {
        id: format!("{}#{}", source.path, f.name),
        path: source.path.clone(),
        line: f.lines.0,
        lines: f.lines.1 - f.lines.0 + 1,
        limit: FUNCTION,
    });
    std::iter::once(file).chain(functions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, lines: usize, allowed: &[Size]) -> usize {
        check(&[Source::new(path, &"\n".repeat(lines))], allowed).len()
    }

    #[test]
    fn files_have_limits_by_kind() {
        assert_eq!(found("crates/mil/src/a.rs", 500, &[]), 0);
        assert_eq!(found("crates/mil/src/a.rs", 501, &[]), 1);
        assert_eq!(found("crates/aneforge/src/ir/ops/a.rs", 281, &[]), 1);
    }

    #[test]
    fn functions_have_one_limit() {
        let text = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert!(check(&[Source::new("a.rs", &text(60))], &[]).is_empty());
        let over = [Source::new("a.rs", &text(61))];
        assert_eq!(check(&over, &[]).len(), 1);
        assert!(check(&over, &[Size { id: "a.rs#f", lines: 61, reason: "a test" }]).is_empty());
    }

    #[test]
    fn raised_limits_need_a_use_and_a_reason() {
        let raised = |lines, reason| [Size { id: "a.rs", lines, reason }];
        assert_eq!(found("a.rs", 510, &raised(510, "a test")), 0);
        assert_eq!(found("a.rs", 511, &raised(510, "a test")), 1);
        assert_eq!(found("a.rs", 500, &raised(510, "a test")), 1);
        assert_eq!(found("a.rs", 510, &raised(510, " ")), 1);
        assert_eq!(found("b.rs", 10, &raised(510, "a test")), 1);
    }
}
