//! The library as a C program has it: headers that a C compiler reads, programs that are linked with it and run.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use aneforge::{CompileOptions, DType, Shape, TensorType, Var, compile, compile_graph};
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
        self.compile(&root().join("examples/c").join(format!("{example}.c")))
    }

    fn compile(&self, source: &Path) -> PathBuf {
        let program = self.0.path().join(source.file_stem().unwrap());
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

/// Writes the program of MIL that a graph's text is compiled to, as `aneforge compile` does, and its ports' names.
fn bundle(folder: &Path, text: &str) -> Vec<String> {
    let graph = aneforge::ir::text::parse(text).unwrap();
    let plan = compile_graph(&graph, &CompileOptions::default()).unwrap();
    let (mil, blob) = plan.segments[0].mil().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.mil"), mil.to_string()).unwrap();
    blob.write(&plan.segments[0].graph, std::fs::File::create(folder.join("weights.bin")).unwrap()).unwrap();
    let function = &mil.functions[0];
    function.params.iter().map(|port| port.name.clone()).chain(function.returns.clone()).collect()
}

#[test]
fn a_c_program_runs_a_bundle_of_three_ports() {
    let installed = Installed::new();
    let program = installed.build("bundle");
    let folder = installed.0.path().join("bundle-files");
    let ports = bundle(&folder, &std::fs::read_to_string(root().join("examples/c/sum.ir")).unwrap());
    assert_eq!(ports, ["t0", "t1", "t2"], "as examples/c/README.md says");
    let at = folder.display().to_string();
    let output = run(&program, &[&at, "t0", "t1", "t2"]);
    assert!(output.status.success() && said(&output).contains("1 + 1 = 2"), "{}", said(&output));
    // Through the engine's interface, the text goes to its compiler as it is.
    let through = |variables: &[(&str, &Path)]| {
        let mut command = Command::new(&program);
        command.args([&at, "t0", "t1", "t2"]).env("HOME", installed.0.path()).env_remove("ANEFORGE_DEVICE");
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let library = built("aneforge_standin");
    let output = through(&[("ANEFORGE_ENGINE_LIBRARY", &library)]);
    assert!(output.status.success() && said(&output).contains("1 + 1 = 2"), "{}", said(&output));
    // Where there is no engine, asking for it is an error that says so.
    let output = through(&[("ANEFORGE_DEVICE", Path::new("ane"))]);
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("is not available"), "{}", said(&output));
    let output = through(&[("ANEFORGE_DEVICE", Path::new("ane")), ("ANEFORGE_QUIET", Path::new("1"))]);
    assert!(!output.status.success() && said(&output).is_empty(), "{}", said(&output));
    // Memory of this process is handed out, so that it is an error to want another.
    let worker = ("ANEFORGE_ISOLATION", Path::new("worker"));
    let output = through(&[("ANEFORGE_ENGINE_LIBRARY", &library), worker, ("ANEFORGE_WORKER", &program)]);
    assert!(!output.status.success() && said(&output).contains("hand out memory"), "{}", said(&output));
    // Where there is a command for it, compiles are tried in another process.
    let nowhere = ("ANEFORGE_WORKER", Path::new("/nowhere/aneforge"));
    let output = through(&[("ANEFORGE_ENGINE_LIBRARY", &library), nowhere]);
    assert!(!output.status.success() && said(&output).contains("could not be started"), "{}", said(&output));
}

#[test]
fn ports_are_those_of_the_program_on_every_device() {
    let installed = Installed::new();
    let program = installed.build("bundle");
    let input = |at: usize| format!("%{at} = input(feed={at}, role=\"feed\") : fp16[8]\n");
    let three = format!(
        "{}{}{}%3 = add(%0, %1) : fp16[8]\n%4 = add(%3, %2) : fp16[8]\nreturn %4\n",
        input(0),
        input(1),
        input(2)
    );
    let two = format!(
        "{}{}%2 = add(%0, %1) : fp16[8]\n%3 = mul(%0, %1) : fp16[8]\nreturn %2, %3\n",
        input(0),
        input(1)
    );
    let folder = |name: &str| installed.0.path().join(name);
    let (three, two) = (bundle(&folder("three"), &three), bundle(&folder("two"), &two));
    let library = built("aneforge_standin");
    for (name, arguments, told) in [
        (
            "three",
            [&*three[0], &three[1], &three[3]],
            format!("input {} of the program is not among the ports; name all of", three[2]),
        ),
        (
            "two",
            [&*two[0], &two[1], &two[2]],
            format!("output {} of the program is not among the ports", two[3]),
        ),
        ("two", [&*two[0], &two[0], &two[2]], format!("input {} is named more than once", two[0])),
        (
            "two",
            [&*two[0], "b", &two[2]],
            format!("the program has no input b; it has {}, {}", two[0], two[1]),
        ),
        (
            "two",
            [&*two[0], &two[1], "y"],
            format!("the program has no output y; it has {}, {}", two[2], two[3]),
        ),
    ] {
        for device in ["host", "ane"] {
            let output = Command::new(&program)
                .arg(folder(name))
                .args(arguments)
                .envs([("ANEFORGE_DEVICE", device), ("HOME", &installed.0.path().display().to_string())])
                .env("ANEFORGE_ENGINE_LIBRARY", &library)
                .output()
                .unwrap();
            assert!(
                output.status.code() == Some(1) && said(&output).contains(&told),
                "{device}, {told}: {}",
                said(&output)
            );
        }
    }
}

#[test]
fn a_model_heeds_what_the_environment_says_of_the_engine() {
    let installed = Installed::new();
    let program = installed.build("model");
    let plan =
        compile(&[Var::input(Shape::new(&[3]).unwrap()).muls(2.0)], &CompileOptions::default()).unwrap();
    let file = installed.0.path().join("model.aneforge");
    plan.save(&file).unwrap();
    let (home, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let with = |variables: &[(&str, &str)]| {
        let mut command = Command::new(&program);
        command
            .arg(&file)
            .arg("1")
            .env_remove("ANEFORGE_DEVICE")
            .env("HOME", home.path())
            .env("TMPDIR", scratch.path());
        command.env("ANEFORGE_ENGINE_LIBRARY", built("aneforge_standin"));
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.success(), said(&output))
    };
    // A library for the engine is what it runs on, and what was compiled stays where the command line and Python have it.
    assert_eq!(with(&[]), (true, "on ane (stand-in)\n0: 2 0 0\n".into()));
    assert_eq!(with(&[("ANEFORGE_DEVICE", " HOST ")]), (true, "on host\n0: 2 0 0\n".into()));
    let kept = |folder: &str| std::fs::read_dir(home.path().join(folder)).map_or(0, Iterator::count);
    assert_eq!((kept(".cache/aneforge/engine"), kept("mine/engine")), (1, 0));
    assert!(with(&[("ANEFORGE_CACHE_DIR", "~/mine")]).0);
    assert_eq!((kept(".cache/aneforge/engine"), kept("mine/engine")), (1, 1));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left");
    for (variables, told) in [
        (&[("ANEFORGE_ISOLATION", "worker")][..], "ANEFORGE_WORKER names no program"),
        (
            &[("ANEFORGE_ISOLATION", "sometimes")],
            "ANEFORGE_ISOLATION must be process or worker, got sometimes",
        ),
        (
            &[("ANEFORGE_ISOLATION", "Worker"), ("ANEFORGE_WORKER", "/nowhere/aneforge")],
            "could not be started",
        ),
    ] {
        let (done, said) = with(variables);
        assert!(!done && said.contains(told), "{said}");
        assert_eq!(said.lines().count(), 1, "once, by the program that asks for it: {said}");
    }
    assert!(with(&[("ANEFORGE_ISOLATION", "")]).0 && with(&[("ANEFORGE_ISOLATION", "process")]).0);
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

#[test]
fn what_a_caller_must_not_hand_over_is_named() {
    let installed = Installed::new();
    let program = installed.compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals.c"));
    let x = Var::input(Shape::new(&[40]).unwrap());
    let image = Var::input_of(TensorType { dtype: DType::U8, shape: Shape::new(&[1, 3, 2, 2]).unwrap() });
    let plan = compile(&[x.muls(2.0), image.cast().muls(1.0)], &CompileOptions::default()).unwrap();
    let file = installed.0.path().join("model.aneforge");
    plan.save(&file).unwrap();
    let output = run(&program, &[&file.display().to_string()]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    // Functions of ANEForge's names say what is wrong to standard error, and ours do not.
    assert!(said.contains("the program is null") && !said.contains("the model is null"), "{said}");
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
