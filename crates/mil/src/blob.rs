//! The weights file, BLOBFILE version 2.
//!
//! Little-endian. A 64-byte header, then records; a record is a 64-byte descriptor and its payload. A program
//! refers to a record by the position of the *descriptor*, and the descriptor holds the absolute position of
//! the payload, so where records lie is free. See [`Placement`] for the two customs.
//!
//! A [`BlobLayout`] is the plan of a file without its bytes: emission pushes records and writes the offsets it
//! gets into the program. A [`BlobWriter`] then streams the payloads through that plan, and a [`BlobFile`] reads
//! such bytes back without trusting them. Both lead to a [`BlobDirectory`], which `verify` holds a
//! program against.

mod read;
mod write;

pub use read::{BlobError, BlobFile};
pub use write::{BlobWriteError, BlobWriter};

use crate::program::DType;

/// Bytes of the header. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const HEADER_LEN: u64 = 64;

/// Bytes of a descriptor. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const DESCRIPTOR_LEN: u64 = 64;

/// The version in the header. Emitted by ANEForge 0.4.0 and accepted on device (reference); 1 is an older
/// Espresso format, according to Apple's public coremltools headers.
pub const VERSION: u32 = 2;

/// The first word of a descriptor. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const SENTINEL: u32 = 0xDEAD_BEEF;

/// What Apple's own writer aligns descriptors and payloads to (public coremltools headers).
pub const ALIGNMENT: u64 = 64;

/// The element types of records, with the codes of the container (not those of the MIL protobuf).
///
/// Codes 1, 4, 9 and 11 are emitted by ANEForge 0.4.0 and accepted on device (reference); the others stand in
/// Apple's public coremltools headers and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the types.
pub enum BlobDType {
    Fp16 = 1,
    Fp32 = 2,
    Uint8 = 3,
    Int8 = 4,
    Bf16 = 5,
    Int16 = 6,
    Uint16 = 7,
    Int4 = 8,
    Uint1 = 9,
    Uint2 = 10,
    Uint4 = 11,
    Uint3 = 12,
    Uint6 = 13,
    Int32 = 14,
    Uint32 = 15,
    Fp8E4m3fn = 16,
    Fp8E5m2 = 17,
}

impl BlobDType {
    /// Every element type, in the order of the codes.
    pub const ALL: [BlobDType; 17] = [
        BlobDType::Fp16,
        BlobDType::Fp32,
        BlobDType::Uint8,
        BlobDType::Int8,
        BlobDType::Bf16,
        BlobDType::Int16,
        BlobDType::Uint16,
        BlobDType::Int4,
        BlobDType::Uint1,
        BlobDType::Uint2,
        BlobDType::Uint4,
        BlobDType::Uint3,
        BlobDType::Uint6,
        BlobDType::Int32,
        BlobDType::Uint32,
        BlobDType::Fp8E4m3fn,
        BlobDType::Fp8E5m2,
    ];

    /// The code in the descriptor.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The element type with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.code() == code)
    }

    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            BlobDType::Fp16 => "fp16",
            BlobDType::Fp32 => "fp32",
            BlobDType::Uint8 => "uint8",
            BlobDType::Int8 => "int8",
            BlobDType::Bf16 => "bf16",
            BlobDType::Int16 => "int16",
            BlobDType::Uint16 => "uint16",
            BlobDType::Int4 => "int4",
            BlobDType::Uint1 => "uint1",
            BlobDType::Uint2 => "uint2",
            BlobDType::Uint4 => "uint4",
            BlobDType::Uint3 => "uint3",
            BlobDType::Uint6 => "uint6",
            BlobDType::Int32 => "int32",
            BlobDType::Uint32 => "uint32",
            BlobDType::Fp8E4m3fn => "fp8e4m3fn",
            BlobDType::Fp8E5m2 => "fp8e5m2",
        }
    }

    /// Bits of one element.
    pub const fn bits(self) -> u64 {
        match self {
            BlobDType::Uint1 => 1,
            BlobDType::Uint2 => 2,
            BlobDType::Uint3 => 3,
            BlobDType::Int4 | BlobDType::Uint4 => 4,
            BlobDType::Uint6 => 6,
            BlobDType::Uint8 | BlobDType::Int8 | BlobDType::Fp8E4m3fn | BlobDType::Fp8E5m2 => 8,
            BlobDType::Fp16 | BlobDType::Bf16 | BlobDType::Int16 | BlobDType::Uint16 => 16,
            BlobDType::Fp32 | BlobDType::Int32 | BlobDType::Uint32 => 32,
        }
    }

    /// Bytes of `numel` elements, sub-byte elements packed without gaps; `None` when that does not fit.
    ///
    /// ```
    /// use aneforge_mil::BlobDType;
    /// assert_eq!(BlobDType::Fp16.payload_len(3), Some(6));
    /// assert_eq!(BlobDType::Uint1.payload_len(12), Some(2));
    /// ```
    pub fn payload_len(self, numel: u64) -> Option<u64> {
        numel.checked_mul(self.bits()).map(|bits| bits.div_ceil(8))
    }

    /// The record type that a tensor literal of this element type refers to.
    pub const fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::Fp16 => Some(BlobDType::Fp16),
            DType::Fp32 => Some(BlobDType::Fp32),
            DType::Int8 => Some(BlobDType::Int8),
            DType::Int16 => Some(BlobDType::Int16),
            DType::Int32 => Some(BlobDType::Int32),
            DType::Uint1 => Some(BlobDType::Uint1),
            DType::Uint4 => Some(BlobDType::Uint4),
            DType::Uint8 => Some(BlobDType::Uint8),
            DType::Uint16 => Some(BlobDType::Uint16),
            DType::Uint32 => Some(BlobDType::Uint32),
            DType::Uint64 | DType::Bool | DType::String => None,
        }
    }
}

