//! Texts held to files under `tests/ir`: the MIL of every op's cases. `cargo bless` rewrites them.

use crate::support::{build, numbers};
use aneforge::ir::op::OPS;
use aneforge::{Options, compile};
use std::path::{Path, PathBuf};

/// Compares `text` with a golden file, or rewrites it under `ANEFORGE_BLESS=1`.
pub fn check(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ir").join(name);
    if std::env::var_os("ANEFORGE_BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run `cargo bless {name}`", path.display()));
    assert!(golden == text, "{name} is stale; run `cargo bless` and review the diff. Now:\n{text}");
}

#[test]
fn mil_of_every_op() {
    for entry in OPS {
        let mut text = String::new();
        for (i, case) in (entry.cases)().iter().enumerate() {
            let plan = compile(&[numbers(&build(case, false).output)], &Options::default()).unwrap();
            text += &format!("// case {i}\n{}", plan.segments[0].program);
        }
        if !text.is_empty() {
            check(&format!("emit/{}.mil", entry.info.name), &text);
        }
    }
}
