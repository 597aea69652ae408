//! Values of CoreFoundation and surfaces of memory, typed.

use super::Handle;
use super::table::{Library, Missing, functions};
use crate::Libraries;
use crate::error::AneError;
use crate::limits;
use std::ffi::{CStr, c_void};
use std::path::Path;

type Bytes = *const u8;
type Values = *const Handle;
type Address = *const c_void;
type Seed = *mut u32;

functions! {
    /// Functions of CoreFoundation.
    CoreFunctions, CORE_FOUNDATION {
        Hard release = "CFRelease"(Handle) -> (), Public;
        Hard data = "CFDataCreate"(Handle, Bytes, isize) -> Handle, Public;
        Hard string = "CFStringCreateWithBytes"(Handle, Bytes, isize, u32, u8) -> Handle, Public;
        Hard number = "CFNumberCreate"(Handle, isize, Address) -> Handle, Public;
        Hard array = "CFArrayCreate"(Handle, Values, isize, Handle) -> Handle, Public;
        Hard dictionary = "CFDictionaryCreate"(Handle, Values, Values, isize, Handle, Handle) -> Handle, Public;
        Hard type_of = "CFGetTypeID"(Handle) -> usize, Public;
        Hard array_type = "CFArrayGetTypeID"() -> usize, Public;
        Hard dictionary_type = "CFDictionaryGetTypeID"() -> usize, Public;
        Hard number_type = "CFNumberGetTypeID"() -> usize, Public;
        Hard string_type = "CFStringGetTypeID"() -> usize, Public;
        Hard array_count = "CFArrayGetCount"(Handle) -> isize, Public;
        Hard array_value = "CFArrayGetValueAtIndex"(Handle, isize) -> Handle, Public;
        Hard dictionary_value = "CFDictionaryGetValue"(Handle, Handle) -> Handle, Public;
        Hard number_value = "CFNumberGetValue"(Handle, isize, Handle) -> u8, Public;
        Hard string_value = "CFStringGetCString"(Handle, Handle, isize, u32) -> u8, Public;
    }
}

functions! {
    /// Functions of IOSurface.
    SurfaceFunctions, IO_SURFACE {
        Hard create = "IOSurfaceCreate"(Handle) -> Handle, Public;
        Hard lock = "IOSurfaceLock"(Handle, u32, Seed) -> i32, Public;
        Hard unlock = "IOSurfaceUnlock"(Handle, u32, Seed) -> i32, Public;
        Hard base = "IOSurfaceGetBaseAddress"(Handle) -> Handle, Public;
        Hard room = "IOSurfaceGetAllocSize"(Handle) -> usize, Public;
    }
}

const UTF8: u32 = 0x0800_0100;
/// A signed number of 64 bits, among the types of numbers.
const SINT64: isize = 4;
const READ_ONLY: u32 = 1;

/// CoreFoundation and IOSurface, opened.
pub(crate) struct Foundation {
    core: CoreFunctions,
    surface: SurfaceFunctions,
    array_calls: Handle,
    key_calls: Handle,
    value_calls: Handle,
    surface_keys: [Handle; 6],
}

// SAFETY: function pointers and addresses of constants.
unsafe impl Send for Foundation {}
// SAFETY: as above.
unsafe impl Sync for Foundation {}

/// A value that this process owns a count of.
pub(crate) struct Value {
    pub(crate) raw: Handle,
    release: unsafe extern "C" fn(Handle),
}

// SAFETY: values are never changed once they are made, and their counts may be given back by any thread.
unsafe impl Send for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        if super::is_here() {
            // SAFETY: this owns one count.
            unsafe { (self.release)(self.raw) };
        }
    }
}

fn found<T>(found: Result<T, Missing>, path: &Path) -> Result<T, AneError> {
    found.map_err(|Missing(symbol)| AneError::Symbol {
        path: path.to_owned(),
        symbol,
        without: "native layers do not run on the engine",
    })
}

