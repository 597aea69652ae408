//! The engine's interface from the command line, on the library that stands in for it.

use crate::support::{command, finish, folder, json, keys, run, sample, show};
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
            assert_eq!(engine["device"], "ane (stand-in)");
        }
    }
}

#[test]
fn devices_say_what_stands_in_for_the_engine() {
    let value = json(&["devices", "--engine-library", &show(&library())]);
    let ane = &value["devices"][0];
    assert_eq!((&ane["default"], &value["devices"][1]["default"]), (&true.into(), &false.into()));
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
    assert_eq!(
        keys(&report),
        ["absent", "chosen", "date", "device", "machine", "ops", "probes", "target", "unprobed", "version"]
    );
    assert_eq!((&report["device"], &report["absent"]), (&"ane (stand-in)".into(), &serde_json::Value::Null));
    let date = report["date"].as_str().unwrap();
    assert!(date.len() == 20 && date.starts_with("20") && date.ends_with('Z'), "{date}");
    assert_eq!(report["unprobed"], serde_json::json!([]), "which only a whole report has");
    assert!(!text.contains("not probed"), "{text}");
    let stack = report["ops"].as_array().unwrap().iter().find(|op| op["op"] == "stack").unwrap();
    assert_eq!((&stack["different"], &stack["failed"]), (&0.into(), &serde_json::Value::Null));
    assert_eq!(stack["verdict"], "confirmed");
    let text = stack["text"].as_str().unwrap();
    assert!(text.starts_with("stack(fp16[") && text.contains("axis="), "{text}");
    let libraries = report["machine"]["libraries"].as_array().unwrap();
    assert!(libraries.len() == 7 && libraries.iter().all(|library| library["purpose"].is_string()));
}

#[test]
fn doctor_examines_the_chip_that_is_there() {
    let folder = folder();
    let with = |chip: &str, more: &[&str]| {
        let output = command(&["--json", "doctor", "--standin", &show(&library()), "--only", "offset_slice"])
            .args(more)
            .env("HOME", folder.path())
            .env("ANEFORGE_STANDIN", format!("chip={chip}"))
            .env("ANEFORGE_ENGINE_LIBRARY", "/nowhere/lib.so")
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let verdict = report["probes"][0]["outcome"]["verdict"].as_str().unwrap().to_owned();
        let text = |key: &str| report[key].as_str().unwrap().to_owned();
        (text("target"), text("chosen"), verdict, output.status.code())
    };
    let of = |target: &str, chosen: &str, verdict: &str, code| {
        (target.to_owned(), chosen.to_owned(), verdict.to_owned(), Some(code))
    };
    assert_eq!(with("h13", &[]), of("h13", "detected", "confirmed", 0));
    assert_eq!(with("h16", &[]), of("h16", "detected", "confirmed", 0));
    assert_eq!(with("h13", &["--target", "h17s"]), of("h17s", "named", "refuted", 5));
}

#[test]
fn what_a_process_did_not_say_before_it_ended_is_not_refuted() {
    let folder = folder();
    let with = |settings: &str, only: &str, limit: &str| {
        let output =
            command(&["--json", "doctor", "--standin", &show(&library()), "--only", only, "--limit", limit])
                .env("HOME", folder.path())
                .env("ANEFORGE_STANDIN", settings)
                .output()
                .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (report, output.status.code(), said)
    };
    let (report, code, said) = with("crash=e5rt_execution_stream_execute_sync@1", "relu6", "60");
    let op = &report["ops"][0];
    assert_eq!((&op["verdict"], code), (&"not_run".into(), Some(5)), "{op}");
    assert!(op["failed"].as_str().unwrap().contains("ended with signal"), "{op}");
    assert!(
        said.contains("the report has what is not as expected") && !said.contains("call failed"),
        "{said}"
    );
    let (report, code, _) = with("crash=e5rt_execution_stream_execute_sync@1", "rebind", "60");
    let probe = &report["probes"][0];
    assert_eq!(
        (&probe["outcome"]["verdict"], &probe["ended"], code),
        (&"not_run".into(), &true.into(), Some(5))
    );
    let (report, _, _) = with("hang=e5rt_execution_stream_execute_sync@1:60000", "rebind", "1");
    let probe = &report["probes"][0];
    assert_eq!((&probe["outcome"]["verdict"], &probe["ended"]), (&"not_run".into(), &true.into()));
    assert!(probe["outcome"]["found"].as_str().unwrap().contains("more than 1 s"), "{probe}");
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
                "--target",
                "h17s",
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
    assert_eq!(
        (&value["device"], &value["target"], &value["chosen"]),
        (&"host".into(), &"h17s".into(), &"default".into())
    );
    assert_eq!(value["probes"][0]["outcome"]["verdict"], "not_run", "the host answers what it was told");
    let kernel = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    assert_eq!(
        value["machine"]["processor"].is_string(),
        kernel.contains("model name"),
        "{}",
        value["machine"]
    );
    let value = json(&["doctor", "--only", "relu6"]);
    assert_eq!(
        (&value["ops"][0]["verdict"], &value["ops"][0]["failed"]),
        (&"not_run".into(), &serde_json::Value::Null)
    );
    let text = run(&["doctor", "--only", "relu6"]).out;
    let first = text.lines().next().unwrap();
    assert!(first.contains("on the host: there is no engine here, so that nothing is compared"), "{first}");
    assert!(text.contains("0 as on the host, 0 not, ") && text.contains("compared with itself"), "{text}");
}

