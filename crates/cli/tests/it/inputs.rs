//! What is read: the environment, names in every spelling, standard input and pipes, arrays of every kind.

use crate::support::{command, fails, file, finish, folder, json, sample, show, text};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const RELU: &str = "%0 = input(feed=0) : fp16[2, 3]\n%1 = relu(%0) : fp16[2, 3]\nreturn %1\n";

/// Runs a command with this standard input.
fn fed(args: &[&str], input: &[u8]) -> Value {
    let mut child =
        command(&[args, &["--json"]].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An `.npy` file.
fn npy(code: &str, fortran: bool, shape: &str, payload: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{code}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), payload].concat()
}

#[test]
fn an_empty_variable_is_unset() {
    let names = ["ANEFORGE_TARGET", "ANEFORGE_DEVICE", "ANEFORGE_NUMERICS", "ANEFORGE_THREADS"];
    let hub = ["HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT"];
    for name in names.into_iter().chain(hub) {
        for args in [&["devices"][..], &["embed", "-m", &model(), "x"]] {
            let mut empty = command(args);
            // Wherever the tests run, an option says host.
            empty.env(name, "").arg("--device").arg("host");
            let output = finish(empty);
            assert_eq!((output.code, output.err.as_str()), (0, ""), "{name}");
        }
    }
}

fn model() -> String {
    show(&Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/models/tiny-bert"))
}

#[test]
fn names_of_chips_and_numerics_have_one_spelling_each_and_many_that_are_taken() {
    for (given, target) in [("M1", "h13"), ("m2", "h14"), (" H17S ", "h17s"), ("h11", "h11"), ("m5", "h17")] {
        assert_eq!(json(&["devices", "--target", given])["target"], target);
        let mut devices = command(&["devices", "--json"]);
        devices.env("ANEFORGE_TARGET", given);
        assert_eq!(serde_json::from_str::<Value>(&finish(devices).out).unwrap()["target"], target);
    }
    let numerics =
        [("ieee", "ieee"), ("IEEE", "ieee"), ("ane", "ane(A16)"), ("a14", "ane(A14)"), ("M1", "ane(A13)")];
    for (given, want) in numerics {
        assert_eq!(json(&["run", &sample("mlp"), "--random", "1", "--numerics", given])["numerics"], want);
        let mut run = command(&["run", &sample("mlp"), "--random", "1"]);
        run.env("ANEFORGE_NUMERICS", given);
        assert!(finish(run).out.contains(&format!("numerics {want}\n")), "{given}");
    }
    let unknown = finish(command(&["devices", "--numerics", "fast"]));
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("unknown numerics `fast`; known are `ane`"), "{unknown:?}");
    for (option, word) in
        [("device", "HOST"), ("device", " host "), ("sums", " Fast"), ("norms", "ROBUST "), ("target", " M1")]
    {
        assert_eq!(finish(command(&["devices", &format!("--{option}"), word])).code, 0, "{option} {word:?}");
    }
}

#[test]
fn graphs_come_from_standard_input_and_pipes() {
    let folder = folder();
    let graph = file(&folder, "relu.ir", RELU);
    let want = json(&["run", &graph, "--random", "3"])["outputs"].clone();
    assert_eq!(fed(&["run", "-", "--random", "3"], RELU.as_bytes())["outputs"], want);
    assert_eq!(
        fed(&["inspect", "-", "--show", "graph"], RELU.as_bytes()),
        json(&["inspect", &graph, "--show", "graph"])
    );
    let d = show(&folder.path().join("d"));
    fed(&["compile", "-", "-o", &d], RELU.as_bytes());
    assert_eq!(json(&["run", &d, "--random", "3"])["outputs"], want);

    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, RELU).unwrap()
    });
    assert_eq!(json(&["run", &show(&pipe), "--random", "3"])["outputs"], want);
    writer.join().unwrap();

    let mut wrong = command(&["inspect", "-"]);
    wrong.stdin(Stdio::from(fs::File::open(file(&folder, "wrong.ir", "%0 = rilu()")).unwrap()));
    assert!(finish(wrong).err.starts_with("error: standard input: graph text, line 1: "));
    let error = fails(3, &["run", "-", "-i", "-"]);
    assert_eq!(error, "standard input can be read once; name files for all but one of `-`");
    let mut compiled = command(&["inspect", "-"]);
    compiled.stdin(Stdio::from(fs::File::open(format!("{d}/model.mil")).unwrap()));
    assert!(finish(compiled).err.contains("a compiled program has its weights beside it"));
}

