//! The files of a compiled program as a set, bound together by a manifest.

use super::lock::{self, Held};
use super::output::{PREFIX, aside};
use super::{ArtifactError, MANIFEST_FILE, PLAN_FILE, PROGRAM_FILE, REPORT_FILE, WEIGHTS_FILE};
use aneforge_formats::{FileError, map, read};
use aneforge_mil::netplist::NET_FILE;
use aneforge_tensor::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the set's folder, with `/` between names.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum, a CRC-32.
    pub sum: u32,
}

/// What a set consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where its files were written before they took their places. An interrupted compile leaves some there.
    pub staged: String,
    /// Its files.
    pub entries: Vec<Entry>,
}

/// The most bytes that a manifest may have: more than a program of a million segments takes.
const MOST_MANIFEST: u64 = 1 << 28;
const TITLE: &str = "aneforge set 1, written in ";
const END: &str = "these lines have checksum ";

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = format!("{TITLE}{}\n", self.staged);
        for Entry { file, bytes, sum } in &self.entries {
            lines += &format!("{sum:08x} {bytes} {file}\n");
        }
        writeln!(f, "{lines}{END}{:08x}", crc32fast::hash(lines.as_bytes()))
    }
}

impl Manifest {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Result<Manifest, &'static str> {
        let (lines, sum) = text.rsplit_once(END).ok_or("it has no checksum")?;
        if sum != format!("{:08x}\n", crc32fast::hash(lines.as_bytes())) {
            return Err("its checksum is another");
        }
        let mut lines = lines.lines();
        let staged =
            lines.next().and_then(|title| title.strip_prefix(TITLE)).ok_or("its title is another")?;
        let entries = lines.map(entry).collect::<Option<_>>().ok_or("a line is no file of a program")?;
        match staged.starts_with(PREFIX) && !staged.contains(['/', '\\']) {
            true => Ok(Manifest { staged: staged.to_owned(), entries }),
            false => Err("its title is another"),
        }
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(3, ' ');
    let sum = u32::from_str_radix(words.next()?, 16).ok()?;
    let bytes = words.next()?.parse().ok()?;
    let file = words.next().filter(|file| is_ours(file))?.to_owned();
    Some(Entry { file, bytes, sum })
}

/// Whether a path below a set's folder is one that sets have. No other file is read or removed, whatever a
/// manifest says.
fn is_ours(file: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let name = match file.split_once('/') {
        Some((segment, name)) if segment.strip_prefix("segment").is_some_and(number) => name,
        Some(_) => return false,
        None => file,
    };
    [PROGRAM_FILE, WEIGHTS_FILE, REPORT_FILE, NET_FILE].contains(&name)
        || file == PLAN_FILE
        || name.strip_prefix("weights.").is_some_and(number)
}

/// A set that was read and found whole.
#[derive(Clone, Debug)]
pub struct Set {
    files: Vec<(String, Bytes)>,
}

