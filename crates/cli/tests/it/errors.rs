//! What each command says, and the code it ends with, when something is wrong.

use crate::support::{command, fails, file, finish, folder, run, sample, show, text};
use aneforge_tensor::{Tensor, npy};
use std::fs;

const RELU: &str = "%0 = input(feed=0) : fp16[2, 3]\n%1 = relu(%0) : fp16[2, 3]\nreturn %1\n";

#[test]
fn a_wrong_command_line_is_2() {
    let target = run(&["devices", "--target", "m7"]);
    assert_eq!(target.code, 2);
    assert!(target.err.contains("unknown target `m7`; known are m1 to m5 and h11 h12 "), "{}", target.err);
    let family = run(&["devices", "--target", "A14"]);
    assert_eq!(family.code, 2);
    assert!(family.err.contains("unknown target `a14`, which is a family of chips and"), "{}", family.err);
    let device = run(&["devices", "--device", "gpu"]);
    assert_eq!(device.code, 2);
    assert!(device.err.contains("[possible values: host, ane]"), "{}", device.err);
    for args in [&["no-such"][..], &[], &["run"], &["devices", "--threads", "0"], &["devices", "-v", "-q"]] {
        assert_eq!(run(args).code, 2, "{args:?}");
    }
}

#[test]
fn wrong_variables_are_named() {
    let said = |name: &str, args: &[&str]| {
        let mut wrong = command(&[&["devices"], args].concat());
        wrong.env(name, "zzz");
        let output = finish(wrong);
        assert_eq!((output.code, output.out.as_str()), (2, ""), "{name}");
        output.err
    };
    for name in ["THREADS", "TARGET", "DEVICE", "NUMERICS", "SUMS", "ISA"] {
        let (variable, option) = (format!("ANEFORGE_{name}"), format!("--{}", name.to_lowercase()));
        let start = format!("invalid value 'zzz' for '{variable}'");
        let error = said(&variable, &[]);
        assert!(error.starts_with(&format!("error: {start}")) && !error.contains(&option), "{error}");
        let json: serde_json::Value = serde_json::from_str(&said(&variable, &["--json"])).unwrap();
        assert!(json["error"]["message"].as_str().unwrap().starts_with(&start), "{json}");
        let given = said(&variable, &[&option, "yyy"]);
        assert!(given.contains(&format!("invalid value 'yyy' for '{option} <")), "{given}");
    }
    let mut offline = command(&["embed", "-m", "x", "x"]);
    offline.env("HF_HUB_OFFLINE", "zzz");
    let error = finish(offline).err;
    assert!(error.starts_with("error: invalid value 'zzz' for 'HF_HUB_OFFLINE'"), "{error}");
}

#[test]
fn names_are_read_in_any_case() {
    let mlp = sample("mlp");
    for (option, value) in [
        ("--sums", "FAST"),
        ("--norms", "Robust"),
        ("--device", "HOST"),
        ("--numerics", "IEEE"),
        ("--isa", "SCALAR"),
    ] {
        text(&["run", &mlp, "--random", "1", option, value]);
    }
    assert!(text(&["inspect", &mlp, "--show", "MIL"]).starts_with("program("));
    assert!(text(&["completions", "Bash"]).contains("aneforge"));
    let mut sums = command(&["devices"]);
    sums.env("ANEFORGE_SUMS", "DEFINED");
    assert!(finish(sums).out.contains(", defined sums"));
    assert!(text(&["devices"]).contains(", fast sums"));
}

#[test]
fn a_missing_file_is_named() {
    for command in ["run", "inspect"] {
        let error = fails(3, &[command, "none.ir"]);
        assert_eq!(error, "`none.ir` does not exist; check the path, or download the file again");
    }
    let folder = folder();
    let empty = show(folder.path());
    assert_eq!(
        fails(3, &["run", &empty]),
        format!(
            "`{empty}` holds no aneforge.manifest, so no compiled program; `aneforge compile GRAPH.ir -o {empty}` \
             writes one"
        )
    );
}

#[test]
fn wrong_text_names_its_line() {
    let folder = folder();
    let path =
        file(&folder, "wrong.ir", "# a comment\n%0 = input(feed=0) : fp16[2]\n%1 = rilu(%0) : fp16[2]\n");
    assert_eq!(fails(3, &["inspect", &path]), format!("{path}: graph text, line 3: there is no op `rilu`"));
    let path = file(&folder, "empty.ir", "");
    assert_eq!(
        fails(3, &["inspect", &path]),
        format!("{path}: graph text: nothing is returned; end with `return %N`")
    );
    let path = file(&folder, "bytes.ir", b"return \xff");
    assert_eq!(
        fails(3, &["inspect", &path]),
        format!("`{path}` is not text from byte 7 on; name a graph (.ir) or a program (.mil, .aneforge)")
    );
    let path = file(&folder, "wrong.mil", "program(1.3)\n{ fun }");
    let error = fails(3, &["inspect", &path]);
    assert!(error.starts_with(&format!("{path}: line 2, column ")), "{error}");
}

