//! Compiled programs as sets of files: replaced together, bound together, and told from what is not theirs.

use crate::support::{command, fails, file, finish, folder, json, run, sample, show, text};
use aneforge_tensor::{npy, random};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A graph that is cut into three segments with `--native`.
const CUT: &str = "%0 = input(feed=0) : fp16[1, 2, 3, 4]\n%1 = relu(%0) : fp16[1, 2, 3, 4]\n\
                   %2 = minmax_norm(%1) : fp16[1, 2, 3, 4]\n%3 = sigmoid(%2) : fp16[1, 2, 3, 4]\nreturn %3\n";

#[test]
fn encoded_weights_stay_so_from_text_to_a_folder_and_back() {
    let folder = folder();
    for (encoding, bytes) in [
        ("int8 1 -2 3 4 -5 6 7 8; 0.5 0.25", 64 + 64 + 8 + 64 + 4),
        ("lut4 16 50 84 118; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", 64 + 64 + 4 + 64 + 32),
        ("sparse 165; 1 2 3 4", 64 + 64 + 1 + 64 + 8),
        ("blockwise 1 -2 3 4 -5 6 7 8; 0.5 0.25 1 2", 64 + 64 + 8 + 64 + 8),
    ] {
        let source = format!(
            "@0 : fp16[2, 4] = {encoding}\n%0 = input(feed=0) : fp16[3, 4]\n%1 = const_array(index=0) : fp16[2, 4]\n\
             %2 = matmul(%0, %1) : fp16[3, 2]\nreturn %2\n"
        );
        let (graph, out) = (file(&folder, "graph.ir", source), show(&folder.path().join("compiled")));
        let name = encoding.split(' ').next().unwrap();
        run(&["compile", &graph, "-o", &out]);
        assert_eq!(fs::metadata(Path::new(&out).join("weights.bin")).unwrap().len(), bytes, "{name}");
        let shown = text(&["inspect", &out, "--show", "graph"]);
        assert!(shown.starts_with(&format!("@0 : fp16[2, 4] = {name} ")), "{shown}");
        let outputs = |program: &str| json(&["run", program, "--random", "1"])["outputs"].clone();
        assert_eq!(outputs(&graph), outputs(&out), "{name}");
    }
}

/// Every file below a folder, by its path there.
fn files(folder: &Path) -> Vec<String> {
    fn walk(at: &Path, into: &mut Vec<PathBuf>) {
        for item in fs::read_dir(at).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() { walk(&path, into) } else { into.push(path) }
        }
    }
    let mut all = Vec::new();
    walk(folder, &mut all);
    let mut names: Vec<String> = all.iter().map(|p| show(p.strip_prefix(folder).unwrap())).collect();
    names.sort();
    names
}

const SINGLE: [&str; 5] = ["aneforge.manifest", "model.mil", "plan.aneforge", "report.txt", "weights.bin"];

/// Takes the plan out of a set, as versions wrote them that kept none.
fn without_plan(folder: &str) {
    let path = format!("{folder}/aneforge.manifest");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text
        .split_inclusive('\n')
        .filter(|line| !line.ends_with(" plan.aneforge\n") && !line.starts_with("these "));
    let lines: String = lines.collect();
    fs::write(path, format!("{lines}these lines have checksum {:08x}\n", crc32(lines.as_bytes()))).unwrap();
    fs::remove_file(format!("{folder}/plan.aneforge")).unwrap();
}

fn outputs(program: &str) -> Value {
    json(&["run", program, "--random", "3"])["outputs"].clone()
}

/// The command in a shell that lets files grow to 512 bytes only; a full disk in small.
fn on_a_full_disk(trap: &str, args: &[&str]) -> Command {
    let script = format!("{trap} ulimit -f 1; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_aneforge")).args(args);
    shell.env("ANEFORGE_DEVICE", "host");
    shell
}

