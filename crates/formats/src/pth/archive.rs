//! The archive that torch.save writes since version 1.6: `data.pkl`, and a file per storage. Nothing in it is compressed, so
//! that storages may be used where they lie.

use super::error::Fault;
use super::pickle::{self, Root};
use aneforge_tensor::Bytes;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

/// What the archive calls its pickle, below a folder of any name.
const PICKLE: &str = "/data.pkl";
/// Where storages are, below the same folder.
const STORAGES: &str = "/data/";

/// The value that the pickle is, and where each storage lies.
pub(super) fn read(bytes: &Bytes) -> Result<(Root, BTreeMap<String, Range<usize>>), Fault> {
    let damaged = |e: zip::result::ZipError| Fault::Damaged(e.to_string());
    let mut archive = ZipArchive::new(Cursor::new(&**bytes)).map_err(damaged)?;
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(Fault::Damaged(format!("`{name}` in it is compressed or encrypted")));
        }
        let start = entry.data_start().and_then(|at| usize::try_from(at).ok());
        let length = usize::try_from(entry.size()).ok();
        let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let inside = range.filter(|range| range.end <= bytes.len());
        files.insert(name, inside.ok_or_else(|| Fault::Damaged("an entry ends beyond the file".into()))?);
    }
    let pickles: Vec<&String> = files.keys().filter(|name| name.ends_with(PICKLE)).collect();
    let [pickle] = pickles[..] else {
        return Err(Fault::Damaged(format!("the archive has {} files `data.pkl`, not one", pickles.len())));
    };
    let folder = pickle.strip_suffix(PICKLE).unwrap_or_default();
    let of = |name: &str| files.get(&format!("{folder}{name}")).and_then(|range| bytes.get(range.clone()));
    if of("/byteorder").is_some_and(|order| order != b"little") {
        return Err(Fault::Damaged(
            "its elements are in big-endian order, which no machine here reads".into(),
        ));
    }
    if of("/constants.pkl").is_some() {
        return Err(Fault::NoState("it is a TorchScript program, no state dict".into()));
    }
    let (root, _) = pickle::read(of(PICKLE).unwrap_or_default())?;
    let storages = files.iter().filter_map(|(name, range)| {
        let key = name.strip_prefix(folder)?.strip_prefix(STORAGES)?;
        Some((key.to_owned(), range.clone()))
    });
    Ok((root, storages.collect()))
}
