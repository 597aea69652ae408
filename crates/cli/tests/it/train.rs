//! Training on examples of the user's own: what is learned runs, what is interrupted goes on, what is wrong is named.

use crate::support::{command, fails, file, folder, json, keys, run, show, text};
use aneforge_tensor::{Shape, Tensor, npy, random};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// Rows of two features on different scales, and what `label` makes of them, both from -1 to 1.
fn table(rows: u64, header: &str, label: impl Fn(f32, f32) -> String) -> String {
    let mut out = header.to_owned();
    for row in 0..rows {
        let [a, b] = [0, 1].map(|at| 2.0 * random::uniform(9, 2 * row + at) - 1.0);
        let _ = writeln!(out, "{},{},{}", 300.0 + 40.0 * a, 0.02 * b, label(a, b));
    }
    out
}

fn third(a: f32, _: f32) -> String {
    let names = ["a plum", "\"pear, \"\"green\"\"\"", "apple"];
    names[((a + 1.0) * 1.49) as usize].into()
}

/// What the program in `model` answers to one example.
fn answer(folder: &tempfile::TempDir, model: &str, dims: &[usize], values: &[f32]) -> Vec<f32> {
    let (input, output) = (show(&folder.path().join("x.npy")), show(&folder.path().join("out")));
    let tensor = Tensor::from_slice(Shape::new(dims).unwrap(), values).unwrap();
    npy::write(&tensor, &mut fs::File::create(&input).unwrap()).unwrap();
    let ran = json(&["run", model, "--input", &input, "-o", &output]);
    let written = fs::read(ran["outputs"][0]["file"].as_str().unwrap()).unwrap();
    npy::read(&aneforge_tensor::Bytes::new(written)).unwrap().to_f32()
}

/// Trains, and returns what is said and the program's name.
fn train(folder: &tempfile::TempDir, data: &str, more: &[&str]) -> (Value, String) {
    let model = show(&folder.path().join("model.aneforge"));
    let args = ["train", data, "-o", &model, "--batch", "16", "--hidden", "16"];
    (json(&[&args, more].concat()), model)
}

#[test]
fn two_classes_are_learned_and_the_program_runs_on_rows_as_they_are() {
    let folder = folder();
    let label = |a: f32, b: f32| u8::from(a > b).to_string();
    let data = file(&folder, "two.csv", table(200, "", label));
    let (value, model) = train(&folder, &data, &["--epochs", "12", "--lr", "0.02"]);
    assert_eq!(keys(&value), ["data", "device", "held_out", "labels", "network", "output", "training"]);
    let rows = &value["data"];
    assert_eq!(
        (&rows["examples"], &rows["trained"], &rows["held_out"]),
        (&200.into(), &160.into(), &40.into())
    );
    assert_eq!(rows["classes"], serde_json::json!(["0", "1"]));
    assert!(value["held_out"].as_f64().unwrap() >= 0.9, "{value}");
    let curve = value["training"]["curve"].as_array().unwrap();
    assert_eq!((curve.len(), &curve[11]["step"]), (12, &120.into()));
    for (row, class) in [([335.0, -0.015], 1), ([265.0, 0.015], 0)] {
        let answer = answer(&folder, &model, &[1, 2], &row);
        assert!(answer[class] > 0.9 && (answer[0] + answer[1] - 1.0).abs() < 0.01, "{answer:?}");
    }
}