#[test]
fn the_segment_that_is_named_can_be_run() {
    let folder = folder();
    let d = show(&folder.path().join("program"));
    let compiled = |text_of: &str| {
        text(&["compile", &file(&folder, "cut.ir", text_of), "-o", &d]);
        without_plan(&d);
        fails(3, &["run", &d, "--random", "3"])
    };
    let sorted = "%0 = input(feed=0) : fp16[4, 8]\n%1 = sort(%0, descending=true) : fp16[4, 8]\n";
    let error = compiled(&format!("{sorted}%2 = relu(%1) : fp16[4, 8]\nreturn %2\n"));
    assert!(error.contains(&format!("such as `{d}/segment1`, or run the graph")), "{error}");
    assert_eq!(outputs(&format!("{d}/segment1"))[0]["shape"], serde_json::json!([4, 8]));
    let error = compiled(&format!("{sorted}%2 = sort(%1, descending=false) : fp16[4, 8]\nreturn %2\n"));
    let all = "holds native layers, which cannot be read back as graphs; run the graph that they were compiled from";
    assert_eq!(error, format!("`{d}` {all}"));
}

#[test]
fn a_folder_that_was_used_before_runs_the_new_program() {
    let folder = folder();
    let program = folder.path().join("program");
    let cut = file(&folder, "cut.ir", CUT);
    let d = show(&program);
    text(&["compile", &sample("mlp"), "-o", &d]);
    fs::write(program.join("notes.txt"), "mine").unwrap();
    assert_eq!(files(&program), [&SINGLE[..2], &["notes.txt"], &SINGLE[2..]].concat());
    let mlp = outputs(&d);

    let compiled = json(&["compile", &cut, "--native", "-o", &d]);
    let segments = ["segment0/model.mil", "segment0/weights.bin", "segment1/net.plist"];
    let more = ["segment1/weights.0", "segment2/model.mil", "segment2/weights.bin"];
    let own = ["aneforge.manifest", "notes.txt", "plan.aneforge", "report.txt"];
    assert_eq!(files(&program), [&own[..], &segments, &more].concat());
    let written = compiled["files"].as_array().unwrap();
    assert_eq!(written.len(), 8);
    for file in written {
        assert_eq!(fs::metadata(file["path"].as_str().unwrap()).unwrap().len(), file["bytes"], "{file}");
    }
    assert_eq!(outputs(&d), json(&["run", &cut, "--native", "--random", "3"])["outputs"]);
    without_plan(&d);
    let error = fails(3, &["run", &d, "--random", "3"]);
    let remedy = format!("such as `{d}/segment0`, or run the graph that it was compiled from");
    assert!(
        error.contains("several segments; name one that is no native layer, ") && error.ends_with(&remedy),
        "{error}"
    );
    assert_eq!(outputs(&format!("{d}/segment0"))[0]["shape"], serde_json::json!([1, 2, 3, 4]));
    let error = fails(3, &["run", &format!("{d}/segment1"), "--random", "3"]);
    assert!(error.contains("holds a native layer"), "{error}");

    fs::write(program.join("segment1/notes.txt"), "mine").unwrap();
    text(&["compile", &sample("mlp"), "-o", &d]);
    let kept =
        ["aneforge.manifest", "model.mil", "notes.txt", "plan.aneforge", "report.txt", "segment1/notes.txt"];
    assert_eq!(files(&program), [&kept[..], &["weights.bin"]].concat());
    assert!(!program.join("segment0").exists());
    assert_eq!(outputs(&d), mlp);
}

#[test]
fn every_file_that_is_reported_exists() {
    let folder = folder();
    let cut = file(&folder, "cut.ir", CUT);
    let out = text(&["compile", &cut, "--native", "-o", &show(&folder.path().join("d"))]);
    let wrote: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("wrote ")).collect();
    assert_eq!(wrote.len(), 8, "{out}");
    for line in wrote {
        let (path, bytes) = line.strip_suffix(" bytes").unwrap().rsplit_once(", ").unwrap();
        assert!(fs::metadata(path).is_ok(), "{path}");
        let size = fs::metadata(path).unwrap().len();
        assert_eq!(
            bytes.parse::<u64>().ok().filter(|_| size < 1000),
            (size < 1000).then_some(size),
            "{line}"
        );
    }
}

