//! Programs and native layers in a process of their own: what crashes or hangs there is an error here.
//!
//! The process is this program, or one that calls [`serve`] too, started anew (never forked, which the system's libraries do not
//! survive). It reads one line of JSON that says what to load, and answers one: `{"status":"ready",...}` or what failed. After that it
//! reads requests, each `u32` little endian N and N sets of values, and answers each with `u32` 0 and N sets of results, or with the
//! length of a text and the text of an error. When its input ends, so does it.

mod serve;

pub use serve::{serve, serve_standard};

use crate::error::{AneError, Stage};
use crate::framework::Libraries;
use crate::program::{PortSpec, Source};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The status of a process whose compiler has refused a program.
const COMPILE_FAILED: &str = "compile_failed";
/// The most that is kept of what a process prints.
const MOST_PRINTED: usize = 64 << 10;
/// The most bytes that an answer's text may have.
const MOST_TEXT: u32 = 1 << 20;
/// How long a process has to end once its input has.
const END: Duration = Duration::from_secs(5);
/// How long what it printed is waited for after that.
const SETTLE: Duration = Duration::from_millis(500);

/// What a process is to load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Where the libraries are.
    pub libraries: Libraries,
    /// What.
    pub work: Work,
    /// After how long a call hangs, in milliseconds; the process itself gives up then.
    pub call_limit_ms: u64,
}

/// What a process is to load.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Only to see whether a program compiles, and to leave its bundle.
    Compile {
        /// The program.
        program: ProgramWork,
    },
    /// A program to run.
    Program {
        /// The program.
        program: ProgramWork,
    },
    /// A native layer to run.
    Native {
        /// The folder with the document and its weights.
        folder: PathBuf,
        /// The names of its weight files.
        weights: Vec<String>,
        /// Symbols that are fed, in the order of requests.
        inputs: Vec<String>,
        /// Symbols that come back.
        outputs: Vec<String>,
    },
}

/// A program that a process is to compile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramWork {
    /// The file of MIL.
    pub text: PathBuf,
    /// Where bundles go.
    pub cache: PathBuf,
    /// What is fed: names and bytes.
    pub inputs: Vec<(String, usize)>,
    /// What comes back.
    pub outputs: Vec<(String, usize)>,
}

impl ProgramWork {
    /// The same as a source says it.
    pub fn of(source: &Source<'_>) -> ProgramWork {
        let ports = |specs: &[PortSpec]| specs.iter().map(|spec| (spec.name.clone(), spec.bytes)).collect();
        ProgramWork {
            text: source.text.to_owned(),
            cache: source.cache.to_owned(),
            inputs: ports(source.inputs),
            outputs: ports(source.outputs),
        }
    }
}

/// The line that a process answers first.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    input_bytes: Vec<usize>,
    #[serde(default)]
    output_bytes: Vec<usize>,
}

/// A process that has loaded something. Dropping this ends it.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// Where requests go: a thread writes them, so that a full pipe is waited for within the limit of a call.
    input: Option<Sender<Vec<u8>>>,
    process: u32,
    answers: Receiver<Answer>,
    printed: Arc<Mutex<Vec<u8>>>,
    threads: Vec<JoinHandle<()>>,
    /// Bytes of each input.
    pub inputs: Vec<usize>,
    /// Bytes of each output.
    pub outputs: Vec<usize>,
    limit: Duration,
    ended: bool,
}

#[derive(Debug)]
enum Answer {
    Line(String),
    Results(Vec<u8>),
    Failed(String),
}

