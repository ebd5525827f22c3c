//! Walks a journal file of fjall 3.1 and tells valid batches from damage, without decoding values and in little memory.
//!
//! A batch is: start (tag 1, item count u32, sequence number u64), items (tag 2, type, compression, keyspace u64, key length
//! u16, value length u32, stored length u32, key, value) or clears (tag 4, keyspace u64), end (tag 3, xxh3-64 over the items,
//! the bytes `FJL` 3). Numbers are little-endian. Behind the last batch the file ends or holds zeros.
//! Batches are written one after the other and each is synced before the next begins: so a valid batch behind damage proves
//! that what was damaged had been synced.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 4] = *b"FJL\x03";
const BUFFER_BYTES: usize = 128 * 1024;
/// Sequence numbers rise with each batch, and the engine takes a few for itself. They are outside the checksum: one that is further
/// than this from the last is damaged, and would spoil the numbers of all that follows. A smaller error does no such harm.
const SEQNO_STEP_MAX: u64 = 1 << 24;

/// How often a journal may be read over while the end of damage is looked for. What is left then counts as torn.
const PATIENCE: u64 = 16;

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Stretches of valid batches, rising. The first begins at 0 when the file begins with a valid batch.
    pub(crate) valid: Vec<Range<u64>>,
    /// Where the written part ends: the last byte that is not zero, roughly. At or above the end of the last valid stretch.
    pub(crate) written: u64,
    /// The last valid batch.
    pub(crate) last: Range<u64>,
}

impl Walk {
    /// Bytes behind the last valid batch: a commit torn by a crash.
    pub(crate) fn torn(&self) -> u64 {
        self.written - self.end()
    }

    /// Stretches of damage in front of valid batches, and their bytes.
    pub(crate) fn damage(&self) -> (u64, u64) {
        let mut at = 0;
        let (mut stretches, mut bytes) = (0, 0);
        for range in &self.valid {
            if range.start > at {
                stretches += 1;
                bytes += range.start - at;
            }
            at = range.end;
        }
        (stretches, bytes)
    }

    fn end(&self) -> u64 {
        self.valid.last().map_or(0, |range| range.end)
    }
}

/// Walks one journal.
pub(crate) fn walk(path: &Path) -> std::io::Result<Walk> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut walker = Walker {
        reader: BufReader::with_capacity(BUFFER_BYTES, file),
        at: 0,
        len,
        patience: PATIENCE * len.max(1 << 20),
    };
    let mut walk = Walk::default();
    let mut last_seqno = None;
    let mut at = 0;
    while at < len {
        match walker.batch_at(at, last_seqno)? {
            Some(batch) => {
                last_seqno = Some(batch.seqno);
                match walk.valid.last_mut() {
                    Some(range) if range.end == at => range.end = batch.end,
                    _ => walk.valid.push(at..batch.end),
                }
                walk.written = batch.end;
                walk.last = at..batch.end;
                at = batch.end;
            }
            None => {
                let Some(next) = walker.next_start(at, &mut walk.written)? else {
                    break;
                };
                at = next;
            }
        }
    }
    Ok(walk)
}

struct Walker {
    reader: BufReader<File>,
    at: u64,
    len: u64,
    /// Bytes that may still be read in vain. Payloads of strangers may look like the starts of many long batches.
    patience: u64,
}

struct Batch {
    seqno: u64,
    end: u64,
}

