use aneforge_tensor::{Bytes, Owner};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file could not be opened. The caller's or the environment's fault.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is nothing at this path.
    #[error("`{0}` does not exist; check the path, or download the file again")]
    Missing(PathBuf),
    /// The path names a directory or something else without contents.
    #[error("`{0}` is not a file; name the file itself")]
    NotAFile(PathBuf),
    /// A pipe, a device or a socket.
    #[error("`{0}` is a pipe, a device or a socket, where a file is needed; put the file itself there")]
    Special(PathBuf),
    /// It has more than anything that is meant can have.
    #[error("`{path}` has more than {most} bytes; name another file")]
    Large {
        /// The file.
        path: PathBuf,
        /// The most that are read.
        most: u64,
    },
    /// The system refused.
    #[error("`{path}` cannot be read: {source}; check its permissions and the disk")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    /// The error of a failed operation on `path`.
    pub fn new(path: &Path, source: io::Error) -> FileError {
        match source.kind() {
            io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
            io::ErrorKind::IsADirectory => FileError::NotAFile(path.to_owned()),
            _ => FileError::Read { path: path.to_owned(), source },
        }
    }

    /// The nearest kind of system error.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            FileError::Missing(_) => io::ErrorKind::NotFound,
            FileError::NotAFile(_) => io::ErrorKind::IsADirectory,
            FileError::Read { source, .. } => source.kind(),
            FileError::Special(_) | FileError::Large { .. } => io::ErrorKind::Other,
        }
    }
}

/// The contents of a file, mapped: pages are read when they are first touched, and shared between
/// processes. The file must not be written to or cut while the bytes are in use. What is no regular file, or no
/// link to one, is an error.
pub fn map(path: &Path) -> Result<Bytes, FileError> {
    let (file, length) = regular(path)?;
    mapped(&file, length).map_err(|e| FileError::new(path, e))
}

/// The contents of a small file, read at once; what has more than `most` bytes or is no regular file is an error.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let (file, length) = regular(path)?;
    if length > most {
        return Err(FileError::Large { path: path.to_owned(), most });
    }
    at_most(file, path, most)
}

/// The contents of what a user named: a file is mapped; what can only be read once, such as a pipe, is read to its
/// end, unless that is beyond `most` bytes.
pub fn given(path: &Path, most: u64) -> Result<Bytes, FileError> {
    let fail = |e| FileError::new(path, e);
    let file = File::open(path).map_err(fail)?;
    let about = file.metadata().map_err(fail)?;
    if about.is_dir() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    match about.is_file() {
        true => mapped(&file, about.len()).map_err(fail),
        false => at_most(file, path, most).map(Bytes::new),
    }
}

/// Everything that is left to read, unless that is more than `most` bytes; `path` is for messages.
pub fn at_most(from: impl Read, path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| FileError::new(path, e))?;
    match bytes.len() as u64 > most {
        true => Err(FileError::Large { path: path.to_owned(), most }),
        false => Ok(bytes),
    }
}

/// A regular file and its length. Nothing else is opened: to open a pipe is to wait for its other end.
fn regular(path: &Path) -> Result<(File, u64), FileError> {
    let fail = |e| FileError::new(path, e);
    let about = std::fs::metadata(path).map_err(fail)?;
    if about.is_dir() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    if !about.is_file() {
        return Err(FileError::Special(path.to_owned()));
    }
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    Ok((file, length))
}

fn mapped(file: &File, length: u64) -> io::Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new(Vec::new()));
    }
    #[expect(unsafe_code, reason = "mapping a file is the one way to share weights without copying them")]
    // SAFETY: the mapping is private and read-only, and the map lives as long as the bytes that borrow from
    // it. What the type system cannot exclude is another process changing the file; as for every reader of
    // mapped weights, the documentation forbids it.
    let mapped = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::owned(Mapped(mapped)))
}

/// A mapped file, whose pages are read again when they are needed.
struct Mapped(memmap2::Mmap);

impl Owner for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&self, range: Range<usize>) {
        unmap(&self.0, range);
    }
}

/// Gives pages of a mapped file back. Where the system does not take the advice, they stay in memory.
#[cfg(unix)]
fn unmap(mapped: &memmap2::Mmap, range: Range<usize>) {
    use memmap2::UncheckedAdvice::DontNeed;
    #[expect(unsafe_code, reason = "giving pages back is advice to the kernel")]
    // SAFETY: the mapping is one of a file and is never written, so pages that are given back are those of the file when
    // they are read again.
    let advised = unsafe { mapped.unchecked_advise_range(DontNeed, range.start, range.len()) };
    drop(advised);
}

/// Nothing that this system has no call for.
#[cfg(not(unix))]
fn unmap(_: &memmap2::Mmap, _: Range<usize>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_maps_to_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(&*map(&path).unwrap(), b"abc");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(&*map(&path).unwrap(), b"");
    }

    /// Of the mapping of a file, how many bytes are in memory, where the system tells.
    fn resident(path: &Path) -> Option<usize> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let of_file = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let size = of_file.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        Some(size.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10)
    }

    #[test]
    fn bytes_that_are_released_take_no_memory_until_they_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let contents: Vec<u8> = (0..1 << 22).map(|i: u32| (i >> 8) as u8).collect();
        std::fs::write(&path, &contents).unwrap();
        let bytes = map(&path).unwrap();
        let part = bytes.slice(1 << 20..3 << 20).unwrap();
        assert_eq!(*bytes, contents);
        assert!(resident(&path).is_none_or(|size| size > 2 << 20));
        part.release();
        // Huge pages go whole.
        assert!(resident(&path).is_none_or(|size| size <= 2 << 20));
        assert_eq!(*part, contents[1 << 20..3 << 20]);
        bytes.slice(5..5).unwrap().release();
        bytes.release();
        assert!(resident(&path).is_none_or(|size| size == 0));
        assert_eq!(*bytes, contents);
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(map(dir.path()), Err(FileError::NotAFile(_))));
        let e = map(&dir.path().join("none")).unwrap_err().to_string();
        assert!(e.ends_with("none` does not exist; check the path, or download the file again"), "{e}");
    }

    fn fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        fifo(&pipe);
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link] {
            assert!(matches!(map(path), Err(FileError::Special(_))));
            assert!(matches!(read(path, 10), Err(FileError::Special(_))));
        }
    }

    #[test]
    fn no_more_is_read_than_was_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"abc");
        let error = read(&path, 2).unwrap_err().to_string();
        assert!(error.ends_with("x` has more than 2 bytes; name another file"), "{error}");

        let pipe = dir.path().join("pipe");
        fifo(&pipe);
        let endless = |most| {
            let script = "exec 2>&-; yes > \"$0\"";
            let mut writer =
                std::process::Command::new("sh").args(["-c", script]).arg(&pipe).spawn().unwrap();
            let got = given(&pipe, most);
            writer.wait().unwrap();
            got
        };
        assert!(matches!(endless(100_000), Err(FileError::Large { most: 100_000, .. })));
        assert_eq!(&*given(&path, 1).unwrap(), b"abc", "files are mapped, whatever their size");
    }
}
