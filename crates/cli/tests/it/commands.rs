//! What each command does when all is well.

use crate::support::{command, fails, file, finish, folder, json, keys, run, sample, show, text};
use aneforge_tensor::{Bytes, Shape, npy, random};
use std::fs;

#[test]
fn samples_compile_run_and_read_back_to_the_same_numbers() {
    for name in ["mlp", "convnet", "attention"] {
        let folder = folder();
        let (program, outputs) = (show(&folder.path().join("program")), show(&folder.path().join("out")));
        let compiled = json(&["compile", &sample(name), "-o", &program]);
        let first = ["family", "files", "folders", "inputs", "ops"];
        let rest = ["outputs", "program_bytes", "report", "statements", "target", "weight_bytes", "weights"];
        assert_eq!(keys(&compiled), [&first[..], &rest].concat());
        let size = |file: &str| fs::metadata(format!("{program}/{file}")).unwrap().len();
        assert_eq!(compiled["program_bytes"], size("model.mil"));
        assert_eq!(compiled["weight_bytes"], size("weights.bin"));
        assert!(fs::read_to_string(format!("{program}/report.txt")).unwrap().contains("legalize"));

        let graph = json(&["run", &sample(name), "--random", "3", "--repeat", "5"]);
        assert_eq!(
            keys(&graph),
            ["device", "inputs", "numerics", "outputs", "overflows", "profile", "target", "time"]
        );
        assert_eq!(graph["time"]["calls"], 5);
        for path in [&program, &format!("{program}/model.mil")] {
            let mut back = json(&["run", path, "--random", "3", "-o", &outputs]);
            let written = back["outputs"][0].as_object_mut().unwrap().remove("file").unwrap();
            assert_eq!(back["outputs"], graph["outputs"], "{name}");
            let tensor = npy::read(&Bytes::new(fs::read(written.as_str().unwrap()).unwrap())).unwrap();
            assert_eq!(serde_json::json!(tensor.shape().dims()), graph["outputs"][0]["shape"]);
        }
    }
}

#[test]
fn run_feeds_files_in_their_order() {
    let folder = folder();
    let sub =
        "%0 = input(feed=0) : fp16[3]\n%1 = input(feed=1) : fp16[3]\n%2 = sub(%0, %1) : fp16[3]\nreturn %2";
    let graph = file(&folder, "sub.ir", sub);
    let array = |name: &str, seed: u64| {
        let tensor = random::normal_tensor(seed, Shape::new(&[3]).unwrap(), 1.0);
        let mut bytes = Vec::new();
        npy::write(&tensor, &mut bytes).unwrap();
        file(&folder, name, bytes)
    };
    let (a, b) = (array("a.npy", 1), array("b.npy", 2));
    let forth = json(&["run", &graph, "--input", &a, "--input", &b]);
    let back = json(&["run", &graph, "-i", &b, "-i", &a]);
    let number = |value: &serde_json::Value, key: &str| value["outputs"][0][key].as_f64().unwrap();
    assert_eq!(number(&forth, "max"), -number(&back, "min"));
    assert_eq!(forth["inputs"][0]["source"], a);
    let out = text(&["run", &graph, "--input", &a, "--input", &b, "--repeat", "3"]);
    assert!(out.starts_with("ran on host, compiled for h17s, numerics ane(A16)\n"), "{out}");
    assert!(out.contains("per call, median of 3 (p10 "), "{out}");
}

#[test]
fn a_profile_is_a_table_a_trace_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let [trace, svg] = ["trace.json", "steps.svg"].map(|name| folder.path().join(name).display().to_string());
    let graph = sample("convnet");
    let out = text(&["run", &graph, "--random", "3", "--profile", "--repeat", "2"]);
    assert!(out.contains("medians of 2 calls; roof ") && out.contains("conv"), "{out}");
    assert!(out.contains("of roof"), "{out}");
    let run = json(&["run", &graph, "--random", "3", "--profile-trace", &trace, "--profile-svg", &svg]);
    assert_eq!(run["profile"]["calls"], 20);
    let steps = run["profile"]["steps"].as_array().unwrap();
    assert!(
        steps.iter().all(|step| step["us"].as_f64().unwrap() > 0.0 && step["bytes"].as_u64().unwrap() > 0)
    );
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), steps.len());
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(json(&["run", &graph, "--random", "3"])["profile"], serde_json::Value::Null);
}

