//! Whether the files of a model are still those that an encoder was loaded from.

use super::error::LoadError;
use crate::resolve::{describes_or_weighs, is_module};
use aneforge_formats::{FileError, map};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The files of a model's directory as they were at some time: names, lengths, and when they were last written. Nothing is
/// read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    directory: PathBuf,
    /// In the order of their names.
    files: Vec<Seen>,
    /// Whether it is one file alone, whatever else the directory has.
    one: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Below the directory, with `/` between its parts.
    name: String,
    length: u64,
    written: Option<SystemTime>,
}

/// What a file holds, for other processes and machines: another time of writing is no difference there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSum {
    /// Its name below the model's directory.
    pub name: String,
    /// Its length.
    pub length: u64,
    /// The CRC-32 of its bytes.
    pub sum: u32,
}

impl Files {
    /// Looks at the files of a directory that describe a model or hold its weights, or at the one file that is named.
    pub(crate) fn of(directory: &Path) -> Result<Files, LoadError> {
        if let (true, Some(folder), Some(name)) =
            (directory.is_file(), directory.parent(), directory.file_name())
        {
            let name = name.to_string_lossy().into_owned();
            let about = std::fs::metadata(directory).map_err(|e| FileError::new(directory, e))?;
            let only = Seen { name, length: about.len(), written: about.modified().ok() };
            return Ok(Files { directory: folder.to_owned(), files: vec![only], one: true });
        }
        let mut names = names(directory, "")?;
        let module = |name: &&String| is_module(name) && directory.join(name).is_dir();
        for folder in names.iter().filter(module).cloned().collect::<Vec<_>>() {
            names.extend(self::names(&directory.join(&folder), &format!("{folder}/"))?);
        }
        names.sort();
        let mut files = Vec::new();
        for name in names.into_iter().filter(|name| describes_or_weighs(name)) {
            let path = directory.join(&name);
            let about = std::fs::metadata(&path).map_err(|e| FileError::new(&path, e))?;
            if about.is_file() {
                files.push(Seen { name, length: about.len(), written: about.modified().ok() });
            }
        }
        Ok(Files { directory: directory.to_owned(), files, one: false })
    }

    /// Whether these are the files of `before`, by names, lengths and times.
    pub fn same_as(&self, before: &Files) -> Result<(), LoadError> {
        let pairs =
            |files: &Files| files.files.iter().map(|f| (f.name.clone(), (f.length, f.written))).collect();
        self.compare("was written since", pairs(before), pairs(self))
    }

    /// Whether the directory still has these files, by names, lengths and times.
    pub fn unchanged(&self) -> Result<(), LoadError> {
        match &self.files[..] {
            [only] if self.one => Files::of(&self.directory.join(&only.name))?.same_as(self),
            _ => Files::of(&self.directory)?.same_as(self),
        }
    }

    /// What the files hold. All of them are read, and have to be those that were seen.
    pub fn sums(&self) -> Result<Vec<FileSum>, LoadError> {
        self.unchanged()?;
        let sum = |file: &Seen| {
            let bytes = map(&self.directory.join(&file.name))?;
            Ok(FileSum { name: file.name.clone(), length: file.length, sum: crc32fast::hash(&bytes) })
        };
        self.files.iter().map(sum).collect()
    }

    /// Whether the files hold what those did of which `before` are the sums.
    pub fn hold(&self, before: &[FileSum]) -> Result<(), LoadError> {
        let pairs = |sums: &[FileSum]| sums.iter().map(|f| (f.name.clone(), (f.length, f.sum))).collect();
        self.compare("other contents", pairs(before), pairs(&self.sums()?))
    }

    /// The first difference of two lists as an error; `otherwise` is what is said of equal lengths.
    fn compare<T: PartialEq>(
        &self,
        otherwise: &str,
        before: Vec<(String, (u64, T))>,
        now: Vec<(String, (u64, T))>,
    ) -> Result<(), LoadError> {
        let changed = |name: &str, how| Err(LoadError::Changed { path: self.directory.join(name), how });
        for (name, (length, rest)) in &before {
            match now.iter().find(|(other, _)| other == name) {
                None => return changed(name, "it is gone".into()),
                Some((_, (new, _))) if new != length => {
                    return changed(name, format!("it had {length} bytes, and has {new}"));
                }
                Some((_, (_, other))) if other != rest => {
                    return changed(name, format!("it has {length} bytes as before, but {otherwise}"));
                }
                Some(_) => {}
            }
        }
        match now.iter().find(|(name, _)| before.iter().all(|(other, _)| other != name)) {
            Some((name, _)) => changed(name, "it was not there".into()),
            None => Ok(()),
        }
    }
}

/// What lies in a directory, with what stands before each name.
fn names(directory: &Path, before: &str) -> Result<Vec<String>, LoadError> {
    let fail = |e| FileError::new(directory, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        // Other names are of no file of a model.
        if let Ok(name) = entry.map_err(fail)?.file_name().into_string() {
            names.push(format!("{before}{name}"));
        }
    }
    Ok(names)
}
