//! CoreFoundation's values and IOSurface's memory, as objects that are counted.

use crate::broken;
use crate::objc::ModelState;
use crate::registry::{Handle, Memory};
use std::collections::HashSet;
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// What an object is.
pub(crate) enum Kind {
    Data(Vec<u8>),
    Text(String),
    Number(i64),
    Array(Vec<Ref>),
    Dictionary(Vec<(Ref, Ref)>),
    Surface(Memory),
    Class(&'static str),
    Descriptor { document: Vec<u8>, weights: Vec<(String, Vec<u8>)> },
    Model(Box<Mutex<ModelState>>),
    Wrapped(Ref),
    Request { inputs: Vec<Ref>, outputs: Vec<Ref> },
    Error(String),
}

/// An object and how often it is held.
pub(crate) struct Obj {
    counts: AtomicUsize,
    pub(crate) kind: Kind,
}

static LIVE: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

pub(crate) fn alive() -> usize {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// One count of an object.
pub(crate) struct Ref(*mut Obj);

// SAFETY: objects do not change, but for what is locked.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    pub(crate) fn new(kind: Kind) -> Ref {
        let at = Box::into_raw(Box::new(Obj { counts: AtomicUsize::new(1), kind }));
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(at.addr());
        Ref(at)
    }

    /// One more count of an object from outside.
    pub(crate) fn hold(symbol: &str, object: Handle) -> Ref {
        look(symbol, object).counts.fetch_add(1, Ordering::Relaxed);
        Ref(object.cast())
    }

    pub(crate) fn kind(&self) -> &Kind {
        // SAFETY: it is held.
        &unsafe { &*self.0 }.kind
    }

    /// Hands the count to the caller.
    pub(crate) fn give(self) -> Handle {
        let at = self.0.cast();
        std::mem::forget(self);
        at
    }

    pub(crate) fn at(&self) -> Handle {
        self.0.cast()
    }
}

impl Drop for Ref {
    fn drop(&mut self) {
        drop_count(self.0);
    }
}

fn drop_count(at: *mut Obj) {
    // SAFETY: it is held by the count that goes.
    let left = unsafe { &*at }.counts.fetch_sub(1, Ordering::AcqRel) - 1;
    // SAFETY: as above.
    if left == 0 && !matches!(unsafe { &*at }.kind, Kind::Class(_)) {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&at.addr());
        // SAFETY: nobody holds it.
        drop(unsafe { Box::from_raw(at) });
    }
}

/// An object from outside, which must be alive.
pub(crate) fn look<'a>(symbol: &str, object: Handle) -> &'a Obj {
    if object.is_null() {
        broken(&format!("{symbol}: null in the place of an object"));
    }
    if !LIVE.lock().unwrap_or_else(PoisonError::into_inner).contains(&object.addr()) {
        broken(&format!("{symbol}: an object that was released, or is none"));
    }
    // SAFETY: it is alive, and its owner keeps it so during the call.
    unsafe { &*object.cast::<Obj>() }
}

/// Gives a count back.
pub(crate) fn release(symbol: &str, object: Handle) {
    look(symbol, object);
    drop_count(object.cast());
}

impl Obj {
    fn id(&self) -> usize {
        match &self.kind {
            Kind::Data(_) => 1,
            Kind::Text(_) => 2,
            Kind::Number(_) => 3,
            Kind::Array(_) => 4,
            Kind::Dictionary(_) => 5,
            Kind::Surface(_) => 6,
            _ => 7,
        }
    }
}

/// Text.
pub(crate) fn string(text: &str) -> Ref {
    Ref::new(Kind::Text(text.to_owned()))
}

/// The value of a dictionary under a text.
pub(crate) fn under<'a>(pairs: &'a [(Ref, Ref)], key: &str) -> Option<&'a Kind> {
    pairs
        .iter()
        .find(|(k, _)| matches!(k.kind(), Kind::Text(text) if text == key))
        .map(|(_, value)| value.kind())
}

