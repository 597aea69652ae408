//! What libraries print while they work, which is all that some of their failures say.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The most that is kept of it.
const MOST: u64 = 64 << 10;

/// Whether somebody else reads standard error.
static READ: AtomicBool = AtomicBool::new(false);

/// Leaves standard error alone from now on, as somebody else reads it, even if this process ends in the middle.
pub(crate) fn leave() {
    READ.store(true, Ordering::Relaxed);
}

/// Runs `work` with standard error going to a file, and gives what was printed. What comes of successes is printed after all, as it
/// may be of other threads. Where standard error cannot be redirected, nothing is captured.
pub(crate) fn captured<T, E>(work: impl FnOnce() -> Result<T, E>) -> (Result<T, E>, String) {
    let Some((mut file, saved)) = redirected() else { return (work(), String::new()) };
    let done = work();
    // What a library has buffered is its own matter: standard error is not buffered.
    if rustix::stdio::dup2_stderr(&saved).is_err() {
        return (done, String::new());
    }
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| Read::by_ref(&mut file).take(MOST).read_to_end(&mut bytes));
    if read.is_err() {
        return (done, String::new());
    }
    if done.is_ok() {
        _ = std::io::stderr().write_all(&bytes);
    }
    (done, String::from_utf8_lossy(&bytes).into_owned())
}

fn redirected() -> Option<(File, std::os::fd::OwnedFd)> {
    if READ.load(Ordering::Relaxed) {
        return None;
    }
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("aneforge-printed-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).ok()?;
    _ = std::fs::remove_file(&path);
    let saved = rustix::io::dup(rustix::stdio::stderr()).ok()?;
    rustix::stdio::dup2_stderr(&file).ok()?;
    Some((file, saved))
}
