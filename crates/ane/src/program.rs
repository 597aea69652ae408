//! Programs: compiled, loaded, bound to buffers, run.

mod submission;

pub use submission::Submission;

use crate::capture::captured;
use crate::error::{AneError, Failure};
use crate::framework::{Framework, path_text, text};
use crate::limits;
use crate::rules::Completion;
use crate::sys::buffer::{Buffer, BufferHandle};
use crate::sys::e5rt::{
    CompileOptions, Compiled as RawCompiled, E5rt, Event, Function, OpOptions, Operation, Stream,
};
use crate::sys::system::Block;
use crate::watchdog::Flight;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A port: its name in the program, and the bytes of its value, which lie dense and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name.
    pub name: String,
    /// Bytes of its value.
    pub bytes: usize,
}

/// A program that is to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file of MIL, with `weights.bin` beside it. The system keys what it has compiled by this path too, so it should stay.
    pub text: &'a Path,
    /// A folder for what the compiler makes.
    pub cache: &'a Path,
    /// What is fed.
    pub inputs: &'a [PortSpec],
    /// What comes back.
    pub outputs: &'a [PortSpec],
}

/// How a program is loaded and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether what was compiled before is not looked for.
    pub force: bool,
    /// Whether the compiler is asked to measure each of its tasks.
    pub profiling: bool,
    /// After how long a call hangs.
    pub call_limit: Duration,
}

impl Default for Options {
    /// What ANEForge asks for: compiled anew, which the system's own cache makes short, and not measured.
    fn default() -> Options {
        Options { force: true, profiling: false, call_limit: limits::CALL_LIMIT }
    }
}

/// A port of a program, by its place among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is fed.
    Input(usize),
    /// What comes back.
    Output(usize),
}

struct BoundPort {
    // Released in this order.
    buffer: Option<BufferHandle>,
    port: crate::sys::e5rt::Port,
    spec: PortSpec,
}

/// One program on a stream. Fields are released in the order in which they stand.
struct Op {
    inputs: Vec<BoundPort>,
    outputs: Vec<BoundPort>,
    event: Option<Event>,
    operation: Operation,
    _options: OpOptions,
    _function: Function,
    _compiled: Compiled,
}

/// A program that is compiled, and not loaded. Clones are the same, and any number of them can be loaded.
#[derive(Clone)]
pub struct Compiled(Arc<Mutex<RawCompiled>>);

impl Compiled {
    /// Compiles a program.
    pub fn new(framework: &Framework, source: &Source<'_>, options: Options) -> Result<Compiled, AneError> {
        framework.e5rt.here()?;
        let chosen = CompileOptions { force: options.force, custom: None, profiling: options.profiling };
        Ok(Compiled(Arc::new(Mutex::new(compiled(framework.e5rt, source, chosen)?))))
    }

    /// Opens a bundle that a compile has left. Reported to work in a process of the same program and parent; whether it does is
    /// known when it is loaded, which may fail with [`AneError::Recompile`].
    pub fn reopen(framework: &Framework, bundle: &Path) -> Result<Compiled, AneError> {
        framework.e5rt.here()?;
        let symbol = "e5rt_program_library_create";
        let (without, path) =
            ("compiled programs are not opened again", framework.libraries().espresso.clone());
        let opened = framework.e5rt.reopen(&path_text(bundle)?);
        let compiled = opened.ok_or(AneError::Symbol { path, symbol, without })??;
        Ok(Compiled(Arc::new(Mutex::new(compiled))))
    }

    /// The bundles that a compile has left in `cache`: only these name what the engine loads.
    pub fn bundles(cache: &Path) -> Vec<PathBuf> {
        let folders = |at: &Path| {
            let entries = std::fs::read_dir(at).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
            found.sort();
            found
        };
        let is_bundle = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "bundle");
        let (mut found, mut open) = (Vec::new(), vec![(cache.to_owned(), 0)]);
        while let Some((at, depth)) = open.pop() {
            let inside = folders(&at);
            if is_bundle(&at) && !inside.iter().any(is_bundle) {
                found.push(at);
            } else if depth < 6 {
                open.extend(inside.into_iter().map(|path| (path, depth + 1)));
            }
        }
        found
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiled")
    }
}