#[test]
fn words_are_classes_in_their_order_and_a_header_names_the_column() {
    let folder = folder();
    let rows = table(150, "", third);
    // The label comes first.
    let turned: String = rows
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.splitn(3, ',').collect();
            format!("{},{},{}\n", cells[2], cells[0], cells[1])
        })
        .collect();
    let data = file(&folder, "three.csv", format!("fruit,width,weight\n{turned}"));
    let more = ["--label", "fruit", "--epochs", "20", "--lr", "0.02", "--optimizer", "adamw"];
    let (value, model) = train(&folder, &data, &more);
    let names = serde_json::json!(["a plum", "apple", "pear, \"green\""]);
    assert_eq!(value["data"]["classes"], names);
    assert!(value["held_out"].as_f64().unwrap() >= 0.8, "{value}");
    let labels: Value = serde_json::from_slice(&fs::read(format!("{model}.labels.json")).unwrap()).unwrap();
    assert_eq!((&labels["labels"], &labels["features"]), (&names, &serde_json::json!(["width", "weight"])));
    assert!(answer(&folder, &model, &[1, 2], &[335.0, 0.0])[1] > 0.9, "an apple is wide");
}

#[test]
fn numbers_are_learned_in_their_unit_and_shown_as_a_table_and_a_picture() {
    let folder = folder();
    let label = |a: f32, b: f32| (500.0 + 100.0 * a - 50.0 * b).to_string();
    let data = file(&folder, "numbers.csv", table(200, "width,weight,price\n", label));
    let (log, curve) = (show(&folder.path().join("log.csv")), show(&folder.path().join("curve.svg")));
    let board = show(&folder.path().join("board"));
    let more = ["--regression", "--epochs", "20", "--lr", "0.02", "--log", &log, "--curve", &curve];
    let more = [&more[..], &["--tensorboard", &board]].concat();
    let (value, model) = train(&folder, &data, &more);
    assert_eq!((&value["data"]["classes"], &value["labels"]), (&Value::Null, &Value::Null));
    // The deviation of the price is 65.
    assert!(value["held_out"].as_f64().unwrap() < 10.0, "{value}");
    let answer = answer(&folder, &model, &[1, 2], &[320.0, 0.01]);
    assert!((answer[0] - 525.0).abs() < 15.0, "{answer:?}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.starts_with("epoch,step,loss,error,lr,steps_per_second,void\n1,10,"), "{log}");
    assert_eq!(log.lines().count(), 21);
    let events: Vec<_> = fs::read_dir(board).unwrap().map(|entry| entry.unwrap().path()).collect();
    let events = fs::read(&events[0]).unwrap();
    for tag in ["train/loss", "train/lr", "train/steps_per_second", "train/void", "held_out/error"] {
        let found = events.windows(tag.len()).filter(|part| *part == tag.as_bytes()).count();
        assert_eq!(found, 20, "{tag}");
    }
    let svg = fs::read_to_string(curve).unwrap();
    assert!(svg.contains("numbers.csv: loss and error</title>"), "{svg}");
    assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 40), "{svg}");
    assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("NaN"), "{svg}");
}

/// Folders of images with a bright top or a bright left half, in three formats.
fn images(folder: &tempfile::TempDir, each: u32) -> String {
    for (class, top) in [("left", false), ("top", true)] {
        let path = folder.path().join("images").join(class);
        fs::create_dir_all(&path).unwrap();
        for number in 0..each {
            let noise = |x: u32, y: u32| 60.0 * random::uniform(u64::from(number), u64::from(20 * y + x));
            let image = image::RgbImage::from_fn(20, 20, |x, y| {
                let bright = if top { y < 10 } else { x < 10 };
                image::Rgb([(noise(x, y) + if bright { 190.0 } else { 0.0 }) as u8; 3])
            });
            let ending = ["png", "jpg", "BMP"][number as usize % 3];
            image.save(path.join(format!("{number}.{ending}"))).unwrap();
        }
    }
    show(&folder.path().join("images"))
}

