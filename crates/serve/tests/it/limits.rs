//! Every limit has its status: of size, of time, of memory, of who may ask.

use crate::support::{
    Gate, JSON, Served, connect, embeds, get, metric, options, post, posted, receive, send, start, until,
};
use aneforge_serve::{Keys, Options};
use serde_json::json;
use std::io::Write;
use std::time::Duration;

const PATH: &str = "/v1/embeddings";

#[test]
fn bodies_have_a_greatest_size() {
    let served = embeds(Options { max_body: 1000, ..options() });
    let fits = format!("{:1000}", json!({ "input": "a" }).to_string());
    assert_eq!(post(served.address, PATH, &fits).status, 200);
    let refused = post(served.address, PATH, fits.clone() + " ");
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (413, "the body has more than 1000 bytes; send less at a time")
    );
    // One that says nothing of its length is cut off where it exceeds it.
    let chunked = |text: &str| {
        let mut stream = connect(served.address);
        write!(stream, "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        write!(stream, "{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).unwrap();
        receive(stream)
    };
    assert_eq!((chunked(&fits).status, chunked(&(fits + " ")).status), (200, 413));
    // A length that no machine holds is refused before anything of it is read.
    let mut stream = connect(served.address);
    write!(stream, "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\nContent-Length: 4611686018427387904\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receive(stream).status, 413);
}

#[test]
fn bodies_are_json_as_it_is() {
    let served = embeds(options());
    let body = json!({ "input": "a" }).to_string();
    for (header, status) in [
        ("Content-Type: application/json; charset=utf-8", 200),
        ("content-type: APPLICATION/JSON", 200),
        ("Content-Type: text/plain", 415),
        ("X-Nothing: at all", 415),
    ] {
        assert_eq!(
            send(served.address, &format!("POST {PATH}"), &[header], body.as_bytes()).status,
            status,
            "{header}"
        );
    }
    let packed =
        send(served.address, &format!("POST {PATH}"), &[JSON, "Content-Encoding: gzip"], body.as_bytes());
    assert_eq!(
        (packed.status, packed.error().as_str()),
        (415, "the body is encoded as \"gzip\"; send it as it is")
    );
}

#[test]
fn paths_and_methods_are_known() {
    let served = embeds(options());
    for path in ["/v1", "/v1/embeddings/", "/v1/chat/completions", "/..%2f..%2fetc/passwd", "//"] {
        let answer = get(served.address, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.error().starts_with("there is nothing at this path"));
    }
    let answer = get(served.address, PATH);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert!(answer.error().starts_with("GET is not what this path takes"));
    assert_eq!(post(served.address, "/metrics", "").status, 405);
    assert_eq!(metric(served.address, "aneforge_requests_total{endpoint=\"other\",status=\"404\"}"), 5.0);
}

fn with_keys() -> Served {
    let mut keys = Keys::none();
    keys.add_text("first second", "the test").unwrap();
    embeds(Options { keys, ..options() })
}

#[test]
fn keys_are_asked_for_where_there_are_some() {
    let served = with_keys();
    let ask = |headers: &[&str]| {
        let all = [&[JSON], headers].concat();
        send(served.address, &format!("POST {PATH}"), &all, br#"{"input": "a"}"#)
    };
    for key in
        ["Authorization: Bearer first", "authorization: bearer second", "Authorization: Bearer  first "]
    {
        assert_eq!(ask(&[key]).status, 200, "{key}");
    }
    for headers in [
        &[][..],
        &["Authorization: Bearer third"],
        &["Authorization: Bearer "],
        &["Authorization: Bearer"],
        &["Authorization: first"],
        &["Authorization: Basic Zmlyc3Q="],
        &["Authorization: Bearer first second"],
        &["X-Api-Key: first"],
    ] {
        let answer = ask(headers);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{headers:?}");
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
        assert!(!answer.error().contains("third"));
    }
    for path in ["/metrics", "/v1/models", "/nothing"] {
        assert_eq!(get(served.address, path).status, 401, "{path}");
    }
    for path in ["/", "/health", "/health/ready"] {
        assert_eq!(get(served.address, path).status, 200, "{path}");
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let served = embeds(Options { timeout: Duration::from_millis(300), ..options() });
    let mut stream = connect(served.address);
    write!(
        stream,
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\nContent-Length: 100\r\n\r\n{{"
    )
    .unwrap();
    let answer = receive(stream);
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (408, "the body was not there within 0.3 seconds; send it faster, or less")
    );
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let gate = Gate::default();
    let served = embeds(gate.before(Options { timeout: Duration::from_millis(300), ..options() }));
    let held = posted(served.address, PATH, &json!({ "input": "a" }));
    until(|| gate.came() == [1]);
    let answer = receive(posted(served.address, PATH, &json!({ "input": ["a", "b"] })));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &json!("timeout")));
    assert_eq!(receive(held).status, 504);
    // What was given up does not run.
    let last = posted(served.address, PATH, &json!({ "input": "a" }));
    gate.allow(10);
    assert_eq!(receive(last).status, 200);
    assert_eq!(gate.came(), [1, 1]);
}

#[test]
fn bodies_share_a_memory() {
    let served = embeds(Options { max_body: 1000, ..options() });
    let body = [b' '; 1000];
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n"
    );
    // As many as there is room for, of which all but the last byte has come.
    let mut held: Vec<_> = (0..16).map(|_| connect(served.address)).collect();
    for stream in &mut held {
        stream.write_all(&[head.as_bytes(), &body[..999]].concat()).unwrap();
    }
    let answer = std::cell::RefCell::new(None);
    until(|| {
        let got = send(served.address, &format!("POST {PATH}"), &[JSON], &body[..500]);
        let full = got.status == 503;
        *answer.borrow_mut() = Some(got);
        full
    });
    let answer = answer.into_inner().unwrap();
    assert_eq!(
        (answer.header("retry-after"), &answer.json()["error"]["code"]),
        (Some("1"), &json!("unavailable"))
    );
    drop(held);
    until(|| post(served.address, PATH, json!({ "input": "a" }).to_string()).status == 200);
}

#[test]
fn settings_that_do_not_go_together_are_an_error() {
    use crate::support::{load, tiny};
    let said = |options: Options, names: &[&str]| {
        let models = names.iter().map(|name| load(name, &tiny())).collect();
        aneforge_serve::Server::bind(options, models).err().unwrap().to_string()
    };
    assert!(
        said(Options { queue: 5, max_batch: 6, ..options() }, &["a"])
            .contains("--max-batch 6 is not between 1 and --queue 5")
    );
    assert!(said(options(), &[]).contains("no model"));
    assert!(said(options(), &["a", "b", "a"]).contains("two models are called `a`"));
    assert!(
        said(Options { host: "no such host".into(), ..options() }, &["a"])
            .contains("cannot listen on no such host:0")
    );
    let taken = embeds(options());
    let port = taken.address.port();
    assert!(said(Options { port, ..options() }, &["a"]).contains("choose another with --host and --port"));
    // A request without a body at all.
    assert_eq!(receive(start(taken.address, &format!("POST {PATH}"), &[JSON], b"")).status, 400);
}

#[test]
fn large_bodies_hold_up_no_small_one() {
    let served = embeds(Options { timeout: Duration::from_secs(3), ..options() });
    let large = json!({ "input": vec!["cat ".repeat(1900); 2000], "truncate": true }).to_string();
    // More than there are threads to read them.
    let held: Vec<_> =
        (0..12).map(|_| start(served.address, &format!("POST {PATH}"), &[JSON], large.as_bytes())).collect();
    assert_eq!(post(served.address, PATH, json!({ "input": "a" }).to_string()).status, 200);
    let statuses: Vec<u16> = held.into_iter().map(|one| receive(one).status).collect();
    assert!(statuses.iter().all(|status| [504, 503, 408, 200].contains(status)), "{statuses:?}");
    // What was given up is not read to its end.
    assert_eq!(post(served.address, PATH, json!({ "input": "a" }).to_string()).status, 200);
}