impl Worker {
    /// Starts a process by `command` and has it load what `request` says, within `ready`; a call may then take `limit`.
    pub fn start(
        command: &[OsString],
        request: &Request,
        ready: Duration,
        limit: Duration,
    ) -> Result<Worker, AneError> {
        let failed = |why: String| AneError::Worker { stage: Stage::Start, why, output: String::new() };
        let (program, arguments) = command.split_first().ok_or_else(|| failed("has no command".into()))?;
        let spawned = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What the terminal sends to stop a command is for that command.
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|error| {
            failed(format!("could not be started as {}: {error}", program.to_string_lossy()))
        })?;
        let Wires { input, answers, printed, expected, threads } = wired(&mut child);
        let (input, process) = (Some(input), std::process::id());
        let (inputs, outputs) = (Vec::new(), Vec::new());
        let mut worker =
            Worker { child, input, process, answers, printed, threads, inputs, outputs, limit, ended: false };
        let mut line = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
        line.push(b'\n');
        worker.send(line)?;
        let answer = worker.answer(ready, Stage::Compile)?;
        let Answer::Line(line) = answer else { unreachable!("the first answer is a line") };
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|_| worker.end(Stage::Start, format!("answered {line:?}")))?;
        if ready.status != "ready" {
            return Err(worker.refused(&ready));
        }
        *expected.lock().unwrap_or_else(PoisonError::into_inner) = ready.output_bytes.iter().sum();
        worker.inputs = ready.input_bytes;
        worker.outputs = ready.output_bytes;
        Ok(worker)
    }

    /// The error of a process that says that it failed.
    fn refused(&mut self, ready: &Ready) -> AneError {
        let why = format!("failed: {}", if ready.error.is_empty() { &ready.status } else { &ready.error });
        let stage = match ready.status.as_str() {
            COMPILE_FAILED => Stage::Compile,
            _ => Stage::Load,
        };
        self.end(stage, why)
    }

    fn send(&mut self, request: Vec<u8>) -> Result<(), AneError> {
        match self.input.as_ref().map(|input| input.send(request)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.end(Stage::Run, "ended before it was asked".into())),
        }
    }

    fn answer(&mut self, limit: Duration, stage: Stage) -> Result<Answer, AneError> {
        match self.answers.recv_timeout(limit) {
            Ok(Answer::Failed(why)) => Err(self.end(stage, format!("failed: {why}"))),
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                Err(self.end(stage, format!("has not answered within {} s", limit.as_secs_f64())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.end(stage, String::new())),
        }
    }

    /// Ends the process, and says how it did, or why it had to.
    fn end(&mut self, stage: Stage, why: String) -> AneError {
        self.ended = true;
        self.input = None;
        // What has closed its output is about to end by itself, and then says how.
        let patience = if why.is_empty() { END } else { Duration::ZERO };
        let status = self.ended_by(patience);
        self.settle();
        // Whoever crashes has no code; one that ends with one did not come as far as compiling.
        let by_itself = why.is_empty() && status.is_some_and(|status| status.code().is_some());
        let stage = if by_itself && stage == Stage::Compile { Stage::Start } else { stage };
        let why = match (why.is_empty(), status) {
            (false, _) => why,
            (true, Some(status)) => format!("ended by itself ({status})"),
            (true, None) => "ended".into(),
        };
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        AneError::Worker { stage, why, output: String::from_utf8_lossy(&printed).into_owned() }
    }

    /// Waits for the end of the process, and ends it if it takes longer than `patience`.
    fn ended_by(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
                _ => {
                    _ = self.child.kill();
                    return self.child.wait().ok();
                }
            }
        }
    }

    /// Waits a moment for the threads, so that all that was printed is there. They end with the pipes, of which some other process may
    /// have come by a copy.
    fn settle(&mut self) {
        let start = Instant::now();
        while self.threads.iter().any(|thread| !thread.is_finished()) && start.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.threads.clear();
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended, so that another must be started.
    pub fn has_ended(&mut self) -> bool {
        self.ended || !matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs once on these values, one for each input, and gives the results, one after the other.
    pub fn run(&mut self, inputs: &[&[u8]]) -> Result<Vec<u8>, AneError> {
        // A forked process has the pipes, too, and would take the answers of this one.
        if std::process::id() != self.process {
            return Err(AneError::Forked);
        }
        let sizes = inputs.iter().map(|values| values.len());
        if !sizes.clone().eq(self.inputs.iter().copied()) {
            let (want, got) = (self.inputs.iter().sum(), sizes.sum());
            return Err(AneError::Values { port: "of the process".into(), want, got });
        }
        if self.ended {
            return Err(self.end(Stage::Run, "has ended".into()));
        }
        let mut request = 1u32.to_le_bytes().to_vec();
        inputs.iter().for_each(|values| request.extend_from_slice(values));
        self.send(request)?;
        match self.answer(self.limit, Stage::Run)? {
            Answer::Results(results) => Ok(results),
            Answer::Line(line) => Err(self.end(Stage::Run, format!("answered {line:?}"))),
            Answer::Failed(_) => unreachable!("failures are errors"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Neither the process nor the threads are those of a forked one.
        if std::process::id() != self.process {
            return;
        }
        self.input = None;
        if !self.ended {
            self.ended_by(END);
        }
        self.settle();
    }
}

/// What goes to a process and comes from it.
struct Wires {
    input: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    printed: Arc<Mutex<Vec<u8>>>,
    /// Bytes of an answer with results.
    expected: Arc<Mutex<usize>>,
    threads: Vec<JoinHandle<()>>,
}

/// Threads that write to a process, and read what it answers and prints.
fn wired(child: &mut Child) -> Wires {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(mut stderr)) = (stdin, stdout, stderr) else {
        unreachable!("all are piped")
    };
    let (input, requests) = channel::<Vec<u8>>();
    let write = std::thread::spawn(move || {
        let mut requests = requests.iter();
        while let Some(request) = requests.next()
            && stdin.write_all(&request).and_then(|()| stdin.flush()).is_ok()
        {}
    });
    let printed = Arc::new(Mutex::new(Vec::new()));
    let (to, answers) = channel();
    let expected = Arc::new(Mutex::new(0usize));
    let sizes = Arc::clone(&expected);
    let kept = Arc::clone(&printed);
    // A process whose output nobody reads stops.
    let drain = std::thread::spawn(move || {
        let mut piece = [0u8; 4096];
        while let Ok(count) = stderr.read(&mut piece)
            && count > 0
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&piece[..count]);
            let over = kept.len().saturating_sub(MOST_PRINTED);
            kept.drain(..over);
        }
    });
    let listen = std::thread::spawn(move || listen(BufReader::new(stdout), &to, &sizes));
    Wires { input, answers, printed, expected, threads: vec![drain, listen, write] }
}