#[test]
fn numerics_are_an_option() {
    let folder = folder();
    let roots = "%0 = input(feed=0) : fp16[64]\n%1 = sqrt(%0) : fp16[64]\nreturn %1\n";
    let graph = file(&folder, "roots.ir", roots);
    let not_finite = |numerics: &str| {
        let value = json(&["run", &graph, "--random", "1", "--numerics", numerics, "-q"]);
        assert_eq!(value["overflows"][0]["op"], "sqrt", "a NaN of a finite operand, stored as zero or not");
        value["outputs"][0]["not_finite"].as_u64().unwrap()
    };
    assert_eq!(not_finite("ane"), 0);
    assert!(not_finite("ieee") > 0);
    let loud = run(&["run", &graph, "--random", "1"]);
    assert!(loud.err.contains("WARN sqrt made an infinity or NaN of finite operands"), "{loud:?}");
}

#[test]
fn norms_are_an_option() {
    let folder = folder();
    let norm = "@0 : fp16[4] = splat(1.0)\n%0 = input(feed=0) : fp16[1, 4]\n%1 = const_array(index=0) : fp16[4]\n\
                %2 = rms_norm(%0, %1) : fp16[1, 4]\nreturn %2\n";
    let graph = file(&folder, "norm.ir", norm);
    let passes = |norms: &str| text(&["inspect", &graph, "--show", "passes", "--norms", norms]);
    assert!(passes("robust").contains("robust_norm"));
    assert_eq!([passes("auto"), passes("plain")].map(|p| p.contains("robust_norm")), [false; 2]);
}

#[test]
fn explain_tells_what_fired_and_what_refused() {
    let graph = sample("mlp");
    let said = text(&["explain", &graph, "--compress", "sparse"]);
    assert!(said.contains("ways to compile it") && said.contains("less than half of it is zero"), "{said}");
    let value = json(&["explain", &graph]);
    let names = ["estimate", "most_bytes", "notices", "segments", "stages", "target", "ways", "weights"];
    assert_eq!(keys(&value), names);
    let weight = &json(&["explain", &graph, "--compress", "int8"])["weights"][0];
    let names =
        ["at", "bytes", "calibrated", "dense_bytes", "encoding", "error", "op", "scaled", "shape", "why"];
    assert_eq!(keys(weight), names);
    let cut = json(&["explain", &graph, "--most-bytes", "4300"]);
    let stages = cut["stages"].as_array().unwrap();
    let split = stages.iter().find(|stage| stage["stage"] == "partition");
    let events = split.map(|stage| stage["events"].as_array().unwrap().len());
    assert_eq!(events, Some(cut["segments"].as_array().unwrap().len() - 1), "{cut}");
    assert!(run(&["explain", &graph, "--system", "macos15"]).code == 2);
}

#[test]
fn inspect_shows_every_form() {
    let graph = sample("mlp");
    let all = text(&["inspect", &graph]);
    let parts =
        ["== graph\n", "== passes\n", "== plan\n", "== mil\n", "canonicalize: ", "until the end", "program("];
    for part in parts {
        assert!(all.contains(part), "{part} in {all}");
    }
    let starts = [
        ("graph", "@0 : fp32[64, 32] ="),
        ("passes", "route: "),
        ("plan", "plan for h17s"),
        ("mil", "program("),
    ];
    for (part, start) in starts {
        let out = text(&["inspect", &graph, "--show", part]);
        assert!(out.starts_with(start) && all.contains(&out), "{part}: {out}");
    }
    let value = json(&["inspect", &graph]);
    assert_eq!(keys(&value), ["graph", "mil", "passes", "plan", "target"]);
    assert_eq!(keys(&value["plan"]), ["slots", "steps"]);
    assert_eq!(
        keys(&value["plan"]["steps"][0]),
        ["apart", "bytes", "dtype", "flops", "inputs", "op", "order", "output", "shape", "until"]
    );
    let reasons = value["plan"]["steps"].as_array().unwrap().iter().filter(|step| !step["apart"].is_null());
    assert!(reasons.clone().all(|step| step["apart"]["step"].is_u64() && step["apart"]["why"].is_string()));
    assert_eq!(reasons.count(), all.matches("apart from step").count());
    assert_eq!(keys(&value["passes"][0]), ["events", "nodes", "stage"]);
    assert_eq!(keys(&json(&["inspect", &graph, "--show", "mil"])), ["mil", "target"]);
}

