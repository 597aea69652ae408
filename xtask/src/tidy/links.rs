//! Links between the documents.

use super::{File, Finding};
use std::collections::HashMap;
use std::path::Path;

/// Checks that links without a scheme lead to a file or folder below `root`, and to a heading where they
/// name one.
pub fn check<'a>(documents: impl Iterator<Item = &'a File>, root: &Path) -> Vec<Finding> {
    let documents: Vec<&File> = documents.collect();
    let mut findings = Vec::new();
    for document in &documents {
        let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, link) in links(&document.text) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { Some(document.path.clone()) } else { resolve(folder, file) };
            let exists = target
                .as_ref()
                .is_some_and(|t| root.join(t).exists() || documents.iter().any(|d| d.path == *t));
            if !exists {
                findings.push(Finding::new(
                    &document.path,
                    line,
                    format!("link to {link}, which does not exist"),
                ));
                continue;
            }
            let other = documents.iter().find(|d| Some(&d.path) == target.as_ref());
            if other.is_some_and(|d| !heading.is_empty() && !headings(&d.text).iter().any(|h| h == heading)) {
                findings.push(Finding::new(
                    &document.path,
                    line,
                    format!("link to {link}, where no heading is called so"),
                ));
            }
        }
    }
    findings
}

/// A relative path from the root, if it stays below it.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Lines that are not in a fenced block, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Links without a scheme, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second part between backticks is code.
        let line: Vec<&str> = line.split('`').step_by(2).collect();
        let line = line.join("`");
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let reference =
            line.strip_prefix('[').and_then(|l| l.split_once("]: ")).map(|(_, target)| target.trim());
        let relative = |l: &&str| !l.contains("://") && !l.starts_with("mailto:");
        found.extend(inline.chain(reference).filter(relative).map(|l| (number, l.to_string())));
    }
    found
}

/// The names under which headings can be linked.
fn headings(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let titles =
        prose(text).filter(|(_, l)| l.starts_with('#')).map(|(_, l)| l.trim_start_matches('#').trim());
    let slug = |title: &str| {
        let kept = title
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        let kept = kept.replace(' ', "-");
        let count = seen.entry(kept.clone()).and_modify(|n| *n += 1).or_insert(0);
        if *count == 0 { kept } else { format!("{kept}-{count}") }
    };
    titles.map(slug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    fn found(text: &str) -> Vec<usize> {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files =
            [file("docs/a.md", text), file("docs/b.md", "# One thing\n## One thing\n"), file("c.md", "")];
        check(files.iter(), Path::new("/nowhere")).iter().map(|f| f.line).collect()
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let good = "# Top\n[x](b.md) [y](../c.md)\n[z](b.md#one-thing-1) [w](#top) [v](https://example.org/x)\n[r]: b.md\n";
        assert_eq!(found(good), [0; 0]);
        assert_eq!(
            found("[x](gone.md)\n[y](b.md#two)\n[z](#b)\n[w](../../c.md)\n[r]: gone.md\n"),
            [1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(found("```\n[x](gone.md)\n```\n`[x](gone.md)` and `a[i](b)`\n"), [0; 0]);
    }

    /// Rows such as ``| `path` (new) | what |``: the path, and whether the steps make the file.
    fn rows(section: &str) -> Vec<(&str, bool)> {
        section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(path, rest)| (path, rest.starts_with(" (new)")))
            .collect()
    }

    #[test]
    fn the_worked_example_names_files_that_are_there() {
        let page = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("it is there");
        let (_, section) = page.split_once("### Worked example").expect("there is one");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = rows(section);
        assert!(rows.len() > 5, "{rows:?}");
        for (path, new) in rows {
            let path = root().join(path);
            let there = if new { path.parent().is_some_and(Path::exists) } else { path.exists() };
            assert!(there, "{}", path.display());
        }
    }
}
