//! Whatever is sent, there is an answer or an end, and the next client is served.

use crate::support::{JSON, Served, connect, embeds, get, options, post, receive, send};
use proptest::prelude::*;
use serde_json::json;
use std::io::{Read, Write};
use std::sync::LazyLock;

const PATH: &str = "/v1/embeddings";

/// Sends bytes as they are and reads what comes back until the end.
fn raw(served: &Served, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(served.address);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}

fn still_answers(served: &Served) {
    let value = post(served.address, PATH, json!({ "input": "the cat" }).to_string()).json();
    assert_eq!(value["data"][0]["embedding"].as_array().unwrap().len(), 32);
}

#[test]
fn what_is_no_http_gets_no_more_than_an_error() {
    let served = embeds(options());
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"input\"",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    ] {
        let back = raw(&served, bytes);
        let text = String::from_utf8_lossy(&back);
        assert!(back.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4"), "{text}");
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    assert!(String::from_utf8_lossy(&raw(&served, long.as_bytes())).starts_with("HTTP/1.1 431"));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(1000));
    assert!(String::from_utf8_lossy(&raw(&served, many.as_bytes())).starts_with("HTTP/1.1 431"));
    still_answers(&served);
}

#[test]
fn hostile_json_is_a_bad_request() {
    let served = embeds(options());
    let deep = "[".repeat(1_000_000);
    let deep_field = format!(r#"{{"input": "a", "x": {}}}"#, "[".repeat(100_000));
    let objects = format!(r#"{{"input": {}}}"#, r#"{"a":"#.repeat(100_000));
    let million = format!(r#"{{"input": [{}"a"]}}"#, "\"a\",".repeat(999_999));
    let lists = format!(r#"{{"input": [{}[]]}}"#, "[],".repeat(999_999));
    let ids = format!(r#"{{"input": [{}1]}}"#, "1,".repeat(999_999));
    for (body, said) in [
        (&b"{"[..], "EOF"),
        (b"", "EOF"),
        (b"null", "invalid type: null"),
        (b"\xff\xfe", "expected value"),
        (b"{\"input\": \"\xff\xfe\"}", "invalid unicode code point"),
        (b"{\"input\": \"\\ud800\"}", "hex escape"),
        (b"{\"input\": \"a\", \"input\": \"b\"}", "duplicate field"),
        (b"{\"input\": 1e999}", "number out of range"),
        (b"{\"input\": \"a\", \"dimensions\": 1e999}", "number out of range"),
        (b"{\"input\": \"a\", \"dimensions\": 99999999999999999999}", "invalid type"),
        (b"{\"input\": NaN}", "expected value"),
        (b"{\"input\": \"a\"} trailing", "trailing characters"),
        (deep.as_bytes(), "invalid type: sequence"),
        (deep_field.as_bytes(), "expected value"),
        (objects.as_bytes(), "invalid type: map"),
        (million.as_bytes(), "input has 1000000 texts; 1 to 2048 are taken at a time"),
        (lists.as_bytes(), "input has 1000000 texts"),
        (ids.as_bytes(), "token ids"),
    ] {
        let answer = post(served.address, PATH, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        assert!(answer.error().contains(said), "{shown}: {}", answer.error());
        // What was sent is not repeated at length.
        assert!(answer.body.len() < 1000, "{shown}");
    }
    still_answers(&served);
}

#[test]
fn hostile_texts_are_texts() {
    let served = embeds(options());
    for text in
        ["\0", "\u{202e}\u{0}\u{fffd}", "a\u{0301}".repeat(5000).as_str(), "x".repeat(1 << 20).as_str(), " "]
    {
        let body = json!({ "input": text, "truncate": true });
        let answer = post(served.address, PATH, body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        let vector = answer.json()["data"][0]["embedding"].clone();
        assert!(vector.as_array().unwrap().iter().all(serde_json::Value::is_number), "{vector}");
    }
    let name = json!({ "input": "a", "model": "x".repeat(100_000) });
    assert!(post(served.address, PATH, name.to_string()).body.len() < 500);
}

#[test]
fn requests_on_one_connection_follow_each_other() {
    let served = embeds(options());
    let body = json!({ "input": "a" }).to_string();
    let one =
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let last = one.replace("Host: x", "Host: x\r\nConnection: close");
    let mut stream = connect(served.address);
    stream.write_all((one.repeat(20) + &last).as_bytes()).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back.matches("HTTP/1.1 200 OK").count(), 21);
}

#[test]
fn a_body_may_be_asked_for() {
    let served = embeds(options());
    let body = json!({ "input": "a" }).to_string();
    let mut stream = connect(served.address);
    write!(stream, "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(receive(stream).status, 200);
}

/// One for all cases.
static SERVED: LazyLock<Served> = LazyLock::new(|| embeds(options()));

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn random_bodies_are_refused(body: Vec<u8>, path in 0..4usize) {
        let path = ["/v1/embeddings", "/v1/rerank", "/v2/rerank", "/v1/classify"][path];
        let status = send(SERVED.address, &format!("POST {path}"), &[JSON], &body).status;
        prop_assert!([400, 404].contains(&status), "{status}");
    }

    #[test]
    fn damaged_requests_are_answered(at in 0..60usize, byte: u8) {
        let mut body = br#"{"model":"tiny","input":["the cat"],"encoding_format":"float"}"#.to_vec();
        body[at] = byte;
        let status = post(SERVED.address, PATH, &body).status;
        prop_assert!([200, 400, 404].contains(&status), "{status}");
    }

    #[test]
    fn random_heads_end(head: Vec<u8>) {
        raw(&SERVED, &head);
        prop_assert_eq!(get(SERVED.address, "/health").status, 200);
    }
}
