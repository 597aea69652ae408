//! Writing a weights file through its plan.

use std::io::{self, Write};

use thiserror::Error;

use super::{BlobLayout, DESCRIPTOR_LEN, HEADER_LEN, Record, SENTINEL, VERSION};

/// Why a weights file could not be written.
#[derive(Debug, Error)]
pub enum BlobWriteError {
    /// The sink failed.
    #[error("writing the weights file failed at byte {position}: {source}")]
    Io {
        /// Bytes written before.
        position: u64,
        /// What the sink said.
        source: io::Error,
    },
    /// Bytes came before a record was begun, or a record after the last.
    #[error("the layout plans {planned} records; there is none to take payload number {index}")]
    NoRecord {
        /// The record that was asked for, from 0.
        index: usize,
        /// How many the layout has.
        planned: usize,
    },
    /// A payload is not as long as planned.
    #[error("record {index} (descriptor at {}): the layout plans {} payload bytes, {given} were given", record.offset, record.len)]
    Length {
        /// The record, from 0.
        index: usize,
        /// The plan of it.
        record: Record,
        /// Bytes given, with those refused.
        given: u64,
    },
    /// The file was finished before every record was written.
    #[error("the layout plans {planned} records, {written} were written")]
    Missing {
        /// How many were written.
        written: usize,
        /// How many the layout has.
        planned: usize,
    },
    /// The header counts records in 32 bits.
    #[error("{planned} records do not fit the 32-bit count of the header")]
    Count {
        /// How many the layout has.
        planned: usize,
    },
}

/// Streams payloads into the file that a [`BlobLayout`] plans, so weights need never be in memory twice.
///
/// ```
/// use aneforge_mil::{BlobDType, BlobFile, BlobLayout, BlobWriter};
/// let mut layout = BlobLayout::default();
/// let offset = layout.push(BlobDType::Int8, 5);
/// let mut writer = BlobWriter::new(Vec::new(), layout)?;
/// writer.begin()?;
/// writer.write(&[1, 255])?;
/// writer.write(&[127, 129, 0])?;
/// let bytes = writer.finish()?;
/// let file = BlobFile::parse(&bytes)?;
/// assert_eq!(file.payload(&file.at(offset)?), [1, 255, 127, 129, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BlobWriter<W: Write> {
    sink: W,
    layout: BlobLayout,
    position: u64,
    /// Records begun.
    begun: usize,
    /// Payload bytes given to the record begun last.
    given: u64,
}

impl<W: Write> BlobWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The sink's, and a layout with 2^32 records or more.
    pub fn new(sink: W, layout: BlobLayout) -> Result<Self, BlobWriteError> {
        let planned = layout.records().len();
        let count = u32::try_from(planned).map_err(|_| BlobWriteError::Count { planned })?;
        let mut writer = Self { sink, layout, position: 0, begun: 0, given: 0 };
        writer.put(&count.to_le_bytes())?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.pad_to(HEADER_LEN)?;
        Ok(writer)
    }

    /// Begins the next record; its payload follows in any number of [`write`](Self::write)s.
    ///
    /// # Errors
    /// The sink's, a record before that is not full, and no record left in the layout.
    pub fn begin(&mut self) -> Result<Record, BlobWriteError> {
        self.check_full()?;
        let planned = self.layout.records().len();
        let index = self.begun;
        let &record = self.layout.records().get(index).ok_or(BlobWriteError::NoRecord { index, planned })?;
        self.begun += 1;
        self.given = 0;
        self.pad_to(record.offset)?;
        self.put(&SENTINEL.to_le_bytes())?;
        self.put(&record.dtype.code().to_le_bytes())?;
        self.put(&record.len.to_le_bytes())?;
        self.put(&record.data_offset.to_le_bytes())?;
        self.put(&record.padding_bits.to_le_bytes())?;
        self.pad_to(record.offset + DESCRIPTOR_LEN)?;
        Ok(record)
    }

    /// Appends to the payload of the record begun last.
    ///
    /// # Errors
    /// The sink's, no record begun, and more bytes than planned (none of `chunk` is written then).
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), BlobWriteError> {
        let planned = self.layout.records().len();
        let (index, record) = self.current().ok_or(BlobWriteError::NoRecord { index: 0, planned })?;
        let given = self.given.saturating_add(chunk.len() as u64);
        if given > record.len {
            return Err(BlobWriteError::Length { index, record, given });
        }
        self.given = given;
        self.put(chunk)
    }

    /// Writes the whole payload of the next record.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and [`write`](Self::write), and a payload shorter than planned.
    pub fn record(&mut self, payload: &[u8]) -> Result<Record, BlobWriteError> {
        let record = self.begin()?;
        self.write(payload)?;
        self.check_full()?;
        Ok(record)
    }

    /// Ends the file and gives the sink back, flushed.
    ///
    /// # Errors
    /// The sink's, a last record that is not full, and records never begun.
    pub fn finish(mut self) -> Result<W, BlobWriteError> {
        self.check_full()?;
        let planned = self.layout.records().len();
        if self.begun != planned {
            return Err(BlobWriteError::Missing { written: self.begun, planned });
        }
        self.sink.flush().map_err(|source| BlobWriteError::Io { position: self.position, source })?;
        Ok(self.sink)
    }

    fn current(&self) -> Option<(usize, Record)> {
        let index = self.begun.checked_sub(1)?;
        Some((index, *self.layout.records().get(index)?))
    }

    fn check_full(&self) -> Result<(), BlobWriteError> {
        match self.current() {
            Some((index, record)) if self.given != record.len => {
                Err(BlobWriteError::Length { index, record, given: self.given })
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BlobWriteError> {
        let position = self.position;
        self.sink.write_all(bytes).map_err(|source| BlobWriteError::Io { position, source })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to a position: reserved bytes and gaps, each shorter than 64 bytes.
    fn pad_to(&mut self, position: u64) -> Result<(), BlobWriteError> {
        const ZEROS: [u8; 64] = [0; 64];
        let gap = position.saturating_sub(self.position);
        let zeros = usize::try_from(gap).ok().and_then(|n| ZEROS.get(..n));
        self.put(zeros.expect("invariant: a gap is shorter than 64 bytes"))
    }
}
