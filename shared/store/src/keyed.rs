//! Reads of the keyed stores.

use std::ops::Bound;

use bytes::Bytes;

use crate::commit::{Space, Stored};
use crate::engine::Engine;
use crate::error::ReadError;
use crate::key::take_stamp;
use crate::pool::Scan;

pub(crate) fn get(engine: &Engine, space: Space, key: &[u8]) -> Result<Option<Stored>, ReadError> {
    if key.is_empty() {
        return Ok(None);
    }
    let value = engine.space(space).get(key)?;
    value
        .map(|value| stored(Bytes::copy_from_slice(key), value.into()))
        .transpose()
}

pub(crate) fn load(engine: &Engine, space: Space) -> Result<Vec<Stored>, ReadError> {
    let entries = engine.space(space).iter();
    entries
        .map(|guard| {
            let (key, value) = guard.into_inner()?;
            stored(key.into(), value.into())
        })
        .collect()
}

/// Entries whose key begins with the prefix, behind `after`, in key order, until `bytes_max` is passed.
pub(crate) fn scan(engine: &Engine, scan: &Scan) -> Result<Vec<Stored>, ReadError> {
    let start = match &scan.after {
        Some(after) if *after >= scan.prefix => Bound::Excluded(&after[..]),
        _ => Bound::Included(&scan.prefix[..]),
    };
    let mut found = Vec::new();
    let mut bytes = 0;
    for guard in engine.space(scan.space).range::<&[u8], _>((start, Bound::Unbounded)) {
        let (key, value) = guard.into_inner()?;
        if bytes >= scan.bytes_max.max(1) || !key.starts_with(&scan.prefix) {
            break;
        }
        bytes += key.len() + value.len();
        found.push(stored(key.into(), value.into())?);
    }
    Ok(found)
}

/// Copies out of the engine's block, so that a small value does not keep a large block in memory.
fn stored(key: Bytes, mut value: Bytes) -> Result<Stored, ReadError> {
    let commit = take_stamp(&mut value).ok_or(ReadError::Damaged("keyed value without its stamp"))?;
    Ok(Stored {
        key: Bytes::copy_from_slice(&key),
        value: Bytes::copy_from_slice(&value),
        commit,
    })
}
