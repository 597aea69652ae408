//! `serve` as a process: what it prints, what it refuses, and how signals end it.

use crate::made;
use crate::support::{command, fails, file, folder, keys, show};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn tiny() -> String {
    show(&Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/models/tiny-bert"))
}

/// A server, and what it printed first.
struct Served {
    child: Child,
    first: String,
}

impl Served {
    fn start(args: &[&str], variables: &[(&str, &str)]) -> Served {
        let mut command = command(&[&["serve", "--port", "0"], args].concat());
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        Served { child, first }
    }

    /// Where it listens.
    fn address(&self) -> String {
        match serde_json::from_str::<Value>(&self.first) {
            Ok(value) => value["address"].as_str().unwrap().to_owned(),
            Err(_) => self.first.trim().strip_prefix("listening on http://").unwrap().to_owned(),
        }
    }

    fn get(&self, path: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        back
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Its exit code and what it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn it_says_where_it_listens_and_signals_end_it() {
    for signal in ["TERM", "INT"] {
        let served = Served::start(&["--model", &tiny()], &[]);
        assert!(served.get("/v1/models", "").contains("\"id\":\"tiny-bert\""));
        served.signal(signal);
        let (code, said) = served.ended();
        assert_eq!(code, Some(0));
        assert!(
            said.contains(" GET /v1/models 200 in ") && said.ends_with("every request was answered\n"),
            "{said}"
        );
    }
}

#[test]
fn machines_get_one_line() {
    let ranks = made::model("tiny-bert", made::WHOLE);
    let other = format!("other={}", ranks.path().display());
    let served = Served::start(&["--json", "--quiet", "--model", &tiny(), "--model", &other], &[]);
    let value: Value = serde_json::from_str(&served.first).unwrap();
    assert_eq!(keys(&value), ["address", "models"]);
    let want = serde_json::json!([{ "name": "tiny-bert", "task": "embeddings" }, { "name": "other", "task": "rerank" }]);
    assert_eq!(value["models"], want);
    served.get("/health", "");
    served.signal("TERM");
    assert_eq!(served.ended(), (Some(0), String::new()), "nothing is said to those who want quiet");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let served = Served::start(&["--model", &tiny(), "--grace", "3600"], &[]);
    // A request that does not come to its end.
    let mut half = TcpStream::connect(served.address()).unwrap();
    write!(
        half,
        "POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    .unwrap();
    while !served.get("/metrics", "").contains("aneforge_requests_running 2") {
        std::thread::sleep(Duration::from_millis(10));
    }
    served.signal("TERM");
    while TcpStream::connect(served.address()).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    served.signal("TERM");
    let (code, said) = served.ended();
    assert!(code == Some(0) && said.contains("stopped before every request was answered"), "{said}");
}

#[test]
fn keys_come_from_files_and_the_environment_and_are_not_said() {
    let folder = folder();
    let path = file(&folder, "keys", "# a comment\nfrom-file\n");
    let args = ["--model", &tiny(), "--api-key-file", &path];
    let served = Served::start(&args, &[("ANEFORGE_API_KEYS", "from-outside,another")]);
    for key in ["from-file", "from-outside", "another"] {
        let header = format!("Authorization: Bearer {key}\r\n");
        assert!(served.get("/v1/models", &header).starts_with("HTTP/1.1 200"), "{key}");
    }
    assert!(served.get("/v1/models", "").starts_with("HTTP/1.1 401"));
    served.signal("TERM");
    let (_, said) = served.ended();
    assert!(!said.contains("from-") && !said.contains("another"), "{said}");
}

#[test]
fn whoever_can_be_reached_without_a_key_is_warned() {
    let said = |args: &[&str], variables: &[(&str, &str)]| {
        let served = Served::start(&[&["--model", &tiny()], args].concat(), variables);
        served.signal("TERM");
        served.ended().1
    };
    let warning = "can be reached from other machines, and no API key is needed; give --api-key-file";
    assert!(said(&["--host", "0.0.0.0"], &[]).contains(warning));
    assert!(!said(&["--host", "0.0.0.0"], &[("ANEFORGE_API_KEYS", "a")]).contains(warning));
    assert!(!said(&["--host", "localhost"], &[]).contains(warning));
}

#[test]
fn what_cannot_be_served_is_an_error() {
    let tiny = tiny();
    let folder = folder();
    let empty = file(&folder, "keys", "# none\n");
    let taken = Served::start(&["--model", &tiny], &[]);
    let port = taken.address().rsplit_once(':').unwrap().1.to_owned();
    for (code, args, said) in [
        (3, vec!["--model", "./nothing"], "model `nothing`: there is no directory `./nothing`"),
        (3, vec!["--model", &tiny, "--model", &tiny], "two models are called `tiny-bert`; name one of them"),
        (3, vec!["--model", "a b=x"], "`a b` cannot be a name"),
        (3, vec!["--model", &tiny, "--api-key-file", &empty], "has no key; write one a line"),
        (3, vec!["--model", &tiny, "--api-key-file", "./none"], "cannot read ./none"),
        (3, vec!["--model", &tiny, "--token-ids", &empty], "name a file of tiktoken"),
        (3, vec!["--model", &tiny, "--port", &port], "choose another with --host and --port"),
        (3, vec!["--model", &tiny, "--queue", "5"], "--max-batch 2048 is not between 1 and --queue 5"),
        (3, vec!["--model", &tiny, "--compress", "sparse"], "give --compress int8"),
        (2, vec!["--model", &tiny, "--max-body", "0"], "a size from 1 byte to 1G is needed"),
        (2, vec!["--model", &tiny, "--max-batch", "0"], "0 is not in 1..=65535"),
        (2, vec!["--model", &tiny, "--timeout", "0"], "0 is not in 1..=86400"),
        (2, vec![], "--model"),
    ] {
        let error = fails(code, &[&["serve", "--quiet"], &args[..]].concat());
        assert!(error.contains(said), "{args:?}: {error}");
    }
    taken.signal("TERM");
}
