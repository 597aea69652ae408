//! Compiled programs that are kept under what they were compiled from.

use super::file::{self, About, EXTENSION, FileFault};
use super::lock::{self, Held};
use super::output::{Disk, Layer};
use super::{ArtifactError, output};
use crate::compile::{CompileError, compile_graph};
pub use crate::device::ane::kept::Collected;
use crate::ir::graph::Graph;
use crate::ir::text::print_nodes;
use crate::passes::CompileOptions;
use crate::plan::Plan;
use aneforge_formats::map;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder of programs within a cache's folder, where measurements lie, too.
const FOLDER: &str = "plans";
/// Digits of a key.
const DIGITS: usize = 32;

/// Programs in a folder, each as a file named by a hash of graph, weights, options and version. Any number of processes may
/// share it, and be killed at any time.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

/// What [`Cache::get_or_compile`] found or made.
#[derive(Debug)]
pub struct Cached {
    /// The program. One from the cache has no traces.
    pub plan: Plan,
    /// Whether it was there.
    pub hit: bool,
    /// Whether it is there now, or why not. The environment's fault.
    pub kept: Result<(), ArtifactError>,
}

/// A program in a cache.
#[derive(Debug)]
pub struct Kept {
    /// What it is kept under.
    pub key: String,
    /// Its file.
    pub path: PathBuf,
    /// Bytes of its file.
    pub bytes: u64,
    /// When it was last asked for, or written.
    pub used: SystemTime,
    /// What its file says of itself, or why it is none.
    pub about: Result<About, FileFault>,
}

/// A program in a cache that was read as a whole.
#[derive(Debug)]
pub struct Checked {
    /// Which.
    pub kept: Kept,
    /// Why it cannot be loaded, if it cannot.
    pub fault: Option<ArtifactError>,
}

impl Cache {
    /// The most bytes that programs take when nothing else is said: 4 GiB.
    pub const LIMIT: u64 = 4 << 30;

