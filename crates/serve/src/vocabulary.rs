//! Token ids of OpenAI's tokenizers, read back as text.

use crate::error::ServeError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::path::Path;

/// The most bytes of a file: that of the largest published vocabulary has under 4 MiB.
const MOST_FILE: u64 = 1 << 26;
/// The most bytes of a token.
const MOST_TOKEN: usize = 1 << 10;
/// The greatest id, exclusive.
const MOST_IDS: usize = 1 << 20;

/// What each token id of a client's tokenizer stands for, as a file of tiktoken says.
pub struct Vocabulary {
    bytes: Vec<Option<Box<[u8]>>>,
}

/// Why ids are no text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoText {
    /// The vocabulary has no such id.
    Unknown(u32),
    /// The text would have more bytes than this.
    Long(usize),
}

impl Vocabulary {
    /// Reads a file such as `cl100k_base.tiktoken`: on each line a token in base64 and its id.
    pub fn read(path: &Path) -> Result<Vocabulary, ServeError> {
        let file = path.display();
        let fail = |why| ServeError::File { path: file.to_string(), why };
        if std::fs::metadata(path).map_err(fail)?.len() > MOST_FILE {
            return Err(ServeError::Settings(format!(
                "{file} has more than {MOST_FILE} bytes; name a file of tiktoken"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let mut bytes = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let (id, token) = entry(line).ok_or_else(|| {
                let what = "is no token in base64 with its id; name a file of tiktoken, such as cl100k_base.tiktoken";
                ServeError::Settings(format!("line {number} of {file} {what}"))
            })?;
            if bytes.len() <= id {
                bytes.resize(id + 1, None);
            }
            bytes[id] = Some(token);
        }
        match bytes.is_empty() {
            true => Err(ServeError::Settings(format!("{file} has no token; name a file of tiktoken"))),
            false => Ok(Vocabulary { bytes }),
        }
    }

    /// The text of which these are the tokens. Bytes that are no UTF-8, as where a text was cut within a letter, become U+FFFD.
    pub(crate) fn text(&self, ids: &[u32], most: usize) -> Result<String, NoText> {
        let mut text = Vec::new();
        for &id in ids {
            let known = usize::try_from(id).ok().and_then(|id| self.bytes.get(id)?.as_deref());
            text.extend_from_slice(known.ok_or(NoText::Unknown(id))?);
            // A few bytes may name a token of very many.
            if text.len() > most {
                return Err(NoText::Long(most));
            }
        }
        Ok(String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

fn entry(line: &str) -> Option<(usize, Box<[u8]>)> {
    let (token, id) = line.trim().split_once(' ')?;
    let (id, token) = (id.parse::<usize>().ok()?, STANDARD.decode(token).ok()?);
    (id < MOST_IDS && (1..=MOST_TOKEN).contains(&token.len())).then_some((id, token.into()))
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vocabulary({} ids)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vocabulary, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.tiktoken");
        std::fs::write(&path, text).unwrap();
        Vocabulary::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_read_back_as_text() {
        // "a", " cat", and the halves of "é".
        let known = read("YQ== 0\nIGNhdA== 5\nww== 6\nqQ== 7\n").unwrap();
        assert_eq!(known.text(&[0, 5, 6, 7], 100), Ok("a cat\u{e9}".into()));
        assert_eq!(known.text(&[6], 100), Ok("\u{fffd}".into()));
        assert_eq!(known.text(&[0, 1], 100), Err(NoText::Unknown(1)));
        assert_eq!(known.text(&[u32::MAX], 100), Err(NoText::Unknown(u32::MAX)));
        assert_eq!(known.text(&[5; 100], 100), Err(NoText::Long(100)));
    }

    #[test]
    fn what_is_no_vocabulary_is_an_error() {
        for text in ["YQ==", "YQ== -1", "YQ== x", "? 0", "YQ== 99999999999", " 0"] {
            let said = read(text).unwrap_err();
            assert!(said.starts_with("line 1 of ") && said.contains("cl100k_base.tiktoken"), "{said}");
        }
        assert!(read("\n").unwrap_err().ends_with("has no token; name a file of tiktoken"));
    }
}