#[test]
fn devices_say_what_they_are_or_why_not() {
    let value = json(&["devices", "--threads", "1"]);
    assert_eq!(keys(&value), ["default_target", "devices", "host", "target", "targets"]);
    let host = ["architecture", "available_instruction_sets", "instruction_set", "os", "threads"];
    assert_eq!(keys(&value["host"]), host);
    assert_eq!(value["host"]["threads"], 1);
    let device =
        |name: &str| value["devices"].as_array().unwrap().iter().find(|d| d["name"] == name).unwrap();
    assert_eq!(
        (&device("host")["available"], device("host")["description"].is_string()),
        (&true.into(), true)
    );
    let ane = device("ane");
    assert!(ane["description"].is_string() || ane["why"].as_str().unwrap().contains("run on `host`"));
    assert!(text(&["devices"]).contains("  A13: h13 h13g t1\n"));
}

#[test]
fn targets_say_what_families_take() {
    let value = json(&["targets"]);
    assert_eq!(keys(&value), ["chips", "families"]);
    let chip = |name: &str| {
        let chips = value["chips"].as_array().unwrap();
        chips.iter().find(|chip| chip["name"] == name).unwrap().clone()
    };
    let of_chip = [
        "cores",
        "family",
        "floor_us",
        "is",
        "measured",
        "name",
        "note",
        "port_gigabytes",
        "teraflops",
        "weight_gigabytes",
    ];
    assert_eq!(keys(&chip("h13")), of_chip);
    assert_eq!((&chip("h14g")["cores"], chip("h14g")["weight_gigabytes"].as_f64()), (&8.into(), Some(55.0)));
    assert!(chip("h18p")["floor_us"].is_null());
    assert_eq!([chip("h14g"), chip("h14")].map(|chip| chip["measured"].as_bool()), [Some(true), Some(false)]);
    assert!(chip("h18p")["note"].as_str().unwrap().contains("the family before"));
    let a13 = &value["families"][0];
    let of_family = ["decomposed", "limits", "name", "number", "rejected", "streams", "texture_unit"];
    assert_eq!(keys(a13), of_family);
    assert_eq!(
        (&a13["name"], &a13["number"], &a13["texture_unit"]),
        (&"A13".into(), &2.into(), &false.into())
    );
    assert_eq!(a13["limits"]["conv_kw_max"], 13);
    assert_eq!(a13["streams"], serde_json::json!(["sparse", "lut4"]));
    assert_eq!(value["families"].as_array().unwrap().len(), 4);
    let out = text(&["targets"]);
    for part in [
        "  h13g  A13   8  M1 Pro, Max, Ultra\n",
        "  reads as stored: sparse, lut4, int8\n",
        "  rejected: affine",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
}

#[test]
fn check_says_what_chips_make_of_a_graph() {
    let folder = folder();
    let source = "%0 = input(feed=0) : fp16[2, 20000]\n%1 = adds(%0, k=1.0) : fp16[2, 20000]\n%2 = slice_by_size(%1, begin=[0, 1], \
                  size=[2, 16]) : fp16[2, 16]\n%3 = sin(%2) : fp16[2, 16]\nreturn %3\n";
    let graph = file(&folder, "long.ir", source);
    let all = json(&["check", &graph, "--all"]);
    let checks = all["checks"].as_array().unwrap();
    let of = |key: &str| checks.iter().map(|check| check[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("target"), ["h13", "h14", "h15", "h16s"]);
    assert_eq!(of("ok"), [false, false, false, true]);
    assert_eq!(of("compiles"), of("ok"));
    assert_eq!(checks[0]["oversize"][1]["op"], "adds");
    assert_eq!(
        (&checks[1]["decompose"][0]["op"], checks[2]["decompose"].as_array().unwrap().len()),
        (&"sin".into(), 0)
    );
    assert_eq!(
        (&checks[0]["notices"][0]["warning"], checks[3]["notices"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
    let out = text(&["check", &graph, "--all"]);
    for part in [
        "h13 (A13): does not compile\n  3 nodes computed, 1 written with others, 0 rejected, 2 too large\n",
        "\n  too large: adds [2, 20000]: axis 1 of [2, 20000] is above the 16384 that A13 allows;",
        "\n  warning: slice_by_size starts at 1 on the last axis, where A13 saturates",
        "\n  error: input: axis 1 of [2, 20000] is above the 16384 that h13 (A13) allows;",
        "h16s (A16): compiles\n  4 nodes computed, 0 written with others, 0 rejected, 0 too large\n",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(text(&["check", &graph]).starts_with("h17s (A16): compiles\n"));
    let refused = run(&["check", &graph, "--target", "h13"]);
    assert_eq!(refused.code, 4);
    assert!(
        refused.out.starts_with("h13 (A13): does not compile\n")
            && refused.err.contains("is above the 16384")
    );
    // Compiling warns of the same.
    let output = show(&folder.path().join("out"));
    let short = file(&folder, "short.ir", source.replace("20000", "2000"));
    assert!(
        run(&["compile", &short, "-o", &output, "--target", "h13"])
            .err
            .contains("WARN slice_by_size starts at 1")
    );
    assert_eq!(run(&["compile", &short, "-o", &output]).err, "");
}

#[test]
fn instruction_sets_are_chosen_by_name() {
    let graph = sample("mlp");
    let run = |isa| json(&["run", &graph, "--random", "1", "--isa", isa])["outputs"].clone();
    let scalar = text(&["devices", "--isa", "Scalar"]);
    assert!(scalar.contains("for this processor, slowest first; scalar is used\n  scalar"), "{scalar}");
    assert!(scalar.contains(" processor, scalar kernels, "), "{scalar}");
    let best = json(&["devices"])["host"]["instruction_set"].as_str().unwrap().to_owned();
    assert_eq!(run("scalar"), run(&best));
    let message = fails(2, &["run", &graph, "--random", "1", "--isa", "sse9"]);
    assert!(message.contains("no instruction set has this name; this processor has scalar"), "{message}");
    let foreign = if std::env::consts::ARCH == "aarch64" { "avx2" } else { "neon" };
    let message = fails(5, &["run", &graph, "--random", "1", "--isa", foreign]);
    assert!(message.contains(&format!("cannot run {foreign} kernels; choose from scalar")), "{message}");
}

#[test]
fn the_environment_stands_in_for_options() {
    let read = |command| -> serde_json::Value { serde_json::from_str(&finish(command).out).unwrap() };
    let mut devices = command(&["devices", "--json"]);
    devices.env("ANEFORGE_TARGET", "h14").env("ANEFORGE_THREADS", "2");
    let value = read(devices);
    assert_eq!((&value["target"], &value["host"]["threads"]), (&"h14".into(), &2.into()));

    let mut scalar = command(&["devices", "--json"]);
    scalar.env("ANEFORGE_ISA", "Scalar");
    assert_eq!(read(scalar)["host"]["instruction_set"], "scalar");

    let mut over = command(&["devices", "--json", "--target", "h15"]);
    over.env("ANEFORGE_TARGET", "h14");
    assert_eq!(read(over)["target"], "h15");

    let mut ieee = command(&["run", &sample("mlp"), "--random", "1"]);
    ieee.env("ANEFORGE_NUMERICS", "ieee");
    assert!(finish(ieee).out.contains("numerics ieee"));
}

#[test]
fn verbose_logs_the_device_and_quiet_does_not() {
    let run = |flag: &str| run(&["run", &sample("mlp"), "--random", "1", flag]);
    assert!(run("-v").err.contains("device host: "));
    assert_eq!(run("-q").err, "");
}

#[test]
fn the_reference_names_every_command_and_option() {
    let page = aneforge_cli::reference();
    for command in aneforge_cli::command().get_subcommands() {
        let listed = page.contains(&format!("## aneforge {}\n", command.get_name()));
        assert_eq!(listed, !command.is_hide_set(), "{}", command.get_name());
        if !listed {
            continue;
        }
        for argument in command.get_arguments().filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("--{argument}")), "{argument}");
        }
    }
    for name in [
        "ANEFORGE_TARGET",
        "ANEFORGE_DEVICE",
        "ANEFORGE_NUMERICS",
        "ANEFORGE_THREADS",
        "ANEFORGE_ENGINE_LIBRARY",
    ] {
        assert!(page.contains(name), "{name}");
    }
}

#[test]
fn ops_lists_and_explains() {
    let list = text(&["ops"]);
    assert!(list.contains("sdpa(query, key, value, mask?)") && list.contains("native layer"), "{list}");
    let before = text(&["ops", "--target", "h13"]);
    assert!(
        before.lines().any(|l| l.starts_with("topk(x)") && l.ends_with("needs A14 or newer, h13 is A13"))
    );
    let page = text(&["ops", "topk"]);
    for part in ["topk(x)\n", "k: int, required.", "from A14 on", "MIL op topk", "A13: walled", "A16: native"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    let value = json(&["ops", "sin"]);
    assert_eq!(keys(&value), ["catalog", "ops"]);
    let op = ["attributes", "available", "doc", "first_family", "inputs", "mil", "name"];
    assert_eq!(keys(&value["ops"][0]), op);
    assert_eq!(value["catalog"][0]["status"]["A13"], "bridge");
    assert_eq!(json(&["ops"])["catalog"].as_array().unwrap().len(), 187);
}

#[test]
fn native_layers_are_kept_when_asked_for() {
    let folder = folder();
    let graph = folder.path().join("rows.ir");
    fs::write(
        &graph,
        "%0 = input(feed=0) : fp16[1, 2, 3, 4]\n%1 = minmax_norm(%0) : fp16[1, 2, 3, 4]\nreturn %1\n",
    )
    .unwrap();
    let (graph, out) = (show(&graph), show(&folder.path().join("program")));
    let fused = json(&["run", &graph, "--random", "3"]);
    assert_eq!(json(&["run", &graph, "--random", "3", "--native"])["outputs"], fused["outputs"]);
    json(&["compile", &graph, "--native", "-o", &out]);
    let list = fs::read_to_string(format!("{out}/net.plist")).unwrap();
    assert!(list.contains("<string>MinMaxNormalization</string>"));
    assert_eq!(fs::read(format!("{out}/weights.0")).unwrap(), b"");
    assert!(text(&["inspect", &graph, "--native"]).contains("native layer MinMaxNormalization"));
    assert_eq!(json(&["run", &out, "--random", "3"])["outputs"], fused["outputs"]);
    assert!(text(&["inspect", &out]).contains("native layer MinMaxNormalization"));
    let refused = run(&["run", &out, "--random", "3", "--target", "h13"]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    let why = "is compiled for h17s, in 1 segment, and can be run but not compiled again; leave --target,";
    assert!(refused.err.contains(why), "{}", refused.err);
}

#[test]
fn shells_can_complete() {
    for (shell, part) in
        [("bash", "_aneforge()"), ("zsh", "#compdef aneforge"), ("fish", "complete -c aneforge")]
    {
        let script = text(&["completions", shell]);
        assert!(script.contains(part) && script.contains("no-normalize"), "{shell}");
    }
}

#[test]
fn defaults_are_values_not_code() {
    let page = |name: &str| text(&["ops", name]);
    assert!(page("conv").contains("pad: ints, by default [0, 0, 0, 0]."));
    let input = page("input");
    for part in ["by default \"fp16\".", "by default \"feed\"."] {
        assert!(input.contains(part), "{part} in {input}");
    }
    let all = json(&["ops"]).to_string();
    for code in ["DType::", "Role::", "; 4]", "; 2]"] {
        assert!(!all.contains(&format!("\"default\":\"{code}")) && !all.contains(code), "{code}");
    }
}

#[test]
fn state_goes_on_from_run_to_run() {
    let folder = folder();
    let counter = "%0 = input(feed=0, role=\"state\", name=\"n\") : fp16[2]\n%1 = input(feed=1) : fp16[2]\n\
                   %2 = add(%0, %1) : fp16[2]\ncarry %0 = %2\nreturn %2\n";
    let graph = file(&folder, "counter.ir", counter);
    let (state, ones) = (show(&folder.path().join("n.safetensors")), show(&folder.path().join("ones.npy")));
    let tensor = aneforge_tensor::Tensor::from_slice(Shape::new(&[2]).unwrap(), &[1.0f32, 2.0]).unwrap();
    npy::write(&tensor, &mut fs::File::create(&ones).unwrap()).unwrap();
    for total in [1.0, 2.0, 3.0] {
        let ran = json(&["run", &graph, "--input", &ones, "--state", &state]);
        assert_eq!(
            (ran["outputs"][0]["min"].as_f64(), ran["outputs"][0]["max"].as_f64()),
            (Some(total), Some(2.0 * total))
        );
    }
    json(&["run", &graph, "--input", &ones, "--state", &state, "--repeat", "4", "--profile"]);
    let ran = json(&["run", &graph, "--input", &ones, "--state", &state]);
    assert_eq!(ran["outputs"][0]["min"].as_f64(), Some(5.0), "runs that are measured do not count");
    fs::write(&state, "no state").unwrap();
    let error = fails(3, &["run", &graph, "--input", &ones, "--state", &state]);
    assert!(error.contains("n.safetensors"), "{error}");
    assert_eq!(fs::read(&state).unwrap(), b"no state");
}
