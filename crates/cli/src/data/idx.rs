//! Arrays of bytes in the format that MNIST came in: idx, as it is or compressed with gzip.

use crate::exit::file;
use anyhow::Result;
use flate2::read::MultiGzDecoder;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The most bytes of an array; Fashion-MNIST has 47 million.
const MOST: usize = 1 << 29;

/// The most bytes that are read of a pipe.
const MOST_GIVEN: u64 = 1 << 30;

/// What a file compressed with gzip begins with.
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads an array with so many axes: its extents, and its elements.
pub fn read(path: &Path, axes: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let bytes = aneforge_formats::given(path, MOST_GIVEN)?;
    let name = path.display().to_string();
    match bytes.starts_with(&GZIP) {
        true => array(&name, MultiGzDecoder::new(&bytes[..]), axes),
        false => array(&name, &bytes[..], axes),
    }
}

fn array(name: &str, mut from: impl Read, axes: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let fault = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => file(format!("{name}: is cut off; get the file again")),
        _ => file(format!("{name}: cannot be unpacked: {error}; get the file again")),
    };
    let mut word = || -> Result<[u8; 4]> {
        let mut word = [0; 4];
        from.read_exact(&mut word).map_err(fault)?;
        Ok(word)
    };
    let magic = word()?;
    if magic.map(usize::from) != [0, 0, 8, axes] {
        return Err(file(format!(
            "{name}: begins with {magic:02x?}, and an idx file of bytes with {axes} axes with [00, 00, 08, {axes:02x}]; \
             name a folder with the files of MNIST"
        )));
    }
    let mut dims = Vec::new();
    for _ in 0..axes {
        dims.push(u32::from_be_bytes(word()?) as usize);
    }
    let count = dims.iter().try_fold(1, |count: usize, &extent| count.checked_mul(extent));
    let Some(count) = count.filter(|&count| count <= MOST) else {
        return Err(file(format!("{name}: says that it has {dims:?} bytes, and at most {MOST} are read")));
    };
    let mut values = Vec::new();
    from.take(count as u64 + 1).read_to_end(&mut values).map_err(fault)?;
    match values.len() == count {
        true => Ok((dims, values)),
        false if values.len() > count => {
            Err(file(format!("{name}: has more bytes than the {count} of {dims:?}; get the file again")))
        }
        false => Err(file(format!(
            "{name}: is cut off: it has {} of the {count} bytes of {dims:?}; get the file again",
            values.len()
        ))),
    }
}
