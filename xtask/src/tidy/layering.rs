//! Which module and which crate may use which.

use super::allow;
use super::source::{Source, closing, identifier, words};
use super::{File, Finding};
use std::collections::BTreeSet;

/// The modules of `crates/aneforge`: each uses only those before it, and itself.
pub const ORDER: &[&str] = &[
    "ir",
    "grad",
    "risk",
    "target",
    "rewrite",
    "quantize",
    "passes",
    "emit",
    "netplist",
    "plan",
    "compile",
    "pacing",
    "device",
    "profile",
    "session",
    "calibrate",
    "portable",
    "artifact",
    "import",
    "paired",
    "optim",
    "nn",
    "train",
    "error",
    "tune",
    "explain",
    "diagnose",
    "doctor",
];

/// Where they are.
const LIBRARY: &str = "crates/aneforge/src/";

/// Crates that may use only these of ours, in tests too.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/tensor/Cargo.toml", &[]),
    ("crates/kernels/Cargo.toml", &[]),
    ("crates/mil/Cargo.toml", &[]),
    ("crates/ane/Cargo.toml", &[]),
    ("crates/formats/Cargo.toml", &["aneforge-tensor"]),
    (
        "crates/aneforge/Cargo.toml",
        &["aneforge-ane", "aneforge-formats", "aneforge-kernels", "aneforge-mil", "aneforge-tensor"],
    ),
    ("crates/models/Cargo.toml", &["aneforge", "aneforge-formats", "aneforge-kernels", "aneforge-tensor"]),
    ("crates/search/Cargo.toml", &["aneforge", "aneforge-formats", "aneforge-models", "aneforge-tensor"]),
    ("crates/serve/Cargo.toml", &["aneforge", "aneforge-formats", "aneforge-models", "aneforge-tensor"]),
];

/// What belongs to models and to faces: networks, tokenizers, images, runtimes. These crates build without.
const WITHOUT: &[&str] =
    &["crates/aneforge", "crates/tensor", "crates/kernels", "crates/mil", "crates/formats"];
const HEAVY: &[&str] =
    &["hf-hub", "tokenizers", "ureq", "rustls", "reqwest", "tokio", "axum", "image", "clap", "pyo3"];

/// Checks the modules of the library.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    check_with(sources, ORDER, allow::LAYERING)
}

fn check_with(sources: &[Source], order: &[&str], allowed: &[allow::Use]) -> Vec<Finding> {
    let root = sources.iter().find(|s| s.path == format!("{LIBRARY}lib.rs"));
    let exports = root.map(|lib| exports(&lib.code)).unwrap_or_default();
    let rank = |module: &str| order.iter().position(|m| *m == module);
    let mut findings = Vec::new();
    let mut needed = BTreeSet::new();
    for source in sources {
        let Some(inside) = source.path.strip_prefix(LIBRARY).filter(|p| *p != "lib.rs") else { continue };
        let own = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let Some(own_rank) = rank(own) else {
            let what =
                format!("module {own} has no place in the order of layers; add it to ORDER in {}", file!());
            findings.push(Finding::new(&source.path, 0, what));
            continue;
        };
        for (offset, used) in uses(&source.code, inside) {
            let module = exports.iter().find(|(name, _)| *name == used).map_or(used.as_str(), |(_, m)| m);
            if let Some(entry) = allowed.iter().find(|a| a.path == source.path && a.uses == module) {
                needed.insert((entry.path, entry.uses));
                continue;
            }
            let what = match rank(module) {
                Some(rank) if rank <= own_rank => continue,
                // Another crate's item, under our name.
                None if module != used => continue,
                Some(_) => format!(
                    "{own} may not use {module}, which is above it; move the code or hand the value in"
                ),
                None => format!("crate::{used} is no module of the order; name the module that holds it"),
            };
            findings.push(Finding::new(&source.path, source.line(offset), what));
        }
    }
    let unused = allowed.iter().filter(|a| !needed.contains(&(a.path, a.uses)));
    findings.extend(unused.map(|a| {
        Finding::new(
            a.path,
            0,
            format!("the use of {} is allowed but gone; remove it from LAYERING in allow.rs", a.uses),
        )
    }));
    findings
}

