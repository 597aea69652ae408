//! The page and the counts.

use crate::support::{embeds, get, options, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

#[test]
fn the_page_runs_its_own_script_and_asks_for_nothing_else() {
    let served = embeds(options());
    let answer = get(served.address, "/");
    let page = answer.text();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    for (tag, source) in [("script", "script-src"), ("style", "style-src")] {
        let inside =
            page.split(&format!("<{tag}>")).nth(1).unwrap().split(&format!("</{tag}>")).next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(inside));
        assert!(inside.len() > 500 && policy.contains(&format!("{source} 'sha256-{hash}'")), "{tag}");
    }
    for outside in ["http://", "https://", "//cdn", "@import", "url(", "innerHTML", "<script src", " style="]
    {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

/// Names with their labels, and values: as the text format has them.
fn parsed(text: &str) -> HashMap<String, f64> {
    let mut types = HashMap::new();
    let mut values = HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(
            types.contains_key(name) || types.get(base).is_some_and(|kind| kind == "histogram"),
            "{line}"
        );
        let labels = series.strip_prefix(name).unwrap();
        assert!(labels.is_empty() || labels.starts_with('{') && labels.ends_with("\"}"), "{line}");
        assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
    }
    values
}

#[test]
fn counts_are_read_by_prometheus() {
    let served = embeds(options());
    let tokens =
        post(served.address, "/v1/embeddings", json!({ "input": ["the cat", "a"] }).to_string()).json();
    post(served.address, "/v1/embeddings", "{");
    let answer = get(served.address, "/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let values = parsed(&answer.text());
    let endpoint = "endpoint=\"/v1/embeddings\"";
    assert_eq!(values[&format!("aneforge_requests_total{{{endpoint},status=\"200\"}}")], 1.0);
    assert_eq!(values[&format!("aneforge_requests_total{{{endpoint},status=\"400\"}}")], 1.0);
    assert_eq!(values[&format!("aneforge_request_seconds_count{{{endpoint}}}")], 2.0);
    assert_eq!(values[&format!("aneforge_request_seconds_bucket{{{endpoint},le=\"+Inf\"}}")], 2.0);
    assert_eq!(
        values["aneforge_tokens_total{model=\"tiny\"}"],
        tokens["usage"]["total_tokens"].as_f64().unwrap()
    );
    assert_eq!(values["aneforge_batch_inputs_sum{model=\"tiny\"}"], 2.0);
    // The request that asks.
    assert_eq!(values["aneforge_requests_running"], 1.0);
}
