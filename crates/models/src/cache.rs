//! The hub's cache on disk, as the hub's own tools lay it out.

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

/// Where the hub's tools keep what belongs to the user, the token among it.
fn home() -> PathBuf {
    variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        cache.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache")).join("huggingface")
    })
}

/// The cache beside the user's token.
pub(super) fn beside_token() -> PathBuf {
    home().join("hub")
}

/// The cache that the hub's tools use.
pub(super) fn directory() -> PathBuf {
    let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    named.map_or_else(beside_token, PathBuf::from)
}

/// The server that the hub's tools use, unless it is the public one.
pub(super) fn endpoint() -> Option<String> {
    variable("HF_ENDPOINT")?.into_string().ok()
}

/// The directory of a model that is complete in `cache`: what the revision refers to. A cache without any
/// reference, as copies are, is searched for the snapshot written last.
pub(super) fn snapshot(cache: &Path, id: &str, revision: &str) -> Option<PathBuf> {
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let snapshots = model.join("snapshots");
    let referred = read(&model.join("refs").join(revision), MOST_NAME)
        .ok()
        .and_then(|name| String::from_utf8(name).ok());
    let named = Path::new(referred.as_deref().map_or(revision, str::trim));
    let plain = matches!(named.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let named = snapshots.join(named);
    if plain && is_complete(&named) {
        return Some(named);
    }
    if model.join("refs").exists() {
        return None;
    }
    let complete = folders(&snapshots).filter(|folder| is_complete(folder));
    complete.max_by_key(|folder| folder.metadata().and_then(|about| about.modified()).ok())
}

/// Whether a directory, or that of one of its numbered modules, has all that a model needs.
fn is_complete(directory: &Path) -> bool {
    let has = |folder: &Path| {
        ["config.json", "tokenizer.json"].iter().all(|file| folder.join(file).exists())
            && Checkpoint::is_complete(folder)
    };
    has(directory) || folders(directory).any(|folder| has(&folder))
}

fn folders(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let items = fs::read_dir(directory).into_iter().flatten().flatten();
    items.map(|item| item.path()).filter(|path| path.is_dir())
}