#[test]
fn arrays_of_every_order_and_width_are_fed() {
    let folder = folder();
    let graph = file(&folder, "relu.ir", RELU);
    let values = [-1i16, 4, 2, 5, 3, -6];
    let by_columns: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    let path = file(&folder, "x.npy", npy(">i2", true, "(2, 3)", &by_columns));
    let (output, out) = (json(&["run", &graph, "-i", &path, "-o", &show(folder.path())]), folder.path());
    assert_eq!((&output["outputs"][0]["max"], &output["outputs"][0]["min"]), (&5.0.into(), &0.0.into()));
    let bytes = fs::read(out.join("output0.npy")).unwrap();
    let rows: Vec<f32> =
        bytes[bytes.len() - 24..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(rows, [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]);
    let floats: Vec<u8> = [1.0f32; 6].iter().flat_map(|v| v.to_be_bytes()).collect();
    let output = fed(&["run", &graph, "-i", "-"], &npy(">f4", false, "(2, 3)", &floats));
    assert_eq!(
        (&output["outputs"][0]["mean"], &output["inputs"][0]["source"]),
        (&1.0.into(), &"standard input".into())
    );
}

#[test]
fn integers_are_fed_to_ports_of_bytes() {
    let folder = folder();
    let text = "%0 = input(feed=0) : uint8[1, 1, 1, 2]\n%1 = cast(%0) : fp16[1, 1, 1, 2]\nreturn %1\n";
    let graph = file(&folder, "bytes.ir", text);
    let feed = |values: [i64; 2]| {
        let payload: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        file(&folder, "x.npy", npy("<i8", false, "(1, 1, 1, 2)", &payload))
    };
    let output = json(&["run", &graph, "-i", &feed([7, 255])]);
    assert_eq!((&output["outputs"][0]["min"], &output["outputs"][0]["max"]), (&7.0.into(), &255.0.into()));
    let path = feed([7, 256]);
    let error = fails(3, &["run", &graph, "-i", &path]);
    assert_eq!(error, format!("{path}: the port takes integers from 0 to 255, the file has 256"));
}

#[test]
fn outputs_without_a_finite_element_have_no_mean() {
    let folder = folder();
    let graph = file(&folder, "exp.ir", "%0 = input(feed=0) : fp16[2]\n%1 = exp(%0) : fp16[2]\nreturn %1\n");
    let path = file(&folder, "x.npy", npy("<i2", false, "(2,)", &[0xe8, 3, 0xe8, 3]));
    let out = text(&["run", &graph, "-i", &path, "--numerics", "ieee", "-q"]);
    assert!(out.contains("output 0: [2], no finite element, 2 not finite\n"), "{out}");
    let output = json(&["run", &graph, "-i", &path, "--numerics", "ieee", "-q"])["outputs"][0].clone();
    assert!(["min", "mean", "max"].iter().all(|key| output[*key].is_null()) && output["not_finite"] == 2);
}

/// The tiny model as a hub's cache holds it, without references.
fn cached(hub: &Path) {
    let snapshot = hub.join("models--org--tiny/snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(Path::new(&model()).join(name), snapshot.join(name)).unwrap();
    }
}

#[test]
fn variables_of_the_hub_say_where_its_cache_is() {
    let (folder, nowhere) = (folder(), folder());
    cached(&folder.path().join("hub"));
    let embed = |variables: &[(&str, &Path)]| {
        let mut command = command(&["embed", "-m", "org/tiny", "x"]);
        // Nothing listens on this port.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").envs(variables.iter().copied());
        finish(command)
    };
    let (home, hub, nowhere) = (folder.path(), folder.path().join("hub"), nowhere.path());
    for variables in [
        &[("HF_HOME", home)][..],
        &[("HF_HUB_CACHE", &hub)],
        &[("HF_HOME", nowhere), ("HF_HUB_CACHE", &hub)],
        &[("HF_HOME", nowhere), ("HUGGINGFACE_HUB_CACHE", &hub)],
        &[("HF_HUB_CACHE", Path::new("")), ("HF_HOME", home)],
    ] {
        let output = embed(variables);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{variables:?}");
    }
    assert_eq!(embed(&[("HF_HUB_CACHE", nowhere)]).code, 3);

    let cache = home.join(".cache/huggingface");
    fs::create_dir_all(&cache).unwrap();
    fs::rename(&hub, cache.join("hub")).unwrap();
    for (name, value) in [
        ("HF_HOME", "~/.cache/huggingface"),
        ("HF_HUB_CACHE", "~/.cache/huggingface/hub"),
        ("HUGGINGFACE_HUB_CACHE", "~/.cache/huggingface/hub"),
        ("XDG_CACHE_HOME", "~/.cache"),
    ] {
        let output = embed(&[("HOME", home), (name, Path::new(value))]);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{name}");
    }
    assert_eq!(embed(&[("HOME", home), ("HF_HOME", Path::new("~else"))]).code, 3);
}

#[test]
fn parameters_and_state_are_inputs_of_the_command() {
    let folder = folder();
    let graph = "%0 = input(feed=0) : fp16[2]\n%1 = input(feed=1, role=\"state\") : fp16[2]\n\
                 %2 = input(feed=2, role=\"parameter\") : fp16[2]\n%3 = add(%0, %1) : fp16[2]\n\
                 %4 = mul(%3, %2) : fp16[2]\nreturn %4\n";
    let graph = file(&folder, "roles.ir", graph);
    let compiled = show(&folder.path().join("compiled"));
    text(&["compile", &graph, "-o", &compiled]);
    let run = |program: &str| text(&["run", program, "--random", "1"]);
    let output = |text: String| text.lines().find(|line| line.contains("output 0")).map(str::to_owned);
    assert!(output(run(&graph)).is_some());
    assert_eq!(output(run(&graph)), output(run(&compiled)));
}