#[test]
fn inputs_must_fit() {
    let folder = folder();
    let graph = file(&folder, "relu.ir", RELU);
    assert_eq!(
        fails(3, &["run", &graph]),
        "the program takes 1 input (fp16[2, 3]), got 0; give --input FILE.npy for each, or --random SEED"
    );
    let mut bytes = Vec::new();
    npy::write(&Tensor::scalar(1.0f32), &mut bytes).unwrap();
    let scalar = file(&folder, "scalar.npy", &bytes);
    let error = fails(3, &["run", &graph, "--input", &scalar]);
    assert_eq!(error, format!("{scalar}: input 0 must have shape [2, 3], got []"));
    let cut = file(&folder, "cut.npy", &bytes[..20]);
    let error = fails(3, &["run", &graph, "--input", &cut]);
    assert_eq!(error, format!("{cut}: not an .npy file: header is cut off"));
}

#[test]
fn damaged_programs_are_told_apart() {
    let folder = folder();
    let program = show(&folder.path().join("program"));
    text(&["compile", &sample("mlp"), "-o", &program]);
    // Without its manifest a program is read as any file is.
    fs::remove_file(format!("{program}/aneforge.manifest")).unwrap();
    let weights = format!("{program}/weights.bin");
    let program = format!("{program}/model.mil");
    let whole = fs::read(&weights).unwrap();

    fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    let error = fails(3, &["run", &program, "--random", "1"]);
    assert!(error.contains("weights.bin is damaged, compile the graph again: record "), "{error}");
    assert!(error.contains("the end"), "{error}");

    fs::write(&weights, &whole[..64]).unwrap();
    assert_eq!(run(&["run", &program, "--random", "1"]).code, 3);

    fs::remove_file(&weights).unwrap();
    let error = fails(3, &["run", &program, "--random", "1"]);
    assert!(error.ends_with("do not exist; a program and its weights stay in one folder"), "{error}");

    fs::write(&weights, &whole).unwrap();
    let text = fs::read_to_string(&program).unwrap();
    fs::write(&program, text.replace("softmax(", "softmaxx(")).unwrap();
    let error = fails(3, &["run", &program, "--random", "1"]);
    assert!(error.contains("model.mil: not a valid program: ") && error.contains("softmaxx"), "{error}");
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = folder();
    let blocked = file(&folder, "file", "");
    let inside = format!("{blocked}/out");
    for args in [&["compile"][..], &["run", "--random", "1"]] {
        let error = fails(3, &[args, &[&sample("mlp"), "-o", &inside]].concat());
        assert!(error.starts_with(&format!("cannot make folder {inside}: ")), "{error}");
        assert_eq!(error.matches("(os error").count(), 1, "{error}");
    }
}

#[test]
fn a_target_s_limit_is_4() {
    let folder = folder();
    let text = "@0 : fp16[1, 6] = splat(0.5)\n%0 = input(feed=0) : fp16[1, 1, 2, 3]\n\
                %1 = const_array(index=0) : fp16[1, 6]\n\
                %2 = affine(%0, %1, output_h=2, output_w=3) : fp16[1, 1, 2, 3]\nreturn %2\n";
    let warp = file(&folder, "warp.ir", text);
    let error = fails(4, &["compile", &warp, "-o", &show(folder.path()), "--target", "h13"]);
    assert!(error.starts_with("affine: ") && error.ends_with(&format!("(at {warp}:4)")), "{error}");
    let error = fails(4, &["inspect", &warp, "--target", "h11"]);
    assert!(error.contains("h11") && error.contains("runs no MIL program"), "{error}");
    assert_eq!(run(&["inspect", &warp, "--target", "h14"]).code, 0);
}

/// Only where there is no engine.
#[test]
fn an_absent_device_is_5() {
    if std::env::consts::OS == "macos" {
        return;
    }
    for args in [&["demo"][..], &["run", "none.ir"]] {
        let error = fails(5, &[args, &["--device", "ane"]].concat());
        assert!(error.starts_with("device `ane` is not available: "), "{error}");
        assert!(error.ends_with("run on `host`"), "{error}");
    }
    let mut by_environment = command(&["demo"]);
    by_environment.env("ANEFORGE_DEVICE", "ane");
    assert_eq!(finish(by_environment).code, 5);
}

