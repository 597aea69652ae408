//! Reading a weights file that nobody vouches for.

use std::ops::Range;

use thiserror::Error;

use super::{ALIGNMENT, BlobDType, BlobDirectory, DESCRIPTOR_LEN, HEADER_LEN, Record, SENTINEL, VERSION};

/// What is wrong with a weights file. The fault is the file's, or the program's for [`BlobError::NoRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobError {
    /// Too short for the header.
    #[error("a weights file starts with a {HEADER_LEN}-byte header; this one ends after {len} bytes")]
    Header {
        /// Bytes of the file.
        len: usize,
    },
    /// Not the version this reader knows.
    #[error("weights file version {found} is not supported; expected {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A descriptor runs past the end.
    #[error("record {index} of {count}: no room for a descriptor at {offset}, the file ends at {len}")]
    Truncated {
        /// The record, from 0.
        index: u32,
        /// The count in the header.
        count: u32,
        /// Where its descriptor should be.
        offset: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A descriptor does not start with the sentinel.
    #[error("record {index} at {offset}: expected the sentinel {SENTINEL:#010x}, found {found:#010x}")]
    Sentinel {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor should be.
        offset: u64,
        /// The word found there.
        found: u32,
    },
    /// An element type that is not in the format.
    #[error("record {index} at {offset}: unknown element type code {code}")]
    DType {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor is.
        offset: u64,
        /// The code found.
        code: u32,
    },
    /// A payload that starts inside a descriptor or before it.
    #[error(
        "record {index} at {offset}: the payload starts at {data_offset}, inside or before its descriptor"
    )]
    Overlap {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor is.
        offset: u64,
        /// Where the payload is said to be.
        data_offset: u64,
    },
    /// A payload that starts further behind its descriptor than any alignment explains.
    #[error(
        "record {index} at {offset}: the payload starts at {data_offset}, {ALIGNMENT} bytes or more behind its descriptor"
    )]
    Gap {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor is.
        offset: u64,
        /// Where the payload is said to be.
        data_offset: u64,
    },
    /// A payload that runs past the end.
    #[error("record {index} at {offset}: {payload} payload bytes at {data_offset} run past the end, {len}")]
    Bounds {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor is.
        offset: u64,
        /// Where the payload is said to be.
        data_offset: u64,
        /// Its length as said.
        payload: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A payload that does not hold whole elements.
    #[error("record {index} at {offset}: {payload} bytes with {padding_bits} unused bits are not a whole number of {} elements", dtype.name())]
    Elements {
        /// The record, from 0.
        index: u32,
        /// Where its descriptor is.
        offset: u64,
        /// The element type.
        dtype: BlobDType,
        /// The length of the payload.
        payload: u64,
        /// The unused bits as said.
        padding_bits: u64,
    },
    /// More bytes than the counted records explain.
    #[error("{count} records end at {end}, but the file goes on to {len}; the count in the header is wrong")]
    Trailing {
        /// The count in the header.
        count: u32,
        /// Where the last record ends.
        end: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A reference to no record.
    #[error("no record has its descriptor at {offset}")]
    NoRecord {
        /// The position asked for.
        offset: u64,
    },
}

/// A weights file in memory, checked: every record lies in the file and none overlaps another.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobFile<'a> {
    bytes: &'a [u8],
    directory: BlobDirectory,
}

