//! Who may ask: keys, of which only digests are kept.

use crate::error::ServeError;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// The most bytes of a file of keys.
const MOST_FILE: u64 = 1 << 20;

/// Keys of which a request must bring one, where there are any.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// No keys: everyone may ask.
    pub fn none() -> Keys {
        Keys::default()
    }

    /// Adds the keys of a file, one a line; blank lines and those that begin with `#` are none.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ServeError> {
        let fail = |why| ServeError::File { path: path.display().to_string(), why };
        if std::fs::metadata(path).map_err(fail)?.len() > MOST_FILE {
            return Err(ServeError::Settings(format!(
                "{} has more than {MOST_FILE} bytes; name a file with one key a line",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        self.add_all(lines, &path.display().to_string())
    }

    /// Adds the keys of a text, parted by commas or blanks; `source` is for messages.
    pub fn add_text(&mut self, text: &str, source: &str) -> Result<(), ServeError> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        self.add_all(words, source)
    }

    fn add_all<'a>(&mut self, keys: impl Iterator<Item = &'a str>, source: &str) -> Result<(), ServeError> {
        let before = self.0.len();
        for (number, key) in (1..).zip(keys) {
            // What an HTTP header cannot hold would lock everyone out.
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ServeError::Settings(format!(
                    "key {number} of {source} has blanks or letters beyond ASCII, which no header holds; write another"
                )));
            }
            self.0.push(digest(key.as_bytes()));
        }
        match self.0.len() == before {
            true => Err(ServeError::Settings(format!("{source} has no key; write one a line"))),
            false => Ok(()),
        }
    }

    /// Whether there is no key, so that everyone may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is among these. Digests are compared to their ends, so that the time tells nothing.
    pub fn has(&self, key: &[u8]) -> bool {
        let digest = digest(key);
        self.0.iter().fold(false, |found, known| {
            let differ = known.iter().zip(&digest).fold(0, |differ, (a, b)| differ | (a ^ b));
            found | (differ == 0)
        })
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_lines_and_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# whose\n\n  first \nsecond\r\n").unwrap();
        let mut keys = Keys::none();
        assert!(keys.is_empty());
        keys.add_file(&path).unwrap();
        keys.add_text("third, fourth\nfifth", "ANEFORGE_API_KEYS").unwrap();
        for key in ["first", "second", "third", "fourth", "fifth"] {
            assert!(keys.has(key.as_bytes()), "{key}");
        }
        for key in ["", "firs", "first ", "# whose", "third,"] {
            assert!(!keys.has(key.as_bytes()), "{key}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(5)");
    }

    #[test]
    fn what_holds_no_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let said = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            Keys::none().add_file(&path).unwrap_err().to_string()
        };
        assert!(said(b"# none\n").ends_with("has no key; write one a line"));
        assert!(said("schlüssel\n".as_bytes()).contains("key 1 of"));
        assert!(said(b"\xff\n").contains("cannot read"));
        assert!(said(&vec![b'a'; (1 << 20) + 1]).contains("more than 1048576 bytes"));
        assert!(Keys::none().add_file(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
        assert!(Keys::none().add_text(" , ", "ANEFORGE_API_KEYS").is_err());
    }
}
