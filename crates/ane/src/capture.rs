//! What libraries print while they work, which is all that some of their failures say.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The most that is kept of it.
const MOST: u64 = 64 << 10;

/// Whether somebody else reads standard error.
static READ: AtomicBool = AtomicBool::new(false);

/// Leaves standard error alone from now on, as somebody else reads it, even if this process ends in the middle.
pub(crate) fn leave() {
    READ.store(true, Ordering::Relaxed);
}

/// Compiles take turns: the compiler's process is not made for several at once, nor is standard error.
static COMPILING: Mutex<()> = Mutex::new(());

/// Standard error, which is put back when this goes, however that comes.
struct Restore(OwnedFd);

impl Drop for Restore {
    fn drop(&mut self) {
        _ = rustix::stdio::dup2_stderr(&self.0);
    }
}

/// Runs a compile with standard error going to a file, and gives what was printed. What comes of successes is printed after all, as it
/// may be of other threads. Where standard error cannot be redirected, nothing is captured.
pub(crate) fn captured<T, E>(work: impl FnOnce() -> Result<T, E>) -> (Result<T, E>, String) {
    let _one = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((mut file, restore)) = redirected() else { return (work(), String::new()) };
    let done = work();
    // What a library has buffered is its own matter: standard error is not buffered.
    drop(restore);
    let mut bytes = Vec::new();
    // The end says why.
    let length = file.metadata().map_or(0, |about| about.len());
    let start = SeekFrom::Start(length.saturating_sub(MOST));
    let read = file.seek(start).and_then(|_| Read::by_ref(&mut file).take(MOST).read_to_end(&mut bytes));
    if read.is_err() {
        return (done, String::new());
    }
    if done.is_ok() {
        _ = std::io::stderr().write_all(&bytes);
    }
    (done, String::from_utf8_lossy(&bytes).into_owned())
}

fn redirected() -> Option<(File, Restore)> {
    if READ.load(Ordering::Relaxed) {
        return None;
    }
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("aneforge-printed-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).ok()?;
    _ = std::fs::remove_file(&path);
    let saved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).ok()?;
    rustix::stdio::dup2_stderr(&file).ok()?;
    Some((file, Restore(saved)))
}
