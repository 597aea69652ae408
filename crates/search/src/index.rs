//! The file: a safetensors file, so that everything else reads it as well.
//!
//! | tensor | holds |
//! |---|---|
//! | `vectors` | f16 `[N, D]`: a vector of unit length for each passage or picture |
//! | `bytes`, `scales` | int8 `[N, D]`, f32 `[N]`: the same in a byte for each component, times its scale |
//! | `places` | int64 `[N, 3]`: where a passage begins in its file, how long it is, both in bytes, and on which line |
//! | `files` | uint8: JSON of the files, in the order of their rows |
//!
//! What model it was made with is in its notes, below `aneforge.index`.

use crate::error::SearchError;
use crate::model::{Kind, Model};
use crate::scan::{self, Near};
use aneforge::artifact::replace;
use aneforge_formats::safetensors::layout;
use aneforge_formats::{SafeTensors, read};
use aneforge_models::encoder::FileSum;
use aneforge_tensor::{DType, Shape, Tensor};
use half::f16;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most bytes of a text.
pub(crate) const MOST_TEXT: u64 = 1 << 26;
/// What its notes are called.
const NOTE: &str = "aneforge.index";
/// What this version writes, and reads.
const VERSION: u32 = 1;

/// What an index says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    version: u32,
    /// What is looked through.
    pub kind: Kind,
    /// The directory, the file or the hub id of its model.
    pub model: String,
    /// What the model is.
    pub title: String,
    /// Names, lengths and checksums of the model's files.
    pub(crate) files: Vec<(String, u64, u32)>,
    /// Folders and files that were looked through.
    pub roots: Vec<PathBuf>,
    /// Endings of the files that were taken from folders.
    pub endings: Vec<String>,
    /// The most bytes of a passage.
    pub passage: usize,
}

/// A file that was looked through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub length: u64,
    /// When it was written, in seconds and nanoseconds since 1970.
    pub written: (u64, u32),
    /// The CRC-32 of its bytes.
    pub sum: u32,
    /// How many rows are its own; those of a file that cannot be read are none.
    pub rows: usize,
}

/// Where a passage is: its first byte, its bytes, and its line.
pub(crate) type Place = [i64; 3];

/// An index, mapped.
pub struct Index {
    path: PathBuf,
    about: About,
    files: Vec<FileRow>,
    /// The first row of each file.
    first: Vec<usize>,
    dim: usize,
    vectors: Tensor,
    bytes: Tensor,
    scales: Tensor,
    places: Tensor,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The cosine of its vector with the one that was looked for.
    pub score: f32,
    /// Its row.
    pub row: usize,
    /// The file.
    pub path: PathBuf,
    /// Where the passage begins in it, in bytes; 0 of a picture.
    pub start: u64,
    /// Its bytes; 0 of a picture.
    pub length: u64,
    /// The line on which it begins, from 1; 0 of a picture.
    pub line: u64,
}

impl About {
    pub(crate) fn new(kind: Kind, name: &str, model: &Model) -> Result<About, SearchError> {
        let sums = model.files().sums()?.into_iter().map(|file| (file.name, file.length, file.sum));
        // A directory stays the same one when it is asked from elsewhere.
        let place = Path::new(name).exists().then(|| std::path::absolute(name).ok()).flatten();
        let model_name = place.and_then(|place| place.to_str().map(str::to_owned));
        Ok(About {
            version: VERSION,
            kind,
            model: model_name.unwrap_or_else(|| name.to_owned()),
            title: model.title(),
            files: sums.collect(),
            roots: Vec::new(),
            endings: Vec::new(),
            passage: 0,
        })
    }

    /// Whether this is the model that the index was made with, by what its files hold.
    pub fn is_of(&self, model: &Model) -> Result<(), SearchError> {
        let sum = |(name, length, sum): &(String, u64, u32)| FileSum {
            name: name.clone(),
            length: *length,
            sum: *sum,
        };
        let sums: Vec<FileSum> = self.files.iter().map(sum).collect();
        model.files().hold(&sums).map_err(|error| SearchError::Model {
            made: format!("`{}`, {}", self.model, self.title),
            given: model.title(),
            why: error.to_string(),
        })
    }
}