/// Hands over what a process answers.
fn listen(mut from: impl BufRead, to: &Sender<Answer>, expected: &Mutex<usize>) {
    let mut line = String::new();
    // Libraries may print there too; the answer is the first line that is one.
    loop {
        line.clear();
        match (&mut from).take(u64::from(MOST_TEXT)).read_line(&mut line) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        if line.starts_with("{\"status\"") {
            break;
        }
    }
    if to.send(Answer::Line(line)).is_err() {
        return;
    }
    loop {
        let mut code = [0u8; 4];
        if from.read_exact(&mut code).is_err() {
            return;
        }
        let code = u32::from_le_bytes(code);
        let count = match code {
            0 => *expected.lock().unwrap_or_else(PoisonError::into_inner),
            text => text.min(MOST_TEXT) as usize,
        };
        let mut bytes = vec![0; count];
        if from.read_exact(&mut bytes).is_err() {
            return;
        }
        let answer = match code {
            0 => Answer::Results(bytes),
            _ => Answer::Failed(String::from_utf8_lossy(&bytes).into_owned()),
        };
        if to.send(answer).is_err() {
            return;
        }
    }
}

/// Has a process see whether a program compiles; what it leaves in its cache may be opened again by this one.
pub fn try_compile(
    command: &[OsString],
    libraries: &Libraries,
    source: &Source<'_>,
    limit: Duration,
) -> Result<(), AneError> {
    let work = Work::Compile { program: ProgramWork::of(source) };
    let request = Request { libraries: libraries.clone(), work, call_limit_ms: 0 };
    Worker::start(command, &request, limit, limit).map(drop)
}