/// What is released, in the order of the reference: the stream, then each program with its ports, then what the stream may call.
struct Parts {
    stream: Stream,
    ops: Vec<Op>,
    /// What is called back, once something has run asynchronously.
    block: Option<&'static Block>,
}

/// Numbers of runs, of which no two are the same in a process, nor 0.
struct Runs(u64);

impl Runs {
    /// So many are taken at once, so that programs on several threads seldom meet over them.
    const TAKEN: u64 = 1 << 32;

    #[inline]
    fn next(&mut self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(Runs::TAKEN);
        match self.0.wrapping_add(1) % Runs::TAKEN {
            // None is left, or none was taken yet.
            0 | 1 => self.0 = NEXT.fetch_add(Runs::TAKEN, Ordering::Relaxed) + 1,
            _ => self.0 += 1,
        }
        self.0
    }
}

/// Programs on one stream, loaded into the engine. Mostly there is one.
///
/// It may move between threads, and is used from one at a time. Its ports have no memory until buffers are bound to them.
pub struct Program {
    /// Always there but while this is dropped.
    parts: Option<Parts>,
    framework: Arc<Framework>,
    completion: Arc<Completion>,
    flight: Arc<Flight>,
    encoded: bool,
    /// Whether its stream has run asynchronously since it was encoded: it does so only once without a reset.
    spent: bool,
    /// Whether it runs asynchronously.
    flying: bool,
    runs: Runs,
    /// Whether a call still runs that will not be waited for: what it uses must stay.
    abandoned: bool,
}

/// Compiles a program, with what the libraries print in the error.
pub(crate) fn compiled(
    api: &'static E5rt,
    source: &Source<'_>,
    options: CompileOptions<'_>,
) -> Result<RawCompiled, AneError> {
    let failed = |action, path: &Path, error: std::io::Error| {
        Err(AneError::Io { action, path: path.to_owned(), why: error.to_string() })
    };
    // The library takes any name, and what it says of a file that is not there is about something else.
    if let Err(error) = std::fs::File::open(source.text) {
        return failed("read", source.text, error);
    }
    if let Err(error) = std::fs::create_dir_all(source.cache) {
        return failed("make folder", source.cache, error);
    }
    let (path, cache) = (path_text(source.text)?, path_text(source.cache)?);
    let (done, output) = captured(|| api.compile(&path, &cache, options));
    done.map_err(|failure| AneError::Compile { failure, output })
}

/// An error for a port that was said to have fewer bytes than the library says that it takes.
fn holds(spec: &PortSpec, layout: Option<Vec<(u64, u64)>>) -> Result<(), AneError> {
    let Some(layout) = layout else { return Ok(()) };
    let mut extents = layout.iter().map(|(extent, _)| usize::try_from(*extent).unwrap_or(usize::MAX));
    let elements = extents.try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
    match limits::port_holds(elements, spec.bytes) {
        true => Ok(()),
        false => Err(AneError::Extents { port: spec.name.clone(), elements, bytes: spec.bytes }),
    }
}

impl Program {
    /// Loads a program that is compiled: its ports are those of `source`.
    pub fn load(
        framework: &Arc<Framework>,
        compiled: &Compiled,
        source: &Source<'_>,
        options: Options,
    ) -> Result<Program, AneError> {
        let mut program = Program::empty(framework, options)?;
        program.add(compiled, source)?;
        Ok(program)
    }

    fn empty(framework: &Arc<Framework>, options: Options) -> Result<Program, AneError> {
        framework.e5rt.here()?;
        let completion = Arc::new(Completion::new());
        let stream = framework.e5rt.stream()?;
        Ok(Program {
            parts: Some(Parts { stream, ops: Vec::new(), block: None }),
            framework: Arc::clone(framework),
            completion,
            flight: Flight::new(options.call_limit),
            encoded: false,
            spent: false,
            flying: false,
            runs: Runs(0),
            abandoned: false,
        })
    }