/// What is written into an index.
pub(crate) struct Rows<'a> {
    pub(crate) about: &'a About,
    pub(crate) files: Vec<FileRow>,
    pub(crate) vectors: Vec<&'a [f16]>,
    pub(crate) places: Vec<Place>,
    pub(crate) dim: usize,
}

impl Rows<'_> {
    /// Writes the index; the one that was there before is replaced as a whole.
    pub(crate) fn write(&self, path: &Path) -> Result<(), SearchError> {
        let (n, d) = (self.vectors.len(), self.dim);
        let files =
            serde_json::to_vec(&self.files).expect("invariant: paths are text, and numbers are numbers");
        let note =
            serde_json::to_string(self.about).expect("invariant: paths are text, and numbers are numbers");
        let damaged = |why: String| SearchError::NoIndex { path: path.to_owned(), why };
        let shape = |dims: &[usize]| Shape::new(dims).map_err(|error| damaged(error.to_string()));
        let described = [
            ("vectors".to_owned(), DType::F16, shape(&[n, d])?),
            ("bytes".to_owned(), DType::I8, shape(&[n, d])?),
            ("scales".to_owned(), DType::F32, shape(&[n])?),
            ("places".to_owned(), DType::I64, shape(&[n, 3])?),
            ("files".to_owned(), DType::U8, shape(&[files.len()])?),
        ];
        let layout = layout(&described, &BTreeMap::from([(NOTE.to_owned(), note)]));
        Ok(replace(path, |out| {
            out.write_all(&layout.head)?;
            layout.order.iter().try_for_each(|&at| self.part(at, &files, out))
        })?)
    }

    fn part(&self, at: usize, files: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
        let mut single = Vec::with_capacity(self.dim);
        let mut of = |row: &[f16]| {
            single.clear();
            single.extend(row.iter().map(|v| v.to_f32()));
            scan::to_bytes(&single)
        };
        match at {
            0 => self.vectors.iter().try_for_each(|row| out.write_all(bytemuck::cast_slice(row))),
            1 => self.vectors.iter().try_for_each(|row| out.write_all(bytemuck::cast_slice(&of(row).0))),
            2 => self.vectors.iter().try_for_each(|row| out.write_all(&of(row).1.to_le_bytes())),
            3 => out.write_all(bytemuck::cast_slice(&self.places)),
            _ => out.write_all(files),
        }
    }
}

