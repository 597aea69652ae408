//! `rerank` on a tiny model with recorded scores.

use crate::made::{WHOLE, folder, json as read, model};
use crate::support::{fails, json, keys, show, text};
use std::path::Path;

#[test]
fn documents_are_ranked_by_recorded_scores() {
    let made = model("tiny-bert", WHOLE);
    let path = show(made.path());
    let recorded = read(folder("tiny-bert").join("expected.json"));
    let pairs = recorded["pairs"].as_array().unwrap();
    // Two pairs with the same query.
    let [first, second] = [&pairs[0], &pairs[1]];
    let texts = |pair: &serde_json::Value| [0, 1].map(|at| pair["pair"][at].as_str().unwrap().to_owned());
    let ([query, good], [same, worse]) = (texts(first), texts(second));
    assert_eq!(query, same);
    let value = json(&["rerank", "-m", &path, &query, &worse, &good]);
    assert_eq!(keys(&value), ["device", "model", "query", "ranked", "target"]);
    for (row, (index, pair)) in value["ranked"].as_array().unwrap().iter().zip([(1, first), (0, second)]) {
        assert_eq!((&row["index"], &row["text"]), (&index.into(), &pair["pair"][1]));
        let want = pair["score"].as_f64().unwrap();
        assert!((row["score"].as_f64().unwrap() - want).abs() < 4e-3, "{row} {want}");
    }
    let out = text(&["rerank", "-m", &path, &query, &worse, &good, "--top", "1"]);
    let score = first["score"].as_f64().unwrap();
    let words: Vec<&str> = out.split_whitespace().take(2).collect();
    assert!((words[0].parse::<f64>().unwrap() - score).abs() < 4e-3 && words[1] == "2", "{out}");
    assert!(out.lines().count() == 1 && out.ends_with(&format!("  {good}\n")));
}

#[test]
fn what_is_no_reranker_is_an_error() {
    let encoder =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/models/tiny-bert");
    let error = fails(3, &["rerank", "-m", &show(&encoder), "a", "b"]);
    assert!(error.contains("have no head that scores pairs"), "{error}");
    let error = fails(2, &["rerank", "-m", &show(&encoder), "a", "b", "--top", "0"]);
    assert!(error.contains("--top"), "{error}");
    let error = fails(3, &["rerank", "-m", &show(&encoder), "a", "b", "--compress", "sparse"]);
    assert!(error.contains("give --compress int8"), "{error}");
}
