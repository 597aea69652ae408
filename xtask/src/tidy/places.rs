//! Where `unsafe` and code for one platform may stand.

use super::Finding;
use super::source::{Source, closing, words};

/// A place that may hold unsafe code.
struct Place {
    /// A file, or a folder with everything in it.
    path: &'static str,
    /// Only in functions whose name contains this, if given.
    function: Option<&'static str>,
}

const fn anywhere(path: &'static str) -> Place {
    Place { path, function: None }
}

/// Every place that may hold unsafe code. ARCHITECTURE.md names each with its reason.
const UNSAFE: &[Place] = &[
    anywhere("crates/kernels/src/simd"),
    anywhere("crates/kernels/src/threads.rs"),
    Place { path: "crates/formats/src", function: Some("map") },
    anywhere("python/src"),
    anywhere("crates/models/benches/lowering.rs"),
    anywhere("crates/aneforge/tests/it/counting.rs"),
    anywhere("crates/ane-standin/tests/it/standin.rs"),
    anywhere("benches/kernels/src/peers.rs"),
    anywhere("crates/ane/src/sys"),
    anywhere("crates/ane-standin/src"),
    anywhere("crates/capi/src"),
];

/// The only places that may ask for the platform.
const PLATFORM: [&str; 3] =
    ["crates/kernels/src/simd", "crates/formats/src/file.rs", "crates/ane-standin/src"];

/// Conditions on the platform.
const CONDITIONS: [&str; 7] =
    ["target_os", "target_arch", "target_family", "target_env", "target_vendor", "unix", "windows"];

fn within(path: &str, place: &str) -> bool {
    let rest = path.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

/// Checks where the words stand.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let allowed = |line: usize| {
            let function = source.function_at(line).map_or("", |f| &f.name);
            UNSAFE.iter().any(|p| {
                within(&source.path, p.path) && p.function.is_none_or(|name| function.contains(name))
            })
        };
        for line in source.words("unsafe").map(|at| source.line(at)).filter(|&line| !allowed(line)) {
            let what = "unsafe code is not allowed here; write it safely, or add the place to UNSAFE in \
                        xtask/src/tidy/places.rs and to ARCHITECTURE.md with its reason";
            findings.push(Finding::new(&source.path, line, what));
        }
        if PLATFORM.iter().any(|place| within(&source.path, place)) {
            continue;
        }
        for (at, condition) in platform_conditions(&source.code) {
            let what = format!(
                "cfg on {condition}; only {} may ask for the platform, find out at run time",
                PLATFORM.join(" and ")
            );
            findings.push(Finding::new(&source.path, source.line(at), what));
        }
    }
    findings
}

/// Conditions on the platform, with offsets.
fn platform_conditions(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for macro_name in ["cfg", "cfg_attr"] {
        for at in words(code, macro_name) {
            let Some(open) = code[at..].find('(').map(|i| at + i) else { continue };
            if !matches!(code[at + macro_name.len()..open].trim(), "" | "!") {
                continue;
            }
            let inside = &code[open..closing(code, open)];
            found.extend(CONDITIONS.iter().filter(|c| words(inside, c).next().is_some()).map(|c| (at, *c)));
        }
    }
    found
}

/// Checks that ARCHITECTURE.md names every place.
pub fn check_named(architecture: &str) -> Vec<Finding> {
    let missing = UNSAFE.iter().filter(|place| !architecture.contains(place.path));
    let what =
        |place: &Place| format!("does not name {}, where unsafe code is allowed; say why it is", place.path);
    missing.map(|place| Finding::new("ARCHITECTURE.md", 0, what(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&[Source::new(path, text)]).iter().map(|f| f.line).collect()
    }

    #[test]
    fn unsafe_stands_in_its_places() {
        let text = "//! unsafe\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(lines("crates/mil/src/lib.rs", text), [3]);
        assert_eq!(lines("crates/kernels/src/simd/x86.rs", text), [0; 0]);
        assert_eq!(lines("crates/kernels/src/simd.rs", text), [0; 0]);
        assert_eq!(lines("crates/kernels/src/simdish.rs", text), [3]);
        assert_eq!(lines("crates/formats/src/file.rs", text), [3]);
        assert_eq!(lines("crates/formats/src/file.rs", &text.replace("f()", "map_file()")), [0; 0]);
    }

    #[test]
    fn platforms_are_asked_for_in_one_folder() {
        let text =
            "#[cfg(target_arch = \"x86_64\")]\nfn f() {}\n#[cfg(test)]\nmod t {}\nif cfg!(not(unix)) {}\n";
        assert_eq!(lines("crates/mil/src/lib.rs", text), [1, 5]);
        assert_eq!(lines("crates/kernels/src/simd/mod.rs", text), [0; 0]);
    }

    #[test]
    fn every_place_has_to_be_named() {
        assert_eq!(check_named("").len(), UNSAFE.len());
    }
}
