//! Numbers about hardware say where they come from.

use super::source::{Source, identifier};
use super::{File, Finding};

/// Where every constant with a number in it is one about hardware: files, and folders with everything in them.
const PLACES: &[&str] =
    &["crates/aneforge/src/ir/numerics.rs", "crates/aneforge/src/ir/rules.rs", "crates/aneforge/src/target"];

/// How a number may be known.
const TAGS: [&str; 7] = ["measured", "decompiled", "predicted", "inferred", "reported", "fitted", "assumed"];

/// Checks that every constant with a number has its evidence in its doc comment, or in that of the constant on the line before.
pub fn check(files: &[File]) -> Vec<Finding> {
    let within = |file: &&File| {
        let rest = PLACES.iter().find_map(|place| file.path.strip_prefix(place));
        file.path.ends_with(".rs") && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    files.iter().filter(within).flat_map(of_file).collect()
}

fn of_file(file: &File) -> Vec<Finding> {
    let source = Source::new(&file.path, &file.text);
    let lines: Vec<&str> = file.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    let mut findings = Vec::new();
    let mut offset = 0;
    for (at, line) in code.iter().enumerate().take(tests.unwrap_or(code.len())) {
        let rest = &source.code[offset..];
        offset += line.len() + 1;
        let Some(name) = declared(line).filter(|_| has_number(value(rest))) else { continue };
        if !documented(&lines, at).is_some_and(is_evidence) {
            let what = format!(
                "{name} has a number without evidence; end its doc comment with `Evidence: <source>, <chip> (<tag>).`, where the \
                 tag is one of {}",
                TAGS.join(", ")
            );
            findings.push(Finding::new(&file.path, at + 1, what));
        }
    }
    findings
}

/// The constant that a line declares, if it does.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let rest = line.strip_prefix("const ").or_else(|| line.strip_prefix("static "))?;
    let name = identifier(rest);
    (name != "fn" && rest[name.len()..].starts_with(':')).then_some(name)
}

/// What a declaration at the start of `code` assigns.
fn value(code: &str) -> &str {
    let Some(begin) = code.find('=').map(|at| at + 1) else { return "" };
    let mut depth = 0i32;
    let end = code[begin..].bytes().position(|byte| {
        depth += i32::from(b"([{".contains(&byte)) - i32::from(b")]}".contains(&byte));
        byte == b';' && depth == 0
    });
    &code[begin..end.map_or(code.len(), |end| begin + end)]
}

/// Whether code has a number in it that is no part of a name.
fn has_number(code: &str) -> bool {
    let mut before = ' ';
    code.chars().any(|c| {
        let begins = c.is_ascii_digit() && !before.is_ascii_alphanumeric() && before != '_';
        before = c;
        begins
    })
}

/// The doc comment of what a line declares: its own, or that of the declaration on the line before it.
fn documented(lines: &[&str], at: usize) -> Option<String> {
    let mut above = lines[..at].iter().rev().map(|line| line.trim()).peekable();
    while above.peek().is_some_and(|line| line.starts_with("#[") || declared(line).is_some()) {
        above.next();
    }
    let mut doc: Vec<&str> = above.map_while(|line| line.strip_prefix("///")).collect();
    doc.reverse();
    (!doc.is_empty()).then(|| doc.concat())
}

/// Whether a doc comment names a source, a chip and how the number is known.
fn is_evidence(doc: String) -> bool {
    doc.split("Evidence: ").skip(1).any(|said| {
        TAGS.iter().any(|tag| {
            let Some((said, _)) = said.split_once(&format!(" ({tag})")) else { return false };
            said.split_once(", ").is_some_and(|(source, chip)| source.len() > 2 && chip.len() > 1)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        check(&[File { path: path.into(), text: text.into() }]).iter().map(|f| f.line).collect()
    }

    const PLACE: &str = "crates/aneforge/src/target/new.rs";

    #[test]
    fn numbers_without_evidence_are_found() {
        let with = "/// It.\n///\n/// Evidence: a guide, c1, M1\n/// (measured).\n#[allow(x)]\npub const A: u32 = 7;\nconst B: f64 = 0.5;\n";
        assert_eq!(found(PLACE, with), [0; 0]);
        for (old, new, lines) in [
            ("Evidence: ", "", [6, 7]),
            ("measured", "guessed", [6, 7]),
            (", c1, M1", "", [6, 7]),
            ("a guide, c1", "", [6, 7]),
        ] {
            assert_eq!(found(PLACE, &with.replace(old, new)), lines, "{old}");
        }
        // A blank line ends what a comment is about.
        assert_eq!(found(PLACE, &with.replace("const B", "\nconst B")), [8]);
        assert_eq!(found("crates/aneforge/src/ir/new.rs", &with.replace("Evidence", "")), [0; 0]);
        assert_eq!(found("crates/aneforge/src/targets.rs", &with.replace("Evidence", "")), [0; 0]);
    }

    #[test]
    fn only_numbers_of_constants_count() {
        let without = [
            "const NAME: &str = \"h13\";\n",
            "const TEXT: &str =\n    \"h13\";\nlet x = 7;\n",
            "const FIRST: Family = Family::A13;\n",
            "pub const fn seven() -> u32 {\n    7\n}\n",
            "const NAMES: [&str; 2] = [\"a\", \"b\"];\n",
            "let x = 7;\n",
            "#[cfg(test)]\nmod tests {\n    const A: u32 = 7;\n}\n",
        ];
        without.iter().for_each(|text| assert_eq!(found(PLACE, text), [0; 0], "{text}"));
        for (text, line) in [
            ("    const T: &[(f64, f64)] = &[\n        (1.0, x),\n    ];\n", 1),
            ("pub(super) static S: [Row; 2] = [row(\"a\", A13), row(\"b\", -1)];\n", 1),
            ("fn f() {\n    const K: usize = 1 << 4;\n}\n", 2),
        ] {
            assert_eq!(found(PLACE, text), [line], "{text}");
        }
    }
}
