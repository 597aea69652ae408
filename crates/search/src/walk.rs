//! Which files there are.

use crate::error::SearchError;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The files below `roots` with one of these endings, each once and in the order of their names; a root that is a file is taken
/// whatever it ends in. Hidden files and folders are left out, and links to folders are not followed, but for the roots.
pub(crate) fn files(roots: &[PathBuf], endings: &[String]) -> Result<Vec<PathBuf>, SearchError> {
    let mut found = Vec::new();
    for root in roots {
        let walk = WalkDir::new(root).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())) {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(root).to_owned();
                let kind = error.io_error().map_or(std::io::ErrorKind::Other, std::io::Error::kind);
                SearchError::Walk { path, why: error.to_string(), kind }
            })?;
            let path = entry.path();
            if path.is_file() && (entry.depth() == 0 || ends(path, endings)) {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn ends(path: &Path, endings: &[String]) -> bool {
    let Some(end) = path.extension().and_then(|end| end.to_str()) else { return false };
    endings.iter().any(|known| end.eq_ignore_ascii_case(known))
}
