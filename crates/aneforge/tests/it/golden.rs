//! Texts held to files under `tests/ir`: the MIL of every op's cases. `cargo bless` rewrites them.

use crate::support::{build, numbers, random_weight};
use aneforge::ir::op::{Case, Mil, OPS};
use aneforge::ir::ops::conv::Conv;
use aneforge::plan::Segment;
use aneforge::{CompileOptions, Encoding, Routes, Shape, Var, compile};
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

/// The texts of one kind of segment over all cases of an op, each under a heading.
fn texts(cases: &[Case], routes: Routes, wanted: fn(&Segment) -> bool) -> String {
    let options = CompileOptions { routes, ..CompileOptions::default() };
    let mut text = String::new();
    for (i, case) in cases.iter().enumerate() {
        let plan = compile(&[numbers(&build(case, false).output)], &options).unwrap();
        for segment in plan.segments.iter().filter(|s| wanted(s)) {
            text += &format!("// case {i}\n{}", segment.text());
        }
    }
    text
}

#[test]
fn mil_of_every_op() {
    for entry in OPS {
        let text = texts(&(entry.cases)(), Routes::WrittenOut, |s| s.mil().is_some());
        if !text.is_empty() {
            check(&format!("emit/{}.mil", entry.info.name), &text);
        }
    }
}

/// Encoded weights, of a linear layer and of a convolution where that takes them.
#[test]
fn mil_of_every_encoding() {
    for encoding in Encoding::ALL {
        let x = Var::input(Shape::new(&[2, 8]).unwrap());
        let weight = Var::constant(random_weight(encoding, &[6, 8], 3));
        let mut outputs = vec![x.linear(&weight, None)];
        if encoding != Encoding::Blockwise {
            let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
            let image = Var::input(Shape::new(&[1, 8, 2, 2]).unwrap());
            let kernel = Var::constant(random_weight(encoding, &[6, 8, 1, 1], 4));
            outputs.push(image.conv(op, &kernel, None));
        }
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        check(&format!("emit/weight_{encoding}.mil"), &plan.segments[0].text());
    }
}

#[test]
fn netplist_of_every_layer() {
    let mut layers = 0;
    for entry in OPS.iter().filter(|entry| matches!((entry.mil)(), Mil::Native(_))) {
        let text = texts(&(entry.cases)(), Routes::Native, |s| s.netplist().is_some());
        assert!(!text.is_empty(), "{} has no layer", entry.info.name);
        check(&format!("netplist/{}.plist", entry.info.name), &text);
        layers += 1;
    }
    assert_eq!(layers, 19, "the reference has 19 native layers");
}
