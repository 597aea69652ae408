//! A server on a thread, and a client that knows nothing of HTTP but its text.

use crate::made;
use aneforge::device::host::Host;
use aneforge_serve::{Ended, LoadOptions, Model, Options, Server, Stopper};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that is stopped when it is dropped.
pub struct Served {
    pub address: SocketAddr,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Ended>>,
}

impl Served {
    /// Waits until it has ended.
    pub fn ended(mut self) -> Ended {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stopper.stop();
            self.stopper.stop();
            let _ = thread.join();
        }
    }
}

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny-bert")
}

pub fn host() -> LoadOptions {
    LoadOptions { device: Some(Arc::new(Host::new(2))), ..LoadOptions::default() }
}

pub fn load(name: &str, place: &Path) -> Model {
    Model::load(&format!("{name}={}", place.display()), &host()).unwrap()
}

pub fn options() -> Options {
    Options { port: 0, ..Options::default() }
}

/// Starts a server, and waits until its models have run.
pub fn serve(options: Options, models: Vec<Model>) -> Served {
    let server = Server::bind(options, models).unwrap();
    let (address, stopper) = (server.address(), server.stopper());
    let thread = std::thread::spawn(move || server.run().unwrap());
    let served = Served { address, stopper, thread: Some(thread) };
    until(|| get(address, "/health/ready").status == 200);
    served
}

/// One that embeds.
pub fn embeds(options: Options) -> Served {
    serve(options, vec![load("tiny", &tiny())])
}

/// One that reranks, whose files are in the folder.
pub fn reranks(options: Options) -> (Served, tempfile::TempDir) {
    let folder = made::model("tiny-bert", made::WHOLE);
    (serve(options, vec![load("ranks", folder.path())]), folder)
}

/// Waits for what comes to be by itself.
pub fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "it did not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        Some(self.head.lines().find(named)?.split_once(':')?.1.trim())
    }

    /// The message of an error, which has the form of OpenAI's.
    pub fn error(&self) -> String {
        let error = &self.json()["error"];
        let mut keys: Vec<&str> = error.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"], "{error}");
        error["message"].as_str().unwrap().to_owned()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads one answer, which ends the connection.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A server that closes with unread bytes resets the connection; what came before counts.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
    let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    assert!(answer.body.len() == length || answer.head.contains("100 Continue"), "{answer:?}");
    answer
}

/// Sends a request without waiting.
pub fn start(address: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    // One that is refused while it is sent may be cut off.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    stream
}

pub fn send(address: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    receive(start(address, line, headers, body))
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path}"), &[], b"")
}

pub const JSON: &str = "Content-Type: application/json";

pub fn post(address: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    send(address, &format!("POST {path}"), &[JSON], body.as_ref())
}

/// Sends without waiting.
pub fn posted(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    start(address, &format!("POST {path}"), &[JSON], body.to_string().as_bytes())
}

/// The value of a line of the metrics, whose labels are given as they are written.
pub fn metric(address: SocketAddr, line: &str) -> f64 {
    let text = get(address, "/metrics").text();
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

/// Holds batches until it lets them run, and knows how large they are.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Batches>, Condvar)>);

#[derive(Default)]
struct Batches {
    came: Vec<usize>,
    allowed: usize,
}

impl Gate {
    /// Options of a server whose batches it holds.
    pub fn before(&self, options: Options) -> Options {
        let gate = self.clone();
        let hold = move |_: &str, inputs: usize| {
            let (batches, changed) = &*gate.0;
            let mut held = batches.lock().unwrap();
            held.came.push(inputs);
            let turn = held.came.len();
            drop(changed.wait_while(held, |batches| batches.allowed < turn).unwrap());
        };
        Options { before_batch: Some(Arc::new(hold)), ..options }
    }

    /// Lets so many more run.
    pub fn allow(&self, more: usize) {
        self.0.0.lock().unwrap().allowed += more;
        self.0.1.notify_all();
    }

    /// The inputs of each batch that came, those that are held among them.
    pub fn came(&self) -> Vec<usize> {
        self.0.0.lock().unwrap().came.clone()
    }
}
