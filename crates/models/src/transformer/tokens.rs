//! Texts to tokens.

use crate::encoder::{EncodeError, LoadError};
use crate::{MOST_TEXT, guard};
use aneforge_formats::read;
use aneforge_kernels::threads::stopped;
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use tokenizers::{EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams};

/// The tokens of a text or of a pair, with special ones, as the first layer is given them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// For each, of which part of a pair it is.
    pub(crate) kinds: Vec<u32>,
    /// Whether something was cut off.
    cut: bool,
}

impl Tokens {
    /// The number of each.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether the text had more, which were cut off.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

/// What makes tokens of texts, or of pairs, for one model: for threads other than that which runs it.
#[derive(Clone)]
pub struct Reader {
    pub(crate) reader: Arc<TextReader>,
    pub(crate) rows: usize,
}

impl Reader {
    /// The tokens of each text, cut to the greatest length.
    pub fn texts<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Tokens>, EncodeError> {
        self.read(texts.iter().map(|text| Input::Text(text.as_ref())).collect())
    }

    /// The tokens of each pair; of one that is too long, the end of the longer text is cut off.
    pub fn pairs<T: AsRef<str>>(&self, pairs: &[(T, T)]) -> Result<Vec<Tokens>, EncodeError> {
        self.read(pairs.iter().map(|(a, b)| Input::Pair(a.as_ref(), b.as_ref())).collect())
    }

    fn read(&self, inputs: Vec<Input<'_>>) -> Result<Vec<Tokens>, EncodeError> {
        let read = self.reader.read(&inputs, self.rows, false)?;
        Ok(read.into_iter().map(|(_, tokens)| tokens).collect())
    }

    /// The most tokens of a text or a pair, special ones included.
    pub fn most(&self) -> usize {
        self.reader.most
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader(up to {} tokens)", self.most())
    }
}

/// A text, or two that are read together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    Text(&'a str),
    Pair(&'a str, &'a str),
}

/// A tokenizer that cuts texts.
pub(crate) struct TextReader {
    tokenizer: Tokenizer,
    pub(crate) most: usize,
    lowercase: bool,
    /// Whether what is cut off is the end of texts.
    cuts_end: bool,
}

/// A tokenizer file, whose settings of length are not in use yet.
pub(crate) struct TokenizerFile {
    tokenizer: Tokenizer,
    /// The most tokens of a text, where the file says so.
    pub(crate) most: Option<usize>,
}

/// Texts that one thread reads before it looks for more.
const SHARE: usize = 64;
/// Bytes of a long text that are read at first: a text of which the end is cut off is not read to its end.
const LONG: usize = 1 << 16;

impl TokenizerFile {
    pub(crate) fn open(path: &Path) -> Result<TokenizerFile, LoadError> {
        if !path.exists() {
            return Err(LoadError::NoTokenizer(path.to_owned()));
        }
        TokenizerFile::of(read(path, MOST_TEXT)?, path)
    }

    /// The tokenizer that these bytes describe; `path` is what messages name.
    pub(crate) fn of(bytes: Vec<u8>, path: &Path) -> Result<TokenizerFile, LoadError> {
        let tokenizer = guard::call(|| Tokenizer::from_bytes(bytes)).map_err(unusable(path))?;
        let most = tokenizer.get_truncation().map(|truncation| truncation.max_length);
        Ok(TokenizerFile { tokenizer, most })
    }