/// # Safety
/// As of the public function, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFRelease(object: Handle) {
    release("CFRelease", object);
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDataCreate(_: Handle, bytes: *const u8, length: isize) -> Handle {
    let count = usize::try_from(length).unwrap_or_else(|_| broken("CFDataCreate: a negative length"));
    let bytes = match count {
        0 => Vec::new(),
        // SAFETY: the caller's.
        _ => unsafe { std::slice::from_raw_parts(bytes, count) }.to_vec(),
    };
    Ref::new(Kind::Data(bytes)).give()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFStringCreateWithBytes(
    _: Handle,
    bytes: *const u8,
    length: isize,
    encoding: u32,
    _: u8,
) -> Handle {
    if encoding != 0x0800_0100 {
        return std::ptr::null_mut();
    }
    let count =
        usize::try_from(length).unwrap_or_else(|_| broken("CFStringCreateWithBytes: a negative length"));
    // SAFETY: the caller's.
    let bytes = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, count) } };
    match std::str::from_utf8(bytes) {
        Ok(text) => string(text).give(),
        Err(_) => std::ptr::null_mut(),
    }
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFNumberCreate(_: Handle, kind: isize, value: *const c_void) -> Handle {
    if kind != 4 {
        broken("CFNumberCreate: only numbers of 64 bits are known here");
    }
    // SAFETY: the caller's.
    Ref::new(Kind::Number(unsafe { *value.cast::<i64>() })).give()
}

fn counted(symbol: &str, values: *const Handle, count: isize, calls: Handle, want: Handle) -> Vec<Ref> {
    if calls != want {
        broken(&format!("{symbol}: values that are not counted"));
    }
    let at = |index: isize| {
        // SAFETY: the caller's.
        Ref::hold(symbol, unsafe { *values.offset(index) })
    };
    (0..count).map(at).collect()
}

