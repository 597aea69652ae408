//! Calls into libraries that may panic on data.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call; a panic within it is an error like any other, and prints nothing.
pub(super) fn call<T, E: Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            Err(said.or_else(|| panic.downcast_ref().copied()).unwrap_or("it cannot be read").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_and_errors_stay() {
        assert_eq!(call(|| Ok::<_, &str>(1)), Ok(1));
        assert_eq!(call(|| Err::<(), _>("no")), Err("no".into()));
        assert_eq!(call::<(), &str>(|| panic!("token {}", 7)), Err("token 7".into()));
        assert_eq!(call::<(), &str>(|| panic!("plain")), Err("plain".into()));
        assert_eq!(call::<(), &str>(|| panic::panic_any(7)), Err("it cannot be read".into()));
        assert!(!GUARDED.get());
    }
}
