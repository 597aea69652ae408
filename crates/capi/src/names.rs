//! Texts and lists of callers, and what the environment says.

use crate::error::said;
use aneforge::device::ane::{AneOptions, Isolation};
use aneforge::device::{self, Device, host::HostOptions};
use aneforge_ane::Libraries;
use std::ffi::{CStr, OsString, c_char};
use std::path::PathBuf;
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
    for (which, is_null) in [("names", names.is_null()), ("sizes", bytes.is_null())] {
        if count > 0 && is_null {
            return Err(format!("the {which} of {what}s are null"));
        }
    }
    let port = |at: usize| {
        // SAFETY: the caller's.
        let (name, bytes) = unsafe { (*names.add(at), *bytes.add(at)) };
        // SAFETY: the caller's.
        Ok((unsafe { text(&format!("the name of {what} {at}"), name) }?.to_owned(), bytes))
    };
    (0..count).map(port).collect()
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A variable that is a word, in small letters.
fn word(name: &str) -> Result<Option<String>, String> {
    let word = variable(name).map(OsString::into_string).transpose();
    let word = word.map_err(|word| format!("{name} is no UTF-8, got {}", word.display()))?;
    Ok(word.map(|word| word.trim().to_ascii_lowercase()))
}

/// How the engine is reached, by the variables that the headers list.
pub(crate) fn engine() -> Result<AneOptions, String> {
    let libraries = variable("ANEFORGE_ENGINE_LIBRARY").map_or_else(Libraries::system, Libraries::all);
    let worker = variable("ANEFORGE_WORKER").map(|program| vec![program, "worker".into()]);
    let isolation = match (word("ANEFORGE_ISOLATION")?.as_deref(), &worker) {
        (None | Some("process"), _) => Isolation::Process,
        (Some("worker"), Some(_)) => Isolation::Worker,
        (Some("worker"), None) => {
            return Err("ANEFORGE_ISOLATION is worker, and ANEFORGE_WORKER names no program that could be one; set it to the path of \
                        `aneforge`"
                .into());
        }
        (Some(other), _) => return Err(format!("ANEFORGE_ISOLATION must be process or worker, got {other}")),
    };
    Ok(AneOptions { libraries, worker, isolation, folder: folder(), ..AneOptions::default() })
}

/// Where programs for the engine are kept: as by the command line and Python. None where there is no home.
fn folder() -> Option<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from);
    let named = variable("ANEFORGE_CACHE_DIR").map(PathBuf::from);
    let folder = match named {
        Some(named) => match named.strip_prefix("~") {
            Ok(within) => home()?.join(within),
            Err(_) => named,
        },
        None => home()?.join(".cache/aneforge"),
    };
    Some(folder.join("engine"))
}

/// The device that `asked`, or the environment, names.
pub(crate) fn device(asked: Option<&str>) -> Result<Arc<dyn Device>, String> {
    let named = match asked {
        Some(asked) => Some(asked.to_owned()),
        None => word("ANEFORGE_DEVICE")?,
    };
    // A library that is named for the engine is what is to be run on.
    let named = named.or_else(|| variable("ANEFORGE_ENGINE_LIBRARY").map(|_| "ane".to_owned()));
    let device = device::open(named.as_deref(), &HostOptions::default(), &engine()?)
        .map_err(|error| error.to_string())?;
    if named.is_none() && device.name() == "host" {
        static SAID: Once = Once::new();
        SAID.call_once(|| said("there is no engine here; programs run on the host"));
    }
    Ok(device)
}
