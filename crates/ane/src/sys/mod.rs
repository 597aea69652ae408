//! Every unsafe line of this crate: libraries that are opened at run time, and typed calls into them.
//!
//! The rest of the crate sees handles that release themselves, slices, and errors.

#![expect(unsafe_code, reason = "libraries of the system are called by address")]

pub(crate) mod buffer;
pub(crate) mod e5rt;
pub(crate) mod foundation;
pub(crate) mod objc;
pub(crate) mod optional;
pub(crate) mod system;
pub(crate) mod table;

use std::ffi::c_void;

use std::sync::atomic::{AtomicU32, Ordering};

/// The process that has opened the libraries; 0 before.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Remembers which process opens libraries.
pub(crate) fn opened_here() {
    _ = PROCESS.compare_exchange(0, std::process::id(), Ordering::AcqRel, Ordering::Acquire);
}

/// Whether this is the process that has opened the libraries. They do not survive a fork, not even to be released.
pub(crate) fn is_here() -> bool {
    let process = PROCESS.load(Ordering::Acquire);
    process == 0 || process == std::process::id()
}

/// An object of a library, of which only the library knows what it is.
pub(crate) type Handle = *mut c_void;