impl Walker {
    /// The valid batch at `at`, if there is one.
    fn batch_at(&mut self, at: u64, last: Option<u64>) -> std::io::Result<Option<Batch>> {
        if self.patience == 0 {
            return Ok(None);
        }
        self.seek(at)?;
        let found = self.batch(last);
        if !matches!(found, Ok(Some(_))) {
            self.patience = self.patience.saturating_sub(self.at - at);
        }
        match found {
            Ok(batch) => Ok(batch),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                // How much was read before the end is not known: the place is found anew.
                self.reader.seek(SeekFrom::Start(at))?;
                self.at = at;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn batch(&mut self, last: Option<u64>) -> std::io::Result<Option<Batch>> {
        let [tag] = self.take()?;
        let items = u32::from_le_bytes(self.take()?);
        let seqno = u64::from_le_bytes(self.take()?);
        let follows = last.is_none_or(|last| seqno.abs_diff(last) < SEQNO_STEP_MAX);
        if tag != 1 || items == 0 || !follows {
            return Ok(None);
        }
        let mut hash = Xxh3::new();
        for _ in 0..items {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let [tag] = self.take()?;
        let checksum = u64::from_le_bytes(self.take()?);
        let magic: [u8; 4] = self.take()?;
        let valid = tag == 3 && magic == MAGIC && checksum == hash.digest();
        Ok(valid.then_some(Batch { seqno, end: self.at }))
    }

    fn item(&mut self, hash: &mut Xxh3) -> std::io::Result<bool> {
        let [tag] = self.take()?;
        hash.update(&[tag]);
        if tag == 4 {
            hash.update(&self.take::<8>()?);
            return Ok(true);
        }
        let head: [u8; 20] = if tag == 2 { self.take()? } else { return Ok(false) };
        hash.update(&head);
        let key_len = u16::from_le_bytes([head[10], head[11]]);
        let stored_len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        let mut left = u64::from(key_len) + u64::from(stored_len);
        if self.at + left > self.len {
            return Ok(false);
        }
        let mut chunk = [0; 8192];
        while left > 0 {
            let part = usize::try_from(left.min(8192)).expect("at most 8192");
            self.reader.read_exact(&mut chunk[..part])?;
            self.at += part as u64;
            left -= part as u64;
            hash.update(&chunk[..part]);
        }
        Ok(true)
    }

    /// The next place behind `at` that may be the start of a batch. Notes the last byte that is not zero.
    fn next_start(&mut self, at: u64, written: &mut u64) -> std::io::Result<Option<u64>> {
        self.seek(at)?;
        loop {
            let base = self.at;
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let from = usize::from(base == at);
            let found = chunk
                .iter()
                .skip(from)
                .position(|byte| *byte == 1)
                .map(|offset| offset + from);
            let scanned = &chunk[..found.map_or(chunk.len(), |offset| offset + 1)];
            if let Some(last) = scanned.iter().rposition(|byte| *byte != 0) {
                *written = (*written).max(base + last as u64 + 1);
            }
            if let Some(offset) = found {
                return Ok(Some(base + offset as u64));
            }
            let len = chunk.len();
            self.reader.consume(len);
            self.at += len as u64;
        }
    }

    fn seek(&mut self, at: u64) -> std::io::Result<()> {
        // Relative, so that what is in the buffer stays in use.
        let step = at as i64 - self.at as i64;
        self.reader.seek_relative(step)?;
        self.at = at;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }
}

/// Writes the valid stretches of `path` into `target`, in order.
pub(crate) fn copy_valid(path: &Path, walk: &Walk, target: &Path) -> std::io::Result<()> {
    let mut source = File::open(path)?;
    let mut file = File::create(target)?;
    for range in &walk.valid {
        source.seek(SeekFrom::Start(range.start))?;
        std::io::copy(&mut (&mut source).take(range.end - range.start), &mut file)?;
    }
    file.sync_all()
}

/// One item of a batch. `None` as value: the key is removed.
pub(crate) struct Item {
    pub(crate) keyspace: u64,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    pub(crate) seqno: u64,
}

/// Gives all items of the valid batches of `path` to `sink`, in order. One that does not decode is left out.
pub(crate) fn items<E: From<std::io::Error>>(
    path: &Path,
    walk: &Walk,
    sink: &mut dyn FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = File::open(path)?;
    for range in &walk.valid {
        file.seek(SeekFrom::Start(range.start))?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, (&mut file).take(range.end - range.start));
        while !reader.fill_buf()?.is_empty() {
            batch_items(&mut reader, sink)?;
        }
    }
    Ok(())
}

fn batch_items<E: From<std::io::Error>>(
    reader: &mut impl Read,
    sink: &mut dyn FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    let start: [u8; 13] = take(reader)?;
    let count = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
    let mut seqno = [0; 8];
    seqno.copy_from_slice(&start[5..]);
    let seqno = u64::from_le_bytes(seqno);
    for _ in 0..count {
        let [tag] = take(reader)?;
        if tag == 4 {
            take::<8>(reader)?;
            continue;
        }
        let head: [u8; 20] = take(reader)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let keyspace = u64::from(word(2)) | u64::from(word(6)) << 32;
        let mut key = vec![0; usize::from(u16::from_le_bytes([head[10], head[11]]))];
        reader.read_exact(&mut key)?;
        // Bounded by the range, whose checksum was right.
        let mut stored = Vec::new();
        reader.by_ref().take(u64::from(word(16))).read_to_end(&mut stored)?;
        let value = match (head[0], head[1]) {
            (0, 0) => Some(Bytes::from(stored)),
            (0, 1) => match lz4_flex::decompress(&stored, word(12) as usize) {
                Ok(value) => Some(Bytes::from(value)),
                Err(_) => continue,
            },
            _ => None,
        };
        let key = Bytes::from(key);
        sink(Item {
            keyspace,
            key,
            value,
            seqno,
        })?;
    }
    take::<13>(reader)?;
    Ok(())
}

fn take<const N: usize>(reader: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes the last batch once more in its place, and syncs it.
pub(crate) fn write_last_again(path: &Path, walk: &Walk) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = usize::try_from(walk.last.end - walk.last.start).expect("a batch was in memory once");
    let mut batch = vec![0; len];
    file.read_exact_at(&mut batch, walk.last.start)?;
    file.write_all_at(&batch, walk.last.start)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqno: u64, values: &[&[u8]]) -> Vec<u8> {
        let mut items = Vec::new();
        for value in values {
            items.extend([2, 0, 0]);
            items.extend(9u64.to_le_bytes());
            items.extend(3u16.to_le_bytes());
            items.extend([u32::try_from(value.len()).unwrap().to_le_bytes(); 2].concat());
            items.extend(b"key");
            items.extend(*value);
        }
        let start = [&[1][..], &(values.len() as u32).to_le_bytes(), &seqno.to_le_bytes()].concat();
        let end = [&[3][..], &xxhash_rust::xxh3::xxh3_64(&items).to_le_bytes(), &MAGIC].concat();
        [start, items, end].concat()
    }

    fn walk_bytes(bytes: &[u8]) -> Walk {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.jnl");
        std::fs::write(&path, bytes).unwrap();
        let walk = walk(&path).unwrap();
        copy_valid(&path, &walk, &dir.path().join("healed")).unwrap();
        let healed = std::fs::read(dir.path().join("healed")).unwrap();
        assert_eq!(
            healed.len() as u64,
            walk.valid.iter().map(|range| range.end - range.start).sum::<u64>()
        );
        walk
    }

    #[test]
    fn a_journal_is_walked_to_its_end_whatever_follows() {
        let batches = [
            batch(5, &[b"one"]),
            batch(6, &[&[1; 30_000], b""]),
            batch(9, &[b"three"]),
        ]
        .concat();
        let len = batches.len() as u64;
        let all = std::slice::from_ref(&(0..len)).to_vec();
        for tail in [vec![], vec![0; 300_000]] {
            let walk = walk_bytes(&[batches.clone(), tail].concat());
            assert_eq!(
                (walk.valid.clone(), walk.torn(), walk.damage()),
                (all.clone(), 0, (0, 0))
            );
        }
        let torn = batch(10, &[b"never acknowledged"]);
        for cut in 1..torn.len() {
            let walk = walk_bytes(&[&batches, &torn[..cut], &[0; 1000][..]].concat());
            assert_eq!((walk.valid.clone(), walk.damage()), (all.clone(), (0, 0)));
            assert!(walk.torn() > 0 && walk.torn() <= cut as u64, "{cut}");
        }
        assert_eq!(walk_bytes(&[0; 5000]), Walk::default());
    }

    #[test]
    fn any_changed_byte_of_a_batch_costs_that_batch_only() {
        let parts = [
            batch(1, &[b"first"]),
            batch(2, &[b"second", b"2"]),
            batch(3, &[b"third"]),
        ];
        let (start, end) = (parts[0].len(), parts[0].len() + parts[1].len());
        for at in start..end {
            let mut bytes = parts.concat();
            bytes[at] ^= 0x40;
            let walk = walk_bytes(&bytes);
            let len = bytes.len() as u64;
            if (start + 5..start + 8).contains(&at) {
                assert_eq!(
                    (walk.valid.len(), walk.damage()),
                    (1, (0, 0)),
                    "a slightly wrong sequence number"
                );
                continue;
            }
            assert_eq!(walk.valid, [0..start as u64, end as u64..len], "byte {at}");
            assert_eq!(walk.damage(), (1, (end - start) as u64));
        }
    }

    #[test]
    fn only_the_newest_journal_may_end_with_a_torn_commit() {
        let dir = tempfile::tempdir().unwrap();
        let torn = [&batch(1, &[b"whole"])[..], &batch(2, &[b"torn"])[..20], &[0; 100]].concat();
        for name in ["2.jnl", "10.jnl"] {
            std::fs::write(dir.path().join(name), &torn).unwrap();
        }
        let findings = crate::doctor::heal(dir.path(), false).unwrap();
        assert_eq!((findings.damaged_stretches, findings.damaged_bytes > 0), (1, true));
        assert!(findings.torn_bytes > 0 && findings.torn_bytes <= 20);
        for name in ["2.jnl", "10.jnl"] {
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), batch(1, &[b"whole"]));
        }
        assert_eq!(crate::doctor::heal(dir.path(), false).unwrap(), Default::default());
    }

    /// What a stranger has published stands in the journal as it is. Here it looks like the starts of 50,000 batches, each as
    /// long as all that follows: to check each would take minutes.
    #[test]
    fn payloads_that_look_like_batches_do_not_hold_up_the_walk() {
        let (starts, one) = (50_000u32, 13 + 21);
        let mut bytes = batch(5, &[b"one"]);
        let valid = bytes.len() as u64;
        for n in 0..starts {
            bytes.extend([1, 2, 0, 0, 0]);
            bytes.extend(6u64.to_le_bytes());
            bytes.extend([2, 0, 0]);
            bytes.extend(9u64.to_le_bytes());
            bytes.extend(0u16.to_le_bytes());
            bytes.extend([((starts - n - 1) * one).to_le_bytes(); 2].concat());
        }
        let start = std::time::Instant::now();
        let walk = walk_bytes(&bytes);
        assert_eq!(walk.valid, std::slice::from_ref(&(0..valid)));
        assert!(walk.torn() > 0);
        assert!(
            start.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }

    /// Found by power cuts: a first open that was cut between the name and the bytes of the version file left a database that was taken
    /// for an unreadable one.
    #[test]
    fn a_database_whose_creation_was_cut_short_is_removed_and_one_with_a_commit_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let commit = batch(1, &[b"kept"]);
        let (zeros, torn) = (vec![0; 5000], commit[..commit.len() - 1].to_vec());
        let finished = &b"FJL\x03"[..];
        for (at, (version, journal, table, stays)) in [
            (&b""[..], &zeros, false, false),
            (b"", &commit, false, true),
            (finished, &commit, false, true),
            (finished, &torn, false, true),
            (finished, &zeros, true, true),
            // Nothing was ever written into it.
            (finished, &zeros, false, false),
        ]
        .into_iter()
        .enumerate()
        {
            let db = dir.path().join(format!("db-{at}"));
            let tables = db.join("keyspaces/7/tables");
            std::fs::create_dir_all(&tables).unwrap();
            if table {
                std::fs::write(tables.join("0"), "a table").unwrap();
            }
            std::fs::write(db.join("version"), version).unwrap();
            std::fs::write(db.join("0.jnl"), journal).unwrap();
            crate::doctor::clear_unfinished(&db).unwrap();
            assert_eq!(db.exists(), stays, "{at}");
        }
    }
}