#[test]
fn folders_of_images_are_classes() {
    let folder = folder();
    let data = images(&folder, 12);
    let more = ["--size", "8", "--epochs", "6", "--batch", "8", "--lr", "0.01"];
    for (more, channels) in [(&more[..], 3), (&[&more[..], &["--grey", "--network", "mlp"]].concat(), 1)] {
        let model = show(&folder.path().join("model.aneforge"));
        let args = ["train", &data, "-o", &model, "--hidden", "16"];
        let value = json(&[&args, more].concat());
        assert_eq!(value["data"]["shape"], serde_json::json!([channels, 8, 8]));
        assert_eq!(
            (&value["data"]["classes"], &value["held_out"]),
            (&serde_json::json!(["left", "top"]), &1.0.into())
        );
        let top: Vec<f32> = (0..channels * 64).map(|at| if at % 64 < 32 { 220.0 } else { 30.0 }).collect();
        assert!(answer(&folder, &model, &[1, channels, 8, 8], &top)[1] > 0.8, "{value}");
    }
}

#[test]
fn a_training_goes_on_bit_for_bit() {
    let folder = folder();
    let data = file(&folder, "three.csv", table(90, "", third));
    let at = |name: &str| show(&folder.path().join(name));
    for weights in ["half", "paired", "masters"] {
        let go = |model: &str, more: &[&str]| {
            let args = [
                "train",
                &data,
                "-o",
                model,
                "--hidden",
                "8",
                "--batch",
                "16",
                "--weights",
                weights,
                "--seed",
                "3",
            ];
            json(&[&args, more].concat())
        };
        let (whole, parts, kept) = (at("whole.aneforge"), at("parts.aneforge"), at("kept.safetensors"));
        let once = go(&whole, &["--epochs", "4"]);
        go(&parts, &["--epochs", "2", "--checkpoint", &kept]);
        assert_ne!(fs::read(&whole).unwrap(), fs::read(&parts).unwrap(), "two more epochs change weights");
        let twice = go(&parts, &["--epochs", "4", "--checkpoint", &kept, "--resume"]);
        assert_eq!(fs::read(&whole).unwrap(), fs::read(&parts).unwrap(), "{weights}");
        let losses = |value: &Value| -> Vec<Value> {
            value["training"]["curve"].as_array().unwrap().iter().map(|row| row["loss"].clone()).collect()
        };
        assert_eq!(losses(&once), losses(&twice), "{weights}");
        let resume = ["-o", &parts, "--batch", "16", "--weights", weights, "--checkpoint", &kept, "--resume"];
        let other = fails(3, &[&["train", &data][..], &resume, &["--hidden", "8"]].concat());
        assert!(
            other.contains("kept.safetensors: is of other data or options: it has batch 16, seed 3"),
            "{other}"
        );
        let wide = fails(3, &[&["train", &data][..], &resume, &["--seed", "3", "--hidden", "9"]].concat());
        assert!(wide.contains("another network or of other options"), "{wide}");
        let back = fails(
            3,
            &[&["train", &data][..], &resume, &["--seed", "3", "--hidden", "8", "--epochs", "3"]].concat(),
        );
        assert!(back.ends_with("has 4 epochs, and `--epochs` asks for 3"), "{back}");
    }
}

#[test]
fn a_training_that_is_killed_goes_on_from_its_last_epoch() {
    let folder = folder();
    let data = file(&folder, "three.csv", table(90, "", third));
    let at = |name: &str| show(&folder.path().join(name));
    let (whole, killed, kept) = (at("whole.aneforge"), at("killed.aneforge"), at("kept.safetensors"));
    let args = |model| ["train", &data, "-o", model, "--hidden", "8", "--batch", "16", "--epochs", "60"];
    json(&args(&whole));
    let mut command = command(&[&args(&killed)[..], &["--checkpoint", &kept]].concat());
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while !fs::exists(&kept).unwrap() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let value = json(&[&args(&killed)[..], &["--checkpoint", &kept, "--resume"]].concat());
    assert_eq!(value["training"]["curve"].as_array().unwrap().len(), 60);
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&killed).unwrap());
}

