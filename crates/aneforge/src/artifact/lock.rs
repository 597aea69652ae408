//! Who else is at work in a folder. Locks are the kernel's: whoever dies has none any more, in whatever container.

use super::output::PREFIX;
use std::fs::{self, DirEntry, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// A lock on a file or folder, until it is dropped.
pub(super) struct Held(File);

/// How long others are waited for. Moving a set into place takes much less, so what takes longer is not about sets.
const PATIENCE: Duration = Duration::from_secs(10);

impl Held {
    /// Waits until nobody else has a lock. None where the file system knows none, or somebody never ends.
    pub(super) fn exclusive(path: &Path) -> Option<Held> {
        patiently(path, File::try_lock)
    }

    /// Waits until nobody has it alone.
    pub(super) fn shared(path: &Path) -> Option<Held> {
        patiently(path, File::try_lock_shared)
    }
}

/// A file or folder; nothing that opening would wait for, such as a pipe.
fn opened(path: &Path) -> Option<File> {
    fs::metadata(path).ok().filter(|about| about.is_file() || about.is_dir())?;
    File::open(path).ok()
}

/// Whether nobody holds a lock on a file at the moment, as far as the file system knows.
pub(super) fn is_free(path: &Path) -> bool {
    let Some(file) = opened(path) else { return false };
    match file.try_lock() {
        Ok(()) => file.unlock().is_ok(),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => true,
    }
}

fn patiently(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Option<Held> {
    let file = opened(path)?;
    let start = Instant::now();
    loop {
        match lock(&file) {
            Ok(()) => return Some(Held(file)),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would not do: a forked child may have the file as well.
        let _ = self.0.unlock();
    }
}

/// Removes what writers that were killed have left in `folder`. Folders are those of sets; the manifest may still
/// refer to one, unless it has just been replaced.
pub(super) fn sweep(folder: &Path, folders: bool) {
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = item.file_type() else { continue };
        let name = item.file_name();
        let Some(writer) = name.to_str().and_then(writer) else { continue };
        if !(kind.is_file() || folders && kind.is_dir()) || !left(&item, writer) {
            continue;
        }
        let _ = if kind.is_dir() { fs::remove_dir_all(item.path()) } else { fs::remove_file(item.path()) };
    }
}

/// The number of the process that something was named after.
fn writer(name: &str) -> Option<u32> {
    let (process, count) = name.strip_prefix(PREFIX)?.split_once('-')?;
    count.parse::<u64>().ok()?;
    process.parse().ok()
}

/// Whether nobody is at work on it any more.
fn left(item: &DirEntry, writer: u32) -> bool {
    const AGE: Duration = Duration::from_secs(24 * 3600);
    let old = || {
        let age = item.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > AGE)
    };
    // Where there is no such list of processes, age has to tell. Between making a file and locking it, only this does.
    let gone = || Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{writer}")).exists();
    match File::open(item.path()).map(|file| file.try_lock()) {
        Ok(Ok(())) => gone() || old(),
        Ok(Err(TryLockError::WouldBlock)) => false,
        Ok(Err(TryLockError::Error(_))) | Err(_) => old(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // Above the greatest number that a process can have.
        let dead = format!("{PREFIX}4194999-0");
        let held = format!("{PREFIX}4194999-1");
        let alive = format!("{PREFIX}{}-0", std::process::id());
        for name in [&dead, &held, &alive, ".aneforge-x-1", ".aneforge-4194999", "mine"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "").unwrap();
        }
        let _held = Held::exclusive(&at(&held)).unwrap();
        sweep(folder.path(), false);
        assert!(at(&dead).exists(), "a set may be in it");
        sweep(folder.path(), true);
        let kept = !Path::new("/proc/self").exists();
        assert_eq!(at(&dead).exists(), kept);
        for name in [&held, &alive, ".aneforge-x-1", ".aneforge-4194999", "mine"] {
            assert!(at(name).exists(), "{name}");
        }
    }
}