    /// Loads another program onto the same stream, to run after those that are there; its number.
    pub fn add(&mut self, compiled: &Compiled, source: &Source<'_>) -> Result<usize, AneError> {
        self.ready()?;
        let api = self.framework.e5rt;
        let raw = compiled.0.lock().unwrap_or_else(PoisonError::into_inner);
        let function = api.function(&raw)?;
        drop(raw);
        let options = api.op_options(&function)?;
        let operation = api.operation(&options)?;
        let ports = |specs: &[PortSpec], input: bool| -> Result<Vec<BoundPort>, AneError> {
            let port = |spec: &PortSpec| {
                let port = api.port(&operation, &text(&spec.name)?, input)?;
                holds(spec, api.layout(&port))?;
                Ok(BoundPort { buffer: None, port, spec: spec.clone() })
            };
            specs.iter().map(port).collect()
        };
        let (inputs, outputs) = (ports(source.inputs, true)?, ports(source.outputs, false)?);
        let number = self.parts().ops.len();
        let name = CString::new(format!("op{number}_complete")).expect("invariant: no zero byte");
        // Programs work without events, which some systems have not.
        let event = api.event(&name).and_then(Result::ok);
        let event = event.filter(|event| api.completes(&operation, event).is_some_and(|bound| bound.is_ok()));
        self.rewind()?;
        self.parts_mut().ops.push(Op {
            inputs,
            outputs,
            event,
            operation,
            _options: options,
            _function: function,
            _compiled: compiled.clone(),
        });
        Ok(number)
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("invariant: a program has its parts until it is dropped")
    }

    fn parts_mut(&mut self) -> &mut Parts {
        self.parts.as_mut().expect("invariant: a program has its parts until it is dropped")
    }

    /// How many programs there are on its stream.
    pub fn len(&self) -> usize {
        self.parts().ops.len()
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.parts().ops.is_empty()
    }

    /// Makes program `after` wait for program `before`. Whether the engine heeds that in a call that is waited for is not known;
    /// programs of one stream run in their order anyhow.
    pub fn chain(&mut self, before: usize, after: usize) -> Result<(), AneError> {
        let count = self.parts().ops.len();
        let index = before.max(after);
        if index >= count || before == after {
            return Err(AneError::Port { what: "other program", index, count });
        }
        self.rewind()?;
        let without = "programs do not wait for each other";
        let lacks =
            |symbol| AneError::Symbol { path: self.framework.libraries().espresso.clone(), symbol, without };
        let ops = &self.parts().ops;
        let event = ops[before].event.as_ref().ok_or_else(|| lacks("e5rt_async_event_create"))?;
        let done = self.framework.e5rt.depends(&ops[after].operation, event);
        done.ok_or_else(|| lacks("e5rt_execution_stream_operation_bind_dependent_events"))?
            .map_err(AneError::from)
    }

    /// The value that a program's event had last, and `None` where there are no events. Reported to change in asynchronous runs only.
    pub fn signalled(&self, op: usize) -> Option<Result<u64, AneError>> {
        let event = self.parts().ops.get(op)?.event.as_ref()?;
        Some(self.framework.e5rt.value(event)?.map_err(AneError::from))
    }

    /// Gives a program's event a value.
    pub fn signal(&self, op: usize, value: u64) -> Option<Result<(), AneError>> {
        let event = self.parts().ops.get(op)?.event.as_ref()?;
        Some(self.framework.e5rt.signal(event, value)?.map_err(AneError::from))
    }

    /// Waits until a program's event has a value, at most so long.
    pub fn wait_for(&self, op: usize, value: u64, limit: Duration) -> Option<Result<(), AneError>> {
        let event = self.parts().ops.get(op)?.event.as_ref()?;
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Some(self.framework.e5rt.wait(event, value, nanoseconds)?.map_err(AneError::from))
    }

    /// The extents of a port and how many elements apart they lie, where the library says so.
    pub fn layout(&self, op: usize, side: Side) -> Option<Vec<(u64, u64)>> {
        self.framework.e5rt.layout(&self.port(op, side).ok()?.port)
    }

    fn port(&self, op: usize, side: Side) -> Result<&BoundPort, AneError> {
        let count = self.parts().ops.len();
        let op = self.parts().ops.get(op).ok_or(AneError::Port { what: "program", index: op, count })?;
        let (what, ports, index) = match side {
            Side::Input(index) => ("input", &op.inputs, index),
            Side::Output(index) => ("output", &op.outputs, index),
        };
        ports.get(index).ok_or(AneError::Port { what, index, count: ports.len() })
    }

