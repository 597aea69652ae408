//! Running: operations, streams, events.

use crate::broken;
use crate::e5rt::{exports, fails, put};
use crate::model::{self, Compiled, Port};
use crate::registry::{self, Handle, Memory, Object};
use crate::{faults, text};
use aneforge::Session;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static LOADED: AtomicUsize = AtomicUsize::new(0);
static RUNS: AtomicU64 = AtomicU64::new(0);
/// Whether a stream runs asynchronously: a second one never ends.
static IN_FLIGHT: AtomicBool = AtomicBool::new(false);

pub(crate) fn loaded() -> usize {
    LOADED.load(Ordering::Relaxed)
}

/// A port of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Input(usize),
    Output(usize),
}

/// A program that is loaded.
pub(crate) struct Operation {
    pub(crate) compiled: Arc<Compiled>,
    session: Mutex<Session>,
    bound: Mutex<Bound>,
}

#[derive(Default)]
struct Bound {
    inputs: Vec<Option<Arc<Memory>>>,
    outputs: Vec<Option<Arc<Memory>>>,
    encoded: bool,
    completion: Option<Arc<Event>>,
    /// What a run uses, made when it is encoded.
    ready: (Vec<Arc<Memory>>, Vec<Arc<Memory>>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Operation {
    pub(crate) fn load(compiled: Arc<Compiled>) -> Result<Operation, String> {
        if compiled.reopened && !faults::reopens() {
            return Err("ANE model load has failed: Must re-compile the E5 bundle".into());
        }
        if LOADED.fetch_add(1, Ordering::Relaxed) >= faults::programs() {
            LOADED.fetch_sub(1, Ordering::Relaxed);
            return Err("ANE model load has failed: GetANEFModel: must re-compile the E5 bundle".into());
        }
        let session = model::session(Arc::clone(&compiled.plan))
            .inspect_err(|_| _ = LOADED.fetch_sub(1, Ordering::Relaxed))?;
        let (inputs, outputs) = (vec![None; compiled.inputs.len()], vec![None; compiled.outputs.len()]);
        let bound = Bound { inputs, outputs, ..Bound::default() };
        Ok(Operation { compiled, session: Mutex::new(session), bound: Mutex::new(bound) })
    }

    pub(crate) fn port(&self, place: Place) -> &Port {
        match place {
            Place::Input(at) => &self.compiled.inputs[at],
            Place::Output(at) => &self.compiled.outputs[at],
        }
    }

    pub(crate) fn bind(&self, place: Place, memory: Arc<Memory>) -> i32 {
        let mut bound = locked(&self.bound);
        if bound.encoded {
            return fails(
                2,
                "the operation is encoded, and its ports do not change until its stream is reset",
            );
        }
        match place {
            Place::Input(at) => bound.inputs[at] = Some(memory),
            Place::Output(at) => bound.outputs[at] = Some(memory),
        }
        0
    }

    fn run(&self) -> Result<(), String> {
        let bound = locked(&self.bound);
        if !bound.encoded {
            return Err("an operation of the stream is not encoded".into());
        }
        if faults::executes() {
            model::run(&mut locked(&self.session), &bound.ready.0, &bound.ready.1)?;
        }
        Ok(())
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        LOADED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Operations in the order in which they run.
#[derive(Default)]
pub(crate) struct Stream {
    ops: Mutex<Vec<Arc<Operation>>>,
    poisoned: AtomicBool,
    running: AtomicBool,
}

impl Stream {
    fn run(&self) -> Result<(), String> {
        let ops = locked(&self.ops);
        if ops.is_empty() {
            return Err("nothing is encoded".into());
        }
        ops.iter().try_for_each(|op| op.run())?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        if faults::corrupt(run) {
            for memory in ops.iter().flat_map(|op| locked(&op.bound).ready.1.clone()) {
                // SAFETY: memory of so many bytes.
                unsafe { memory.at.load(Ordering::Relaxed).write_bytes(0x5A, memory.bytes) };
            }
            return Err("the engine answered 0xe00002bc".into());
        }
        Ok(())
    }
}

/// A number that is waited for.
#[derive(Default)]
pub(crate) struct Event {
    value: Mutex<u64>,
    changed: Condvar,
}

impl Event {
    fn signal(&self, value: u64) {
        *locked(&self.value) = value;
        self.changed.notify_all();
    }
}

exports! { symbol;
    /// Makes a stream.
    fn e5rt_execution_stream_create(out: *mut Handle) {
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Stream(Arc::default())) }
    }
    /// Releases a stream. With a call in flight this never comes back.
    fn e5rt_execution_stream_release(cell: *mut Handle) {
        // SAFETY: the caller's.
        let Object::Stream(stream) = (unsafe { registry::release(symbol, "stream", cell) }) else { return 0 };
        if stream.poisoned.load(Ordering::Relaxed) {
            broken("libc++abi: terminating due to E5RT::E5RTError: Op has not been encoded and hence cannot be reset");
        }
        while stream.running.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_secs(1));
        }
        for op in locked(&stream.ops).drain(..) {
            locked(&op.bound).encoded = false;
        }
        0
    }
    /// Releases an operation.
    fn e5rt_execution_stream_operation_release(cell: *mut Handle) {
        // SAFETY: the caller's.
        let Object::Operation(operation) = (unsafe { registry::release(symbol, "operation", cell) }) else { return 0 };
        if locked(&operation.bound).encoded {
            broken(&format!("{symbol}: the operation is encoded in a stream that lives; release the stream first"));
        }
        0
    }
    /// Encodes an operation, after those that are there.
    fn e5rt_execution_stream_encode_operation(stream: Handle, operation: Handle) {
        let (stream, operation) = (registry::stream(symbol, stream), registry::operation(symbol, operation));
        if stream.poisoned.load(Ordering::Relaxed) {
            return fails(2, "the stream is poisoned");
        }
        {
            let mut bound = locked(&operation.bound);
            if bound.encoded {
                return fails(2, "the operation is encoded already");
            }
            let all = |ports: &[Option<Arc<Memory>>]| ports.iter().cloned().collect::<Option<Vec<_>>>();
            let (Some(inputs), Some(outputs)) = (all(&bound.inputs), all(&bound.outputs)) else {
                return fails(2, "a port is not bound");
            };
            bound.ready = (inputs, outputs);
            bound.encoded = true;
        }
        locked(&stream.ops).push(operation);
        0
    }
    /// Must not be called: on an operation that is encoded, it poisons the stream.
    fn e5rt_execution_stream_operation_prepare_op_for_encode(operation: Handle) {
        let operation = registry::operation(symbol, operation);
        if locked(&operation.bound).encoded {
            broken(&format!("{symbol}: called on an encoded operation, whose stream is poisoned by it"));
        }
        0
    }
    /// Runs, and waits.
    fn e5rt_execution_stream_execute_sync(stream: Handle) {
        let stream = registry::stream(symbol, stream);
        stream.running.store(true, Ordering::Release);
        let done = stream.run();
        stream.running.store(false, Ordering::Release);
        done.map_or_else(|why| fails(2, &why), |()| 0)
    }
    /// Forgets what is encoded.
    fn e5rt_execution_stream_reset(stream: Handle) {
        let stream = registry::stream(symbol, stream);
        if stream.poisoned.load(Ordering::Relaxed) {
            return fails(2, "the stream is poisoned");
        }
        for op in locked(&stream.ops).drain(..) {
            locked(&op.bound).encoded = false;
        }
        0
    }
    /// Must not be called.
    fn e5rt_execution_stream_async_submit(_stream: Handle) {
        fails(2, "Use submit_async")
    }
    /// Runs, and calls a block when it is done.
    fn e5rt_execution_stream_submit_async(stream: Handle, block: Handle) {
        let stream = registry::stream(symbol, stream);
        if block.is_null() {
            broken(&format!("{symbol}: the block is null"));
        }
        let block = Block::of(block);
        if IN_FLIGHT.swap(true, Ordering::AcqRel) {
            // Accepted, and never done.
            std::mem::forget(stream);
            return 0;
        }
        stream.running.store(true, Ordering::Release);
        std::thread::spawn(move || {
            let done = stream.run();
            stream.running.store(false, Ordering::Release);
            IN_FLIGHT.store(false, Ordering::Release);
            if let (Ok(()), Some(op)) = (done, locked(&stream.ops).last()) {
                let event = locked(&op.bound).completion.clone();
                event.iter().for_each(|event| event.signal(1));
            }
            block.call();
        });
        0
    }
    /// Makes an event.
    fn e5rt_async_event_create(out: *mut Handle, name: *const c_char, flags: u32) {
        // SAFETY: the caller's.
        if unsafe { text(name) }.is_none() {
            return fails(1, "Invalid Function Argument: eventName is NULL");
        }
        if flags != 0 {
            return fails(1, "Invalid Function Argument: unknown flags");
        }
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Event(Arc::default())) }
    }
    /// Gives an event a value.
    fn e5rt_async_event_signal(event: Handle, value: u64) {
        registry::event(symbol, event).signal(value);
        0
    }
    /// Waits for a value.
    fn e5rt_async_event_sync_wait(event: Handle, value: u64, nanoseconds: u64) {
        let event = registry::event(symbol, event);
        let limit = Duration::from_nanos(nanoseconds);
        let waited = event.changed.wait_timeout_while(locked(&event.value), limit, |at| *at < value);
        let reached = *waited.unwrap_or_else(PoisonError::into_inner).0 >= value;
        if reached { 0 } else { fails(2, "the event was not signalled in time") }
    }
    /// The last value.
    fn e5rt_async_event_get_last_signaled_value(event: Handle, value: *mut u64) {
        // SAFETY: the caller's.
        unsafe { *value = *locked(&registry::event(symbol, event).value) };
        0
    }
    /// The event of an operation's end.
    fn e5rt_execution_stream_operation_bind_completion_event(operation: Handle, event: Handle) {
        let (operation, event) = (registry::operation(symbol, operation), registry::event(symbol, event));
        let mut bound = locked(&operation.bound);
        if bound.encoded {
            return fails(2, "the operation is encoded");
        }
        bound.completion = Some(event);
        0
    }
    /// Events that an operation waits for.
    fn e5rt_execution_stream_operation_bind_dependent_events(operation: Handle, events: *mut Handle, count: u64) {
        let operation = registry::operation(symbol, operation);
        let bound = locked(&operation.bound);
        if bound.encoded {
            return fails(2, "the operation is encoded");
        }
        for at in 0..count as usize {
            // SAFETY: the caller's.
            let event = registry::event(symbol, unsafe { *events.add(at) });
            if bound.completion.as_ref().is_some_and(|own| Arc::ptr_eq(own, &event)) {
                return fails(2, "an operation cannot wait for itself");
            }
        }
        0
    }
}

/// A block, which a thread calls once.
struct Block(usize);

impl Block {
    /// Only global blocks, which are not copied.
    fn of(block: Handle) -> Block {
        // SAFETY: blocks begin with a class and their flags.
        let flags = unsafe { *block.cast::<i32>().add(2) };
        if flags & (1 << 28) == 0 {
            broken("a block that is not global would have to be copied");
        }
        Block(block.addr())
    }

    fn call(self) {
        let block: Handle = std::ptr::with_exposed_provenance_mut(self.0);
        // SAFETY: what is called follows the flags.
        let invoke = unsafe { *block.cast::<unsafe extern "C" fn(Handle) -> i32>().add(2) };
        // SAFETY: the block lives until it is called.
        unsafe { invoke(block) };
    }
}

/// The class of global blocks.
#[unsafe(no_mangle)]
pub static _NSConcreteGlobalBlock: [usize; 32] = [0; 32];
