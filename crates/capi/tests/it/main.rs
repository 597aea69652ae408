//! The library as a C program has it: headers that a C compiler reads, programs that are linked with it and run.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use aneforge::ir::types::TensorType;
use aneforge::{CompileOptions, Shape, Var, compile};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A library that cargo has built with the tests: beside them, or above them.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let names = ["so", "dylib"].map(|extension| format!("lib{name}.{extension}"));
    let folders = tests.ancestors().skip(1).take(2).map(Path::to_owned);
    let found =
        folders.flat_map(|folder| names.clone().map(|name| folder.join(name))).find(|path| path.exists());
    found.expect("the library is built with its tests")
}

/// A folder with the library under the name that it is installed by.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Installed {
        let library = built("aneforge_c");
        let folder = tempfile::tempdir().unwrap();
        let name = library.file_name().unwrap().to_string_lossy().replace("aneforge_c", "aneforge");
        std::fs::copy(&library, folder.path().join(name)).unwrap();
        Installed(folder)
    }

    /// Compiles an example, strictly.
    fn build(&self, example: &str) -> PathBuf {
        let program = self.0.path().join(example);
        let source = root().join("examples/c").join(format!("{example}.c"));
        let place = self.0.path().display().to_string();
        let output = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
            .arg(source)
            .args(["-L", &place, "-laneforge", &format!("-Wl,-rpath,{place}"), "-o"])
            .arg(&program)
            .output()
            .expect("a C compiler, which Rust needs to link, too");
        assert!(output.status.success(), "{}", said(&output));
        program
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).env("ANEFORGE_DEVICE", "host").output().unwrap()
}

/// A text in which a word is another one.
fn renamed(text: &str, old: &str, new: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(old) {
        let (before, after) = (rest[..at].chars().next_back(), rest[at + old.len()..].chars().next());
        let whole = !before.is_some_and(is_word) && !after.is_some_and(is_word);
        out += &rest[..at];
        out += if whole { new } else { old };
        rest = &rest[at + old.len()..];
    }
    out + rest
}

#[test]
fn a_c_program_runs_a_bundle_of_three_ports() {
    let installed = Installed::new();
    let program = installed.build("bundle");
    let named = |name| Var::named_input(TensorType::f16(Shape::new(&[8]).unwrap()), name);
    let plan = compile(&[named("a") + named("b")], &CompileOptions::default()).unwrap();
    let (mil, _) = plan.segments[0].mil().unwrap();
    let folder = installed.0.path().join("bundle-files");
    std::fs::create_dir_all(&folder).unwrap();
    // Under the names that the program uses.
    let function = &mil.functions[0];
    let mut text = mil.to_string();
    let names = function.params.iter().map(|port| &port.name).zip(["a", "b"]);
    for (old, new) in names.chain([(&function.returns[0], "y")]) {
        text = renamed(&text, old, new);
    }
    std::fs::write(folder.join("model.mil"), text).unwrap();
    let output = run(&program, &[&folder.display().to_string()]);
    assert!(output.status.success() && said(&output).contains("1 + 1 = 2"), "{}", said(&output));
    // Through the engine's interface, the text goes to its compiler as it is.
    let through = |library: &Path| {
        Command::new(&program)
            .arg(&folder)
            .env("ANEFORGE_DEVICE", "ane")
            .env("ANEFORGE_ENGINE_LIBRARY", library)
            .output()
    };
    let output = through(&built("aneforge_standin")).unwrap();
    assert!(output.status.success() && said(&output).contains("1 + 1 = 2"), "{}", said(&output));
    // Where there is no engine, asking for it is an error that says so.
    let output = Command::new(&program).arg(&folder).env("ANEFORGE_DEVICE", "ane").output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("is not available"), "{}", said(&output));
}

#[test]
fn a_c_program_runs_a_compiled_model() {
    let installed = Installed::new();
    let program = installed.build("model");
    let x = Var::input(Shape::new(&[3]).unwrap());
    let plan = compile(&[x.muls(2.0), x.sum(&[0])], &CompileOptions::default()).unwrap();
    let file = installed.0.path().join("model.aneforge");
    plan.save(&file).unwrap();
    let output = run(&program, &[&file.display().to_string(), "1", "2.5", "-3"]);
    assert_eq!(said(&output), "on host\n0: 2 5 -6\n1: 0.5\n");
    for (damage, told) in [("cut", "model.aneforge"), ("missing", "nowhere")] {
        let path = match damage {
            "cut" => {
                let bytes = std::fs::read(&file).unwrap();
                std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
                file.display().to_string()
            }
            _ => "/nowhere/model.aneforge".into(),
        };
        let output = run(&program, &[&path]);
        assert!(
            output.status.code() == Some(1) && said(&output).contains(told),
            "{damage}: {}",
            said(&output)
        );
    }
}

/// Functions that a text declares, or defines.
fn functions(text: &str, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(before) {
        let rest = &text[at + before.len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() {
            found.insert(name);
        }
    }
    found
}

#[test]
fn headers_declare_what_the_library_has() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(package.join(path)).unwrap();
    let mut declared = BTreeSet::new();
    for header in ["include/aneforge.h", "include/ane_e5rt_dispatch.h"] {
        let text = read(header);
        let names = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let followed = |name: &str| text.contains(&format!("{name}("));
        declared.extend(
            names
                .filter(|n| n.starts_with("aneforge_") || n.starts_with("ane_e5rt_"))
                .filter(|n| followed(n))
                .map(str::to_owned),
        );
    }
    let mut exported = BTreeSet::from(["aneforge_last_error".to_owned()]);
    for source in ["src/model.rs", "src/dispatch.rs"] {
        exported.extend(functions(&read(source), "extern \"C\" fn "));
    }
    exported.retain(|name| name != "invoked");
    assert_eq!(declared, exported);
    assert!(exported.len() >= 39, "{}", exported.len());
}

#[test]
fn headers_are_c_and_cpp() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    for header in ["aneforge.h", "ane_e5rt_dispatch.h"] {
        for language in [&["-x", "c", "-std=c99"][..], &["-x", "c++", "-std=c++11"]] {
            let check = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"];
            let output =
                Command::new("cc").args(language).args(check).arg(include.join(header)).output().unwrap();
            assert!(output.status.success(), "{header}: {}", said(&output));
        }
    }
}