#[test]
fn doctor_writes_a_report_where_the_engine_cannot_be_opened() {
    let folder = folder();
    let file = show(&folder.path().join("report.json"));
    for arguments in [
        &["--device", "ane"][..],
        &["--engine-library", "/nowhere/lib.so"],
        &["--standin", "/nowhere/lib.so"],
    ] {
        let output = run(&[&["doctor", "-o", &file], arguments].concat());
        assert_eq!(output.code, 5, "{output:?}");
        assert!(
            output.out.contains("Espresso (compiles and runs programs): not there")
                || output.out.contains("/nowhere/lib.so (compiles"),
            "what is missing is told: {}",
            output.out
        );
        assert!(
            output.err.contains("is not available") && !output.err.contains("aneforge doctor"),
            "{}",
            output.err
        );
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert!(report["absent"].as_str().unwrap().contains("is not available"), "{report}");
        assert_eq!((&report["device"], &report["ops"]), (&serde_json::Value::Null, &serde_json::json!([])));
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn what_doctor_is_not_asked_so_is_a_wrong_command_line() {
    for (arguments, told) in [
        (&["--limit", "0"][..], "0 is not in 1.."),
        (&["--part", "op", "no-such-op"], "there is no op no-such-op"),
        (&["--part", "probe", "no-such-probe"], "there is no probe no-such-probe"),
        (&["--part", "thing", "relu"], "there is no thing relu"),
        (&["--device", "host", "--standin", "/x.so"], "--device host something else; leave one out"),
        (
            &["--engine-library", "/y.so", "--standin", "/x.so"],
            "--engine-library something else; leave one out",
        ),
        (&["--device", "host", "--engine-library", "/x.so"], "leave one out"),
    ] {
        let output = run(&[&["doctor"], arguments].concat());
        assert_eq!(output.code, 2, "{arguments:?}: {output:?}");
        assert!(output.err.starts_with("error: ") && output.err.contains(told), "{}", output.err);
    }
}

#[test]
fn a_library_that_is_named_is_what_programs_run_on() {
    let (here, home) = (folder(), folder());
    std::fs::copy(library(), here.path().join("mine.so")).unwrap();
    let ran = |device: Option<&str>, line: &[&str], variable: &str| {
        let mut command = command(&["run", &sample("mlp"), "--random", "3", "--json"]);
        command.env_remove("ANEFORGE_DEVICE").current_dir(here.path()).env("HOME", home.path()).args(line);
        command.env("ANEFORGE_ENGINE_LIBRARY", variable);
        if let Some(device) = device {
            command.env("ANEFORGE_DEVICE", device);
        }
        let output = finish(command);
        let value: serde_json::Value = serde_json::from_str(&output.out).unwrap_or_default();
        (output.code, value["device"].as_str().unwrap_or_default().to_owned())
    };
    let on = |device: &str| (0, device.to_owned());
    let (name, nothing) = ("mine.so", "");
    // A bare name is a file here, and nothing is looked for elsewhere.
    assert_eq!(ran(None, &["--engine-library", name], nothing), on("ane (stand-in)"));
    assert_eq!(ran(None, &[], name), on("ane (stand-in)"));
    assert_eq!(
        ran(Some("host"), &["--engine-library", name], nothing),
        on("ane (stand-in)"),
        "the line wins"
    );
    assert_eq!(ran(Some("host"), &[], name), on("host"), "both are of the environment");
    assert_eq!(ran(None, &["--device", "host"], name), on("host"));
    assert_eq!(ran(None, &["--engine-library", ""], nothing), on("host"), "an empty one is none");
    assert_eq!(ran(None, &["--engine-library", "libm.so.6"], nothing).0, 5);
    assert_eq!(ran(None, &[], "nowhere.so").0, 5, "never on the host instead");
    assert_eq!(ran(None, &["--device", "host", "--engine-library", name], nothing).0, 2);
}

#[test]
fn programs_of_the_engine_lie_where_the_cache_does() {
    let (home, named, folder) = (folder(), folder(), folder());
    let run = |line: &[&str], variable: &str| {
        let mut command =
            command(&["run", &sample("mlp"), "--random", "3", "--engine-library", &show(&library())]);
        command.args(line).env("HOME", home.path()).env("ANEFORGE_CACHE_DIR", variable);
        let output = finish(command);
        assert_eq!(output.code, 0, "{output:?}");
    };
    let count = |folder: &Path| std::fs::read_dir(folder.join("engine")).map_or(0, Iterator::count);
    run(&[], &show(named.path()));
    assert_eq!((count(named.path()), count(&home.path().join(".cache/aneforge"))), (1, 0));
    run(&["--cache-dir", &show(folder.path())], &show(named.path()));
    assert_eq!((count(named.path()), count(folder.path())), (1, 1));
    run(&[], "");
    assert_eq!(count(&home.path().join(".cache/aneforge")), 1);
    // Commands without such an option, too.
    let other = crate::support::folder();
    let mut demo = command(&[
        "demo",
        "--steps",
        "2",
        "--calls",
        "1",
        "--batch",
        "1",
        "--engine-library",
        &show(&library()),
    ]);
    demo.env("HOME", home.path()).env("ANEFORGE_CACHE_DIR", other.path());
    assert_eq!((finish(demo).code, count(other.path()) > 0), (0, true));
}

#[test]
fn a_demonstration_says_what_it_ran_on() {
    let home = folder();
    let mut command = command(&[
        "demo",
        "--steps",
        "2",
        "--calls",
        "2",
        "--batch",
        "2",
        "--engine-library",
        &show(&library()),
    ]);
    command.env("HOME", home.path());
    let said = finish(command).out;
    assert!(!said.contains("This ran on the Neural Engine."), "{said}");
    assert!(
        said.contains("device     ane (stand-in): ") && said.contains("stands in for the Neural Engine"),
        "{said}"
    );
}

#[test]
fn a_worker_that_is_asked_nothing_says_so() {
    let output = command(&[]).arg("worker").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("commands start workers themselves"), "{said}");
}

#[test]
fn the_cache_sees_programs_of_the_engine() {
    let folder = folder();
    let place = ["--cache-dir".to_owned(), show(folder.path())];
    let cache = |action: &str, more: &[&str]| {
        json(&[&["cache", action, &place[0], &place[1]], more].concat())["engine"].clone()
    };
    assert_eq!((&cache("ls", &[])["programs"], &cache("ls", &[])["bytes"]), (&0.into(), &0.into()));
    let run = ["run", &sample("mlp"), "--random", "3", "--engine-library", &show(&library())];
    let output = finish(command(&[&run[..], &[&place[0], &place[1]]].concat()));
    assert_eq!(output.code, 0, "{output:?}");
    let listed = cache("ls", &[]);
    assert_eq!(listed["programs"], 1);
    assert_eq!((&cache("gc", &[])["left"], &cache("gc", &[])["bytes"]), (&1.into(), &listed["bytes"]));
    let done = cache("gc", &["--cache-limit", "0"]);
    assert_eq!((&done["removed"], &done["left"], &done["freed"]), (&1.into(), &0.into(), &listed["bytes"]));
    let said = crate::support::text(&["cache", "ls", &place[0], &place[1]]);
    assert!(said.contains("of the engine: 0 programs, 0 bytes, in "), "{said}");
}