    /// The number of a token.
    pub(crate) fn number(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// A reader that cuts texts, or pairs of them, to `most` tokens, and pads none.
    pub(crate) fn reader(
        mut self,
        path: &Path,
        most: usize,
        lowercase: bool,
        pairs: bool,
    ) -> Result<TextReader, LoadError> {
        let tokenizer = &mut self.tokenizer;
        let added = guard::call(|| {
            // What makes a template fail on every text is found with an empty one.
            match pairs {
                false => tokenizer.encode_fast("", true)?,
                true => tokenizer.encode_fast(("", ""), true)?,
            };
            let added = |processor| PostProcessor::added_tokens(processor, pairs);
            Ok::<_, tokenizers::Error>(tokenizer.get_post_processor().map_or(0, added))
        });
        let added = added.map_err(|why| unusable(path)(undefined_token(path).unwrap_or(why)))?;
        if most <= added {
            return Err(LoadError::TooShort { max: most, added });
        }
        let direction = tokenizer.get_truncation().map(|t| t.direction).unwrap_or_default();
        let cuts_end = matches!(direction, TruncationDirection::Right);
        let params =
            TruncationParams { max_length: most, direction, stride: 0, ..TruncationParams::default() };
        guard::call(|| tokenizer.with_truncation(Some(params)).map(drop)).map_err(unusable(path))?;
        tokenizer.with_padding(None);
        Ok(TextReader { tokenizer: self.tokenizer, most, lowercase, cuts_end })
    }
}

fn unusable(path: &Path) -> impl Fn(String) -> LoadError {
    |why| LoadError::Tokenizer { path: path.to_owned(), why }
}

/// Says which token a template names that the file does not define: the library only says that there is one.
fn undefined_token(path: &Path) -> Option<String> {
    let file: Value = serde_json::from_slice(&read(path, MOST_TEXT).ok()?).ok()?;
    let processor = &file["post_processor"];
    let parts = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let undefined = |part: &Value| {
        let pieces = ["single", "pair"].into_iter().filter_map(|way| part[way].as_array()).flatten();
        let mut named = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
        named.find(|name| part["special_tokens"].get(name).is_none()).map(str::to_owned)
    };
    let token = parts.iter().find_map(undefined)?;
    Some(format!("its template names the token `{token}`, which it does not define"))
}

impl TextReader {
    /// The tokens of each, cut to the greatest length, by several threads where there is much to read.
    ///
    /// `rows` is the size of the table of words. With `windows`, what is cut off follows in parts of the greatest length;
    /// each comes with the place of its text.
    pub(crate) fn read(
        &self,
        inputs: &[Input<'_>],
        rows: usize,
        windows: bool,
    ) -> Result<Vec<(usize, Tokens)>, EncodeError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut all = Vec::with_capacity(inputs.len());
        for (round, inputs) in inputs.chunks(threads * SHARE).enumerate() {
            if stopped() {
                return Err(EncodeError::Stopped { done: 0, total: inputs.len() });
            }
            let first = round * threads * SHARE;
            let share = |part: usize, inputs: &[Input<'_>]| {
                let mut read = Vec::with_capacity(inputs.len());
                for (at, &input) in inputs.iter().enumerate() {
                    let index = first + part * SHARE + at;
                    let tokens = self.one(index, input, rows, windows)?;
                    read.extend(tokens.into_iter().map(|tokens| (index, tokens)));
                }
                Ok::<_, EncodeError>(read)
            };
            if inputs.len() <= SHARE {
                all.extend(share(0, inputs)?);
                continue;
            }
            let read: Vec<_> = thread::scope(|scope| {
                let share = &share;
                let parts = inputs.chunks(SHARE).enumerate();
                let started: Vec<_> =
                    parts.map(|(part, inputs)| scope.spawn(move || share(part, inputs))).collect();
                started.into_iter().map(|thread| thread.join()).collect()
            });
            for part in read {
                all.extend(part.expect("invariant: panics of the tokenizer are caught where it is called")?);
            }
        }
        Ok(all)
    }

    fn one(
        &self,
        index: usize,
        input: Input<'_>,
        rows: usize,
        windows: bool,
    ) -> Result<Vec<Tokens>, EncodeError> {
        let encoding = match input {
            Input::Text(text) if !windows && self.cuts_end && text.len() > LONG => {
                self.beginning(index, text)?
            }
            _ => self.encoding(index, input)?,
        };
        let parts = std::iter::once(&encoding).chain(encoding.get_overflowing().iter().filter(|_| windows));
        let mut read = Vec::new();
        for part in parts {
            let cut = !windows && !encoding.get_overflowing().is_empty();
            let tokens = Tokens { ids: part.get_ids().to_vec(), kinds: part.get_type_ids().to_vec(), cut };
            let known = |token: u32| usize::try_from(token).is_ok_and(|row| row < rows);
            if let Some(&token) = tokens.ids.iter().find(|&&token| !known(token)) {
                return Err(EncodeError::Token { index, token, rows });
            }
            read.push(tokens);
        }
        Ok(read)
    }

    /// What a long text begins with, as far as it is not cut off.
    fn beginning(&self, index: usize, text: &str) -> Result<Encoding, EncodeError> {
        let mut bytes = LONG;
        loop {
            // To the end of a word, so that it has the tokens that it has in the whole text.
            let end = text.char_indices().find(|(at, c)| *at >= bytes && c.is_whitespace()).map(|(at, _)| at);
            let part = &text[..end.unwrap_or(text.len())];
            let encoding = self.encoding(index, Input::Text(part))?;
            // Some more tokens than are kept.
            if end.is_none() || encoding.get_overflowing().len() > 1 {
                return Ok(encoding);
            }
            bytes = bytes.saturating_mul(4);
        }
    }

    fn encoding(&self, index: usize, input: Input<'_>) -> Result<Encoding, EncodeError> {
        let lowered = |text: &str| if self.lowercase { text.to_lowercase() } else { text.to_owned() };
        let given: EncodeInput<'_> = match input {
            Input::Text(text) if self.lowercase => text.to_lowercase().into(),
            Input::Text(text) => text.into(),
            Input::Pair(first, second) => (lowered(first), lowered(second)).into(),
        };
        guard::call(|| self.tokenizer.encode_fast(given, true))
            .map_err(|why| EncodeError::Tokenizer { index, why })
    }
}