impl Index {
    /// Opens an index: its parts are mapped, and looked at when they are asked.
    pub fn open(path: &Path) -> Result<Index, SearchError> {
        let file = SafeTensors::open(path)?;
        let none = |why: &str| SearchError::NoIndex { path: path.to_owned(), why: why.to_owned() };
        let note = file.metadata().get(NOTE).ok_or_else(|| none("it has no notes of one"))?;
        let parsed = |error: serde_json::Error| none(&format!("its notes cannot be read: {error}"));
        let version: Version = serde_json::from_str(note).map_err(parsed)?;
        if version.version != VERSION {
            return Err(none(&format!("it is of version {}, and this reads {VERSION}", version.version)));
        }
        let about: About = serde_json::from_str(note).map_err(parsed)?;
        let listed = file.tensor("files")?;
        let listed = listed.as_slice::<u8>().ok_or_else(|| none("its files are no bytes"))?;
        let files: Vec<FileRow> = serde_json::from_slice(listed).map_err(parsed)?;
        let [vectors, bytes, scales, places] =
            ["vectors", "bytes", "scales", "places"].map(|name| file.tensor(name));
        let (vectors, bytes, scales, places) = (vectors?, bytes?, scales?, places?);
        let &[n, d] = vectors.shape().dims() else { return Err(none("its vectors are no matrix")) };
        let shaped = [(&bytes, &[n, d][..]), (&scales, &[n]), (&places, &[n, 3])];
        if shaped.iter().any(|(tensor, dims)| tensor.shape().dims() != *dims) {
            return Err(none("its parts do not belong together"));
        }
        let typed = vectors.as_slice::<f16>().is_some()
            && bytes.as_slice::<i8>().is_some()
            && scales.as_slice::<f32>().is_some()
            && places.as_slice::<i64>().is_some();
        let mut first = Vec::with_capacity(files.len());
        let mut rows = 0usize;
        for file in &files {
            first.push(rows);
            rows =
                rows.checked_add(file.rows).ok_or_else(|| none("its files have more rows than there are"))?;
        }
        if !typed || rows != n {
            return Err(none("its parts do not belong together"));
        }
        Ok(Index { path: path.to_owned(), about, files, first, dim: d, vectors, bytes, scales, places })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The files that were looked through.
    pub fn files(&self) -> &[FileRow] {
        &self.files
    }

    /// How many passages or pictures it has.
    pub fn rows(&self) -> usize {
        self.scales.shape().count()
    }

    /// Components of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What is nearest to a vector of unit length, the nearest first.
    pub fn nearest(&self, query: &[f32], top: usize) -> Result<Vec<Hit>, SearchError> {
        self.fits(query)?;
        self.hits(scan::exact(self.vectors(), query, top))
    }

    /// The same by bytes: half as much is read, and what is as near as bytes are coarse may be missed.
    pub fn nearly(&self, query: &[f32], top: usize) -> Result<Vec<Hit>, SearchError> {
        self.fits(query)?;
        let bytes: &[i8] = self.bytes.as_slice().expect("invariant: looked at when it was opened");
        let scales: &[f32] = self.scales.as_slice().expect("invariant: looked at when it was opened");
        self.hits(scan::quantized(bytes, scales, self.vectors(), query, top))
    }

    fn fits(&self, query: &[f32]) -> Result<(), SearchError> {
        match query.len() == self.dim {
            true => Ok(()),
            false => Err(SearchError::Components { got: query.len(), want: self.dim }),
        }
    }

    fn hits(&self, found: Vec<Near>) -> Result<Vec<Hit>, SearchError> {
        found.into_iter().map(|near| self.hit(near)).collect()
    }

    fn hit(&self, Near { row, score }: Near) -> Result<Hit, SearchError> {
        let file = self.first.partition_point(|&first| first <= row) - 1;
        // Files without rows begin where the next one does.
        let path = self.files[file].path.clone();
        let [start, length, line] = self.places()[row].map(|value| u64::try_from(value).ok());
        match (start, length, line) {
            (Some(start), Some(length), Some(line)) => Ok(Hit { score, row, path, start, length, line }),
            _ => {
                Err(SearchError::NoIndex { path: self.path.clone(), why: format!("row {row} lies nowhere") })
            }
        }
    }

    /// The words of a passage that was found; where its file is gone or has changed since, why there are none. None are of a picture.
    pub fn words(&self, hit: &Hit) -> Result<String, SearchError> {
        let stale = |why: &str| SearchError::Stale { path: hit.path.clone(), why: why.to_owned() };
        let row = self
            .files
            .iter()
            .find(|row| row.path == hit.path)
            .ok_or_else(|| stale("is none of this index"))?;
        if self.about.kind == Kind::Pictures {
            return Ok(String::new());
        }
        let bytes = read(&hit.path, MOST_TEXT)?;
        let changed = || stale("has changed since");
        // A file that was written again with the same bytes is the same one.
        if bytes.len() as u64 != row.length
            || written(&hit.path) != row.written && crc32fast::hash(&bytes) != row.sum
        {
            return Err(changed());
        }
        let range = hit.start as usize..hit.start.saturating_add(hit.length) as usize;
        let words = bytes.get(range).and_then(|words| std::str::from_utf8(words).ok());
        words.map(str::to_owned).ok_or_else(changed)
    }

    /// All vectors.
    pub fn vectors(&self) -> &[f16] {
        self.vectors.as_slice().expect("invariant: looked at when it was opened")
    }

    pub(crate) fn places(&self) -> &[Place] {
        let all: &[i64] = self.places.as_slice().expect("invariant: looked at when it was opened");
        bytemuck::cast_slice(all)
    }

    /// The rows of a file.
    pub(crate) fn of_file(&self, file: usize) -> std::ops::Range<usize> {
        self.first[file]..self.first[file] + self.files[file].rows
    }
}

/// When a file was written, in seconds and nanoseconds since 1970; nothing, where that is not known.
pub(crate) fn written(path: &Path) -> (u64, u32) {
    let time = std::fs::metadata(path).and_then(|about| about.modified()).ok();
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or((0, 0), |since| (since.as_secs(), since.subsec_nanos()))
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}
