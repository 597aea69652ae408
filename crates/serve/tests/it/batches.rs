//! Requests of several clients run together, in turns, and only while someone waits for them.

use crate::support::{Gate, Served, embeds, get, metric, options, posted, receive, until};
use aneforge_serve::Options;
use serde_json::{Value, json};

const PATH: &str = "/v1/embeddings";

/// A server whose batches are held, and the gate.
fn gated(options: Options) -> (Served, Gate) {
    let gate = Gate::default();
    (embeds(gate.before(options)), gate)
}

/// Inputs that no batch has taken.
fn waiting(served: &Served) -> f64 {
    metric(served.address, "aneforge_queue_inputs{model=\"tiny\"}")
}

fn texts(count: usize) -> Value {
    json!({ "input": (0..count).map(|at| format!("the cat {}", "sat ".repeat(at % 5))).collect::<Vec<_>>() })
}

#[test]
fn clients_share_batches() {
    let (served, gate) = gated(options());
    let first = posted(served.address, PATH, &texts(1));
    until(|| gate.came() == [1]);
    let others: Vec<_> = (1..=9).map(|_| posted(served.address, PATH, &texts(1))).collect();
    until(|| waiting(&served) == 9.0);
    gate.allow(2);
    let vectors: Vec<Value> = others
        .into_iter()
        .chain([first])
        .map(|one| receive(one).json()["data"][0]["embedding"].clone())
        .collect();
    // Ten requests, two batches, one vector.
    assert_eq!(gate.came(), [1, 9]);
    assert!(vectors.iter().all(|vector| vector.is_array() && vector == &vectors[0]));
    assert_eq!(metric(served.address, "aneforge_batch_inputs_count{model=\"tiny\"}"), 2.0);
    assert_eq!(metric(served.address, "aneforge_batch_inputs_sum{model=\"tiny\"}"), 10.0);
    assert_eq!(
        metric(served.address, "aneforge_requests_total{endpoint=\"/v1/embeddings\",status=\"200\"}"),
        10.0
    );
}

#[test]
fn many_texts_of_one_client_hold_up_no_other() {
    let (served, gate) = gated(options());
    let large = posted(served.address, PATH, &texts(200));
    until(|| gate.came() == [64]);
    let small = posted(served.address, PATH, &texts(2));
    until(|| waiting(&served) == 138.0);
    gate.allow(2);
    // The large one still has texts, of which a third batch is held.
    assert_eq!(receive(small).json()["data"].as_array().unwrap().len(), 2);
    until(|| gate.came().len() == 3);
    assert_eq!(gate.came()[..2], [64, 64]);
    gate.allow(10);
    let value = receive(large).json();
    let places: Vec<u64> =
        value["data"].as_array().unwrap().iter().map(|row| row["index"].as_u64().unwrap()).collect();
    assert_eq!(places, (0..200).collect::<Vec<_>>());
    assert_eq!(gate.came().iter().sum::<usize>(), 202);
}

#[test]
fn texts_come_back_in_their_order_whatever_their_lengths() {
    let served = embeds(options());
    let of = |input: &Value| {
        receive(posted(served.address, PATH, &json!({ "input": input }))).json()["data"].clone()
    };
    let all = texts(150);
    let together = of(&all["input"]);
    for at in [0, 1, 64, 77, 149] {
        let alone = of(&all["input"][at]);
        assert_eq!(together[at]["embedding"], alone[0]["embedding"], "{at}");
    }
}

#[test]
fn what_nobody_waits_for_does_not_run() {
    let (served, gate) = gated(options());
    let first = posted(served.address, PATH, &texts(1));
    until(|| gate.came() == [1]);
    let gone = posted(served.address, PATH, &texts(30));
    until(|| waiting(&served) == 30.0);
    drop(gone);
    let counted =
        || metric(served.address, "aneforge_requests_total{endpoint=\"/v1/embeddings\",status=\"499\"}");
    until(|| counted() == 1.0);
    let last = posted(served.address, PATH, &texts(3));
    until(|| waiting(&served) == 33.0);
    gate.allow(10);
    assert_eq!((receive(first).status, receive(last).status), (200, 200));
    assert_eq!(gate.came(), [1, 3]);
    assert_eq!(metric(served.address, "aneforge_left_total{model=\"tiny\"}"), 30.0);
    assert_eq!(waiting(&served), 0.0);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let (served, gate) = gated(Options { queue: 10, max_batch: 10, ..options() });
    let first = posted(served.address, PATH, &texts(1));
    until(|| gate.came() == [1]);
    let second = posted(served.address, PATH, &texts(7));
    until(|| waiting(&served) == 7.0);
    let refused = receive(posted(served.address, PATH, &texts(4)));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.error(), "7 inputs wait for `tiny`, and 10 are the most; try again later");
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(metric(served.address, "aneforge_refused_total{model=\"tiny\"}"), 1.0);
    let third = posted(served.address, PATH, &texts(3));
    until(|| waiting(&served) == 10.0);
    gate.allow(10);
    assert!([first, second, third].into_iter().all(|one| receive(one).status == 200));
    assert_eq!(get(served.address, "/health").status, 200);
}

#[test]
fn a_batch_that_fails_is_the_servers_fault_and_the_next_one_runs() {
    let hook = |_: &str, inputs: usize| assert!(inputs != 3, "three");
    let served = embeds(Options { before_batch: Some(std::sync::Arc::new(hook)), ..options() });
    let failed = receive(posted(served.address, PATH, &texts(3)));
    assert_eq!((failed.status, &failed.json()["error"]["type"]), (500, &json!("server_error")));
    assert!(
        failed.error().contains("the model's thread panicked, three; please report it"),
        "{}",
        failed.error()
    );
    // A request of several batches fails whole.
    let failed = receive(posted(served.address, PATH, &texts(67)));
    assert_eq!(failed.status, 500);
    assert_eq!(receive(posted(served.address, PATH, &texts(2))).status, 200);
    assert_eq!(waiting(&served), 0.0);
}
