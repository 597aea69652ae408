//! A library that stands in for the engine's, for tests on machines that have none.
//!
//! It exports the symbols that `aneforge-ane` looks up in Espresso, the Objective-C runtime, CoreFoundation and IOSurface, enforces
//! what is known of their rules more strictly than they do, and computes on the host. A broken rule ends the process with a
//! message that names it, as most of them would end it, or the machine, on a Mac. It is no emulator: it shows that calls are made
//! as the reference and independent callers make them, and nothing about silicon.
//!
//! What goes wrong on purpose is set by the environment variable `ANEFORGE_STANDIN`, or by `aneforge_standin_configure`; see
//! [`faults`].

#![allow(unsafe_code, reason = "every function is called with addresses from outside")]

mod e5rt;
pub mod faults;
mod foundation;
mod layers;
mod model;
mod objc;
mod registry;
mod streams;

use std::ffi::{CStr, c_char};

/// A broken rule: says which, and ends the process.
fn broken(rule: &str) -> ! {
    eprintln!("aneforge stand-in: {rule}");
    std::process::abort()
}

/// A text from outside.
///
/// # Safety
/// It is null, or ends in a zero byte.
unsafe fn text<'a>(at: *const c_char) -> Option<&'a str> {
    if at.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(at) }.to_str().ok()
}

/// That this is no engine.
#[unsafe(no_mangle)]
pub extern "C" fn aneforge_standin_version() -> *const c_char {
    concat!("stand-in ", env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Changes how it behaves, from the next call on; see [`faults`]. 0, or 1 for what is not understood.
///
/// # Safety
/// `settings` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_standin_configure(settings: *const c_char) -> i32 {
    // SAFETY: the caller's.
    match unsafe { text(settings) }.map(faults::configure) {
        Some(Ok(())) => 0,
        Some(Err(why)) => {
            eprintln!("aneforge stand-in: {why}");
            1
        }
        None => 1,
    }
}

/// How often a function was called, `alive` for objects that were not released, or `programs` for those that are loaded.
///
/// # Safety
/// `what` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_standin_count(what: *const c_char) -> u64 {
    // SAFETY: the caller's.
    match unsafe { text(what) } {
        Some("alive") => registry::alive() as u64,
        Some("objects") => foundation::alive() as u64,
        Some("programs") => streams::loaded() as u64,
        Some(symbol) => faults::calls(symbol),
        None => 0,
    }
}

/// A kernel's text by its name, as on a machine with the chip that is set.
///
/// # Safety
/// As of the public function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysctlbyname(
    name: *const c_char,
    to: *mut u8,
    length: *mut usize,
    _: *const u8,
    _: usize,
) -> i32 {
    // SAFETY: the caller's.
    let answer = match unsafe { text(name) } {
        Some("kern.osversion") => "STANDIN1".to_owned(),
        Some("machdep.cpu.brand_string") => faults::processor(),
        _ => return -1,
    };
    // SAFETY: the caller's.
    let room = unsafe { *length };
    if room < answer.len() + 1 {
        return -1;
    }
    // SAFETY: there is room for it.
    unsafe { to.copy_from_nonoverlapping(answer.as_ptr(), answer.len()) };
    // SAFETY: as above.
    unsafe { *to.add(answer.len()) = 0 };
    // SAFETY: the caller's.
    unsafe { *length = answer.len() + 1 };
    0
}
