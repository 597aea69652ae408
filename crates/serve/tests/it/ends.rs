//! How a server ends.

use crate::support::{Gate, Served, connect, embeds, metric, options, posted, receive, until};
use aneforge_serve::{Ended, Options};
use serde_json::json;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

const PATH: &str = "/v1/embeddings";

/// A server with one request in a batch that is held, and three that wait.
fn busy(options: Options) -> (Served, Gate, Vec<TcpStream>) {
    let gate = Gate::default();
    let served = embeds(gate.before(options));
    let mut all = vec![posted(served.address, PATH, &json!({ "input": "a" }))];
    until(|| gate.came() == [1]);
    all.extend((0..3).map(|_| posted(served.address, PATH, &json!({ "input": ["a", "b"] }))));
    until(|| metric(served.address, "aneforge_queue_inputs{model=\"tiny\"}") == 6.0);
    (served, gate, all)
}

#[test]
fn what_waits_is_answered_before_the_end() {
    let (served, gate, all) = busy(options());
    let (address, idle) = (served.address, connect(served.address));
    served.stopper.stop();
    until(|| TcpStream::connect(address).is_err());
    gate.allow(10);
    assert!(all.into_iter().all(|one| receive(one).status == 200));
    assert_eq!(served.ended(), Ended::Answered);
    // A connection without a request holds up nothing.
    let mut rest = Vec::new();
    assert_eq!({ idle }.read_to_end(&mut rest).unwrap_or(0), 0);
}

#[test]
fn a_second_time_ends_it_at_once() {
    let (served, gate, all) = busy(Options { grace: Duration::from_secs(3600), ..options() });
    let address = served.address;
    served.stopper.stop();
    until(|| TcpStream::connect(address).is_err());
    served.stopper.stop();
    assert_eq!(served.ended(), Ended::Cut);
    drop(all);
    gate.allow(10);
}

#[test]
fn the_time_for_answers_is_limited() {
    let (served, gate, all) = busy(Options { grace: Duration::from_millis(100), ..options() });
    served.stopper.stop();
    assert_eq!(served.ended(), Ended::Cut);
    drop(all);
    gate.allow(10);
}
