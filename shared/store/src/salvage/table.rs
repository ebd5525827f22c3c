//! Reads the entries out of a table file of the engine without its index, its trailer or its list: every block that is whole counts.
//!
//! A block is: the bytes `LSM` 3, type u8 (0: entries), xxh3-128 of the content, length on disk u32, length u32, and the lower 4 bytes of
//! the xxh3-128 of all that; then the content, which the store never lets the engine compress. The content is entries (type u8,
//! sequence number, key, and unless it is a removal a value; lengths as LEB128), where all but every n-th name only what their key
//! does not share with the n-th; then a byte 255, indexes, and a trailer of 31 bytes. Numbers are little-endian.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use fellbeck_core::varint::take_u64;
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: [u8; 4] = *b"LSM\x03";
const HEADER_BYTES: u64 = 33;
const TRAILER_BYTES: usize = 31;
const ENTRIES: u8 = 0;
/// Above any block that this store lets the engine write: one value is one record batch.
const BLOCK_MAX: u32 = 256 * 1024 * 1024;
const CHUNK: usize = 256 * 1024;

/// One version of one key; `None`: its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    pub(crate) seqno: u64,
}

/// Gives all entries of all whole blocks to `sink`, and returns how many bytes were in no whole block.
pub(crate) fn read<E: From<std::io::Error>>(
    path: &Path,
    sink: &mut dyn FnMut(Entry) -> Result<(), E>,
) -> Result<u64, E> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let (mut at, mut passed) = (0, 0);
    while at + HEADER_BYTES <= len {
        if let Some((content, end)) = block(&file, at, len)? {
            for entry in content.as_deref().and_then(entries).unwrap_or_default() {
                sink(entry)?;
            }
            at = end;
        } else {
            let next = next_magic(&file, at + 1, len)?;
            passed += next - at;
            at = next;
        }
    }
    Ok(passed)
}

/// The whole block at `at`: its content where it holds entries, and its end.
fn block(file: &File, at: u64, len: u64) -> std::io::Result<Option<(Option<Vec<u8>>, u64)>> {
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, at)?;
    let word = |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
    let (stored, raw) = (word(21), word(25));
    let end = at + HEADER_BYTES + u64::from(stored);
    if header[..4] != MAGIC || xxh3_128(&header[..29]) as u32 != word(29) || stored > BLOCK_MAX || end > len {
        return Ok(None);
    }
    let mut content = vec![0; stored as usize];
    file.read_exact_at(&mut content, at + HEADER_BYTES)?;
    if xxh3_128(&content).to_le_bytes() != header[5..21] {
        return Ok(None);
    }
    let holds_entries = header[4] == ENTRIES && stored == raw;
    Ok(Some((holds_entries.then_some(content), end)))
}

/// Where the magic bytes stand next, or the end.
fn next_magic(file: &File, from: u64, len: u64) -> std::io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut at = from;
    while at + 4 <= len {
        let part = usize::try_from((len - at).min(CHUNK as u64)).unwrap_or(CHUNK);
        file.read_exact_at(&mut chunk[..part], at)?;
        if let Some(found) = chunk[..part].windows(4).position(|window| window == MAGIC) {
            return Ok(at + found as u64);
        }
        at += part as u64 - 3;
    }
    Ok(len)
}

/// The entries of a block's content. `None`: not of the form above, whatever its checksum says.
fn entries(content: &[u8]) -> Option<Vec<Entry>> {
    let (body, trailer) = content.split_at_checked(content.len().checked_sub(TRAILER_BYTES)?)?;
    let interval = u32::from(trailer[0]).max(1);
    let count = u32::from_le_bytes(trailer[27..].try_into().ok()?);
    let body_bytes = Bytes::copy_from_slice(body);
    let mut rest = body;
    let mut base: &[u8] = &[];
    let mut found = Vec::new();
    for number in 0..count {
        let kind = take(&mut rest, 1)?[0];
        let seqno = take_u64(&mut rest)?;
        let key = if number % interval == 0 {
            let len = usize::try_from(take_u64(&mut rest)?).ok()?;
            base = take(&mut rest, len)?;
            Bytes::copy_from_slice(base)
        } else {
            let shared = usize::try_from(take_u64(&mut rest)?).ok()?;
            let len = usize::try_from(take_u64(&mut rest)?).ok()?;
            Bytes::from([base.get(..shared)?, take(&mut rest, len)?].concat())
        };
        let value = match kind {
            0 => {
                let len = usize::try_from(take_u64(&mut rest)?).ok()?;
                let at = body.len() - rest.len();
                take(&mut rest, len)?;
                Some(body_bytes.slice(at..at + len))
            }
            1 | 2 => None,
            _ => return None,
        };
        found.push(Entry { key, value, seqno });
    }
    Some(found)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}