impl Foundation {
    pub(crate) fn open(libraries: &Libraries) -> Result<Foundation, AneError> {
        let (core, surface) = (&*libraries.core_foundation, &*libraries.io_surface);
        let open =
            |path: &Path| Library::open(path).map_err(|why| AneError::Library { path: path.to_owned(), why });
        let (core_library, surface_library) = (open(core)?, open(surface)?);
        let constant = |library: &Library, path: &Path, symbol: &'static str| {
            found(library.find(symbol).filter(|_| libraries.has(symbol)).ok_or(Missing(symbol)), path)
        };
        let key = |symbol| -> Result<Handle, AneError> {
            let at = constant(&surface_library, surface, symbol)?.cast::<Handle>();
            // SAFETY: constants of this library are texts, of which the symbol is the place of the pointer.
            Ok(unsafe { *at })
        };
        Ok(Foundation {
            core: found(
                CoreFunctions::resolve(&|symbol| core_library.find(symbol).filter(|_| libraries.has(symbol))),
                core,
            )?,
            surface: found(
                SurfaceFunctions::resolve(&|symbol| {
                    surface_library.find(symbol).filter(|_| libraries.has(symbol))
                }),
                surface,
            )?,
            array_calls: constant(&core_library, core, "kCFTypeArrayCallBacks")?,
            key_calls: constant(&core_library, core, "kCFTypeDictionaryKeyCallBacks")?,
            value_calls: constant(&core_library, core, "kCFTypeDictionaryValueCallBacks")?,
            surface_keys: [
                key("kIOSurfaceWidth")?,
                key("kIOSurfaceHeight")?,
                key("kIOSurfaceBytesPerElement")?,
                key("kIOSurfaceBytesPerRow")?,
                key("kIOSurfaceAllocSize")?,
                key("kIOSurfacePixelFormat")?,
            ],
        })
    }

    fn own(&self, call: &'static str, raw: Handle) -> Result<Value, AneError> {
        if raw.is_null() {
            return Err(crate::Failure { call, code: 0, text: String::new() }.into());
        }
        Ok(Value { raw, release: self.core.release })
    }

    pub(crate) fn data(&self, bytes: &[u8]) -> Result<Value, AneError> {
        // SAFETY: the bytes are copied, as many as there are.
        let raw = unsafe { (self.core.data)(std::ptr::null_mut(), bytes.as_ptr(), length(bytes.len())) };
        self.own("CFDataCreate", raw)
    }

    pub(crate) fn string(&self, text: &str) -> Result<Value, AneError> {
        // SAFETY: the bytes are copied, as many as there are.
        let raw =
            unsafe { (self.core.string)(std::ptr::null_mut(), text.as_ptr(), length(text.len()), UTF8, 0) };
        self.own("CFStringCreateWithBytes", raw)
    }

    pub(crate) fn number(&self, value: i64) -> Result<Value, AneError> {
        // SAFETY: it reads a number of 64 bits.
        let raw = unsafe { (self.core.number)(std::ptr::null_mut(), SINT64, (&raw const value).cast()) };
        self.own("CFNumberCreate", raw)
    }

    /// An array, which counts its values.
    pub(crate) fn array(&self, values: &[Handle]) -> Result<Value, AneError> {
        // SAFETY: the handles are alive, and copied and counted by the array.
        let raw = unsafe {
            (self.core.array)(std::ptr::null_mut(), values.as_ptr(), length(values.len()), self.array_calls)
        };
        self.own("CFArrayCreate", raw)
    }

    /// A dictionary, which counts its keys and values.
    pub(crate) fn dictionary(&self, pairs: &[(Handle, Handle)]) -> Result<Value, AneError> {
        let (keys, values): (Vec<Handle>, Vec<Handle>) = pairs.iter().copied().unzip();
        let (keys, values) = (keys.as_ptr(), values.as_ptr());
        let (key, value) = (self.key_calls, self.value_calls);
        // SAFETY: the handles are alive, and copied and counted by the dictionary.
        let raw = unsafe {
            (self.core.dictionary)(std::ptr::null_mut(), keys, values, length(pairs.len()), key, value)
        };
        self.own("CFDictionaryCreate", raw)
    }

    fn is(&self, value: Handle, kind: unsafe extern "C" fn() -> usize) -> bool {
        // SAFETY: values that are no null are of CoreFoundation, or look like it.
        !value.is_null() && unsafe { (self.core.type_of)(value) == kind() }
    }

    /// The value under `key`, if `value` is a dictionary that has one.
    pub(crate) fn get(&self, value: Handle, key: &str) -> Option<Handle> {
        let key = self.string(key).ok()?;
        self.is(value, self.core.dictionary_type).then_some(())?;
        // SAFETY: it is a dictionary.
        let found = unsafe { (self.core.dictionary_value)(value, key.raw) };
        (!found.is_null()).then_some(found)
    }

    /// The values of an array; none if it is none.
    pub(crate) fn values(&self, value: Handle) -> Vec<Handle> {
        if !self.is(value, self.core.array_type) {
            return Vec::new();
        }
        // SAFETY: it is an array, and indices are below its count.
        let count = unsafe { (self.core.array_count)(value) };
        // SAFETY: as above.
        (0..count).map(|at| unsafe { (self.core.array_value)(value, at) }).collect()
    }

    /// A number that is not negative.
    pub(crate) fn size(&self, value: Handle) -> Option<usize> {
        self.is(value, self.core.number_type).then_some(())?;
        let mut number = 0i64;
        // SAFETY: it is a number, and there is room for 64 bits.
        let whole = unsafe { (self.core.number_value)(value, SINT64, (&raw mut number).cast()) };
        (whole != 0).then(|| usize::try_from(number).ok()).flatten()
    }

    pub(crate) fn text(&self, value: Handle) -> Option<String> {
        self.is(value, self.core.string_type).then_some(())?;
        let mut bytes = vec![0u8; 4096];
        let (to, room) = (bytes.as_mut_ptr().cast(), length(bytes.len()));
        // SAFETY: it is a text, and no more is written than there is room for.
        let whole = unsafe { (self.core.string_value)(value, to, room, UTF8) };
        (whole != 0).then_some(())?;
        CStr::from_bytes_until_nul(&bytes).ok().map(|text| text.to_string_lossy().into_owned())
    }

    /// A surface of at least so many bytes, in whole pages.
    pub(crate) fn surface(&'static self, bytes: usize) -> Result<Surface, AneError> {
        let bytes = bytes.max(1).next_multiple_of(limits::PAGE);
        let sizes = [bytes, 1, 1, bytes, bytes, 0];
        let numbers: Vec<Value> =
            sizes.iter().map(|&size| self.number(length(size) as i64)).collect::<Result<_, _>>()?;
        let pairs: Vec<(Handle, Handle)> =
            self.surface_keys.iter().zip(&numbers).map(|(key, number)| (*key, number.raw)).collect();
        let properties = self.dictionary(&pairs)?;
        // SAFETY: a dictionary of properties as the public interface wants it.
        let raw = unsafe { (self.surface.create)(properties.raw) };
        let value = self.own("IOSurfaceCreate", raw)?;
        // SAFETY: the surface is alive.
        let room = unsafe { (self.surface.room)(value.raw) };
        if room < bytes {
            let text = format!("the surface has {room} bytes and {bytes} were asked for");
            return Err(crate::Failure { call: "IOSurfaceCreate", code: 3, text }.into());
        }
        Ok(Surface { value, bytes, foundation: self })
    }
}

