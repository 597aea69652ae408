//! Compiled programs in one file.

use crate::support::{command, fails, file, finish, folder, json, sample, show, text};
use std::fs;
use std::process::Stdio;

/// A graph with a name, that is cut into three segments with `--native`.
const CUT: &str = "%0 = input(feed=0, name=\"image\") : fp16[1, 2, 3, 4]\n%1 = relu(%0) : fp16[1, 2, 3, 4]\n\
                   %2 = minmax_norm(%1) : fp16[1, 2, 3, 4]\n%3 = sigmoid(%2) : fp16[1, 2, 3, 4]\nreturn %3\n";

#[test]
fn one_file_runs_as_the_graph_does() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let cut = file(&folder, "cut.ir", CUT);
    for (graph, options) in
        [(sample("mlp"), &[][..]), (sample("convnet"), &["--target", "h13"]), (cut, &["--native"])]
    {
        let compiled = json(&[&["compile", &graph, "-o", &model], options].concat());
        assert_eq!(
            (&compiled["folders"], &compiled["report"]),
            (&serde_json::json!([]), &serde_json::Value::Null)
        );
        assert_eq!(compiled["files"][0]["bytes"], fs::metadata(&model).unwrap().len());
        let run = |program: &str, more: &[&str]| json(&[&["run", program, "--random", "3"], more].concat());
        let (want, got) = (run(&graph, options), run(&model, &[]));
        for key in ["outputs", "target", "numerics"] {
            assert_eq!(got[key], want[key], "{key} of {graph}");
        }
        // From a pipe it is copied.
        let mut piped = command(&["run", "-", "--random", "3", "--json"]);
        piped.stdin(Stdio::from(fs::File::open(&model).unwrap()));
        let piped = finish(piped);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&piped.out).unwrap()["outputs"],
            want["outputs"]
        );
        let inspected = json(&["inspect", &model]);
        assert_eq!(inspected["target"], compiled["target"]);
        assert_eq!(inspected["mil"], json(&[&["inspect", &graph], options].concat())["mil"]);
    }
    let shown = text(&["inspect", &model]);
    assert!(shown.contains("input 0 (image): fp16[1, 2, 3, 4]") && shown.contains("# segment 2"), "{shown}");
    assert!(shown.contains("it was compiled before; inspect the graph"), "{shown}");
}

#[test]
fn folders_keep_names_and_the_chip() {
    let folder = folder();
    let named = file(
        &folder,
        "named.ir",
        "%0 = input(feed=0, name=\"image\") : fp16[2]\n%1 = relu(%0) : fp16[2]\nreturn %1\n",
    );
    let d = show(&folder.path().join("d"));
    text(&["compile", &named, "-o", &d, "--target", "h13"]);
    assert!(text(&["inspect", &d]).contains("input 0 (image): fp16[2]"));
    let ran = |more: &[&str]| json(&[&["run", &d, "--random", "1"], more].concat());
    assert_eq!((ran(&[])["target"].as_str(), ran(&[])["numerics"].as_str()), (Some("h13"), Some("ane(A13)")));
    assert_eq!(ran(&["--target", "h16"])["target"], "h16");
    // Compiled again, for another chip, with its name.
    let again = show(&folder.path().join("again.aneforge"));
    text(&["compile", &d, "-o", &again, "--target", "h15"]);
    assert!(text(&["inspect", &again]).contains("plan for h15 (A15), 1 ops\n  input 0 (image)"));
}

#[test]
fn a_file_that_is_not_whole_is_refused_with_a_reason() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    text(&["compile", &sample("mlp"), "-o", &model]);
    let whole = fs::read(&model).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 3] ^= 4;
    for (damaged, why) in [
        (&whole[..whole.len() - 1], "it was cut off: "),
        (&whole[..30], "it was cut off: 30 bytes are there, and 64 were written"),
        (&flipped[..], "it was changed after it was written: its contents has checksum "),
        (&[whole.as_slice(), b"x"].concat()[..], "bytes are there, and "),
    ] {
        fs::write(&model, damaged).unwrap();
        for command in
            [&["run", &model, "--random", "1"][..], &["inspect", &model], &["compile", &model, "-o", "x"]]
        {
            let error = fails(3, command);
            assert!(error.starts_with(&format!("`{model}`: ")) && error.contains(why), "{error}");
        }
    }
    // A folder of that name stays a folder.
    fs::remove_file(&model).unwrap();
    fs::create_dir(&model).unwrap();
    text(&["compile", &sample("mlp"), "-o", &model]);
    assert!(folder.path().join("model.aneforge/model.mil").exists());
}

#[test]
fn a_file_is_replaced_as_a_whole_or_stays() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    text(&["compile", &sample("mlp"), "-o", &model]);
    let before = fs::read(&model).unwrap();
    let mut full = std::process::Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    full.args(["-c", script, env!("CARGO_BIN_EXE_aneforge"), "compile", &sample("convnet"), "-o", &model]);
    let output = finish(full);
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.err.starts_with(&format!("error: cannot write {model}: ")), "{output:?}");
    assert_eq!((fs::read(&model).unwrap(), fs::read_dir(folder.path()).unwrap().count()), (before, 1));
}
