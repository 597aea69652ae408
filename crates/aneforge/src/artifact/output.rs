//! How an output reaches the place that a user named.

use super::ArtifactError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Links that are followed before they count as a circle, as on Linux.
const MOST_LINKS: usize = 40;

/// Writes the output called `path`. A regular file is replaced: readers see the old one or the whole new one,
/// and it keeps its permissions. Links are followed. What is no regular file, such as a pipe, is written into.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ArtifactError> {
    place(path, fill).map_err(ArtifactError::io("write", path))
}

fn place(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let target = followed(path)?;
    let old = match fs::metadata(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // Opening asks the system whether the file may be written; a rename would not.
        found => Some((found?, OpenOptions::new().write(true).open(&target)?)),
    };
    let permissions = match old {
        Some((about, file)) if !about.is_file() => return filled(file, fill),
        Some((about, _)) => Some(about.permissions()),
        None => None,
    };
    let aside = target.with_file_name(unique());
    let written = OpenOptions::new().write(true).create_new(true).open(&aside).and_then(|file| {
        permissions.map_or(Ok(()), |same| file.set_permissions(same))?;
        filled(file, fill)?;
        fs::rename(&aside, &target)
    });
    written.inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })
}

fn filled(file: File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, file);
    fill(&mut file)?;
    file.flush()
}

/// Where a path leads, also when nothing is there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&at) {
            // A relative link starts in its own folder; joining an absolute one replaces the path.
            Ok(to) => at = at.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(at),
        }
    }
    Err(io::Error::other("too many links; name the file they should lead to"))
}

/// A name that nothing else in this folder has.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// How names of what is not yet in its place begin.
pub(super) const PREFIX: &str = ".aneforge-";
