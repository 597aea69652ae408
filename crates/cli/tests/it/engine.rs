//! The engine's interface from the command line, on the library that stands in for it.

use crate::support::{command, folder, json, keys, run, sample, show};
use std::path::{Path, PathBuf};

/// The stand-in, which cargo has built with the tests: beside them, or above them.
fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let names = ["so", "dylib"].map(|extension| format!("libaneforge_standin.{extension}"));
    let folders = tests.ancestors().skip(1).take(2).map(Path::to_owned);
    let found =
        folders.flat_map(|folder| names.clone().map(|name| folder.join(name))).find(|path| path.exists());
    found.expect("the stand-in is built with the tests")
}

#[test]
fn programs_run_through_the_interface_with_the_bits_of_the_host() {
    let (library, home) = (show(&library()), folder());
    let home = show(home.path());
    for name in ["mlp", "convnet", "attention"] {
        let host = json(&["run", &sample(name), "--random", "3"]);
        for isolation in ["process", "worker"] {
            let output = command(&[])
                .args(["--device", "ane", "--engine-library", &library, "--isolation", isolation, "--json"])
                .args(["run", &sample(name), "--random", "3"])
                .env("HOME", &home)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let engine: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(engine["outputs"], host["outputs"], "{name}, {isolation}");
            assert!(engine["device"].to_string().contains("ane"), "{}", engine["device"]);
        }
    }
}

#[test]
fn devices_say_what_stands_in_for_the_engine() {
    let value = json(&["devices", "--engine-library", &show(&library())]);
    let ane = &value["devices"][0];
    assert_eq!((&ane["name"], &ane["available"]), (&"ane".into(), &true.into()));
    assert!(ane["description"].as_str().unwrap().contains("stand-in"), "{ane}");
}

#[test]
fn doctor_finds_ops_and_probes_as_expected() {
    let (library, folder) = (show(&library()), folder());
    let file = show(&folder.path().join("report.json"));
    let output = command(&[])
        .args(["--device", "ane", "--engine-library", &library, "doctor", "--only", "st", "-o", &file])
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("confirmed state: [1.0, 2.0, 3.0, 4.0]"), "{text}");
    assert!(text.contains("nothing about silicon follows from it"), "{text}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(keys(&report), ["device", "machine", "ops", "probes", "version"]);
    assert_eq!(report["device"], "ane (stand-in)");
    let stack = report["ops"].as_array().unwrap().iter().find(|op| op["op"] == "stack").unwrap();
    assert_eq!((&stack["different"], &stack["failed"]), (&0.into(), &serde_json::Value::Null));
}

#[test]
fn doctor_tells_what_is_not_as_expected() {
    let (library, folder) = (show(&library()), folder());
    let with = |settings: &str, only: &str| {
        let output = command(&[])
            .args([
                "--device",
                "ane",
                "--engine-library",
                &library,
                "--json",
                "doctor",
                "--limit",
                "20",
                "--only",
                only,
            ])
            .env("HOME", folder.path())
            .env("ANEFORGE_STANDIN", settings)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = with("chip=h13", "offset_slice");
    assert!(code != Some(0) && text.contains("values up to 4094 survive"), "{code:?} {text}");
    let (code, text) = with("crash=e5rt_e5_compiler_compile@1", "relu6");
    assert!(code != Some(0) && text.contains("relu6"), "{code:?} {text}");
    let (code, text) = with("dense", "native_rows");
    assert!(code != Some(0) && text.contains("refuted"), "{code:?} {text}");
    let (code, text) = with("programs=5", "programs");
    assert!(code != Some(0) && text.contains("5 loaded"), "{code:?} {text}");
    let (code, _) = with("reset", "no-such-thing");
    assert_eq!(code, Some(3));
}

#[test]
fn doctor_runs_on_the_host_where_there_is_no_engine() {
    let value = json(&["doctor", "--only", "wide_sum"]);
    assert_eq!(value["device"], "host");
    assert_eq!(value["probes"][0]["outcome"]["verdict"], "confirmed");
    let output = run(&["doctor", "--device", "ane"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.out.contains("Espresso: not there"), "what is missing is told: {}", output.out);
    assert!(output.err.contains("is not available"), "{}", output.err);
}

#[test]
fn a_worker_that_is_asked_nothing_says_so() {
    let output = command(&[]).arg("worker").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("commands start workers themselves"), "{said}");
}
