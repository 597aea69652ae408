//! The tokenizer of a pipeline: `tokenizer.json`, or the two files of CLIP's own format.

use super::config::Described;
use super::error::DiffusionError;
use crate::MOST_TEXT;
use crate::transformer::tokens::{Input, TextReader, TokenizerFile};
use aneforge_formats::read;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What begins and ends every text.
const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// What CLIP takes as a word: an ending, letters, a digit, or anything else that is no space.
const WORD: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Texts to as many tokens as there are positions.
pub(super) struct Reader {
    reader: TextReader,
    positions: usize,
    pad: u32,
}

impl Reader {
    /// Reads a folder with a tokenizer.
    pub(super) fn load(folder: &Path, positions: usize) -> Result<Reader, DiffusionError> {
        let path = folder.join("tokenizer.json");
        let (path, file) = match path.exists() {
            true => (path.clone(), TokenizerFile::open(&path).map_err(Box::new)?),
            false => {
                let path = folder.join("vocab.json");
                let file = TokenizerFile::of(of_clip(folder)?.to_string().into_bytes(), &path);
                (path, file.map_err(Box::new)?)
            }
        };
        let token = padding(folder)?;
        let pad = file.number(&token).ok_or_else(|| DiffusionError::Described {
            path: path.clone(),
            why: format!("texts are padded with `{token}`, which is no token of it; download it again"),
        })?;
        let reader = file.reader(&path, positions, false, false).map_err(Box::new)?;
        Ok(Reader { reader, positions, pad })
    }

    /// Tokens, cut and padded; `rows` is the size of the table of words.
    pub(super) fn read<T: AsRef<str>>(
        &self,
        texts: &[T],
        rows: usize,
    ) -> Result<Vec<Vec<u32>>, DiffusionError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text.as_ref())).collect();
        let read = self.reader.read(&inputs, rows, false).map_err(|e| DiffusionError::Text(Box::new(e)))?;
        let whole = |tokens: Vec<u32>| {
            let mut tokens = tokens;
            tokens.resize(self.positions, self.pad);
            tokens
        };
        Ok(read.into_iter().map(|(_, tokens)| whole(tokens.ids)).collect())
    }
}

/// The token that texts are padded with, as one of the files beside the tokenizer says.
fn padding(folder: &Path) -> Result<String, DiffusionError> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.join(name);
        if path.exists() {
            let file = Described::read(path)?;
            let given = file.get("pad_token");
            if let Some(token) = given.as_str().or_else(|| given["content"].as_str()) {
                return Ok(token.to_owned());
            }
        }
    }
    Ok(END.into())
}

/// A tokenizer as the library reads it, of `vocab.json` and `merges.txt`.
fn of_clip(folder: &Path) -> Result<Value, DiffusionError> {
    let path = folder.join("vocab.json");
    let vocabulary: Map<String, Value> = serde_json::from_slice(&read(&path, MOST_TEXT)?)
        .map_err(|e| DiffusionError::Json { path: path.clone(), why: e.to_string() })?;
    let id = |token: &str| {
        vocabulary.get(token).and_then(Value::as_u64).ok_or_else(|| DiffusionError::Described {
            path: path.clone(),
            why: format!("it lacks the token `{token}`; it is of no tokenizer that CLIP has"),
        })
    };
    let (begin, end) = (id(BEGIN)?, id(END)?);
    let path = folder.join("merges.txt");
    let merges = String::from_utf8(read(&path, MOST_TEXT)?)
        .map_err(|e| DiffusionError::Described { path: path.clone(), why: format!("it is no text: {e}") })?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let special = |id: u64, content: &str| json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": true });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(begin, BEGIN), special(end, END)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORD }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [BEGIN, begin], "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": merges,
        },
    }))
}
