//! Texts and lists of callers, and what the environment says.

use aneforge::device::ane::AneOptions;
use aneforge::device::{self, Device, host::HostOptions};
use aneforge_ane::Libraries;
use std::ffi::{CStr, c_char};
use std::sync::{Arc, Once};

/// A text of the caller.
///
/// # Safety
/// It is null, or ends in a zero byte and stays during the call.
pub(crate) unsafe fn text<'a>(what: &str, at: *const c_char) -> Result<&'a str, String> {
    if at.is_null() {
        return Err(format!("{what} is null"));
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(at) }.to_str().map_err(|_| format!("{what} is no UTF-8"))
}

/// Names and numbers of ports.
///
/// # Safety
/// There are `count` of both, unless that is 0, and they stay during the call.
pub(crate) unsafe fn ports(
    what: &str,
    names: *const *const c_char,
    bytes: *const usize,
    count: usize,
) -> Result<Vec<(String, usize)>, String> {
    /// More than any program has.
    const MOST: usize = 4096;
    if count > MOST {
        return Err(format!("{count} {what}s are more than {MOST}"));
    }
    if count > 0 && (names.is_null() || bytes.is_null()) {
        return Err(format!("names or sizes of {what}s are null"));
    }
    let port = |at: usize| {
        // SAFETY: the caller's.
        let (name, bytes) = unsafe { (*names.add(at), *bytes.add(at)) };
        // SAFETY: the caller's.
        Ok((unsafe { text(what, name) }?.to_owned(), bytes))
    };
    (0..count).map(port).collect()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How the engine is reached.
pub(crate) fn engine() -> AneOptions {
    let libraries = variable("ANEFORGE_ENGINE_LIBRARY").map_or_else(Libraries::system, Libraries::all);
    AneOptions { libraries, ..AneOptions::default() }
}

/// The device that the environment, or `asked`, names.
pub(crate) fn device(asked: Option<&str>) -> Result<Arc<dyn Device>, String> {
    let named = asked.map(str::to_owned).or_else(|| variable("ANEFORGE_DEVICE"));
    let device = device::open(named.as_deref(), &HostOptions::default(), &engine())
        .map_err(|error| error.to_string())?;
    if named.is_none() && device.name() == "host" {
        static SAID: Once = Once::new();
        SAID.call_once(|| eprintln!("aneforge: there is no engine here; programs run on the host"));
    }
    Ok(device)
}
