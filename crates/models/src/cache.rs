//! The hub's cache on disk, as the hub's own tools lay it out.

use crate::resolve::Reads;
use aneforge_formats::{Checkpoint, read};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

/// The most bytes that the name of a revision is read of.
const MOST_NAME: u64 = 4096;

/// An environment variable of the hub's tools; one that is empty counts as unset.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder that a variable names; `~` at its start is the user's, as the hub's tools read it.
fn folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(variable(name)?);
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

/// Where the hub's tools keep what belongs to the user, the token among it.
fn home() -> PathBuf {
    folder("HF_HOME").unwrap_or_else(|| {
        let cache = folder("XDG_CACHE_HOME");
        cache.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache")).join("huggingface")
    })
}

/// The cache beside the user's token.
pub(super) fn beside_token() -> PathBuf {
    home().join("hub")
}

/// The cache that the hub's tools use.
pub(super) fn directory() -> PathBuf {
    folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(beside_token)
}

/// The server that the hub's tools use, unless it is the public one.
pub(super) fn endpoint() -> Option<String> {
    variable("HF_ENDPOINT")?.into_string().ok()
}

/// The directory of a model that is complete in `cache`: what the revision refers to. A cache without any
/// reference, as copies are, or with empty ones alone, is searched for the snapshot written last.
pub(super) fn snapshot(cache: &Path, id: &str, revision: &str, reads: Reads) -> Option<PathBuf> {
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let snapshots = model.join("snapshots");
    let references = model.join("refs");
    let referred = reference(&references.join(revision));
    let named = Path::new(referred.as_deref().unwrap_or(revision));
    let plain = matches!(named.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let named = snapshots.join(named);
    if plain && is_complete(&named, reads) {
        return Some(named);
    }
    if refers(&references) {
        return None;
    }
    let complete = folders(&snapshots).filter(|folder| is_complete(folder, reads));
    complete.max_by_key(|folder| folder.metadata().and_then(|about| about.modified()).ok())
}

/// What a reference says, if it says anything.
fn reference(path: &Path) -> Option<String> {
    let name = String::from_utf8(read(path, MOST_NAME).ok()?).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether a folder has a reference that says something, in itself or in its folders: names of branches may have slashes.
fn refers(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|item| match item.file_type() {
        Ok(kind) if kind.is_dir() => refers(&item.path()),
        _ => reference(&item.path()).is_some(),
    })
}

/// Whether a directory, or that of one of its numbered modules, has all that a model needs.
fn is_complete(directory: &Path, reads: Reads) -> bool {
    let has = |folder: &Path| {
        reads.required().iter().all(|(file, _)| folder.join(file).exists()) && Checkpoint::is_complete(folder)
    };
    has(directory) || folders(directory).any(|folder| has(&folder))
}

fn folders(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let items = fs::read_dir(directory).into_iter().flatten().flatten();
    items.map(|item| item.path()).filter(|path| path.is_dir())
}
