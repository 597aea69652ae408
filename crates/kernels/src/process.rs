//! Values that belong to one process.

use std::sync::OnceLock;

/// A value that a forked process does not share: it gets one of its own when it first asks.
///
/// `fork` copies memory, but of all threads only the one that calls it. What other threads held, a lock above all,
/// nobody gives back in the copy. So locks and threads that may be in use at any time are kept in one of these.
#[derive(Debug)]
pub struct PerProcess<T> {
    process: u32,
    value: T,
    heir: OnceLock<Box<PerProcess<T>>>,
}

impl<T> PerProcess<T> {
    /// The value of this process.
    pub fn new(value: T) -> PerProcess<T> {
        PerProcess { process: std::process::id(), value, heir: OnceLock::new() }
    }

    /// The value of the process that asks. In a process that has none yet, `inherit` makes it from that of the process
    /// it was forked from, of which any part may be locked or half written.
    pub fn get(&self, inherit: impl Fn(&T) -> T) -> &T {
        let here = std::process::id();
        let mut at = self;
        while at.process != here {
            at = at.heir.get_or_init(|| Box::new(PerProcess::new(inherit(&at.value))));
        }
        &at.value
    }

    /// The value of the process that [`PerProcess::new`] was called in, which may be this one.
    pub fn first(&self) -> &T {
        &self.value
    }
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> PerProcess<T> {
        PerProcess::new(T::default())
    }
}