impl Set {
    /// Maps every file of the set in `folder` and compares it with the manifest. None if there is no manifest.
    pub fn open(folder: &Path) -> Result<Option<Set>, ArtifactError> {
        let path = folder.join(MANIFEST_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let _held = Held::shared(folder);
        let text = match read(&path, MOST_MANIFEST) {
            Err(FileError::Missing(_)) => return Ok(None),
            text => text.map_err(|source| ArtifactError::Absent { source })?,
        };
        let manifest = std::str::from_utf8(&text).map_err(|_| "it is not text").and_then(Manifest::parse);
        let manifest = manifest.map_err(|why| ArtifactError::Manifest { path, why: why.into() })?;
        let files = manifest.entries.iter().map(|entry| whole(folder, &manifest.staged, entry));
        Ok(Some(Set { files: files.collect::<Result<_, _>>()? }))
    }

    /// The contents of a file, by its path below the folder.
    pub fn get(&self, file: &str) -> Option<&Bytes> {
        self.files.iter().find(|(name, _)| name == file).map(|(_, bytes)| bytes)
    }
}

/// A file of a set, from its place or from where it waits to be moved there.
fn whole(folder: &Path, staged: &str, entry: &Entry) -> Result<(String, Bytes), ArtifactError> {
    let fits = |bytes: &Bytes| bytes.len() as u64 == entry.bytes && crc32fast::hash(bytes) == entry.sum;
    let place = folder.join(&entry.file);
    let found = map(&place);
    if let Some(bytes) = found.as_ref().ok().filter(|bytes| fits(bytes)) {
        return Ok((entry.file.clone(), bytes.clone()));
    }
    if let Some(bytes) = map(&folder.join(staged).join(&entry.file)).ok().filter(fits) {
        return Ok((entry.file.clone(), bytes));
    }
    let got = found.map_err(|source| ArtifactError::Absent { source })?.len() as u64;
    Err(ArtifactError::Changed { path: place, want: entry.bytes, got })
}

/// A set that is being written.
pub(super) struct Stage {
    folder: PathBuf,
    name: String,
    entries: Vec<Entry>,
    /// By which others see that somebody is still at it.
    _held: Option<Held>,
    /// Whether the folder is there for this set only.
    fresh: bool,
}

/// A writer that adds up what passes.
pub(super) struct Summed<W> {
    to: W,
    sum: crc32fast::Hasher,
    bytes: u64,
}

impl<W> Summed<W> {
    pub(super) fn new(to: W) -> Summed<W> {
        Summed { to, sum: crc32fast::Hasher::new(), bytes: 0 }
    }