/// Where records lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Each descriptor directly behind the payload before it, at any byte.
    ///
    /// Emitted by ANEForge 0.4.0; its device tests pass with such offsets (reference).
    #[default]
    Packed,
    /// Each descriptor, and so each payload, at a multiple of [`ALIGNMENT`], as Apple's own writer does
    /// (public coremltools headers).
    Aligned64,
}

/// One record: what its descriptor says, and where the descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The element type.
    pub dtype: BlobDType,
    /// The position of the descriptor: what a program refers to.
    pub offset: u64,
    /// The position of the payload.
    pub data_offset: u64,
    /// Bytes of the payload.
    pub len: u64,
    /// Unused bits in the last byte of a sub-byte payload.
    ///
    /// ANEForge 0.4.0 writes 0 always (reference), and so do layouts; the meaning stands in Apple's public
    /// coremltools headers.
    pub padding_bits: u64,
}

/// The records of a weights file, planned or read, in the order of their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobDirectory {
    records: Vec<Record>,
}

impl BlobDirectory {
    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record whose descriptor is at `offset`.
    pub fn at(&self, offset: u64) -> Option<&Record> {
        let index = self.records.binary_search_by_key(&offset, |r| r.offset).ok()?;
        self.records.get(index)
    }
}

/// The plan of a weights file: where every record will be, without a byte of payload.
///
/// ```
/// use aneforge_mil::{BlobDType, BlobLayout};
/// let mut layout = BlobLayout::default();
/// assert_eq!(layout.push(BlobDType::Fp16, 6), 64);
/// assert_eq!(layout.push(BlobDType::Int8, 5), 134);
/// assert_eq!(layout.file_len(), 203);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobLayout {
    placement: Placement,
    directory: BlobDirectory,
    end: u64,
}

impl Default for BlobLayout {
    fn default() -> Self {
        Self::new(Placement::default())
    }
}

impl BlobLayout {
    /// A file with no records yet.
    pub fn new(placement: Placement) -> Self {
        Self { placement, directory: BlobDirectory::default(), end: HEADER_LEN }
    }

    /// Adds a record of `len` bytes and returns the position of its descriptor, which a program refers to.
    ///
    /// # Panics
    /// When the file would be longer than 2^64 bytes.
    pub fn push(&mut self, dtype: BlobDType, len: u64) -> u64 {
        let place = || {
            let offset = match self.placement {
                Placement::Packed => self.end,
                Placement::Aligned64 => self.end.checked_next_multiple_of(ALIGNMENT)?,
            };
            let data_offset = offset.checked_add(DESCRIPTOR_LEN)?;
            Some((Record { dtype, offset, data_offset, len, padding_bits: 0 }, data_offset.checked_add(len)?))
        };
        let (record, end) = place().expect("invariant: a weights file is shorter than 2^64 bytes");
        self.directory.records.push(record);
        self.end = end;
        record.offset
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.end
    }

    /// The records planned so far, in order.
    pub fn records(&self) -> &[Record] {
        self.directory.records()
    }

    /// The records as a directory, to verify a program against.
    pub fn directory(&self) -> &BlobDirectory {
        &self.directory
    }
}
