//! Every unsafe line of this crate: libraries that are opened at run time, and typed calls into them.
//!
//! The rest of the crate sees handles that release themselves, slices, and errors.

#![expect(unsafe_code, reason = "libraries of the system are called by address")]

pub(crate) mod buffer;
pub(crate) mod e5rt;
pub(crate) mod events;
pub(crate) mod foundation;
pub(crate) mod objc;
pub(crate) mod system;
pub(crate) mod table;

use std::ffi::c_void;

/// An object of a library, of which only the library knows what it is.
pub(crate) type Handle = *mut c_void;