#[test]
fn errors_are_json_where_results_are() {
    let folder = folder();
    let wrong = file(&folder, "wrong.ir", "%0 = rilu()");
    let cases: [(&[&str], &str, i32, &str); 4] = [
        (&["inspect", &wrong], "file", 3, "wrong.ir: graph text, line 1: "),
        (&["run", &sample("mlp")], "caller", 3, "the program takes 1 input "),
        (
            &["inspect", &sample("mlp"), "--target", "h11"],
            "target",
            4,
            "program: target h11 is older than A13",
        ),
        (&["run"], "usage", 2, "the following required arguments were not provided:"),
    ];
    for (args, kind, code, message) in cases {
        let output = run(&[args, &["--json"]].concat());
        assert_eq!((output.code, output.out.as_str()), (code, ""), "{output:?}");
        assert_eq!(output.err.lines().count(), 1, "{output:?}");
        let value: serde_json::Value = serde_json::from_str(&output.err).unwrap();
        assert_eq!((&value["error"]["kind"], &value["error"]["code"]), (&kind.into(), &code.into()));
        assert!(value["error"]["message"].as_str().unwrap().contains(message), "{value}");
    }
    assert!(run(&["--help", "--json"]).out.contains("Exit codes:"));
}

#[test]
fn our_own_lines_are_not_named() {
    let folder = folder();
    let d = folder.path().join("d");
    let nodes = "%0 = input(feed=0) : fp16[1, 20000]\n%1 = relu(%0) : fp16[1, 20000]\nreturn %1\n";
    let wide = file(&folder, "wide.ir", nodes);
    text(&["compile", &wide, "-o", &show(&d), "--target", "h17s"]);
    let narrow = fails(4, &["run", &show(&d), "--random", "1", "--target", "h13"]);
    assert!(narrow.ends_with(&format!(" (at {wide}:1)")), "{narrow}");
    let mil = show(&d.join("model.mil"));
    let narrow = fails(4, &["run", &mil, "--random", "1", "--target", "h13"]);
    assert!(narrow.ends_with(&format!(" (at {mil})")), "{narrow}");
    let demo = fails(4, &["demo", "--target", "h11"]);
    assert!(demo.ends_with(" (at <demo>)"), "{demo}");
}

#[test]
fn a_tokenizer_that_panics_is_an_error_without_noise() {
    let folder = folder();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let tiny = root.join("tests/models/tiny-bert");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(tiny.join(name), folder.path().join(name)).unwrap();
    }
    let tokenizer = fs::read_to_string(tiny.join("tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NOWHERE]".into();
    file(&folder, "tokenizer.json", tokenizer.to_string());
    let error = fails(3, &["embed", "-m", &show(folder.path()), "x"]);
    let why = "tokenizer.json` is not a tokenizer that can be used: its template names the token `[NOWHERE]`, which it \
               does not define; download it again";
    assert!(error.ends_with(why), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn random_feeds_that_no_memory_holds_are_not_drawn() {
    let folder = folder();
    let dims = "fp16[65536, 65536, 65536]";
    let graph = format!("%0 = input(feed=0) : {dims}\n%1 = relu(%0) : {dims}\nreturn %1\n");
    let graph = file(&folder, "huge.ir", graph);
    let error = fails(3, &["run", &graph, "--random", "1"]);
    assert!(error.starts_with("the program needs 1125899906842624 bytes of memory"), "{error}");
    let output = run(&["run", &graph, "--random", "1", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&output.err).unwrap();
    assert_eq!((output.code, &value["error"]["code"]), (3, &3.into()));
}

#[test]
fn a_constant_that_no_memory_holds_is_an_error() {
    let folder = folder();
    let constant =
        format!("@0 : fp64[4096, 4096] = splat(1)\n%0 = input(feed=0) : fp16[2]\n{}", "return %0\n");
    let graph = file(&folder, "constant.ir", constant);
    let mut shell = std::process::Command::new("sh");
    shell.args([
        "-c",
        "ulimit -v 100000; exec \"$0\" inspect \"$1\"",
        env!("CARGO_BIN_EXE_aneforge"),
        &graph,
    ]);
    let output = crate::support::finish(shell);
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.err.contains("there is no memory for a constant of 134217728 bytes"), "{output:?}");
}
