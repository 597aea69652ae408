//! The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.
//!
//! The rules are those of the format's own library, which the tests hold this reader to: tensors cover the
//! bytes after the header without gap or overlap, and each is as long as its shape and type say. The header
//! is parsed here because that library's errors name neither the file nor, mostly, the tensor.

use crate::file::{FileError, map};
use aneforge_tensor::{Bytes, DType, Shape, ShapeError, Tensor, TensorError};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The longest header the format allows.
const MAX_HEADER: usize = 100_000_000;

/// Bytes of the header's length.
const PREFIX: usize = 8;

/// A safetensors file is unusable. The file's fault, but for `Unknown`, which is the caller's.
#[derive(Debug, thiserror::Error)]
pub enum SafeTensorsError {
    /// It could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// It ends within the length of its header.
    #[error("`{file}` has {len} bytes, too few for a safetensors file; download it again")]
    Short {
        /// The file.
        file: String,
        /// Its length.
        len: usize,
    },
    /// The header is said to be longer than what follows it.
    #[error(
        "`{file}` says its header takes {header} bytes and has {left} left; it is cut off or no safetensors file, download it again"
    )]
    HeaderBeyondFile {
        /// The file.
        file: String,
        /// The header's length.
        header: u64,
        /// What the file has.
        left: usize,
    },
    /// The header is longer than the format allows.
    #[error("`{file}` says its header takes {header} bytes, the format allows {MAX_HEADER}; it is damaged")]
    HeaderTooLong {
        /// The file.
        file: String,
        /// The header's length.
        header: u64,
    },
    /// The header is not the JSON it should be.
    #[error("the header of `{file}` is not valid: {why}; the file is damaged, download it again")]
    Header {
        /// The file.
        file: String,
        /// What the JSON parser says.
        why: String,
    },
    /// A tensor ends before it begins, or beyond the file.
    #[error(
        "tensor `{tensor}` of `{file}` lies at bytes {start}..{end} of {len}; the file is cut off or damaged, download it again"
    )]
    Range {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its first byte after the header.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// Bytes after the header.
        len: usize,
    },
    /// Two tensors share bytes.
    #[error(
        "tensors `{first}` and `{second}` of `{file}` overlap; the file is damaged or was made to mislead"
    )]
    Overlap {
        /// The file.
        file: String,
        /// The one that begins first.
        first: String,
        /// The one that begins within it.
        second: String,
    },
    /// Some bytes belong to no tensor.
    #[error(
        "bytes {start}..{end} of `{file}` belong to no tensor; the file is damaged or hides something, download it again"
    )]
    Gap {
        /// The file.
        file: String,
        /// The first such byte after the header.
        start: usize,
        /// The byte after the last.
        end: usize,
    },
    /// A tensor is not as long as its shape says.
    #[error(
        "tensor `{tensor}` of `{file}`: {dtype} {shape:?} does not take {got} bytes; the file is damaged"
    )]
    Length {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: String,
        /// Its extents.
        shape: Vec<u64>,
        /// Its bytes.
        got: usize,
    },
    /// There is no such tensor.
    #[error("`{file}` has no tensor `{tensor}`; it is a checkpoint of another model, or saved in parts")]
    Unknown {
        /// The file.
        file: String,
        /// The tensor asked for.
        tensor: String,
    },
    /// A tensor's element type has no counterpart here.
    #[error(
        "tensor `{tensor}` of `{file}` has elements of type {dtype}; convert it to one of F16 BF16 F32 F64 U8 I8 I32 I64 BOOL"
    )]
    DType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type, as the file spells it.
        dtype: String,
    },
    /// A tensor has more than eight axes, or none of its elements.
    #[error("tensor `{tensor}` of `{file}`: {why}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The limit, and what to do.
        why: Box<ShapeError>,
    },
}

/// A tensor as the header describes it.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Described>,
}