    /// The cache in `folder`, which is made when something is first kept.
    ///
    /// ```
    /// use aneforge::artifact::Cache;
    /// use aneforge::{CompileOptions, Graph, Shape, Var};
    /// let folder = tempfile::tempdir()?;
    /// let cache = Cache::new(folder.path()).limit(1 << 20);
    /// let graph = Graph::freeze(&[Var::input(Shape::new(&[4])?).relu()])?;
    /// assert!(!cache.get_or_compile(&graph, &CompileOptions::default())?.hit);
    /// assert!(cache.get_or_compile(&graph, &CompileOptions::default())?.hit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(folder: &Path) -> Cache {
        Cache { folder: folder.join(FOLDER), limit: Cache::LIMIT }
    }

    /// The same with at most so many bytes of programs.
    #[must_use]
    pub fn limit(self, bytes: u64) -> Cache {
        Cache { limit: bytes, ..self }
    }

    /// Where its programs lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The most bytes that its programs take.
    pub fn most(&self) -> u64 {
        self.limit
    }

    /// What a graph with its weights, compiled so by this version and state of the library, is kept under. Lines that built
    /// its nodes count, as the program names them.
    pub fn key(graph: &Graph, options: &CompileOptions) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(concat!("aneforge ", env!("CARGO_PKG_VERSION"), " ", env!("ANEFORGE_SOURCES")).as_bytes());
        part(format!("{} {options:?}", options.target.name()).as_bytes());
        part(print_nodes(graph).as_bytes());
        for (_, node) in graph.nodes() {
            part(node.at.file().as_bytes());
            part(&node.at.line().to_le_bytes());
        }
        for weight in graph.constants() {
            part(format!("{} {}", weight.encoding(), weight.shape()).as_bytes());
            for tensor in weight.parts() {
                part(tensor.dtype().name().as_bytes());
                part(tensor.bytes());
            }
        }
        hash.finalize().iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.{EXTENSION}"))
    }

    /// The program that is kept under `key`. One that is damaged counts as missing.
    pub fn get(&self, key: &str) -> Option<Plan> {
        let path = self.path(key);
        if !fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) {
            return None;
        }
        let _held = Held::shared(&path);
        match Plan::load(&path) {
            Ok(plan) => {
                // So that those go first that nobody asks for. Where this is not allowed, age decides.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(plan)
            }
            Err(ArtifactError::Absent { .. }) => None,
            Err(error) => {
                tracing::warn!("cache: {error}; it is compiled again");
                None
            }
        }
    }

    /// Keeps a program under `key`, and removes those that were not used for longest where all take more than the limit. One
    /// that is larger than the limit is not kept.
    pub fn insert(&self, key: &str, plan: &Plan) -> Result<(), ArtifactError> {
        self.insert_on(&Disk, key, plan)
    }

    pub(super) fn insert_on(&self, layer: &impl Layer, key: &str, plan: &Plan) -> Result<(), ArtifactError> {
        let path = self.path(key);
        let (bytes, fill) =
            file::prepared(plan, &|_, _, _| None).map_err(ArtifactError::io("write", &path))?;
        if bytes > self.limit {
            return Ok(());
        }
        // A link or a pipe would be written into, and perhaps waited for.
        if fs::symlink_metadata(&path).is_ok_and(|about| !about.is_file()) {
            return Err(ArtifactError::Taken(path));
        }
        fs::create_dir_all(&self.folder).map_err(ArtifactError::io("make folder", &self.folder))?;
        output::replace_for_good(layer, &path, fill)?;
        self.bound(key).map(drop)
    }

    /// The program of a graph, from the cache, or compiled and kept.
    #[track_caller]
    pub fn get_or_compile(&self, graph: &Graph, options: &CompileOptions) -> Result<Cached, CompileError> {
        let key = Cache::key(graph, options);
        if let Some(mut plan) = self.get(&key) {
            let feeds = graph.feed_types();
            // The inputs are those of the caller, who may feed them by their values.
            if feeds.len() == plan.feeds.len() && feeds.iter().zip(&plan.feeds).all(|(a, b)| a.ty == b.ty) {
                plan.feeds = feeds;
                return Ok(Cached { plan, hit: true, kept: Ok(()) });
            }
        }
        let plan = compile_graph(graph, options)?;
        let kept = self.insert(&key, &plan);
        Ok(Cached { plan, hit: false, kept })
    }

    /// Every program, the one that was not used for longest first.
    pub fn list(&self) -> Result<Vec<Kept>, ArtifactError> {
        let items = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            items => items.map_err(ArtifactError::io("read folder", &self.folder))?,
        };
        let mut all: Vec<Kept> = items.flatten().filter_map(|item| kept(&item)).collect();
        all.sort_by(|a, b| (a.used, &a.key).cmp(&(b.used, &b.key)));
        Ok(all)
    }

    /// Reads every program as a whole.
    pub fn verify(&self) -> Result<Vec<Checked>, ArtifactError> {
        let check = |kept: Kept| {
            let _held = Held::shared(&kept.path);
            if !fs::symlink_metadata(&kept.path).is_ok_and(|about| about.is_file()) {
                let fault = Some(ArtifactError::Taken(kept.path.clone()));
                return kept.path.symlink_metadata().is_ok().then_some(Checked { kept, fault });
            }
            match Plan::load(&kept.path) {
                // Another process has removed it meanwhile.
                Err(ArtifactError::Absent { .. }) if !kept.path.exists() => None,
                loaded => Some(Checked { kept, fault: loaded.err() }),
            }
        };
        Ok(self.list()?.into_iter().filter_map(check).collect())
    }

    /// Removes what writers that were killed have left, what is damaged or of another version, and then those programs that
    /// were not used for longest, until the rest is within the limit. What somebody reads at the time stays.
    pub fn collect(&self) -> Result<Collected, ArtifactError> {
        let _held = Held::exclusive(&self.folder);
        lock::sweep(&self.folder, false);
        let mut done = Collected::default();
        for Checked { kept, fault } in self.verify()? {
            let file = fs::symlink_metadata(&kept.path).is_ok_and(|about| about.is_file());
            if fault.is_some() && (!file || lock::is_free(&kept.path)) && fs::remove_file(&kept.path).is_ok()
            {
                done.removed += 1;
                done.freed += kept.bytes;
            }
        }
        self.shrink("", done)
    }

    /// Removes what exceeds the limit, but not what was just kept under `newest`.
    fn bound(&self, newest: &str) -> Result<Collected, ArtifactError> {
        if self.list()?.iter().map(|kept| kept.bytes).sum::<u64>() <= self.limit {
            return Ok(Collected::default());
        }
        let _held = Held::exclusive(&self.folder);
        self.shrink(newest, Collected::default())
    }

    fn shrink(&self, newest: &str, mut done: Collected) -> Result<Collected, ArtifactError> {
        let all = self.list()?;
        (done.left, done.bytes) = (all.len(), all.iter().map(|kept| kept.bytes).sum());
        for kept in all.iter().filter(|kept| kept.key != newest) {
            if done.bytes <= self.limit {
                break;
            }
            if lock::is_free(&kept.path) && fs::remove_file(&kept.path).is_ok() {
                (done.removed, done.left) = (done.removed + 1, done.left - 1);
                (done.freed, done.bytes) = (done.freed + kept.bytes, done.bytes - kept.bytes);
            }
        }
        Ok(done)
    }
}

/// The program that an item of the folder is, if it is one.
fn kept(item: &fs::DirEntry) -> Option<Kept> {
    let name = item.file_name().into_string().ok()?;
    let key = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let digits = key.len() == DIGITS && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let about = item.metadata().ok().filter(|_| digits)?;
    let path = item.path();
    // What is no file of its own is in the way of one.
    let head = match map(&path) {
        Ok(bytes) if about.is_file() => About::read(&bytes),
        _ => Err(FileFault::Foreign),
    };
    let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Kept { key: key.to_owned(), path, bytes: about.len(), used, about: head })
}

/// A text is no number of bytes. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number of bytes; give one such as 4294967296, 512M or 4G")]
pub struct UnknownSize(String);

/// The number of bytes that a text such as `4G` means: K, M, G and T are 1024, its square and so on.
pub fn size_named(text: &str) -> Result<u64, UnknownSize> {
    let wrong = || UnknownSize(text.to_owned());
    let word = text.trim().to_ascii_lowercase();
    let word = word.strip_suffix("ib").or(word.strip_suffix('b')).unwrap_or(&word);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.iter().find_map(|&(unit, shift)| Some((word.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((word, 0));
    let count: u64 = digits.trim().parse().map_err(|_| wrong())?;
    count.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            (" 3K", 3 << 10),
            ("512m", 512 << 20),
            ("4GiB", 4 << 30),
            ("1 TB", 1 << 40),
        ] {
            assert_eq!(size_named(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "4X", "99999999T", "18446744073709551616"] {
            assert!(size_named(text).is_err(), "{text}");
        }
    }
}
