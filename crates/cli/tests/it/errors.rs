//! What each command says, and the code it ends with, when something is wrong.

use crate::support::{command, fails, file, finish, folder, run, sample, show, text};
use aneforge_tensor::{Tensor, npy};
use std::fs;

const RELU: &str = "%0 = input(feed=0) : fp16[2, 3]\n%1 = relu(%0) : fp16[2, 3]\nreturn %1\n";

#[test]
fn a_wrong_command_line_is_2() {
    let target = run(&["devices", "--target", "m5"]);
    assert_eq!(target.code, 2);
    assert!(target.err.contains("unknown target `m5`; known are h11 h12 "), "{}", target.err);
    let device = run(&["devices", "--device", "gpu"]);
    assert_eq!(device.code, 2);
    assert!(device.err.contains("[possible values: host, ane]"), "{}", device.err);
    for args in [&["no-such"][..], &[], &["run"], &["devices", "--threads", "0"], &["devices", "-v", "-q"]] {
        assert_eq!(run(args).code, 2, "{args:?}");
    }
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
        format!("`{empty}` holds no model.mil; `aneforge compile GRAPH.ir -o {empty}` writes one")
    );
}

#[test]
fn wrong_text_names_its_line() {
    let folder = folder();
    let path =
        file(&folder, "wrong.ir", "# a comment\n%0 = input(feed=0) : fp16[2]\n%1 = rilu(%0) : fp16[2]\n");
    assert_eq!(fails(3, &["inspect", &path]), format!("{path}: graph text, line 3: there is no op `rilu`"));
    let path = file(&folder, "bytes.ir", b"return \xff");
    assert_eq!(
        fails(3, &["inspect", &path]),
        format!("`{path}` is not text from byte 7 on; name a graph (.ir) or a program (.mil)")
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
    let weights = format!("{program}/weights.bin");
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
    let mil = format!("{program}/model.mil");
    let text = fs::read_to_string(&mil).unwrap();
    fs::write(&mil, text.replace("softmax(", "softmaxx(")).unwrap();
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
    assert!(error.starts_with("affine: ") && error.ends_with("(at <graph text>:4)"), "{error}");
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