#[test]
fn faults_of_a_table_are_named_with_their_line() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let rows = "1,2,a\n3,4,b\n5,6,a\n7,8,b\n";
    let cases: [(&str, &[&str], &str); 17] = [
        ("", &[], "t.csv: has no rows"),
        ("a,b,c\n", &[], "t.csv: has names of columns and no rows"),
        ("1\n2\n", &[], "t.csv:1: has one column; a table needs features and a label, parted by commas"),
        ("1,2,a\n\n3,b\n", &[], "t.csv:3: has 2 cells, and the first row 3"),
        ("1,2,a\n3,four,b\n", &[], "t.csv:2: `column 2` is `four`, which is no number"),
        ("w,h,c\n1,2,a\n3,,b\n", &[], "t.csv:3: `h` is empty; fill it, or leave the row out"),
        ("w,h,c\n1,NaN,a\n3,2,b\n", &[], "t.csv:2: `h` is NaN; fill it, or leave the row out"),
        ("w,h,c\n1,2,a\ninf,2,b\n", &[], "t.csv:3: `w` is inf; fill it, or leave the row out"),
        (
            "1,2,a\n3,70000,b\n",
            &[],
            "t.csv:2: `column 2` is 70000, beyond half precision (65504); use a larger unit",
        ),
        ("1,2,a\n3,4,\n", &[], "t.csv:2: `column 3` is empty; fill it, or leave the row out"),
        ("1,2,a\n3,\"4,b\n", &[], "t.csv:2: a quote is opened and not closed"),
        ("1,2,a\n3,4,a\n", &[], "t.csv: `column 3` is always `a`; there is nothing to tell apart"),
        ("w,h,c\n1,2,a\n", &["--label", "d"], "t.csv: has no column `d`; its columns are w, h, c"),
        (rows, &["--regression"], "t.csv:1: `column 3` is `a`, which is no number"),
        ("900,2,a\n900.1,4,b\n", &[], "use a smaller unit"),
        ("1,1e-7,a\n2,2e-7,b\n", &[], "use a smaller unit"),
        (rows, &["--batch", "5"], "4 examples to train on fill no batch of 5; use a smaller `--batch`"),
    ];
    for (contents, more, want) in cases {
        let data = file(&folder, "t.csv", contents);
        let message = fails(3, &[&["train", &data, "-o", &model, "--held-out", "0"][..], more].concat());
        assert!(message.ends_with(want), "{message}, not {want}");
    }
    let data = file(&folder, "t.csv", b"1,2,a\n3,4,\xff\n");
    assert!(fails(3, &["train", &data, "-o", &model]).contains("t.csv:2: is no UTF-8 text"));
    let many: String = (0..60).map(|i| format!("1,2,{i}.5\n")).collect();
    let data = file(&folder, "t.csv", many);
    assert!(fails(3, &["train", &data, "-o", &model]).ends_with("for a number, say `--regression`"));
    let data = file(&folder, "t.csv", rows);
    assert!(
        fails(3, &["train", &data, "-o", &model]).contains("4 examples are too few to hold 0.2 of them out")
    );
    for (more, want) in [
        (&["--network", "cnn"][..], "`--network cnn` is for images, and DATA is a table"),
        (&["--held-out", "1"], "`--held-out` must be at least 0 and less than 1, got 1"),
        (&["--resume"], "--checkpoint <FILE>"),
    ] {
        let message = fails(2, &[&["train", &data, "-o", &model][..], more].concat());
        assert!(message.contains(want), "{message}");
    }
    assert!(
        fails(3, &["train", &data, "-o", &model, "--lr", "-1"])
            .contains("lr must be from 0 to 10000, got -1")
    );
    assert!(fails(3, &["train", "none.csv", "-o", &model]).contains("none.csv"));
    for option in ["--checkpoint", "--log", "--curve"] {
        let message = fails(3, &["train", &data, "-o", &model, option, "/none/x"]);
        assert_eq!(message, "cannot write /none/x: there is no folder /none");
    }
    assert!(!fs::exists(&model).unwrap(), "nothing is written of what failed");
}