/// A tensor that lies within the file, not yet checked against this crate's limits.
#[derive(Clone, Debug)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    range: Range<usize>,
}

/// An open safetensors file. Its tensors share the file's bytes.
#[derive(Clone, Debug)]
pub struct SafeTensors {
    file: String,
    data: Bytes,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors {
    /// Maps a file and reads its header. No tensor is read before it is used. The file must not change
    /// while the tensors are in use.
    pub fn open(path: impl AsRef<Path>) -> Result<SafeTensors, SafeTensorsError> {
        let path = path.as_ref();
        SafeTensors::read(path.display().to_string(), &map(path)?)
    }

    /// Reads a file's bytes.
    ///
    /// ```
    /// use aneforge_formats::SafeTensors;
    /// use aneforge_tensor::Bytes;
    ///
    /// let header = br#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    /// let mut file = (header.len() as u64).to_le_bytes().to_vec();
    /// file.extend(header);
    /// file.extend([7, 8]);
    /// let tensors = SafeTensors::parse(Bytes::new(file))?;
    /// assert_eq!(tensors.tensor("w")?.to_f32(), [7.0, 8.0]);
    /// # Ok::<(), aneforge_formats::SafeTensorsError>(())
    /// ```
    pub fn parse(bytes: Bytes) -> Result<SafeTensors, SafeTensorsError> {
        SafeTensors::read("<memory>".into(), &bytes)
    }

    fn read(file: String, bytes: &Bytes) -> Result<SafeTensors, SafeTensorsError> {
        let (json, data) = split(&file, bytes)?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|e| SafeTensorsError::Header { file: file.clone(), why: e.to_string() })?;
        let mut tensors = BTreeMap::new();
        for (name, described) in header.tensors {
            let entry = locate(&file, &name, described, data.len())?;
            tensors.insert(name, entry);
        }
        cover(&file, &tensors, data.len())?;
        Ok(SafeTensors { file, data, tensors, metadata: header.metadata.unwrap_or_default() })
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Notes that whoever wrote the file left in it.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file's path, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The tensor of this name, sharing the file's bytes.
    pub fn tensor(&self, name: &str) -> Result<Tensor, SafeTensorsError> {
        let (file, tensor) = (|| self.file.clone(), || name.to_owned());
        let Some(entry) = self.tensors.get(name) else {
            return Err(SafeTensorsError::Unknown { file: file(), tensor: tensor() });
        };
        let Some(dtype) = dtype_of(&entry.dtype) else {
            let dtype = entry.dtype.clone();
            return Err(SafeTensorsError::DType { file: file(), tensor: tensor(), dtype });
        };
        let length = || SafeTensorsError::Length {
            file: file(),
            tensor: tensor(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            got: entry.range.len(),
        };
        let dims: Result<Vec<usize>, _> = entry.shape.iter().map(|&d| usize::try_from(d)).collect();
        let shape = Shape::new(&dims.map_err(|_| length())?).map_err(|why| SafeTensorsError::Shape {
            file: file(),
            tensor: tensor(),
            why: Box::new(why),
        })?;
        let bytes = self.data.slice(entry.range.clone()).ok_or_else(length)?;
        Tensor::new(dtype, shape, bytes).map_err(|_: TensorError| length())
    }
}

/// The header's bytes and those of the tensors.
fn split(file: &str, bytes: &Bytes) -> Result<(Bytes, Bytes), SafeTensorsError> {
    let file = || file.to_owned();
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(SafeTensorsError::Short { file: file(), len: bytes.len() });
    };
    let header = u64::from_le_bytes(*prefix);
    let beyond = || SafeTensorsError::HeaderBeyondFile { file: file(), header, left: rest.len() };
    let length = usize::try_from(header).ok().filter(|&n| n <= rest.len()).ok_or_else(beyond)?;
    if length > MAX_HEADER {
        return Err(SafeTensorsError::HeaderTooLong { file: file(), header });
    }
    let start = PREFIX + length;
    let json = bytes.slice(PREFIX..start).ok_or_else(beyond)?;
    let data = bytes.slice(start..bytes.len()).ok_or_else(beyond)?;
    Ok((json, data))
}

/// Checks that a tensor lies within the file and is as long as it says.
fn locate(file: &str, name: &str, described: Described, len: usize) -> Result<Entry, SafeTensorsError> {
    let Described { dtype, shape, data_offsets: (start, end) } = described;
    let within = |at: u64| usize::try_from(at).ok().filter(|&at| at <= len);
    let range = match (within(start), within(end)) {
        (Some(start), Some(end)) if start <= end => start..end,
        _ => {
            return Err(SafeTensorsError::Range { file: file.into(), tensor: name.into(), start, end, len });
        }
    };
    // Types that are unknown here are an error only when their tensor is asked for.
    if let Some(known) = dtype_of(&dtype) {
        let size = u64::try_from(known.size()).ok();
        let want = size.and_then(|size| shape.iter().try_fold(size, |n, &d| n.checked_mul(d)));
        if want.and_then(|n| usize::try_from(n).ok()) != Some(range.len()) {
            let got = range.len();
            return Err(SafeTensorsError::Length {
                file: file.into(),
                tensor: name.into(),
                dtype,
                shape,
                got,
            });
        }
    }
    Ok(Entry { dtype, shape, range })
}

/// Checks that the tensors follow each other from the first byte to the last.
fn cover(file: &str, tensors: &BTreeMap<String, Entry>, len: usize) -> Result<(), SafeTensorsError> {
    let mut order: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(n, e)| (n, &e.range)).collect();
    order.sort_by_key(|(_, range)| (range.start, range.end));
    let mut end = 0;
    let mut before = "";
    for (name, range) in order {
        if range.start < end {
            let (first, second) = (before.into(), name.clone());
            return Err(SafeTensorsError::Overlap { file: file.into(), first, second });
        }
        if range.start > end {
            return Err(SafeTensorsError::Gap { file: file.into(), start: end, end: range.start });
        }
        (end, before) = (range.end, name);
    }
    if end < len {
        return Err(SafeTensorsError::Gap { file: file.into(), start: end, end: len });
    }
    Ok(())
}

