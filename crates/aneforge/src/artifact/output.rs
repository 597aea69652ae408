//! How an output reaches the place that a user named.

use super::ArtifactError;
use super::lock::{self, Held};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Links that are followed before they count as a circle, as on Linux.
const MOST_LINKS: usize = 40;

/// What an output needs of the file system. Tests record it, and cut it anywhere.
pub(super) trait Layer {
    /// A file that is being written.
    type File: Write;
    /// Makes a file that was not there.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Gives it these permissions.
    fn permit(&self, file: &Self::File, permissions: Permissions) -> io::Result<()>;
    /// Waits until its contents would survive a crash of the machine.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Moves a file to a name of the same folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until the names in a folder would survive a crash.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The file system.
pub(super) struct Disk;

impl Layer for Disk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    fn permit(&self, file: &File, permissions: Permissions) -> io::Result<()> {
        file.set_permissions(permissions)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Writes the output called `path`. A regular file is replaced: readers see the old one or the whole new one,
/// and it keeps its permissions. Links are followed. What is no regular file, such as a pipe, is written into, and
/// so is a file that is already open, called `/dev/stdout` or `/dev/fd/3`, after what it has.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ArtifactError> {
    place(&Disk, path, false, fill).map_err(ArtifactError::io("write", path))
}

/// The same for what must not be torn by a crash of the machine either: it is on the disk before it takes its place.
pub(super) fn replace_for_good(
    layer: &impl Layer,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ArtifactError> {
    place(layer, path, true, fill).map_err(ArtifactError::io("write", path))
}

fn place(
    layer: &impl Layer,
    path: &Path,
    durable: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let target = match followed(path)? {
        Place::Open(mut file) => return filled(&mut file, fill),
        Place::Named(target) => target,
    };
    let old = match fs::metadata(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // Opening asks the system whether the file may be written; a rename would not.
        found => Some((found?, OpenOptions::new().write(true).open(&target)?)),
    };
    let permissions = match old {
        Some((about, mut file)) if !about.is_file() => return filled(&mut file, fill),
        Some((about, _)) => Some(about.permissions()),
        None => None,
    };
    let folder = target.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let (name, mut file) = aside(|name| layer.create(&target.with_file_name(name)))?;
    let aside = target.with_file_name(name);
    let held = Held::exclusive(&aside);
    let written = permissions
        .map_or(Ok(()), |same| layer.permit(&file, same))
        .and_then(|()| filled(&mut file, fill))
        .and_then(|()| if durable { layer.sync(&file) } else { Ok(()) })
        .and_then(|()| layer.rename(&aside, &target));
    drop(held);
    match written {
        Ok(()) => {
            // Not every file system syncs folders; without it, the old file may come back, whole.
            let _ = if durable { layer.sync_folder(folder) } else { Ok(()) };
            lock::sweep(folder, false);
        }
        Err(_) => drop(fs::remove_file(&aside)),
    }
    written
}

fn filled(file: &mut impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, file);
    fill(&mut file)?;
    file.flush()
}

/// Where a path leads.
enum Place {
    /// To a name, where something may be or not.
    Named(PathBuf),
    /// To what somebody has open.
    Open(File),
}

fn followed(path: &Path) -> io::Result<Place> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Some(file) = descriptor(&at) {
            return file.map(Place::Open);
        }
        match fs::read_link(&at) {
            // A relative link starts in its own folder; joining an absolute one replaces the path.
            Ok(to) => at = at.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(Place::Named(at)),
        }
    }
    Err(io::Error::other("too many links; name the file they should lead to"))
}

/// The open file that a name such as `/proc/self/fd/1` stands for, if it does. The text of such a link is no path where
/// the file is a pipe or was removed.
fn descriptor(path: &Path) -> Option<io::Result<File>> {
    let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
    let folder = path.parent()?.canonicalize().ok()?;
    let processes = folder.strip_prefix("/proc").ok().filter(|rest| rest.ends_with("fd"));
    if processes.is_none() && folder != Path::new("/dev/fd") {
        return None;
    }
    let ours = folder == Path::new("/dev/fd")
        || processes.is_some_and(|rest| rest.starts_with(std::process::id().to_string()));
    // These may be open elsewhere than at the end, or be sockets, which cannot be opened again.
    let same = match number {
        1 if ours => io::stdout().as_fd().try_clone_to_owned(),
        2 if ours => io::stderr().as_fd().try_clone_to_owned(),
        _ => return Some(OpenOptions::new().append(true).open(path)),
    };
    Some(same.map(File::from))
}

/// Makes something to write to, under a name that nothing else has: not even what a process of the same number,
/// in another container, has left.
pub(super) fn aside<T>(make: impl Fn(&str) -> io::Result<T>) -> io::Result<(String, T)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((name, made?)),
        }
    }
}

/// How names of what is not yet in its place begin.
pub(super) const PREFIX: &str = ".aneforge-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for n in 0..100 {
            fs::write(folder.path().join(format!("{PREFIX}{}-{n}", std::process::id())), "theirs").unwrap();
        }
        replace(&path, |file| file.write_all(b"ours")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 101);
    }
}