/// Names that `lib.rs` gives to items of modules or of other crates.
fn exports(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for at in words(code, "use") {
        let Some(path) = code[at + 3..].split(';').next() else { continue };
        let path = path.trim().trim_start_matches("crate::");
        let module = identifier(path).to_string();
        let names = path.split_once('{').map_or_else(
            || path.rsplit([':', ' ']).next().into_iter().collect::<Vec<_>>(),
            |(_, names)| {
                names.trim_end_matches('}').split(',').filter_map(|n| n.rsplit([':', ' ']).next()).collect()
            },
        );
        found.extend(names.into_iter().map(|name| (name.trim().to_string(), module.clone())));
    }
    found
}

/// The names right under the crate's root that a file mentions, with offsets. `inside` is the file's path
/// in the source folder.
fn uses(code: &str, inside: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        if let Some(rest) = code[at + 5..].strip_prefix("::") {
            found.extend(heads(rest).into_iter().map(|name| (at, name)));
        }
    }
    let folders = inside.split('/').count() - 1;
    let depth = if inside.ends_with("/mod.rs") { folders } else { folders + 1 };
    for at in words(code, "super") {
        let (first, mut rest, mut steps) = (!code[..at].ends_with("super::"), &code[at..], 0);
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, steps) = (next, steps + 1);
        }
        if first && steps >= depth + inline_modules(code, at) {
            found.extend(heads(rest).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// How many `mod name { ... }` are around an offset.
fn inline_modules(code: &str, offset: usize) -> usize {
    let around = |at: usize| {
        let open = code[at..].find(['{', ';']).map(|i| at + i).filter(|&i| code.as_bytes()[i] == b'{');
        open.is_some_and(|open| (open..closing(code, open)).contains(&offset))
    };
    words(code, "mod").filter(|&at| around(at)).count()
}

/// The first names of a path: one, or those of a group.
fn heads(rest: &str) -> Vec<String> {
    if !rest.starts_with('{') {
        return vec![identifier(rest).to_string()];
    }
    let group = &rest[1..closing(rest, 0) - 1];
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (i, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                names.push(&group[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    names.push(&group[start..]);
    names.iter().map(|n| identifier(n.trim()).to_string()).filter(|n| !n.is_empty()).collect()
}

/// Checks what the leaf crates declare to depend on.
pub fn check_manifests<'a>(manifests: impl Iterator<Item = &'a File>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests {
        findings.extend(heavy(manifest));
        let Some((_, may)) = CRATES.iter().find(|(path, _)| *path == manifest.path) else { continue };
        for (line, name) in dependencies(&manifest.text) {
            if !may.contains(&name.as_str()) {
                let list = if may.is_empty() { "none".into() } else { may.join(", ") };
                let what = format!("this crate may not depend on {name}; of ours it may use: {list}");
                findings.push(Finding::new(&manifest.path, line, what));
            }
        }
    }
    findings
}

/// Dependencies of a light crate that are not.
fn heavy(manifest: &File) -> Vec<Finding> {
    let folder = manifest.path.trim_end_matches("/Cargo.toml");
    if !WITHOUT.contains(&folder) {
        return Vec::new();
    }
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    let found = manifest.text.lines().enumerate().filter(|(_, line)| HEAVY.contains(&name(line).as_str()));
    let finding = |(i, line): (usize, &str)| {
        let what =
            format!("this crate builds without {}; that belongs to crates/models or to a face", name(line));
        Finding::new(&manifest.path, i + 1, what)
    };
    found.map(finding).collect()
}

/// Our own crates among the dependencies of any kind, with lines.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let (mut found, mut listing) = (Vec::new(), false);
    for (i, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let header = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
        if let Some(header) = header {
            listing = header.ends_with("dependencies");
        }
        let named = header.and_then(|h| h.split_once("dependencies.")).map(|(_, name)| name);
        let text = if listing && header.is_none() { Some(line) } else { named };
        let ours = |word: &&str| *word == "aneforge" || word.starts_with("aneforge-");
        let not_name = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let name = text.and_then(|text| text.split(not_name).find(ours));
        found.extend(name.map(|name| (i + 1, name.to_string())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_builds_without_a_network() {
        let with = |path: &str| {
            let text = "[dependencies]\nserde.workspace = true\ntokenizers = \"1\"\n".to_owned();
            heavy(&File { path: path.into(), text }).len()
        };
        assert_eq!((with("crates/aneforge/Cargo.toml"), with("crates/models/Cargo.toml")), (1, 0));
    }

    fn whats(files: &[(&str, &str)], allowed: &[allow::Use]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source::new(&format!("{LIBRARY}{path}"), text);
        let sources: Vec<Source> = files.iter().map(source).collect();
        check_with(&sources, &["ir", "plan", "device"], allowed).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn modules_use_what_is_below_them() {
        assert_eq!(whats(&[("plan.rs", "use crate::ir::{a, b};\nuse crate::{ir, plan::x};")], &[]), [""; 0]);
        let found = whats(&[("ir/a.rs", "use crate::{ir::b, device::{c, d}};")], &[]);
        assert_eq!(found, ["ir may not use device, which is above it; move the code or hand the value in"]);
        assert_eq!(whats(&[("ir/a.rs", "// crate::device\nfn f() { crate::device::g() }")], &[]).len(), 1);
        assert!(whats(&[("new.rs", "")], &[])[0].starts_with("module new has no place"));
        assert!(
            whats(&[("ir/a.rs", "use crate::nowhere;")], &[])[0].starts_with("crate::nowhere is no module")
        );
    }

    #[test]
    fn paths_through_super_are_followed() {
        assert_eq!(whats(&[("plan.rs", "use super::device;")], &[]).len(), 1);
        assert_eq!(whats(&[("ir/mod.rs", "use super::device;")], &[]).len(), 1);
        assert_eq!(whats(&[("ir/a.rs", "use super::device; use super::super::device;")], &[]).len(), 1);
        assert_eq!(whats(&[("plan.rs", "mod tests { use super::device; }")], &[]), [""; 0]);
    }

    #[test]
    fn names_of_the_root_stand_for_their_modules() {
        let lib = (
            "lib.rs",
            "pub use aneforge_tensor::{DType, Shape};\npub use device::Device;\npub use ir::graph::Graph;",
        );
        assert_eq!(whats(&[lib, ("plan.rs", "use crate::{Graph, Shape};")], &[]), [""; 0]);
        assert_eq!(whats(&[lib, ("plan.rs", "use crate::Device;")], &[]).len(), 1);
    }

    #[test]
    fn exceptions_hold_while_they_are_needed() {
        let allowed = [allow::Use { path: "crates/aneforge/src/ir/a.rs", uses: "plan", reason: "a test" }];
        assert_eq!(whats(&[("ir/a.rs", "crate::plan::f()")], &allowed), [""; 0]);
        assert!(whats(&[("ir/a.rs", "")], &allowed)[0].contains("allowed but gone"));
    }

    #[test]
    fn dependencies_of_every_kind_are_seen() {
        let manifest = "[package]\nname = \"aneforge-x\"\n[dependencies]\naneforge-tensor.workspace = true\nhalf = \"2\"\n\
                        [dev-dependencies.aneforge]\npath = \"..\"\n[target.x.dependencies]\nours = { package = \"aneforge-mil\" }\n";
        let names: Vec<_> =
            dependencies(manifest).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
        assert_eq!(names, ["4 aneforge-tensor", "6 aneforge", "9 aneforge-mil"]);
    }
}
