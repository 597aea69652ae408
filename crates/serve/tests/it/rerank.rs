//! Ranks over HTTP are those of the reranker's scores, in the forms of Jina and of Cohere.

use crate::support::{host, options, post, reranks};
use aneforge_models::{CrossEncoder, CrossEncoderOptions};
use aneforge_serve::Options;
use serde_json::{Value, json};
use std::path::Path;

const QUERY: &str = "where is the cat";
const DOCUMENTS: [&str; 4] = ["a dog ran", "the cat sat on the mat", "", "the old house"];

/// Places and scores, the best first.
fn ranked(folder: &Path) -> Vec<(usize, f32)> {
    let options = CrossEncoderOptions { device: host().device, ..CrossEncoderOptions::default() };
    CrossEncoder::load(folder.to_str().unwrap(), options).unwrap().rank(QUERY, &DOCUMENTS).unwrap()
}

#[test]
fn ranks_have_the_scores_of_the_reranker() {
    let (served, folder) = reranks(options());
    let want = ranked(folder.path());
    let asked = json!({ "model": "ranks", "query": QUERY, "documents": DOCUMENTS });
    let value = post(served.address, "/v1/rerank", asked.to_string()).json();
    assert!(value["usage"]["total_tokens"].as_u64().unwrap() > 8 && value["model"] == "ranks");
    for (row, (index, score)) in value["results"].as_array().unwrap().iter().zip(&want) {
        assert_eq!((&row["index"], &row["document"]["text"]), (&json!(index), &json!(DOCUMENTS[*index])));
        let sigmoid = 1.0 / (1.0 + (-f64::from(*score)).exp());
        assert!((row["relevance_score"].as_f64().unwrap() - sigmoid).abs() < 1e-12);
    }
    let asked = json!({ "query": QUERY, "documents": DOCUMENTS, "raw_scores": true, "top_n": 2, "return_documents": false });
    let value = post(served.address, "/v1/rerank", asked.to_string()).json();
    let rows = value["results"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, (index, score)) in rows.iter().zip(&want) {
        assert_eq!(row, &json!({ "index": index, "relevance_score": f64::from(*score) }));
    }
}

#[test]
fn the_second_form_is_that_of_cohere() {
    let (served, folder) = reranks(options());
    let want = ranked(folder.path());
    let documents: Vec<Value> = DOCUMENTS.iter().map(|text| json!({ "text": text, "title": [1] })).collect();
    let asked = json!({ "model": "ranks", "query": QUERY, "documents": documents, "top_n": 9, "max_tokens_per_doc": 4096 });
    let value = post(served.address, "/v2/rerank", asked.to_string()).json();
    let rows = value["results"].as_array().unwrap();
    let places: Vec<usize> = rows.iter().map(|row| row["index"].as_u64().unwrap() as usize).collect();
    assert_eq!(places, want.iter().map(|(index, _)| *index).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row.get("document").is_none()));
    assert_eq!(value["meta"]["api_version"]["version"], "2");
    assert!(value["meta"]["tokens"]["input_tokens"].as_u64() > Some(8) && value["id"].is_string());
}

#[test]
fn what_is_wrong_is_named() {
    let (served, _folder) = reranks(Options { max_batch: 4, ..options() });
    let long = "cat ".repeat(200);
    for (asked, status, param, said) in [
        (json!({ "documents": ["a"] }), 400, Value::Null, "missing field `query`"),
        (json!({ "query": "a" }), 400, Value::Null, "missing field `documents`"),
        (json!({ "query": "a", "documents": [] }), 400, json!("documents"), "there are 0 documents; 1 to 4"),
        (
            json!({ "query": "a", "documents": vec!["a"; 5] }),
            400,
            json!("documents"),
            "there are 5 documents",
        ),
        (
            json!({ "query": "b ".repeat(600_000), "documents": ["a"] }),
            400,
            json!("query"),
            "the query has more than 1048576 bytes",
        ),
        (
            json!({ "query": "a", "documents": ["b ".repeat(600_000)] }),
            400,
            json!("documents"),
            "document 0 has more than 1048576",
        ),
        (json!({ "query": "", "documents": ["a"] }), 400, json!("query"), "the query is empty"),
        (json!({ "query": "a", "documents": ["a"], "top_n": 0 }), 400, json!("top_n"), "top_n is 0"),
        (json!({ "query": "a", "documents": [{ "t": "a" }] }), 400, Value::Null, "missing field `text`"),
        (json!({ "query": "a", "documents": [1] }), 400, Value::Null, "an object with a `text`"),
        (
            json!({ "query": long, "documents": ["a"] }),
            400,
            json!("query"),
            "the query has more than 96 tokens",
        ),
        (
            json!({ "query": "a", "documents": ["a"], "max_tokens_per_doc": 5 }),
            400,
            json!("max_tokens_per_doc"),
            "less than the 96 tokens",
        ),
        (
            json!({ "query": "a", "documents": ["a"], "model": "x" }),
            404,
            json!("model"),
            "no model `x`; for rerank there is `ranks`",
        ),
    ] {
        for path in ["/v1/rerank", "/v2/rerank"] {
            let answer = post(served.address, path, asked.to_string());
            assert_eq!(
                (answer.status, &answer.json()["error"]["param"]),
                (status, &param),
                "{asked}: {answer:?}"
            );
            assert!(answer.error().contains(said), "{asked}: {}", answer.error());
        }
    }
}

#[test]
fn documents_are_cut_unless_a_request_says_otherwise() {
    let (served, _folder) = reranks(options());
    let long = "cat ".repeat(200);
    let ask = |asked: Value| post(served.address, "/v1/rerank", asked.to_string());
    let cut = ask(json!({ "query": "a", "documents": [long] }));
    assert_eq!(cut.json()["usage"]["total_tokens"], 96);
    let refused = ask(json!({ "query": "a", "documents": ["b", long], "truncate": false }));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert!(refused.error().contains("document 1 has with the query more than 96"), "{refused:?}");
}