fn length(count: usize) -> isize {
    isize::try_from(count).expect("invariant: no more bytes than fit the address space")
}

/// Memory that a native layer reads or writes.
pub(crate) struct Surface {
    value: Value,
    bytes: usize,
    foundation: &'static Foundation,
}

impl Surface {
    pub(crate) fn handle(&self) -> Handle {
        self.value.raw
    }

    fn locked<T>(&self, option: u32, with: impl FnOnce(*mut u8) -> T) -> Result<T, AneError> {
        let call = &self.foundation.surface;
        let failed = |call, code| Err(crate::Failure { call, code, text: String::new() }.into());
        // SAFETY: the surface is alive; there is no need to know its seed.
        let code = unsafe { (call.lock)(self.value.raw, option, std::ptr::null_mut()) };
        if code != 0 {
            return failed("IOSurfaceLock", code);
        }
        // SAFETY: it is locked.
        let base = unsafe { (call.base)(self.value.raw) };
        let done = (!base.is_null()).then(|| with(base.cast()));
        // SAFETY: it was locked with the same option.
        let code = unsafe { (call.unlock)(self.value.raw, option, std::ptr::null_mut()) };
        match done {
            Some(done) if code == 0 => Ok(done),
            Some(_) => failed("IOSurfaceUnlock", code),
            None => failed("IOSurfaceGetBaseAddress", 0),
        }
    }

    /// Writes into it.
    pub(crate) fn write<T>(&mut self, with: impl FnOnce(&mut [u8]) -> T) -> Result<T, AneError> {
        let bytes = self.bytes;
        // SAFETY: a locked surface has so many bytes at its base, and this is its only owner.
        self.locked(0, |base| with(unsafe { std::slice::from_raw_parts_mut(base, bytes) }))
    }

    /// Reads from it.
    pub(crate) fn read<T>(&self, with: impl FnOnce(&[u8]) -> T) -> Result<T, AneError> {
        let bytes = self.bytes;
        // SAFETY: as above, and nobody writes while it is borrowed.
        self.locked(READ_ONLY, |base| with(unsafe { std::slice::from_raw_parts(base, bytes) }))
    }
}