    /// Makes `buffer` what a port reads or writes from the next run on. An input and an output, of any programs, may have one buffer:
    /// state. What the port had before is let go.
    pub fn bind(&mut self, op: usize, side: Side, buffer: &BufferHandle) -> Result<(), AneError> {
        self.ready()?;
        let spec = &self.port(op, side)?.spec;
        // The engine writes as much as the port has, wherever that ends.
        if buffer.len() < spec.bytes {
            return Err(AneError::Small { port: spec.name.clone(), want: spec.bytes, got: buffer.len() });
        }
        self.rewind()?;
        let api = self.framework.e5rt;
        let op = &mut self.parts_mut().ops[op];
        let port = match side {
            Side::Input(index) => &mut op.inputs[index],
            Side::Output(index) => &mut op.outputs[index],
        };
        api.bind(&port.port, buffer)?;
        port.buffer = Some(buffer.clone());
        Ok(())
    }

    /// Bindings do not change once a stream is encoded, until it is reset.
    fn rewind(&mut self) -> Result<(), AneError> {
        if !self.encoded {
            return Ok(());
        }
        let symbol = "e5rt_execution_stream_reset";
        let without = "a program that has run is not bound to other buffers";
        let lacks =
            || AneError::Symbol { path: self.framework.libraries().espresso.clone(), symbol, without };
        self.framework.e5rt.reset(&self.parts().stream).ok_or_else(lacks)??;
        (self.encoded, self.spent) = (false, false);
        Ok(())
    }

    fn ready(&self) -> Result<(), AneError> {
        if self.flight.hung() {
            return Err(AneError::Hung(self.flight.limit()));
        }
        if self.flying {
            return Err(AneError::InFlight);
        }
        self.framework.e5rt.here()
    }

    /// Looks whether the buffer of every port is among those that are handed over.
    #[inline]
    fn take<'a>(&mut self, buffers: impl IntoIterator<Item = &'a mut Buffer>) -> Result<(), AneError> {
        let run = self.runs.next();
        buffers.into_iter().for_each(|buffer| buffer.lend(run));
        for op in &self.parts().ops {
            for port in op.inputs.iter().chain(&op.outputs) {
                match &port.buffer {
                    Some(buffer) if buffer.is_lent(run) => {}
                    Some(_) => return Err(AneError::NotHeld(port.spec.name.clone())),
                    None => return Err(AneError::Unbound(port.spec.name.clone())),
                }
            }
        }
        Ok(())
    }

    /// Encodes every program once, in order, unless that is done.
    fn encode(&mut self) -> Result<(), AneError> {
        if self.spent {
            self.rewind()?;
        }
        if self.encoded {
            return Ok(());
        }
        // From the first on, so that a failure at a later one is taken back as a whole.
        self.encoded = true;
        let encode = |op: &Op| self.framework.e5rt.encode(&self.parts().stream, &op.operation);
        let encoded = self.parts().ops.iter().try_for_each(encode);
        if encoded.is_err() {
            self.rewind()?;
        }
        Ok(encoded?)
    }

    /// Runs every program of the stream once, and waits. Every buffer that a port is bound to is handed over meanwhile, in any order and
    /// with any others: the engine reads and writes them.
    pub fn execute<'a>(&mut self, buffers: impl IntoIterator<Item = &'a mut Buffer>) -> Result<(), AneError> {
        self.ready()?;
        self.take(buffers)?;
        self.encode()?;
        self.flight.begin();
        let done = self.framework.e5rt.execute(&self.parts().stream);
        self.flight.end();
        // What came back after it was given up is not believed.
        if self.flight.hung() {
            return Err(AneError::Hung(self.flight.limit()));
        }
        done.map_err(AneError::Call)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Whoever forgot that it runs has not waited.
        if self.flying && crate::sys::is_here() {
            _ = self.finish(self.flight.limit());
        }
        if self.abandoned {
            // Releasing what a call still uses hangs, or worse.
            std::mem::forget(self.parts.take());
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports =
            |ports: &[BoundPort]| ports.iter().map(|p| p.spec.name.clone()).collect::<Vec<_>>().join(", ");
        let ops = self.parts().ops.iter();
        f.debug_list()
            .entries(ops.map(|op| format!("{} -> {}", ports(&op.inputs), ports(&op.outputs))))
            .finish()
    }
}

/// The failure of an error that is one.
impl AneError {
    /// The call that failed, where one did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            AneError::Call(failure) | AneError::Compile { failure, .. } | AneError::Recompile(failure) => {
                Some(failure)
            }
            _ => None,
        }
    }
}
