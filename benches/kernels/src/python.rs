//! onnxruntime and PyTorch, each in a Python process that answers one line per request.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use crate::timing::{Variant, rest};

/// The libraries, and the scripts that answer for them.
const ONNXRUNTIME: [&str; 2] = ["onnxruntime", concat!(env!("CARGO_MANIFEST_DIR"), "/onnxruntime_peer.py")];
const PYTORCH: [&str; 2] = ["PyTorch", concat!(env!("CARGO_MANIFEST_DIR"), "/torch_peer.py")];

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is ours, and has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The running process.
#[derive(Clone)]
pub struct Peer {
    process: Rc<RefCell<Process>>,
    library: &'static str,
    pub version: String,
    pub threads: usize,
}

impl Peer {
    /// `None` where this Python has no onnxruntime.
    pub fn onnxruntime(python: &str, threads: usize) -> Option<Peer> {
        Peer::start(python, ONNXRUNTIME, threads)
    }

    /// `None` where this Python has no PyTorch.
    pub fn pytorch(python: &str, threads: usize) -> Option<Peer> {
        Peer::start(python, PYTORCH, threads)
    }

    fn start(python: &str, [library, script]: [&'static str; 2], threads: usize) -> Option<Peer> {
        let mut command = Command::new(python);
        // What a library that is not there says is of no interest.
        command.stderr(if library == "PyTorch" { Stdio::null() } else { Stdio::inherit() });
        command.args([script, &threads.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let process = Rc::new(RefCell::new(Process { child, input, output }));
        let mut peer = Peer { process, library, version: String::new(), threads };
        let hello = peer.line()?;
        peer.version = text(&hello, "version")?;
        Some(peer)
    }

    fn line(&self) -> Option<String> {
        let mut line = String::new();
        self.process.borrow_mut().output.read_line(&mut line).ok().filter(|&size| size > 0)?;
        Some(line)
    }

    fn ask(&self, request: &str) -> String {
        writeln!(self.process.borrow_mut().input, "{request}").expect("a peer's process reads");
        self.line().expect("a peer's process answers")
    }

    /// A graph as a variant; `nodes` is JSON, see the script.
    pub fn variant<'a>(&self, nodes: &str) -> Variant<'a> {
        let answer = self.ask(&format!("{{\"graph\": {nodes}}}"));
        let session = number(&answer, "session").expect("a session has a number") as usize;
        let peer = self.clone();
        let run = move |calls: usize| {
            let answer = peer.ask(&format!("{{\"time\": {session}, \"calls\": {calls}}}"));
            rest();
            number(&answer, "seconds").expect("an answer has a time")
        };
        Variant { name: self.name(), roof: None, run: Box::new(run) }
    }

    /// The name of its variants.
    pub fn name(&self) -> String {
        format!("{} f32, {}T", self.library, self.threads)
    }
}

fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let rest = json.split_once(&format!("\"{name}\": "))?.1;
    rest.split([',', '}']).next()
}

fn number(json: &str, name: &str) -> Option<f64> {
    field(json, name)?.trim().parse().ok()
}

fn text(json: &str, name: &str) -> Option<String> {
    Some(field(json, name)?.trim().trim_matches('"').to_string())
}
