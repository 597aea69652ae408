//! Objects by handles that are no addresses: what is not alive, or never was a handle, is found out.

use crate::broken;
use crate::model::Compiled;
use crate::streams::{Event, Operation, Stream};
use aneforge::TensorType;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

pub(crate) type Handle = *mut c_void;

/// Memory that ports are bound to.
pub(crate) struct Memory {
    pub(crate) at: AtomicPtr<u8>,
    pub(crate) bytes: usize,
}

impl Memory {
    /// So much memory, if it can be had.
    pub(crate) fn new(bytes: usize) -> Option<Memory> {
        let (words, mut memory) = (bytes.div_ceil(8), Vec::new());
        memory.try_reserve_exact(words).ok()?;
        // As full of rubbish as any.
        memory.resize(words, 0xA5u64);
        Some(Memory { at: AtomicPtr::new(Box::into_raw(memory.into_boxed_slice()).cast()), bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let at: *mut u64 = self.at.load(Ordering::Relaxed).cast();
        let slice = std::ptr::slice_from_raw_parts_mut(at, self.bytes.div_ceil(8));
        // SAFETY: `new` has made it of so many words.
        drop(unsafe { Box::from_raw(slice) });
    }
}

/// What handles stand for.
#[derive(Clone)]
pub(crate) enum Object {
    Config(Arc<std::sync::Mutex<Option<String>>>),
    Compiler(Arc<str>),
    Options(Arc<std::sync::Mutex<crate::e5rt::Chosen>>),
    Library(Arc<Compiled>),
    Function(Arc<Compiled>),
    OpOptions(Arc<Compiled>),
    Operation(Arc<Operation>),
    Port(Arc<Operation>, crate::streams::Place),
    Tensor(TensorType),
    Buffer(Arc<Memory>),
    Stream(Arc<Stream>),
    Event(Arc<Event>),
}

impl Object {
    fn kind(&self) -> &'static str {
        match self {
            Object::Config(_) => "compiler config",
            Object::Compiler(_) => "compiler",
            Object::Options(_) => "compiler options",
            Object::Library(_) => "program library",
            Object::Function(_) => "program function",
            Object::OpOptions(_) => "operation options",
            Object::Operation(_) => "operation",
            Object::Port(..) => "port",
            Object::Tensor(_) => "tensor description",
            Object::Buffer(_) => "buffer",
            Object::Stream(_) => "stream",
            Object::Event(_) => "event",
        }
    }
}

#[derive(Default)]
struct Registry {
    live: HashMap<usize, Object>,
}

static REGISTRY: LazyLock<RwLock<Registry>> = LazyLock::new(RwLock::default);
/// Handles are odd and lie where no memory is, so that using one as an address is found out at once.
static NEXT: AtomicUsize = AtomicUsize::new(FIRST);
const FIRST: usize = 0x0ead_0000_0000_0001;

fn registry() -> std::sync::RwLockReadGuard<'static, Registry> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn alive() -> usize {
    registry().live.len()
}

/// A handle for an object.
pub(crate) fn add(object: Object) -> Handle {
    let handle = NEXT.fetch_add(2, Ordering::Relaxed);
    REGISTRY.write().unwrap_or_else(PoisonError::into_inner).live.insert(handle, object);
    std::ptr::without_provenance_mut(handle)
}

/// What is wrong with a handle that stands for nothing.
fn stray(symbol: &str, handle: usize) -> ! {
    let was = handle >= FIRST && handle < NEXT.load(Ordering::Relaxed) && handle % 2 == 1;
    broken(&match (handle, was) {
        (0, _) => format!("{symbol}: null in the place of an object"),
        (_, true) => format!("{symbol}: used after it was released"),
        _ => format!("{symbol}: {handle:#x} is no handle, but perhaps the address of one"),
    })
}

/// What a handle stands for.
pub(crate) fn get(symbol: &str, handle: Handle) -> Object {
    let found = registry().live.get(&handle.addr()).cloned();
    found.unwrap_or_else(|| stray(symbol, handle.addr()))
}

/// Takes an object by the address of its handle, which is cleared.
///
/// # Safety
/// `cell` is the address of a handle, or what is found out to be none.
pub(crate) unsafe fn release(symbol: &str, kind: &str, cell: *mut Handle) -> Object {
    let at = cell.addr();
    if at >= FIRST && at < NEXT.load(Ordering::Relaxed) {
        broken(&format!("{symbol}: takes the address of a handle, not the handle"));
    }
    if cell.is_null() {
        broken(&format!("{symbol}: null in the place of the address of a handle"));
    }
    // SAFETY: the caller's.
    let handle = unsafe { *cell };
    if handle.is_null() {
        broken(&format!("{symbol}: released before, as its handle is cleared"));
    }
    let object = REGISTRY.write().unwrap_or_else(PoisonError::into_inner).live.remove(&handle.addr());
    let object = object.unwrap_or_else(|| {
        match handle.addr() >= FIRST && handle.addr() < NEXT.load(Ordering::Relaxed) {
            true => broken(&format!("{symbol}: released twice")),
            false => stray(symbol, handle.addr()),
        }
    });
    if object.kind() != kind {
        broken(&format!("{symbol}: takes a {kind}, got a {}", object.kind()));
    }
    // SAFETY: the caller's.
    unsafe { *cell = std::ptr::null_mut() };
    object
}

/// Declares functions that find objects of one kind.
macro_rules! kinds {
    ($($name:ident = $variant:ident($($part:ident: $ty:ty),*);)*) => { $(
        #[allow(unused_parens, reason = "most have one part")]
        pub(crate) fn $name(symbol: &str, handle: Handle) -> ($($ty),*) {
            match get(symbol, handle) {
                Object::$variant($($part),*) => ($($part),*),
                other => broken(&format!("{symbol}: takes a {}, got a {}", stringify!($name).replace('_', " "), other.kind())),
            }
        }
    )* };
}

kinds! {
    config = Config(config: Arc<std::sync::Mutex<Option<String>>>);
    compiler = Compiler(cache: Arc<str>);
    options = Options(chosen: Arc<std::sync::Mutex<crate::e5rt::Chosen>>);
    library = Library(compiled: Arc<Compiled>);
    function = Function(compiled: Arc<Compiled>);
    operation_options = OpOptions(compiled: Arc<Compiled>);
    operation = Operation(operation: Arc<Operation>);
    port = Port(operation: Arc<Operation>, place: crate::streams::Place);
    tensor = Tensor(ty: TensorType);
    buffer = Buffer(memory: Arc<Memory>);
    stream = Stream(stream: Arc<Stream>);
    event = Event(event: Arc<Event>);
}
