//! Saving and keeping programs, cut off anywhere.
//!
//! What `save` and the cache do to the file system is recorded while they do it. From the record follows what a reader would
//! find if the process had been killed, or the machine had lost power, at any point: within any write, between any two
//! operations, with what was not synced there in part, as zeros or not at all, and with renames done or not.

use super::output::{Disk, Layer, replace_for_good};
use super::{Cache, file};
use crate::plan::Plan;
use crate::{CompileOptions, Graph, Shape, Var, compile};
use aneforge_tensor::{Bytes, random};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[derive(Clone, Debug)]
enum Did {
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFolder,
}

/// The file system, which remembers what was done.
#[derive(Default)]
struct Recorder(Rc<RefCell<Vec<Did>>>);

struct Recorded {
    path: PathBuf,
    file: File,
    record: Rc<RefCell<Vec<Did>>>,
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.record.borrow_mut().push(Did::Write(self.path.clone(), bytes[..count].to_vec()));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Layer for Recorder {
    type File = Recorded;

    fn create(&self, path: &Path) -> io::Result<Recorded> {
        let file = Disk.create(path)?;
        self.0.borrow_mut().push(Did::Create(path.to_owned()));
        Ok(Recorded { path: path.to_owned(), file, record: self.0.clone() })
    }

    fn permit(&self, file: &Recorded, permissions: Permissions) -> io::Result<()> {
        Disk.permit(&file.file, permissions)
    }

    fn sync(&self, file: &Recorded) -> io::Result<()> {
        self.0.borrow_mut().push(Did::Sync(file.path.clone()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)?;
        self.0.borrow_mut().push(Did::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.0.borrow_mut().push(Did::SyncFolder);
        Ok(())
    }
}

/// A file as the system knows it, and as the disk has it for sure.
#[derive(Clone, Default)]
struct Content {
    written: Vec<u8>,
    synced: usize,
}

/// A folder: names to files, and how often files were moved since its names were synced.
#[derive(Clone, Default)]
struct World {
    files: HashMap<PathBuf, Content>,
    /// Names as they were before each rename that may not be on the disk yet.
    before: Vec<HashMap<PathBuf, Content>>,
}

impl World {
    /// The world after one more operation, of which a write is done up to `cut` bytes.
    fn apply(&mut self, did: &Did, cut: usize) {
        match did {
            Did::Create(path) => drop(self.files.insert(path.clone(), Content::default())),
            Did::Write(path, bytes) => {
                self.files.get_mut(path).unwrap().written.extend_from_slice(&bytes[..cut.min(bytes.len())]);
            }
            Did::Sync(path) => {
                let content = self.files.get_mut(path).unwrap();
                content.synced = content.written.len();
            }
            Did::Rename(from, to) => {
                self.before.push(self.files.clone());
                let content = self.files.remove(from).unwrap();
                self.files.insert(to.clone(), content);
            }
            Did::SyncFolder => self.before.clear(),
        }
    }

    /// What may be found at `path`: after a kill, what was written; after a loss of power, for every state of the names, what
    /// was synced and some of the rest.
    fn found(&self, path: &Path) -> Vec<Option<Vec<u8>>> {
        let mut found = vec![self.files.get(path).map(|content| content.written.clone())];
        for files in self.before.iter().chain([&self.files]) {
            let Some(Content { written, synced }) = files.get(path) else {
                found.push(None);
                continue;
            };
            let rest = written.len() - synced;
            let kept = |count: usize| written[..synced + count].to_vec();
            let mut zeros = kept(0);
            zeros.resize(written.len(), 0);
            found.extend([kept(0), kept(rest / 2), kept(rest), zeros].map(Some));
        }
        found
    }
}

/// What is expected of a path: a program there before, if there was one, and the one that takes its place.
struct Expected<'a> {
    old: Option<&'a [u8]>,
    new: &'a [u8],
}

/// Goes through every cut of a record, and returns how many there are.
fn cut_everywhere(record: &[Did], path: &Path, start: World, expected: &Expected<'_>) -> usize {
    let (mut world, mut cuts) = (start, 0);
    for did in record {
        let bytes = if let Did::Write(_, bytes) = did { bytes.len() } else { 0 };
        // Within the file that is written aside, a reader's path holds what it held; all of its prefixes are torn.
        for cut in 0..=bytes {
            let mut torn = world.clone();
            torn.apply(did, cut);
            cuts += 1;
            for found in torn.found(path) {
                let whole = [expected.old, Some(expected.new)].contains(&found.as_deref());
                assert!(
                    whole && (found.is_some() || expected.old.is_none()),
                    "{} of {} bytes after {did:?} cut at {cut}",
                    found.map_or(0, |found| found.len()),
                    expected.new.len()
                );
            }
        }
        world.apply(did, bytes);
    }
    assert_eq!(world.found(path)[0].as_deref(), Some(expected.new), "what was saved is there");
    cuts
}

/// A small program that differs from seed to seed, in its weights and in its length.
fn program(seed: u64) -> (Graph, Plan) {
    let n = 2 + (seed % 5) as usize;
    let shape = Shape::new(&[n, 3]).unwrap();
    let x = Var::input(Shape::new(&[1, 3]).unwrap());
    let y = x.linear(&Var::constant(random::try_normal_f16(seed, shape).unwrap()), None);
    let y = if seed.is_multiple_of(2) { y.relu() } else { y.tanh() };
    let graph = Graph::freeze(std::slice::from_ref(&y)).unwrap();
    (graph, compile(&[y], &CompileOptions::default()).unwrap())
}

fn bytes_of(plan: &Plan) -> Vec<u8> {
    let (_, fill) = file::prepared(plan, &|_, _, _| None).unwrap();
    let mut bytes = Vec::new();
    fill(&mut bytes).unwrap();
    bytes
}

/// Files that are there, safely.
fn there(path: &Path, bytes: &[u8]) -> World {
    let content = Content { written: bytes.to_vec(), synced: bytes.len() };
    World { files: HashMap::from([(path.to_owned(), content)]), before: Vec::new() }
}

#[test]
fn a_program_is_saved_whole_or_not_at_all_wherever_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.aneforge");
    let (mut cuts, mut old) = (0, None::<Vec<u8>>);
    for seed in 0..60 {
        let (_, plan) = program(seed);
        let new = bytes_of(&plan);
        let recorder = Recorder::default();
        replace_for_good(&recorder, &path, file::prepared(&plan, &|_, _, _| None).unwrap().1).unwrap();
        let start = old.as_ref().map_or_else(World::default, |old| there(&path, old));
        let expected = Expected { old: old.as_deref(), new: &new };
        cuts += cut_everywhere(&recorder.0.borrow(), &path, start, &expected);
        assert_eq!(Plan::load(&path).unwrap().to_string(), plan.to_string());
        old = Some(new);
    }
    assert!(cuts > 50_000, "{cuts}");
}

#[test]
fn a_cache_holds_a_program_whole_or_not_at_all_wherever_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let mut cuts = 0;
    for seed in 100..130 {
        let (graph, plan) = program(seed);
        let key = Cache::key(&graph, &CompileOptions::default());
        let path = cache.folder().join(format!("{key}.aneforge"));
        let new = bytes_of(&plan);
        let recorder = Recorder::default();
        cache.insert_on(&recorder, &key, &plan).unwrap();
        cuts +=
            cut_everywhere(&recorder.0.borrow(), &path, World::default(), &Expected { old: None, new: &new });
        assert!(cache.get(&key).is_some());
        // Another process that keeps the same meanwhile.
        let again = Recorder::default();
        cache.insert_on(&again, &key, &plan).unwrap();
        let expected = Expected { old: Some(&new), new: &new };
        cuts += cut_everywhere(&again.0.borrow(), &path, there(&path, &new), &expected);
    }
    assert!(cuts > 50_000, "{cuts}");
}