fn dtype_of(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| name_of(dtype) == name)
}

fn name_of(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::U8 => "U8",
        DType::I8 => "I8",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::Bool => "BOOL",
    }
}

/// Where the tensors of a written file begin: at a multiple of this, so that they may be used where they lie.
const ALIGNMENT: usize = 64;

/// What a file that is written has before its tensors, and in which order these follow. Wider elements come first, so that
/// every tensor is aligned for its own.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The length of the header, and the header.
    pub head: Vec<u8>,
    /// The tensors, by their places in the list that was given.
    pub order: Vec<usize>,
    /// Bytes of the whole file.
    pub bytes: usize,
}

/// How a file with tensors of these names, types and shapes, and with these notes, is written: the head, then the
/// elements of each tensor in turn.
pub fn layout(tensors: &[(String, DType, Shape)], metadata: &BTreeMap<String, String>) -> Layout {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(tensors[at].1.size()));
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for (name, dtype, shape) in order.iter().map(|&at| &tensors[at]) {
        let start = end;
        end += shape.count() * dtype.size();
        let described =
            json!({ "dtype": name_of(*dtype), "shape": shape.dims(), "data_offsets": [start, end] });
        header.insert(name.clone(), described);
    }
    let mut json = serde_json::Value::Object(header).to_string();
    let padded = (PREFIX + json.len()).next_multiple_of(ALIGNMENT) - PREFIX;
    json.extend(std::iter::repeat_n(' ', padded - json.len()));
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend(json.as_bytes());
    let bytes = head.len() + end;
    Layout { head, order, bytes }
}
