//! `embed` on a tiny model with recorded vectors.

use crate::support::{command, fails, file, finish, folder, json, keys, show, text};
use aneforge_tensor::{Bytes, npy};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn model() -> String {
    show(&Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/models/tiny-bert"))
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn vectors_are_the_recorded_ones() {
    let recorded = std::fs::read(format!("{}/expected.json", model())).unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    let row = &recorded["texts"][0];
    let sentence = row["text"].as_str().unwrap();
    for pooling in ["mean", "cls", "max"] {
        let value = json(&["embed", "-m", &model(), "--pooling", pooling, sentence]);
        let outer = ["device", "dim", "embeddings", "model", "normalized", "pooling", "target"];
        assert_eq!((keys(&value), &value["pooling"]), (outer.to_vec(), &pooling.into()));
        let got = vector(&value["embeddings"][0]["vector"]);
        assert!(cosine(&got, &vector(&row[pooling])) > 0.9999, "{pooling}");
        assert!((got.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-3);
    }
    let value = json(&["embed", "-m", &model(), "--no-normalize", sentence]);
    let got = vector(&value["embeddings"][0]["vector"]);
    assert!((got.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() > 1e-2);
    assert_eq!(value["normalized"], false);
}

#[test]
fn people_get_a_table_and_files_rows() {
    let folder = folder();
    let path = show(&folder.path().join("rows.npy"));
    let out = text(&["embed", "-m", &model(), "--npy", &path, "a b c", "a b c", "d"]);
    assert!(out.contains("\n   2  1.000  1.000\n"), "{out}");
    assert!(out.ends_with(&format!("wrote {path}\n")));
    let rows = npy::read(&Bytes::new(std::fs::read(&path).unwrap())).unwrap();
    assert_eq!(rows.shape().dims(), [3, 32]);
    let one = text(&["embed", "-m", &model(), "a b c"]);
    assert_eq!(one.split_whitespace().count(), 32);
    assert!(one.lines().all(|line| line.len() <= 80));
}

#[test]
fn lines_of_standard_input_are_texts() {
    let mut child = command(&["embed", "-m", &model(), "--json", "-", "last"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"one\n\n  \ntwo\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts: Vec<&str> =
        value["embeddings"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "", "  ", "two", "last"], "rows are lines");
}

#[test]
fn what_is_no_model_is_an_error() {
    let error = fails(3, &["embed", "-m", "./nothing-here", "x"]);
    assert!(error.starts_with("there is no directory `./nothing-here`; check the path"), "{error}");
    let error = fails(3, &["embed", "-m", "no-such-org/no-such-model", "--offline", "x"]);
    assert!(error.contains("downloads are switched off; pass a local directory"), "{error}");
    for (word, said) in
        [("Y", "downloads are switched off"), ("zzz", "`zzz` is neither true (1, true, t, yes, y, on)")]
    {
        let mut offline = command(&["embed", "-m", "no-such-org/no-such-model", "x"]);
        offline.env("HF_HUB_OFFLINE", word);
        let error = finish(offline).err;
        assert!(error.contains(said), "{error}");
    }
    let folder = folder();
    file(&folder, "config.json", "{");
    let error = fails(3, &["embed", "-m", &show(folder.path()), "x"]);
    assert!(error.contains("config.json"), "{error}");
    let blocked = file(&folder, "file", "");
    let error = fails(3, &["embed", "-m", &model(), "--npy", &format!("{blocked}/x.npy"), "x"]);
    assert!(error.starts_with(&format!("cannot write {blocked}/x.npy: ")), "{error}");
}

#[test]
fn weights_are_bytes_where_that_is_asked_for() {
    let first = |options: &[&str]| {
        let value = json(&[&["embed", "-m", &model(), "the cat sat on the mat"], options].concat());
        vector(&value["embeddings"][0]["vector"])
    };
    let (full, bytes) = (first(&[]), first(&["--compress", "int8"]));
    assert!(full != bytes && cosine(&full, &bytes) > 0.99);
    let error = fails(3, &["embed", "-m", &model(), "a cat", "--compress", "sparse"]);
    assert!(error.contains("stored in half precision or as int8; give --compress int8"), "{error}");
    let error = fails(2, &["embed", "-m", &model(), "a cat", "--compress-atol", "0.1"]);
    assert!(error.contains("--compress <FORM>"), "{error}");
}