    /// The checksum of what has passed.
    pub(super) fn sum(self) -> u32 {
        self.sum.finalize()
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.sum.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Stage {
    /// Makes the folder, and one within it to write to: there a rename never crosses file systems.
    pub(super) fn new(folder: &Path) -> Result<Stage, ArtifactError> {
        let fresh = !folder.exists();
        fs::create_dir_all(folder).map_err(ArtifactError::io("make folder", folder))?;
        let made = aside(|name| fs::create_dir(folder.join(name)));
        let (name, ()) = made.map_err(ArtifactError::io("write to folder", folder))?;
        let held = Held::exclusive(&folder.join(&name));
        Ok(Stage { folder: folder.to_owned(), name, entries: Vec::new(), _held: held, fresh })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Writes a file of the set.
    pub(super) fn write(
        &mut self,
        file: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ArtifactError> {
        let path = self.path().join(file);
        let written = create(&path).and_then(|to| {
            let to = BufWriter::with_capacity(1 << 16, to);
            let mut to = Summed::new(to);
            fill(&mut to)?;
            to.flush()?;
            Ok(Entry { file: file.to_owned(), bytes: to.bytes, sum: to.sum() })
        });
        self.entries.push(written.map_err(ArtifactError::io("write", &self.folder.join(file)))?);
        Ok(())
    }

    /// Puts the set in the place of the one before it. The manifest is moved first: from then on, readers
    /// find the new files, whether they have been moved or not. Of several sets at once, each is moved whole.
    pub(super) fn commit(mut self) -> Result<Vec<Entry>, ArtifactError> {
        let _held = Held::exclusive(&self.folder);
        let place = self.folder.join(MANIFEST_FILE);
        let old = read(&place, MOST_MANIFEST).ok().and_then(|text| String::from_utf8(text).ok());
        let old = old.and_then(|text| Manifest::parse(&text).ok());
        self.untaken(&place)?;
        let manifest = Manifest { staged: self.name.clone(), entries: self.entries.clone() };
        let aside = self.path().join(MANIFEST_FILE);
        let written = fs::write(&aside, manifest.to_string());
        written.map_err(ArtifactError::io("write", &place))?;
        for file in self.entries.iter().map(|e| e.file.as_str()).chain([MANIFEST_FILE]) {
            let (from, to) = (self.path().join(file), self.folder.join(file));
            let parent = to.parent().map(Path::to_owned).unwrap_or_default();
            fs::create_dir_all(&parent).map_err(ArtifactError::io("make folder", &parent))?;
            let kept = match fs::metadata(&to) {
                Ok(before) => fs::set_permissions(&from, before.permissions()),
                Err(_) => Ok(()),
            };
            kept.map_err(ArtifactError::io("write", &to))?;
        }
        fs::rename(&aside, &place).map_err(ArtifactError::io("write", &place))?;
        for entry in &self.entries {
            let place = self.folder.join(&entry.file);
            let moved = fs::rename(self.path().join(&entry.file), &place);
            moved.map_err(|source| {
                // What is not moved is still needed.
                self.name.clear();
                ArtifactError::Io { action: "write", path: place, source }
            })?;
        }
        self.fresh = false;
        old.iter().for_each(|old| self.remove(old));
        lock::sweep(&self.folder, true);
        Ok(std::mem::take(&mut self.entries))
    }

    /// Makes sure that where the set's files go there are only such of a set before it.
    fn untaken(&self, manifest: &Path) -> Result<(), ArtifactError> {
        let about = fs::metadata(manifest).ok();
        if about.as_ref().is_some_and(|about| !about.is_file()) {
            return Err(ArtifactError::Taken(manifest.to_owned()));
        }
        let taken = |path: &PathBuf| match path.symlink_metadata() {
            Ok(file) => !(about.is_some() && file.is_file()),
            Err(_) => false,
        };
        match self.entries.iter().map(|e| self.folder.join(&e.file)).find(taken) {
            Some(path) => Err(ArtifactError::Taken(path)),
            None => Ok(()),
        }
    }

    /// Removes what the set before had and this one has not.
    fn remove(&self, old: &Manifest) {
        let kept: BTreeSet<&str> = self.entries.iter().map(|e| e.file.as_str()).collect();
        for file in old.entries.iter().map(|e| e.file.as_str()).filter(|file| !kept.contains(file)) {
            let _ = fs::remove_file(self.folder.join(file));
            if let Some((segment, _)) = file.split_once('/') {
                // Fails, as it should, while anything is in it.
                let _ = fs::remove_dir(self.folder.join(segment));
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(path)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let _ = fs::remove_dir_all(self.path());
        if self.fresh {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let entry = |file: &str| Entry { file: file.into(), bytes: 12, sum: 0xabc };
        let entries = ["segment10/model.mil", "segment1/weights.12", "report.txt"].map(entry).into();
        Manifest { staged: format!("{PREFIX}1-0"), entries }
    }

    #[test]
    fn a_manifest_reads_back_and_no_byte_of_it_can_change() {
        let text = manifest().to_string();
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        for at in 0..text.len() {
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(Manifest::parse(&String::from_utf8(bytes).unwrap()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn only_files_of_programs_are_named() {
        let staged = format!("{PREFIX}1-0");
        for file in [
            "../model.mil",
            "/model.mil",
            "segment/model.mil",
            "segment1/x/model.mil",
            "segment1/plan.aneforge",
            "weights.",
            "a.txt",
            "",
        ] {
            let entries = vec![Entry { file: file.into(), bytes: 0, sum: 0 }];
            assert!(
                Manifest::parse(&Manifest { staged: staged.clone(), entries }.to_string()).is_err(),
                "{file}"
            );
        }
        for staged in ["", "..", "/tmp", ".aneforge-/../.."] {
            let entries = Vec::new();
            assert!(
                Manifest::parse(&Manifest { staged: staged.into(), entries }.to_string()).is_err(),
                "{staged}"
            );
        }
    }

    proptest! {
        #[test]
        fn random_manifests_never_panic(lines in "[ -~\n]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sum = crc32fast::hash(lines.as_bytes());
            let _ = Manifest::parse(&format!("{lines}{END}{sum:08x}\n"));
            let titled = format!("{TITLE}{PREFIX}1\n{lines}");
            let _ = Manifest::parse(&format!("{titled}{END}{:08x}\n", crc32fast::hash(titled.as_bytes())));
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(MANIFEST_FILE), bytes).unwrap();
            prop_assert!(Set::open(folder.path()).is_err());
        }
    }
}