#[test]
fn faults_of_a_folder_are_named_with_their_file() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let train = |data: &str| fails(3, &["train", data, "-o", &model, "--size", "8"]);
    let data = images(&folder, 3);
    assert!(
        train(&format!("{data}/top"))
            .ends_with("top: has 0 folders; there must be one for each of two classes or more")
    );
    let at = |name: &str| folder.path().join("images").join(name);
    fs::create_dir(at("none")).unwrap();
    assert!(
        train(&data)
            .ends_with("none: has no images; put some there (png, jpg, jpeg, webp, bmp), or remove it")
    );
    fs::remove_dir(at("none")).unwrap();
    fs::write(at("top/torn.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let torn = train(&data);
    assert!(torn.contains("top/torn.png: cannot be read as an image: "), "{torn}");
    let label = fails(2, &["train", &data, "-o", &model, "--regression"]);
    assert!(label.contains("are for tables, and DATA is a folder"), "{label}");
}

#[test]
fn people_see_how_it_goes_and_what_came_of_it() {
    let folder = folder();
    let data = file(&folder, "three.csv", table(60, "", third));
    let model = show(&folder.path().join("model.aneforge"));
    let args = ["train", &data, "-o", &model, "--hidden", "8", "--batch", "16", "--epochs", "3"];
    let output = run(&args);
    let lines: Vec<&str> = output.err.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("step 3 of 9  epoch 1  loss "), "{output:?}");
    assert!(lines[2].contains("  accuracy ") && lines[2].ends_with(" steps/s"), "{output:?}");
    for part in [
        "  examples   48 trained on, 12 held out\n",
        "  loss       ",
        "  accuracy   ",
        "  trained    9 steps in ",
    ] {
        assert!(output.out.contains(part), "{part} in {output:?}");
    }
    assert!(!output.out.contains("void") && !output.err.contains("void"), "{output:?}");
    assert!(text(&[&args[..], &["-q"]].concat()).contains("model.aneforge.labels.json"));
}

#[test]
fn steps_that_were_void_are_counted_and_told_and_a_loss_without_end_is_gone_on_with() {
    let folder = folder();
    let data = file(&folder, "numbers.csv", table(80, "", |a, b| (a - b).to_string()));
    let at = |name: &str| show(&folder.path().join(name));
    let (model, kept, log) = (at("model.aneforge"), at("kept.safetensors"), at("log.csv"));
    // The rate is far too large.
    let args = ["train", &data, "-o", &model, "--regression", "--batch", "16", "--lr", "1000"];
    let more = ["--optimizer", "sgd", "--checkpoint", &kept, "--log", &log];
    let go = |epochs: &[&str]| run(&[&args[..], &more, epochs].concat());
    let run = go(&["--epochs", "4"]);
    let count = |line: &str| -> u64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "void").unwrap();
        words[at - 1].parse().unwrap()
    };
    // Four steps in each epoch.
    let lines: Vec<u64> = run.err.lines().filter(|line| line.contains("  epoch ")).map(count).collect();
    let sum: u64 = lines.iter().sum();
    assert!(lines.len() == 4 && lines[3] == 4 && (8..16).contains(&sum), "{run:?}");
    let told =
        format!("  void       {sum} of 16 steps, which changed nothing, the last as the gradients of `");
    assert!(run.out.contains(&told) && run.out.contains("  loss       "), "{run:?}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().last().unwrap().ends_with(",4") && text.contains(",inf,"), "{text}");

    // JSON has no infinities, and the rows of a checkpoint are JSON.
    let value = go(&["--epochs", "5", "--resume", "--json"]);
    let value: Value = serde_json::from_str(&value.out).unwrap();
    assert_eq!(value["training"]["void"], sum + 4);
    let curve = value["training"]["curve"].as_array().unwrap();
    assert_eq!((curve.len(), &curve[3]["void"], &curve[3]["loss"]), (5, &4.into(), &Value::Null));
}

