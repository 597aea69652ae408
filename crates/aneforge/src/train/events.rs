//! Metrics as TensorBoard reads them: a file of records, each a protocol buffer `Event` with one number.
//!
//! The framing is that of TensorFlow's record files: a length, its checksum, the data, their checksum; checksums are CRC-32C, turned by 15
//! bits with a constant added. A reader that meets half a record waits for the rest, so that a file may be followed while it grows.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of metrics in a folder that TensorBoard looks at.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let mut events = aneforge::train::Events::create(folder.path())?;
/// events.scalar("train/loss", 0.5, 1)?;
/// assert!(events.path().starts_with(folder.path()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Begins a new file in this folder, which is made if it is not there.
    pub fn create(folder: &Path) -> io::Result<Events> {
        create_dir_all(folder)?;
        let begin = now();
        for number in 0.. {
            let name = format!("events.out.tfevents.{:010}.aneforge.{number}", begin as u64);
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = Events { file, path };
                    let mut event = vec![0x09];
                    event.extend(begin.to_le_bytes());
                    field(&mut event, 3, b"brain.Event:2");
                    events.record(&event)?;
                    return Ok(events);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("there is a number that is free")
    }

    /// Adds a number to the curve `tag`. It is in the file when this returns.
    pub fn scalar(&mut self, tag: &str, value: f64, step: u64) -> io::Result<()> {
        let mut number = Vec::new();
        field(&mut number, 1, tag.as_bytes());
        number.push(0x15);
        number.extend((value as f32).to_le_bytes());
        let mut summary = Vec::new();
        field(&mut summary, 1, &number);
        let mut event = vec![0x09];
        event.extend(now().to_le_bytes());
        event.push(0x10);
        varint(&mut event, step);
        field(&mut event, 5, &summary);
        self.record(&event)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut all = length.to_vec();
        all.extend(masked(&length).to_le_bytes());
        all.extend(data);
        all.extend(masked(data).to_le_bytes());
        self.file.write_all(&all)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A field of bytes with its length.
fn field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Castagnoli's CRC, bit by bit: records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // As TensorBoard's own reader has them.
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5);
        assert_eq!(masked(&24u64.to_le_bytes()), 0x224b_7fa3);
    }

    #[test]
    fn numbers_are_in_the_file_when_they_were_added() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, second) =
            (Events::create(folder.path()).unwrap(), Events::create(folder.path()).unwrap());
        assert_ne!(first.path(), second.path());
        first.scalar("loss", 0.5, 300).unwrap();
        let bytes = std::fs::read(first.path()).unwrap();
        // The header, of 9 + 15 bytes in 16, and then a time, a step of two bytes, and a summary.
        let event = &bytes[16 + 24 + 12..];
        assert_eq!(&event[9..14], [0x10, 0xac, 0x02, 0x2a, 13]);
        assert_eq!(&event[14..27], b"\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f");
        assert_eq!(bytes.len(), 16 + 24 + 16 + 27);
        assert!(Events::create(first.path()).is_err());
    }
}
