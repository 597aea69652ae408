//! What torch.save wrote before version 1.6: pickles of a magic number, a version, the machine, and the value, the keys of all
//! storages, and their elements in that order.

use super::error::Fault;
use super::pickle::{self, Root, Value};
use super::size_of;
use aneforge_tensor::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// The number that such a file begins with, as a pickle.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// The only version there is.
const VERSION: i64 = 1001;

/// Whether a pickle of the magic number comes first, behind the number of its protocol.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.get(2..2 + MAGIC.len()) == Some(MAGIC)
}

/// The value, and where each storage lies.
pub(super) fn read(bytes: &Bytes) -> Result<(Root, BTreeMap<String, Range<usize>>), Fault> {
    let damaged = |why: &str| Fault::Damaged(why.into());
    if !begins(bytes) {
        return Err(damaged("it begins as neither of the two formats does"));
    }
    // Behind the end of that pickle.
    let mut at = 2 + MAGIC.len() + 1;
    let mut next = || -> Result<Root, Fault> {
        let (root, length) = pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += length;
        Ok(root)
    };
    if !matches!(next()?.value, Value::Int(VERSION)) {
        return Err(damaged("its version is not 1001"));
    }
    let machine = next()?;
    if machine.entry("little_endian").is_some_and(|value| !matches!(value, Value::Bool(true))) {
        return Err(damaged("its elements are in big-endian order, which no machine here reads"));
    }
    let root = next()?;
    let keys = next()?;
    let keys = keys.texts().ok_or_else(|| damaged("it does not list its storages"))?;
    let kinds: BTreeMap<&str, &str> =
        root.storages.iter().map(|storage| (&*storage.key, &*storage.kind)).collect();
    let mut storages = BTreeMap::new();
    for key in keys {
        let key = key.ok_or_else(|| damaged("it does not list its storages"))?;
        let cut = || Fault::Damaged(format!("it ends before storage `{key}` does"));
        let (count, rest) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(cut)?;
        let size = kinds
            .get(&*key)
            .and_then(|kind| size_of(kind))
            .ok_or_else(|| Fault::Damaged(format!("storage `{key}` is of no known type")))?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok();
        let length =
            count.and_then(|count| count.checked_mul(size)).filter(|&n| n <= rest.len()).ok_or_else(cut)?;
        let start = at + 8;
        at = start + length;
        storages.insert(key.to_string(), start..at);
    }
    Ok((root, storages))
}