fn address(constant: &'static [usize; 8]) -> Handle {
    std::ptr::from_ref(constant).cast_mut().cast()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFArrayCreate(
    _: Handle,
    values: *const Handle,
    count: isize,
    calls: Handle,
) -> Handle {
    let values = counted("CFArrayCreate", values, count, calls, address(&kCFTypeArrayCallBacks));
    Ref::new(Kind::Array(values)).give()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryCreate(
    _: Handle,
    keys: *const Handle,
    values: *const Handle,
    count: isize,
    key_calls: Handle,
    value_calls: Handle,
) -> Handle {
    let keys = counted("CFDictionaryCreate", keys, count, key_calls, address(&kCFTypeDictionaryKeyCallBacks));
    let values =
        counted("CFDictionaryCreate", values, count, value_calls, address(&kCFTypeDictionaryValueCallBacks));
    Ref::new(Kind::Dictionary(keys.into_iter().zip(values).collect())).give()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFGetTypeID(object: Handle) -> usize {
    look("CFGetTypeID", object).id()
}

/// The number of texts.
#[unsafe(no_mangle)]
pub extern "C" fn CFStringGetTypeID() -> usize {
    2
}

/// The number of numbers.
#[unsafe(no_mangle)]
pub extern "C" fn CFNumberGetTypeID() -> usize {
    3
}

/// The number of arrays.
#[unsafe(no_mangle)]
pub extern "C" fn CFArrayGetTypeID() -> usize {
    4
}

/// The number of dictionaries.
#[unsafe(no_mangle)]
pub extern "C" fn CFDictionaryGetTypeID() -> usize {
    5
}

fn array<'a>(symbol: &str, object: Handle) -> &'a [Ref] {
    match &look(symbol, object).kind {
        Kind::Array(values) => values,
        _ => broken(&format!("{symbol}: no array")),
    }
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFArrayGetCount(object: Handle) -> isize {
    array("CFArrayGetCount", object).len() as isize
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFArrayGetValueAtIndex(object: Handle, index: isize) -> Handle {
    let values = array("CFArrayGetValueAtIndex", object);
    let value = usize::try_from(index).ok().and_then(|index| values.get(index));
    value.unwrap_or_else(|| broken("CFArrayGetValueAtIndex: beyond the end")).at()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFDictionaryGetValue(object: Handle, key: Handle) -> Handle {
    let (Kind::Dictionary(pairs), Kind::Text(key)) =
        (&look("CFDictionaryGetValue", object).kind, &look("CFDictionaryGetValue", key).kind)
    else {
        broken("CFDictionaryGetValue: no dictionary, or no text")
    };
    let same = |(k, _): &&(Ref, Ref)| matches!(k.kind(), Kind::Text(text) if text == key);
    pairs.iter().find(same).map_or(std::ptr::null_mut(), |(_, value)| value.at())
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFNumberGetValue(object: Handle, kind: isize, to: Handle) -> u8 {
    match &look("CFNumberGetValue", object).kind {
        Kind::Number(value) if kind == 4 => {
            // SAFETY: the caller's.
            unsafe { *to.cast::<i64>() = *value };
            1
        }
        _ => broken("CFNumberGetValue: no number of 64 bits"),
    }
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFStringGetCString(object: Handle, to: *mut c_char, room: isize, _: u32) -> u8 {
    let Kind::Text(text) = &look("CFStringGetCString", object).kind else {
        broken("CFStringGetCString: no text")
    };
    if text.len() + 1 > room as usize {
        return 0;
    }
    // SAFETY: there is room.
    unsafe { to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    // SAFETY: as above.
    unsafe { *to.add(text.len()) = 0 };
    1
}

/// How arrays count.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the public name")]
pub static kCFTypeArrayCallBacks: [usize; 8] = [1; 8];
/// How dictionaries count keys.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the public name")]
pub static kCFTypeDictionaryKeyCallBacks: [usize; 8] = [2; 8];
/// How dictionaries count values.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the public name")]
pub static kCFTypeDictionaryValueCallBacks: [usize; 8] = [3; 8];

/// A constant that holds the address of a text.
#[repr(transparent)]
pub struct Key(std::sync::atomic::AtomicPtr<c_void>);

macro_rules! keys {
    ($($name:ident)*) => {
        $(
            /// A property of a surface.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "the public name")]
            pub static $name: Key = Key(std::sync::atomic::AtomicPtr::new(std::ptr::null_mut()));
        )*
        /// Makes the texts, when the library is opened.
        extern "C" fn fill() {
            $($name.0.store(string(stringify!($name)).give(), Ordering::Release);)*
        }
    };
}

keys! { kIOSurfaceWidth kIOSurfaceHeight kIOSurfaceBytesPerElement kIOSurfaceBytesPerRow kIOSurfaceAllocSize kIOSurfacePixelFormat }

/// Run by the loader.
#[used]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
static FILL: extern "C" fn() = fill;

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn IOSurfaceCreate(properties: Handle) -> Handle {
    if crate::e5rt::withheld("IOSurfaceCreate") {
        return std::ptr::null_mut();
    }
    let Kind::Dictionary(pairs) = &look("IOSurfaceCreate", properties).kind else {
        broken("IOSurfaceCreate: no dictionary")
    };
    let number = |key| match under(pairs, key) {
        Some(Kind::Number(value)) => usize::try_from(*value).unwrap_or(0),
        _ => broken(&format!("IOSurfaceCreate: no number {key}")),
    };
    let (width, height, bytes) =
        (number("kIOSurfaceWidth"), number("kIOSurfaceHeight"), number("kIOSurfaceAllocSize"));
    let (element, row, format) = (
        number("kIOSurfaceBytesPerElement"),
        number("kIOSurfaceBytesPerRow"),
        number("kIOSurfacePixelFormat"),
    );
    if (width, height, element, row, format) != (bytes, 1, 1, bytes, 0) || bytes == 0 {
        broken("IOSurfaceCreate: properties are not those of a line of bytes");
    }
    let Some(memory) = Memory::new(bytes) else { return std::ptr::null_mut() };
    Ref::new(Kind::Surface(memory)).give()
}

pub(crate) fn surface<'a>(symbol: &str, object: Handle) -> &'a Memory {
    match &look(symbol, object).kind {
        Kind::Surface(memory) => memory,
        _ => broken(&format!("{symbol}: no surface")),
    }
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn IOSurfaceLock(object: Handle, _option: u32, _: *mut u32) -> i32 {
    surface("IOSurfaceLock", object);
    0
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn IOSurfaceUnlock(object: Handle, _option: u32, _: *mut u32) -> i32 {
    surface("IOSurfaceUnlock", object);
    0
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn IOSurfaceGetBaseAddress(object: Handle) -> Handle {
    surface("IOSurfaceGetBaseAddress", object).at.load(Ordering::Relaxed).cast()
}

/// # Safety
/// See `CFRelease`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn IOSurfaceGetAllocSize(object: Handle) -> usize {
    surface("IOSurfaceGetAllocSize", object).bytes
}
