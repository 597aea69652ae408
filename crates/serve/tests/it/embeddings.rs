//! Vectors over HTTP are those of the encoder, in every form in which they can be asked for.

use crate::support::{Answer, embeds, get, host, load, options, post, serve, tiny};
use aneforge_models::{Encoder, EncoderOptions};
use aneforge_serve::{Options, Vocabulary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

const TEXTS: [&str; 3] = ["the cat sat on the mat", "a dog", "where is the bird"];

fn encoder() -> Encoder {
    let options = EncoderOptions { device: host().device, ..EncoderOptions::default() };
    Encoder::load(tiny().to_str().unwrap(), options).unwrap()
}

fn ask(address: SocketAddr, body: Value) -> Answer {
    post(address, "/v1/embeddings", body.to_string())
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn vectors_have_the_bits_of_the_encoder() {
    let (served, mut encoder) = (embeds(options()), encoder());
    let want = encoder.encode(&TEXTS).unwrap();
    let tokens: usize = encoder.token_ids(&TEXTS).unwrap().iter().map(Vec::len).sum();
    let answer = ask(served.address, json!({ "model": "tiny", "input": TEXTS }));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let value = answer.json();
    assert_eq!((&value["object"], &value["model"]), (&json!("list"), &json!("tiny")));
    assert_eq!(value["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
    for (at, want) in want.iter().enumerate() {
        let row = &value["data"][at];
        assert_eq!((&row["object"], &row["index"]), (&json!("embedding"), &json!(at)));
        assert_eq!(&floats(&row["embedding"]), want);
    }
    let asked = json!({ "model": "tiny", "input": TEXTS, "encoding_format": "base64", "user": "x", "dimensions": null });
    let value = ask(served.address, asked).json();
    for (row, want) in value["data"].as_array().unwrap().iter().zip(&want) {
        let bytes = STANDARD.decode(row["embedding"].as_str().unwrap()).unwrap();
        let got: Vec<f32> =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(&got, want);
    }
}

#[test]
fn one_text_needs_no_list_and_one_model_no_name() {
    let (served, mut encoder) = (embeds(options()), encoder());
    let want = encoder.encode(&TEXTS[..1]).unwrap();
    let value = ask(served.address, json!({ "input": TEXTS[0] })).json();
    assert_eq!(floats(&value["data"][0]["embedding"]), want[0]);
    assert_eq!(value["data"].as_array().unwrap().len(), 1);
}

#[test]
fn the_first_components_are_of_unit_length() {
    let (served, mut encoder) = (embeds(options()), encoder());
    let whole = encoder.encode(&TEXTS[..1]).unwrap().remove(0);
    let value = ask(served.address, json!({ "input": TEXTS[0], "dimensions": 5 })).json();
    let got = floats(&value["data"][0]["embedding"]);
    let length = whole[..5].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    assert_eq!(got.len(), 5);
    for (got, whole) in got.iter().zip(&whole) {
        assert!((f64::from(*got) - f64::from(*whole) / length).abs() < 1e-6);
    }
    let all = ask(served.address, json!({ "input": TEXTS[0], "dimensions": 32 })).json();
    assert_eq!(floats(&all["data"][0]["embedding"]), whole);
}

#[test]
fn what_is_wrong_is_named() {
    let served = embeds(Options { max_batch: 4, ..options() });
    let long = "cat ".repeat(100);
    for (asked, status, param, said) in [
        (json!({}), 400, Value::Null, "missing field `input`"),
        (json!([]), 400, Value::Null, "the body cannot be read"),
        (json!({ "input": [] }), 400, json!("input"), "input has 0 texts; 1 to 4 are taken at a time"),
        (json!({ "input": vec!["a"; 5] }), 400, json!("input"), "input has 5 texts; 1 to 4"),
        (json!({ "input": "" }), 400, json!("input"), "input 0 is an empty text"),
        (json!({ "input": ["a", ""] }), 400, json!("input"), "input 1 is an empty text"),
        (json!({ "input": [["a"]] }), 400, Value::Null, "a token id"),
        (
            json!({ "input": "a", "dimensions": 0 }),
            400,
            json!("dimensions"),
            "has vectors of 32, of which 1 to 32",
        ),
        (json!({ "input": "a", "dimensions": 33 }), 400, json!("dimensions"), "dimensions is 33"),
        (json!({ "input": "a", "dimensions": -1 }), 400, Value::Null, "invalid value: integer `-1`"),
        (json!({ "input": "a", "dimensions": 1.5 }), 400, Value::Null, "floating point `1.5`"),
        (
            json!({ "input": "a", "encoding_format": "int8" }),
            400,
            json!("encoding_format"),
            "`float` and `base64`",
        ),
        (json!({ "input": "a", "truncate": "START" }), 400, Value::Null, "\"END\" or \"NONE\""),
        (
            json!({ "input": "a", "model": "other" }),
            404,
            json!("model"),
            "no model `other`; for embeddings there is `tiny`",
        ),
        (json!({ "input": ["a", long] }), 400, json!("input"), "input 1 has more than 40 tokens"),
        (
            json!({ "input": ["a", "b ".repeat(600_000)], "truncate": true }),
            400,
            json!("input"),
            "input 1 has more than 1048576 bytes",
        ),
        (json!({ "input": [1, 2] }), 400, json!("input"), "check_embedding_ctx_length=False"),
        (json!({ "input": [[1, 2], [3]] }), 400, json!("input"), "--token-ids cl100k_base.tiktoken"),
    ] {
        let answer = ask(served.address, asked.clone());
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (status, &param),
            "{asked}: {answer:?}"
        );
        assert!(answer.error().contains(said), "{asked}: {}", answer.error());
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    let unknown = ask(served.address, json!({ "input": "a", "model": "other" })).json();
    assert_eq!(unknown["error"]["code"], "model_not_found");
}

#[test]
fn long_texts_are_cut_where_that_is_asked_for() {
    let long = "the cat sat on the mat ".repeat(30);
    let want = encoder().encode(&[&long]).unwrap().remove(0);
    let strict = embeds(options());
    for cut in [json!(true), json!("END")] {
        let value = ask(strict.address, json!({ "input": long, "truncate": cut })).json();
        assert_eq!(floats(&value["data"][0]["embedding"]), want);
        assert_eq!(value["usage"]["total_tokens"], 40);
    }
    let lenient = embeds(Options { truncate: true, ..options() });
    let value = ask(lenient.address, json!({ "input": long })).json();
    assert_eq!(floats(&value["data"][0]["embedding"]), want);
    let refused = ask(lenient.address, json!({ "input": long, "truncate": false }));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    // The most that fit is not too long.
    let fits = "cat ".repeat(38);
    assert_eq!(ask(strict.address, json!({ "input": fits })).json()["usage"]["total_tokens"], 40);
    assert_eq!(ask(strict.address, json!({ "input": fits + "cat" })).status, 400);
}

#[test]
fn token_ids_stand_for_text_where_there_is_a_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.tiktoken");
    let words = ["the", " cat", " sat"];
    let lines: String =
        words.iter().enumerate().map(|(id, word)| format!("{} {id}\n", STANDARD.encode(word))).collect();
    std::fs::write(&path, lines + &format!("{} 9\n", STANDARD.encode(" ".repeat(1000)))).unwrap();
    let vocabulary = Some(Arc::new(Vocabulary::read(&path).unwrap()));
    let served = embeds(Options { vocabulary, ..options() });
    let want = encoder().encode(&["the cat sat", "the cat"]).unwrap();
    for input in [json!([[0, 1, 2], [0, 1]]), json!([0, 1, 2])] {
        let value = ask(served.address, json!({ "input": input })).json();
        for (row, want) in value["data"].as_array().unwrap().iter().zip(&want) {
            assert_eq!(&floats(&row["embedding"]), want);
        }
    }
    for (input, said) in [
        (json!([[0], [5]]), "the token id 5, which the server's vocabulary has not"),
        (json!([[]]), "input 0 is an empty text"),
        (json!([vec![9; 1000]]), "far more text than it has bytes"),
    ] {
        let answer = ask(served.address, json!({ "input": input }));
        assert!(answer.status == 400 && answer.error().contains(said), "{}", answer.error());
    }
}

#[test]
fn models_are_listed_and_told_apart() {
    let folder = crate::made::model("tiny-bert", crate::made::WHOLE);
    let models = vec![load("tiny", &tiny()), load("other", &tiny()), load("ranks", folder.path())];
    let served = serve(options(), models);
    let list = get(served.address, "/v1/models").json();
    let rows = list["data"].as_array().unwrap();
    let named: Vec<_> =
        rows.iter().map(|row| (row["id"].as_str().unwrap(), row["task"].as_str().unwrap())).collect();
    assert_eq!(named, [("tiny", "embeddings"), ("other", "embeddings"), ("ranks", "rerank")]);
    assert_eq!((&rows[0]["dimensions"], &rows[0]["max_tokens"]), (&json!(32), &json!(40)));
    assert_eq!(get(served.address, "/v1/models/ranks").json(), rows[2]);
    for path in ["/v1/models/none", "/v1/models/%ff", "/v1/models/a%2fb"] {
        let none = get(served.address, path);
        assert_eq!((none.status, &none.json()["error"]["code"]), (404, &json!("model_not_found")), "{path}");
    }
    let unnamed = ask(served.address, json!({ "input": "a" }));
    assert_eq!((unnamed.status, unnamed.error().ends_with("name one of `tiny`, `other`")), (400, true));
    let wrong = ask(served.address, json!({ "input": "a", "model": "ranks" }));
    assert!(
        wrong.status == 400 && wrong.error().starts_with("`ranks` does rerank, not embeddings"),
        "{wrong:?}"
    );
    let absent = post(served.address, "/v1/classify", r#"{"image": "aaaa"}"#);
    assert!(absent.status == 404 && absent.error() == "no model here does classify", "{absent:?}");
}