#[test]
fn places_that_are_folders_or_taken_are_told_before_anything_is_learned() {
    let folder = folder();
    let rows = table(60, "", third);
    let data = file(&folder, "three.csv", &rows);
    let at = |name: &str| show(&folder.path().join(name));
    let (model, here) = (at("m.aneforge"), show(folder.path()));
    let labels = format!("{model}.labels.json");
    std::os::unix::fs::symlink(&data, at("link.csv")).unwrap();
    let round = at("../") + folder.path().file_name().unwrap().to_str().unwrap() + "/m.aneforge";
    let cases: [(&[&str], String); 9] = [
        (&["-o", &here], format!("cannot write {here}: it is a folder; name a file in it")),
        (&["-o", &model, "--log", &here], format!("cannot write {here}: it is a folder; name a file in it")),
        (&["-o", &model, "--checkpoint", &here], "it is a folder; name a file in it".into()),
        (&["-o", &data], format!("DATA and --output are both {data}; name another file")),
        (&["-o", &model, "--curve", &data], format!("DATA and --curve are both {data}; name another file")),
        (&["-o", &model, "--log", &at("link.csv")], format!("DATA and --log are both {}", at("link.csv"))),
        (&["-o", &model, "--checkpoint", &model], format!("--output and --checkpoint are both {model}")),
        (&["-o", &model, "--log", &round], format!("--output and --log are both {round}")),
        (&["-o", &model, "--log", &labels], "the names of classes and --log are both ".into()),
    ];
    for (more, want) in cases {
        let message = fails(3, &[&["train", &data][..], more].concat());
        assert!(message.contains(&want), "{message}, not {want}");
        assert_eq!(fs::read_to_string(&data).unwrap(), rows);
        assert!(!fs::exists(&model).unwrap(), "{more:?}");
    }
}

#[test]
fn lines_may_end_as_old_programs_end_them() {
    let folder = folder();
    let rows = table(60, "width,weight,fruit\n", third);
    let mut models = Vec::new();
    for (name, end) in [("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")] {
        let data = file(&folder, &format!("{name}.csv"), rows.replace('\n', end));
        let (value, model) = train(&folder, &data, &["--epochs", "1"]);
        assert_eq!(value["data"]["examples"], 60, "{name}");
        models.push(fs::read(model).unwrap());
    }
    assert!(models.iter().all(|model| *model == models[0]));
    let data = file(&folder, "t.csv", "1,2,a\r3,four,b\r");
    let model = show(&folder.path().join("none.aneforge"));
    let message = fails(3, &["train", &data, "-o", &model]);
    assert!(message.ends_with("t.csv:2: `column 2` is `four`, which is no number"), "{message}");
}

#[test]
fn images_that_are_too_large_or_too_small_for_a_network_are_told() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let data = images(&folder, 6);
    let train =
        |more: &[&str]| fails(3, &[&["train", &data, "-o", &model, "--batch", "4"][..], more].concat());
    let large = train(&["--size", "256"]);
    assert!(
        large.ends_with("takes 131072 numbers, and h17s allows 65536; use a smaller `--size`"),
        "{large}"
    );
    let old = train(&["--size", "128", "--network", "mlp", "--target", "h13"]);
    assert!(old.ends_with("takes 49152 numbers, and h13 allows 16384; use a smaller `--size`"), "{old}");
    let rows: String = (0..8).map(|row| format!("{}{}\n", "1,2,".repeat(9000), row % 2)).collect();
    let table = file(&folder, "wide.csv", rows);
    let wide = fails(3, &["train", &table, "-o", &model, "--batch", "4", "--target", "h13"]);
    assert!(wide.ends_with("takes 18000 numbers, and h13 allows 16384; leave columns out"), "{wide}");
}
