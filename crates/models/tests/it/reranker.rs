//! Rerankers of every family beside what transformers computes in double precision.

use crate::families::FAMILIES;
use crate::made::{Stored, WHOLE, folder, json, model};
use aneforge::device::host::Host;
use aneforge_models::{CrossEncoder, CrossEncoderOptions};
use aneforge_tensor::DType;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

fn options() -> CrossEncoderOptions {
    CrossEncoderOptions { device: Some(Arc::new(Host::new(2))), ..CrossEncoderOptions::default() }
}

fn load(path: &Path) -> CrossEncoder {
    CrossEncoder::load(path.to_str().unwrap(), options()).unwrap()
}

fn expected(family: &str) -> (Vec<(String, String)>, Vec<f32>) {
    let record = json(folder(family).join("expected.json"));
    let text = |row: &serde_json::Value, at: usize| row["pair"][at].as_str().unwrap().to_owned();
    let rows = record["pairs"].as_array().unwrap().iter();
    rows.map(|row| ((text(row, 0), text(row, 1)), row["score"].as_f64().unwrap() as f32)).unzip()
}

#[test]
fn every_family_scores_pairs_as_the_reference_does() {
    for family in FAMILIES {
        let folder = model(family, WHOLE);
        let (pairs, want) = expected(family);
        let mut reranker = load(folder.path());
        assert_eq!((reranker.labels(), reranker.max_length()), (1, 96));
        let got = reranker.predict(&pairs).unwrap();
        for ((got, want), pair) in got.iter().zip(&want).zip(&pairs) {
            // Half precision; ModernBERT normalises only what layers take, and rounds all that they add up.
            let most = if family == "tiny-modernbert" { 1e-2 } else { 4e-3 };
            assert!(
                got.len() == 1 && (got[0] - want).abs() <= most,
                "{family} {pair:?}: {got:?}, not {want}"
            );
        }
    }
}

#[test]
fn company_changes_no_bit_and_ranks_are_those_of_scores() {
    let folder = model("tiny-roberta", WHOLE);
    let (pairs, _) = expected("tiny-roberta");
    let mut reranker = load(folder.path());
    let together = reranker.predict(&pairs).unwrap();
    for (pair, score) in pairs.iter().zip(&together) {
        assert_eq!(&reranker.predict(std::slice::from_ref(pair)).unwrap()[0], score);
    }
    let query = &pairs[0].0;
    let documents: Vec<&str> = pairs.iter().map(|(_, document)| document.as_str()).collect();
    let ranked = reranker.rank(query, &documents).unwrap();
    assert!(ranked.windows(2).all(|two| two[0].1 >= two[1].1));
    for &(at, score) in &ranked {
        assert_eq!(reranker.predict(&[(query.as_str(), documents[at])]).unwrap()[0], [score]);
    }
    assert_eq!(reranker.predict::<&str>(&[]).unwrap(), Vec::<Vec<f32>>::new());
    let stopped = reranker.predict_with(&pairs, &mut |_, _| ControlFlow::Break(()));
    assert_eq!(stopped.unwrap_err().to_string(), "stopped after 0 of 5 texts");
}

#[test]
fn weights_of_other_models_are_told() {
    let folder = model("tiny-bert", Stored { dtype: DType::F16, parts: 2 });
    let (pairs, want) = expected("tiny-bert");
    assert!((load(folder.path()).predict(&pairs).unwrap()[1][0] - want[1]).abs() <= 4e-3);
    let refusal = |path: &Path| {
        let error = CrossEncoder::load(path.to_str().unwrap(), options()).unwrap_err().to_string();
        error.replace(path.to_str().unwrap(), "DIR")
    };
    let encoder = folder.path().parent().unwrap();
    assert!(refusal(encoder).contains("config.json` does not exist"));
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny-bert");
    assert_eq!(
        refusal(&tiny),
        "the weights in `DIR` have no head that scores pairs (pooler.dense, classifier.dense, pre_classifier or head.dense, \
         with a classifier); load the model as an encoder, or name a reranker"
    );
    let path = folder.path().join("tokenizer_config.json");
    fs::write(&path, r#"{"model_max_length": 3}"#).unwrap();
    assert_eq!(
        refusal(folder.path()),
        "max_seq_length 3 leaves no room, as the tokenizer adds 3 tokens to each text; raise it"
    );
    fs::write(&path, r#"{"model_max_length": 20}"#).unwrap();
    let mut cut = load(folder.path());
    assert_eq!(cut.max_length(), 20);
    assert_eq!(
        format!("{cut:?}").split_once(", ").unwrap().1,
        "1 score of up to 20 tokens, target h17s, device host)"
    );
    // Tokens are taken from the longer text, until both are as long.
    let [long, cut_long] = [10, 60].map(|words| ("a cat".to_owned(), vec!["dog"; words + 5].join(" ")));
    let scores = cut.predict(&[long, cut_long]).unwrap();
    assert_eq!(scores[0], scores[1]);
}
