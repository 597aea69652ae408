use aneforge_tensor::Bytes;
use std::fs::File;
use std::io::{self, Read};
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
}

/// The contents of a file, mapped: pages are read when they are first touched, and shared between
/// processes. The file must not be written to or cut while the bytes are in use. What can only be read once,
/// such as a pipe, is read to its end.
pub fn map(path: &Path) -> Result<Bytes, FileError> {
    let fail = |e| FileError::new(path, e);
    let mut file = File::open(path).map_err(fail)?;
    let about = file.metadata().map_err(fail)?;
    if about.is_dir() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    if !about.is_file() {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        return Ok(Bytes::new(bytes));
    }
    if about.len() == 0 {
        return Ok(Bytes::new(Vec::new()));
    }
    #[expect(unsafe_code, reason = "mapping a file is the one way to share weights without copying them")]
    // SAFETY: the mapping is private and read-only, and the map lives as long as the bytes that borrow from
    // it. What the type system cannot exclude is another process changing the file; as for every reader of
    // mapped weights, the documentation forbids it.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
    Ok(Bytes::new(mapped))
}

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

    #[test]
    fn what_is_no_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(map(dir.path()), Err(FileError::NotAFile(_))));
        let e = map(&dir.path().join("none")).unwrap_err().to_string();
        assert!(e.ends_with("none` does not exist; check the path, or download the file again"), "{e}");
    }
}
