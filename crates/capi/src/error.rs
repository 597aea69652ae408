//! What went wrong, for callers that only see a number.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The text of the last error of this thread, which stays until the next; empty if there was none.
#[unsafe(export_name = "aneforge_last_error")]
pub extern "C" fn last_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

/// Writes a text to standard error, unless `ANEFORGE_QUIET` is set.
pub(crate) fn said(text: &str) {
    if std::env::var_os("ANEFORGE_QUIET").is_none_or(|quiet| quiet.is_empty()) {
        eprintln!("aneforge: {text}");
    }
}

/// Keeps a text for [`last_error`].
fn told(text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    LAST.with(|last| *last.borrow_mut() = text);
}

/// What `work` gives, or `otherwise` after an error or a panic.
pub(crate) fn guarded<T>(otherwise: T, work: impl FnOnce() -> Result<T, String>) -> T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => done,
        Ok(Err(why)) => {
            told(&why);
            otherwise
        }
        Err(_) => {
            told("internal error; this is a bug in aneforge, please report it");
            otherwise
        }
    }
}

/// The same for functions of ANEForge's names, whose shim writes its errors to standard error.
pub(crate) fn loud<T>(otherwise: T, work: impl FnOnce() -> Result<T, String>) -> T {
    guarded(otherwise, || work().inspect_err(|why| said(why)))
}

/// An error as a text.
pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