/// What is torn nevertheless, as by a file system that keeps no promise, is refused: every prefix, and every file whose end is
/// zeros.
#[test]
fn nothing_torn_is_loaded() {
    for seed in [20, 21] {
        let (_, plan) = program(seed);
        let whole = bytes_of(&plan);
        let mut loaded = 0;
        for cut in 0..whole.len() {
            let prefix = whole[..cut].to_vec();
            let mut zeros = prefix.clone();
            zeros.resize(whole.len(), 0);
            assert!(Plan::from_bytes(&Bytes::new(prefix), "x").is_err(), "cut at {cut}");
            if zeros != whole {
                assert!(Plan::from_bytes(&Bytes::new(zeros), "x").is_err(), "zeros from {cut}");
                loaded += 1;
            }
        }
        assert!(loaded > 500 && Plan::from_bytes(&Bytes::new(whole), "x").is_ok());
    }
}

/// The check of the checks: without a sync before the rename, a loss of power leaves a torn file.
#[test]
fn a_rename_without_a_sync_would_be_noticed() {
    let path = PathBuf::from("/m");
    let aside = PathBuf::from("/aside");
    let new = b"new contents".to_vec();
    let record = [
        Did::Create(aside.clone()),
        Did::Write(aside.clone(), new.clone()),
        Did::Sync(aside.clone()),
        Did::Rename(aside, path.clone()),
        Did::SyncFolder,
    ];
    let old = b"old".to_vec();
    let expected = Expected { old: Some(&old), new: &new };
    assert!(cut_everywhere(&record, &path, there(&path, &old), &expected) > 15);
    let careless: Vec<Did> = record.iter().filter(|did| !matches!(did, Did::Sync(_))).cloned().collect();
    let start = there(&path, &old);
    std::panic::catch_unwind(|| cut_everywhere(&careless, &path, start, &expected)).unwrap_err();
}