impl<'a> BlobFile<'a> {
    /// Reads the header and every descriptor. Payloads are not touched, reserved bytes are ignored.
    ///
    /// A descriptor is looked for directly behind the payload before it and, if there is no sentinel, at the
    /// next multiple of [`ALIGNMENT`]; so both placements are read. Memory is proportional to the records
    /// actually present.
    ///
    /// # Errors
    /// Everything in [`BlobError`] but [`BlobError::NoRecord`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlobError> {
        let len = bytes.len() as u64;
        let short = BlobError::Header { len: bytes.len() };
        if len < HEADER_LEN {
            return Err(short);
        }
        let count = word(bytes, 0).ok_or(short.clone())?;
        let version = word(bytes, 4).ok_or(short)?;
        if version != VERSION {
            return Err(BlobError::Version { found: version });
        }
        let mut records = Vec::new();
        let mut end = HEADER_LEN;
        for index in 0..count {
            let record = descriptor(bytes, index, count, end)?;
            // `descriptor` has checked that this stays inside the file.
            end = record.data_offset.saturating_add(record.len);
            records.push(record);
        }
        // A writer that aligns may also fill up the last block.
        if len.saturating_sub(end) >= ALIGNMENT {
            return Err(BlobError::Trailing { count, end, len });
        }
        Ok(Self { bytes, directory: BlobDirectory { records } })
    }

    /// All records, in order.
    pub fn records(&self) -> &[Record] {
        self.directory.records()
    }

    /// The records as a directory, to verify a program against.
    pub fn directory(&self) -> &BlobDirectory {
        &self.directory
    }

    /// The record whose descriptor is at `offset`.
    ///
    /// # Errors
    /// [`BlobError::NoRecord`].
    pub fn at(&self, offset: u64) -> Result<Record, BlobError> {
        self.directory.at(offset).copied().ok_or(BlobError::NoRecord { offset })
    }

    /// The payload of a record of this file.
    ///
    /// # Panics
    /// When the record is of another file and lies outside this one.
    pub fn payload(&self, record: &Record) -> &'a [u8] {
        range(record.data_offset, record.len)
            .and_then(|r| self.bytes.get(r))
            .expect("invariant: the record is one of this file")
    }
}

/// The record whose descriptor is at `end`, or at the next multiple of the alignment.
fn descriptor(bytes: &[u8], index: u32, count: u32, end: u64) -> Result<Record, BlobError> {
    let len = bytes.len() as u64;
    let aligned = end.checked_next_multiple_of(ALIGNMENT).unwrap_or(end);
    let offset = if word(bytes, end) == Some(SENTINEL) { end } else { aligned };
    let block = range(offset, DESCRIPTOR_LEN).and_then(|r| bytes.get(r));
    let truncated = BlobError::Truncated { index, count, offset: end, len };
    let block = block.ok_or(truncated.clone())?;
    let found = word(block, 0).ok_or(truncated.clone())?;
    if found != SENTINEL {
        return Err(BlobError::Sentinel { index, offset: end, found: word(bytes, end).unwrap_or(found) });
    }
    let code = word(block, 4).ok_or(truncated.clone())?;
    let dtype = BlobDType::from_code(code).ok_or(BlobError::DType { index, offset, code })?;
    let (Some(payload), Some(data_offset), Some(padding_bits)) =
        (long(block, 8), long(block, 16), long(block, 24))
    else {
        return Err(truncated);
    };
    if data_offset < offset.saturating_add(DESCRIPTOR_LEN) {
        return Err(BlobError::Overlap { index, offset, data_offset });
    }
    // A larger gap could hide records that the count does not know.
    if data_offset - offset >= DESCRIPTOR_LEN + ALIGNMENT {
        return Err(BlobError::Gap { index, offset, data_offset });
    }
    if data_offset.checked_add(payload).is_none_or(|end| end > len) {
        return Err(BlobError::Bounds { index, offset, data_offset, payload, len });
    }
    if !whole(dtype, payload, padding_bits) {
        return Err(BlobError::Elements { index, offset, dtype, payload, padding_bits });
    }
    Ok(Record { dtype, offset, data_offset, len: payload, padding_bits })
}

/// Whether the payload can hold whole elements. Sub-byte records do not say how many they hold.
fn whole(dtype: BlobDType, payload: u64, padding_bits: u64) -> bool {
    if dtype.bits() < 8 {
        return padding_bits < 8 && (payload > 0 || padding_bits == 0);
    }
    padding_bits == 0 && payload.is_multiple_of(dtype.bits() / 8)
}

fn range(start: u64, len: u64) -> Option<Range<usize>> {
    let end = usize::try_from(start.checked_add(len)?).ok()?;
    Some(usize::try_from(start).ok()?..end)
}

fn word(bytes: &[u8], at: u64) -> Option<u32> {
    let array = bytes.get(range(at, 4)?)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*array))
}

fn long(bytes: &[u8], at: u64) -> Option<u64> {
    let array = bytes.get(range(at, 8)?)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*array))
}
