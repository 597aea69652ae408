//! Files of `torch.save`: a pickle that says what tensors there are, and their elements, in a zip archive since version 1.6
//! and one after the other before.
//!
//! A pickle is a program, and unpickling runs it. Here it is read as data: dictionaries, lists, numbers, texts and tensors. A
//! file that asks for anything else is refused, with the name of what it asks for; nothing is ever called or imported.

mod archive;
mod error;
mod old;
mod pickle;
mod state;

pub use error::PthError;

use crate::file::map;
use aneforge_tensor::{Bytes, DType, Shape, Tensor, TensorError};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The beginning of every zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// How many times the tensors of a file may take its bytes: they may share storages, as layers do that are used several times.
const SHARED: u64 = 64;

/// A tensor as a file describes it: elements of a storage, which others may share.
#[derive(Clone, Debug, PartialEq)]
struct Described {
    storage: Storage,
    /// Of the first element, in elements.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

/// Where elements lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Storage {
    key: Arc<str>,
    /// As the file calls the type, such as `FloatStorage`.
    kind: Arc<str>,
}

/// An open file of `torch.save`. Its tensors share the file's bytes where they lie there without gaps.
#[derive(Clone, Debug)]
pub struct Pth {
    file: String,
    bytes: Bytes,
    tensors: BTreeMap<String, Described>,
    storages: BTreeMap<String, Range<usize>>,
}

impl Pth {
    /// Maps a file and reads what it says of its tensors. The file must not change while they are in use.
    pub fn open(path: impl AsRef<Path>) -> Result<Pth, PthError> {
        let path = path.as_ref();
        Pth::read(path.display().to_string(), map(path)?)
    }

    /// Reads a file's bytes.
    pub fn parse(bytes: Bytes) -> Result<Pth, PthError> {
        Pth::read("<memory>".into(), bytes)
    }

    /// Whether bytes begin as a file of torch.save does, in either format.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(ZIP) || old::begins(bytes)
    }

    fn read(file: String, bytes: Bytes) -> Result<Pth, PthError> {
        let read = if bytes.starts_with(ZIP) { archive::read } else { old::read };
        let (root, storages) = read(&bytes).map_err(|why| why.of(&file))?;
        let tensors = state::tensors(&root).map_err(|why| why.of(&file))?;
        // What is larger than its storage is never made.
        let length = |tensor: &Described| {
            let storage = storages.get(&*tensor.storage.key).map_or(0, |range| range.len() as u64);
            tensor.length().min(storage)
        };
        let all = tensors.values().fold(0u64, |sum, tensor| sum.saturating_add(length(tensor)));
        if all > bytes.len() as u64 * SHARED {
            let why =
                format!("its tensors would take {all} bytes, more than {SHARED} times those of the file");
            return Err(PthError::Damaged { file, why });
        }
        Ok(Pth { file, bytes, tensors, storages })
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The file's path, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Result<Tensor, PthError> {
        let (file, tensor) = (|| self.file.clone(), || name.to_owned());
        let Some(described) = self.tensors.get(name) else {
            return Err(PthError::Unknown { file: file(), tensor: tensor() });
        };
        let Some(dtype) = dtype_of(&described.storage.kind) else {
            let kind = described.storage.kind.to_string();
            return Err(PthError::DType { file: file(), tensor: tensor(), kind });
        };
        let outside = || PthError::Outside { file: file(), tensor: tensor() };
        let dims: Option<Vec<usize>> =
            described.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
        let shape = Shape::new(&dims.ok_or_else(outside)?).map_err(|why| PthError::Shape {
            file: file(),
            tensor: tensor(),
            why: Box::new(why),
        })?;
        let range = self.storages.get(&*described.storage.key).cloned().ok_or_else(outside)?;
        let storage = self.bytes.slice(range).ok_or_else(outside)?;
        let bytes = described.elements(shape, dtype.size(), &storage).ok_or_else(outside)?;
        Tensor::new(dtype, shape, bytes).map_err(|_: TensorError| outside())
    }
}

impl Described {
    /// The bytes that its elements take, as far as that is known.
    fn length(&self) -> u64 {
        let size = size_of(&self.storage.kind).unwrap_or(1) as u64;
        self.shape.iter().fold(size, |product, &extent| product.saturating_mul(extent))
    }

    /// The elements of a tensor, each of so many bytes, in row-major order; none where some of them are not in the storage, or
    /// where it has fewer than the tensor has.
    fn elements(&self, shape: Shape, size: usize, storage: &Bytes) -> Option<Bytes> {
        let start = usize::try_from(self.offset).ok()?.checked_mul(size)?;
        let length = shape.count().checked_mul(size)?;
        let strides: Vec<usize> =
            self.strides.iter().map(|&stride| usize::try_from(stride).ok()).collect::<Option<_>>()?;
        if strides.len() != shape.rank() || length > storage.len() {
            return None;
        }
        if is_dense(shape.dims(), &strides) {
            return storage.slice(start..start.checked_add(length)?);
        }
        let mut elements = Vec::with_capacity(length);
        let mut index = vec![0usize; shape.rank()];
        for _ in 0..shape.count() {
            let places = index.iter().zip(&strides).map(|(&i, &stride)| i.checked_mul(stride));
            let place = places.into_iter().try_fold(0usize, |sum, place| sum.checked_add(place?))?;
            let at = start.checked_add(place.checked_mul(size)?)?;
            elements.extend_from_slice(storage.get(at..at.checked_add(size)?)?);
            for (i, &extent) in index.iter_mut().zip(shape.dims()).rev() {
                *i += 1;
                if *i < extent {
                    break;
                }
                *i = 0;
            }
        }
        Some(Bytes::new(elements))
    }
}

/// Whether elements with these strides are neighbours in row-major order.
fn is_dense(dims: &[usize], strides: &[usize]) -> bool {
    let mut want = 1usize;
    dims.iter().zip(strides).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == want;
        want = want.saturating_mul(extent);
        fits
    })
}

/// What the elements of a storage are.
fn dtype_of(kind: &str) -> Option<DType> {
    Some(match kind {
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::Bf16,
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "ByteStorage" => DType::U8,
        "CharStorage" => DType::I8,
        "IntStorage" => DType::I32,
        "LongStorage" => DType::I64,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}

/// Bytes of an element of a storage, also of those that no tensor here can have.
fn size_of(kind: &str) -> Option<usize> {
    match kind {
        "ShortStorage" => Some(2),
        "ComplexFloatStorage" => Some(8),
        "ComplexDoubleStorage" => Some(16),
        kind => dtype_of(kind).map(DType::size),
    }
}