#[test]
fn weights_are_stored_in_the_form_that_is_asked_for() {
    let folder = folder();
    let d = show(&folder.path().join("d"));
    let full = json(&["compile", &sample("mlp"), "-o", &d]);
    assert_eq!(full["weights"], Value::Array(Vec::new()));
    let out = text(&["compile", &sample("mlp"), "-o", &d, "--compress", "INT8"]);
    assert!(out.contains(": int8, ") && out.contains(" bytes, error "), "{out}");
    let small = json(&["compile", &sample("mlp"), "-o", &d, "--compress", "int4", "--compress-atol", "0.5"]);
    let weights = small["weights"].as_array().unwrap();
    assert!(!weights.is_empty() && weights.iter().all(|weight| weight["encoding"] == "lut4"), "{small}");
    assert!(small["weight_bytes"].as_u64() < full["weight_bytes"].as_u64());
    text(&["run", &d, "--random", "1"]);
    for (given, why) in [
        (
            ["--compress", "int2"],
            "no form of weights has this name; choose from int8, int4, sparse, blockwise, auto",
        ),
        (["--compress-atol", "x"], "a number from 0 on is needed"),
        (["--compress-atol", "nan"], "a number from 0 on is needed"),
        (["--block-size", "0"], "a number of columns from 1 on is needed"),
    ] {
        let error = fails(2, &["compile", &sample("mlp"), "-o", &d, given[0], given[1]]);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn weights_are_calibrated_with_files() {
    let folder = folder();
    let d = show(&folder.path().join("d"));
    let full = json(&["compile", &sample("mlp"), "-o", &d]);
    let dims: Vec<usize> =
        full["inputs"][0]["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let shape = aneforge::Shape::new(&dims).unwrap();
    // 64 rows, as many as the wider layer has columns.
    let inputs: Vec<String> = (0..16)
        .map(|i| {
            let input = show(&folder.path().join(format!("{i}.npy")));
            npy::write(&random::normal_tensor(i, shape, 1.0), fs::File::create(&input).unwrap()).unwrap();
            input
        })
        .collect();
    let given: Vec<&str> = inputs.iter().flat_map(|input| ["--calibrate", input]).collect();
    let compress = ["compile", &sample("mlp"), "-o", &d, "--compress", "int4", "--compress-atol", "1"];
    let small = json(&[&compress[..], &given].concat());
    let weights = small["weights"].as_array().unwrap();
    assert!(
        !weights.is_empty() && weights.iter().all(|w| w["calibrated"].as_f64().unwrap() > 0.0),
        "{small}"
    );
    let out = text(&[&compress[..], &given].concat());
    assert!(out.contains(", calibrated to "), "{out}");
    let few = text(&[&compress[..], &given[..2]].concat());
    assert!(few.contains("only 4 rows"), "{few}");
    assert!(json(&compress)["weights"][0]["calibrated"].is_null());
    let error = fails(2, &["compile", &sample("mlp"), "-o", &d, "--calibrate", &inputs[0]]);
    assert!(error.contains("--compress <FORM>"), "{error}");
    let wrong = aneforge::Shape::new(&[1, 2]).unwrap();
    npy::write(&random::normal_tensor(4, wrong, 1.0), fs::File::create(&inputs[0]).unwrap()).unwrap();
    let error = fails(3, &[&compress[..], &given].concat());
    assert!(error.contains("0.npy has shape [1, 2], and the input ["), "{error}");
}

#[test]
fn a_compile_that_fails_leaves_what_was_there() {
    let folder = folder();
    let program = folder.path().join("program");
    let d = show(&program);
    text(&["compile", &sample("mlp"), "-o", &d]);
    let (before, names) = (outputs(&d), files(&program));

    let output = finish(on_a_full_disk("trap '' XFSZ;", &["compile", &sample("convnet"), "-o", &d]));
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.err.starts_with(&format!("error: cannot write {d}/model.mil: ")), "{output:?}");
    assert_eq!((outputs(&d), files(&program)), (before.clone(), names));

    let killed = on_a_full_disk("", &["compile", &sample("convnet"), "-o", &d]).output().unwrap();
    assert_eq!(killed.status.code(), None, "a signal ended it");
    assert_eq!(outputs(&d), before);

    let fresh = folder.path().join("fresh");
    let output =
        finish(on_a_full_disk("trap '' XFSZ;", &["compile", &sample("convnet"), "-o", &show(&fresh)]));
    assert_eq!((output.code, fresh.exists()), (3, false));
}

#[test]
fn a_compile_that_was_killed_while_moving_files_is_whole() {
    let folder = folder();
    let program = folder.path().join("program");
    let d = show(&program);
    text(&["compile", &sample("mlp"), "-o", &d]);
    let mlp = outputs(&d);
    let old = fs::read(program.join("model.mil")).unwrap();
    text(&["compile", &sample("convnet"), "-o", &d]);
    let convnet = outputs(&d);
    assert_ne!(mlp, convnet);

    let manifest = fs::read_to_string(program.join("aneforge.manifest")).unwrap();
    let aside = manifest.lines().next().unwrap().rsplit_once(' ').unwrap().1;
    fs::create_dir(program.join(aside)).unwrap();
    fs::rename(program.join("model.mil"), program.join(aside).join("model.mil")).unwrap();
    fs::write(program.join("model.mil"), old).unwrap();
    assert_eq!((outputs(&d), outputs(&format!("{d}/model.mil"))), (convnet.clone(), convnet));
}

#[test]
fn a_file_that_was_changed_is_noticed() {
    let folder = folder();
    let program = folder.path().join("program");
    let d = show(&program);
    text(&["compile", &sample("mlp"), "-o", &d]);
    for name in SINGLE {
        let path = program.join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut middle = whole.clone();
        middle[whole.len() / 2] ^= 0x10;
        for damaged in
            [&flipped, &middle, &whole[..whole.len() - 1], &[whole.as_slice(), b"x"].concat()[..], &[]]
        {
            fs::write(&path, damaged).unwrap();
            for path in [&d, &format!("{d}/model.mil")] {
                let error = fails(3, &["run", path, "--random", "3"]);
                assert!(error.starts_with(&format!("`{d}/{name}` ")), "{error}");
                assert!(error.ends_with("; compile the program again"), "{error}");
            }
        }
        fs::remove_file(&path).unwrap();
        let error = fails(3, &["run", &d, "--random", "3"]);
        assert!(error.contains(name), "{error}");
        fs::write(&path, whole).unwrap();
    }
    outputs(&d);
}

#[test]
fn files_of_two_programs_do_not_mix() {
    let folder = folder();
    let place = |name: &str| show(&folder.path().join(name));
    let (a, b) = (place("a"), place("b"));
    let graph = |slope: &str| {
        format!(
            "@0 : fp16[4] = splat({slope})\n%0 = input(feed=0) : fp16[4]\n%1 = const_array(index=0) : fp16[4]\n%2 = mul(%0, %1) : fp16[4]\nreturn %2\n"
        )
    };
    text(&["compile", &file(&folder, "a.ir", graph("2.0")), "-o", &a]);
    text(&["compile", &file(&folder, "b.ir", graph("3.0")), "-o", &b]);
    fs::copy(format!("{b}/weights.bin"), format!("{a}/weights.bin")).unwrap();
    let error = fails(3, &["run", &a, "--random", "3"]);
    assert!(error.contains("a/weights.bin` was changed after it was compiled"), "{error}");
}

#[test]
fn files_of_others_are_not_replaced() {
    let folder = folder();
    let d = show(folder.path());
    for name in ["model.mil", "weights.bin", "report.txt"] {
        let path = file(&folder, name, "mine");
        let error = fails(3, &["compile", &sample("mlp"), "-o", &d]);
        assert_eq!(
            error,
            format!(
                "`{path}` is there and was not written by a compile; move it away, or name another folder"
            )
        );
        assert_eq!((fs::read_to_string(&path).unwrap(), files(folder.path()).len()), ("mine".into(), 1));
        fs::remove_file(path).unwrap();
    }
    let blocked = folder.path().join("weights.bin");
    text(&["compile", &sample("mlp"), "-o", &d]);
    fs::remove_file(&blocked).unwrap();
    fs::create_dir(&blocked).unwrap();
    assert!(fails(3, &["compile", &sample("mlp"), "-o", &d]).contains("weights.bin` is there"));
}

#[test]
fn a_manifest_reaches_nothing_outside() {
    let folder = folder();
    let outside = file(&folder, "outside.txt", "mine");
    let program = folder.path().join("program");
    let d = show(&program);
    for name in ["../outside.txt", "/etc/hostname", "segment0/../../outside.txt", "notes.txt"] {
        fs::create_dir_all(&program).unwrap();
        let lines = format!("aneforge set 1, written in .aneforge-1-0\n00000000 4 {name}\n");
        let sum = crc32(lines.as_bytes());
        fs::write(program.join("aneforge.manifest"), format!("{lines}these lines have checksum {sum:08x}\n"))
            .unwrap();
        let error = fails(3, &["run", &d, "--random", "3"]);
        assert!(error.ends_with("(a line is no file of a program); compile the program again"), "{error}");
        text(&["compile", &sample("mlp"), "-o", &d]);
        assert!(Path::new(&outside).exists());
        fs::remove_dir_all(&program).unwrap();
    }
}

/// CRC-32, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[test]
fn programs_are_found_from_within() {
    let folder = folder();
    let cut = file(&folder, "cut.ir", CUT);
    let d = folder.path().join("d");
    text(&["compile", &cut, "--native", "-o", &show(&d)]);
    for (inside, path) in
        [("segment0", "."), ("segment0", "model.mil"), (".", "segment0"), ("segment1", "../segment0")]
    {
        let mut within = command(&["run", path, "--random", "3"]);
        within.current_dir(d.join(inside));
        assert_eq!(finish(within).code, 0, "{path} in {inside}");
    }
    fs::write(d.join("segment0/weights.bin"), "").unwrap();
    assert_eq!(run(&["run", &show(&d.join("segment0")), "--random", "3"]).code, 3);
}

#[test]
fn files_keep_their_modes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let d = show(folder.path());
    text(&["compile", &sample("mlp"), "-o", &d]);
    let modes = [0o600, 0o640, 0o644, 0o664, 0o666];
    for (name, mode) in SINGLE.iter().zip(modes) {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    text(&["compile", &sample("convnet"), "-o", &d]);
    for (name, mode) in SINGLE.iter().zip(modes) {
        let now = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(now & 0o777, mode, "{name}");
    }
}

#[test]
fn of_several_compiles_at_once_one_wins_whole() {
    let folder = folder();
    let d = show(&folder.path().join("program"));
    for _ in 0..3 {
        let graphs = ["convnet", "attention", "mlp"].iter().cycle().take(12);
        let compile = |graph: &&str| {
            let mut command = command(&["compile", "-q", &sample(graph), "-o", &d]);
            command.stdout(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = graphs.map(compile).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        text(&["run", &d, "--random", "1"]);
        fs::remove_dir_all(&d).unwrap();
    }
}

#[test]
fn a_reader_beside_a_writer_finds_one_set_or_the_other() {
    let folder = folder();
    let d = show(&folder.path().join("program"));
    text(&["compile", &sample("convnet"), "-o", &d]);
    let (place, graphs) = (d.clone(), ["attention", "convnet"].map(sample));
    let writer = std::thread::spawn(move || {
        for graph in graphs.iter().cycle().take(30) {
            text(&["compile", "-q", graph, "-o", &place]);
        }
    });
    while !writer.is_finished() {
        text(&["run", &d, "--random", "1"]);
    }
    writer.join().unwrap();
}

#[test]
fn a_change_that_keeps_the_length_is_said_to_be_one() {
    let folder = folder();
    let d = show(folder.path());
    text(&["compile", &sample("mlp"), "-o", &d]);
    let path = folder.path().join("report.txt");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = fails(3, &["run", &d, "--random", "1"]);
    let want = format!("its {} bytes are not those that `aneforge.manifest` describes", bytes.len());
    assert!(error.contains(&want), "{error}");
}

#[test]
fn what_is_no_file_is_neither_waited_for_nor_replaced() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let d = show(folder.path());
    text(&["compile", &sample("mlp"), "-o", &d]);
    for name in SINGLE {
        fs::rename(at(name), at("aside")).unwrap();
        assert!(Command::new("mkfifo").arg(at(name)).status().unwrap().success());
        for program in [d.clone(), show(&at("model.mil"))] {
            let error = fails(3, &["run", &program, "--random", "1"]);
            assert!(error.contains(&format!("{name}` is a pipe, a device or a socket")), "{name}: {error}");
        }
        let error = fails(3, &["compile", &sample("mlp"), "-o", &d]);
        assert!(
            error.starts_with(&format!("`{d}/{name}` is there and was not written by a compile")),
            "{error}"
        );
        fs::rename(at("aside"), at(name)).unwrap();
    }
    fs::remove_file(at("aneforge.manifest")).unwrap();
    fs::remove_file(at("weights.bin")).unwrap();
    assert!(Command::new("mkfifo").arg(at("weights.bin")).status().unwrap().success());
    let error = fails(3, &["run", &show(&at("model.mil")), "--random", "1"]);
    assert!(error.contains("weights.bin` is a pipe, a device or a socket"), "{error}");
}
