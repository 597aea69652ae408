//! What was measured on this machine: one file, from keys to JSON values.

use super::{ArtifactError, replace};
use aneforge_formats::read;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name, in the folder of the cache.
pub const MEASURED_FILE: &str = "autotune.json";
/// Far more bytes than it ever has.
const MOST: u64 = 1 << 26;

/// Measurements that are kept in a folder.
#[derive(Clone, Debug)]
pub struct Measured {
    folder: PathBuf,
}

impl Measured {
    /// Those in `folder`, which need not exist.
    pub fn new(folder: &Path) -> Measured {
        Measured { folder: folder.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(MEASURED_FILE)
    }

    /// All of them; none when the file is missing or damaged, which costs measuring again.
    fn all(&self) -> BTreeMap<String, Value> {
        let bytes = read(&self.path(), MOST).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What was measured under this key.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.all().remove(key)
    }

    /// Adds a measurement. The file is replaced as a whole, so that readers see the old one or the new.
    pub fn put(&self, key: &str, value: Value) -> Result<(), ArtifactError> {
        std::fs::create_dir_all(&self.folder).map_err(ArtifactError::io("make", &self.folder))?;
        let mut all = self.all();
        all.insert(key.to_owned(), value);
        replace(&self.path(), |file| {
            let mut json = Serializer::with_formatter(file, PrettyFormatter::with_indent(b" "));
            Ok(all.serialize(&mut json)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn entries_stay_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("deep/cache");
        let measured = Measured::new(&cache);
        assert_eq!(measured.get("b"), None);
        measured.put("b", json!({"config": "native", "us": 1.5})).unwrap();
        measured.put("a", json!(4)).unwrap();
        let text = fs::read_to_string(cache.join(MEASURED_FILE)).unwrap();
        assert_eq!(text, "{\n \"a\": 4,\n \"b\": {\n  \"config\": \"native\",\n  \"us\": 1.5\n }\n}");
        assert_eq!(measured.get("a"), Some(json!(4)));
        for damage in ["", "{", "[1]"] {
            fs::write(cache.join(MEASURED_FILE), damage).unwrap();
            assert_eq!(measured.get("a"), None);
        }
        measured.put("c", json!(1)).unwrap();
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    }
}
