//! Sub-byte payloads: 16-entry palette indices and sparsity masks.
//!
//! Both orders are emitted by ANEForge 0.4.0 and accepted on device (reference).

use thiserror::Error;

/// Why a sub-byte payload cannot be packed or unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackError {
    /// An element does not fit its type.
    #[error("element {index} is {value}; a uint4 holds 0 to 15")]
    Range {
        /// The element, from 0.
        index: usize,
        /// Its value.
        value: u8,
    },
    /// The bytes are not as many as the elements need.
    #[error("{numel} {dtype} elements take {expected} bytes, found {found}")]
    Length {
        /// The name of the element type.
        dtype: &'static str,
        /// Elements asked for.
        numel: usize,
        /// Bytes they take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

/// Packs uint4 elements two to a byte, the first in the low nibble.
///
/// # Errors
/// [`PackError::Range`] for a value above 15.
///
/// ```
/// assert_eq!(aneforge_mil::weights::pack_uint4(&[1, 2, 15]).unwrap(), [0x21, 0x0f]);
/// ```
pub fn pack_uint4(values: &[u8]) -> Result<Vec<u8>, PackError> {
    if let Some((index, &value)) = values.iter().enumerate().find(|&(_, &v)| v > 15) {
        return Err(PackError::Range { index, value });
    }
    Ok(values.chunks(2).map(|pair| pair.iter().rev().fold(0, |byte, v| byte << 4 | v)).collect())
}

/// The elements that [`pack_uint4`] packed.
///
/// # Errors
/// [`PackError::Length`] when `bytes` is not as long as `numel` elements take.
pub fn unpack_uint4(bytes: &[u8], numel: usize) -> Result<Vec<u8>, PackError> {
    check_len("uint4", bytes, numel, 2)?;
    Ok(bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(numel).collect())
}

/// Packs booleans eight to a byte, the first in the lowest bit, rows not padded.
///
/// ```
/// let present = [false, true, false, false, true, false, false, true, false, false, false, true];
/// assert_eq!(aneforge_mil::weights::pack_uint1(&present), [0x92, 0x08]);
/// ```
pub fn pack_uint1(values: &[bool]) -> Vec<u8> {
    values.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, &b| byte << 1 | u8::from(b))).collect()
}

/// The elements that [`pack_uint1`] packed.
///
/// # Errors
/// [`PackError::Length`] when `bytes` is not as long as `numel` elements take.
pub fn unpack_uint1(bytes: &[u8], numel: usize) -> Result<Vec<bool>, PackError> {
    check_len("uint1", bytes, numel, 8)?;
    Ok(bytes.iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1 == 1)).take(numel).collect())
}

fn check_len(dtype: &'static str, bytes: &[u8], numel: usize, per_byte: usize) -> Result<(), PackError> {
    let expected = numel.div_ceil(per_byte);
    if bytes.len() == expected {
        return Ok(());
    }
    Err(PackError::Length { dtype, numel, expected, found: bytes.len() })
}
