//! Reading inside one segment: its entries in order, and the entry at a number or a commit.

use bytes::Bytes;
use fellbeck_core::{CommitNumber, Seq};
use fjall::Keyspace;

use crate::catalog::{Located, Span};
use crate::key::{Head, entry_key, parse_entry_key};

/// One entry: its first number, its head and the batch behind it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) first: Seq,
    pub(crate) head: Head,
    pub(crate) batch: Bytes,
}

impl Entry {
    /// The number after the last record.
    pub(crate) fn end(&self) -> Seq {
        Seq(self.first.0.saturating_add(u64::from(self.head.count)))
    }
}

/// The entries of a span, rising. An error ends what can be read of the segment.
pub(crate) struct Entries(fjall::Iter);

impl Entries {
    /// Entries with a first number in `from..span.end`.
    pub(crate) fn from(keyspace: &Keyspace, span: Span, from: Seq) -> Self {
        Self(keyspace.range(entry_key(span.track, from)..entry_key(span.track, span.end)))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(parse)
    }
}

fn parse(guard: fjall::Guard) -> Result<Entry, String> {
    let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
    let (_, first) = parse_entry_key(&key).ok_or("a key that is not one of an entry")?;
    let mut batch = Bytes::from(value);
    let head = Head::take(&mut batch).ok_or("a value without a head")?;
    Ok(Entry { first, head, batch })
}

/// Opens the entries of a located span such that the first one holds `at`, where there is such an entry.
pub(crate) fn open_at(located: &Located, at: Seq) -> Entries {
    let Located { keyspace, span, .. } = located;
    if at <= span.first {
        return Entries::from(keyspace, *span, span.first);
    }
    let below = keyspace
        .range(entry_key(span.track, span.first)..=entry_key(span.track, at))
        .next_back()
        .and_then(|guard| parse_entry_key(&guard.key().ok()?));
    Entries::from(keyspace, *span, below.map_or(span.first, |(_, first)| first))
}

/// The first number in the span whose entry has a commit at or above `commit`; the end of the span when there is none.
///
/// Commits rise with the numbers, so this probes O(log n) entries. Unreadable entries count as older.
pub(crate) fn seek_commit(located: &Located, commit: CommitNumber) -> Seq {
    let Located { keyspace, span, .. } = located;
    if located.first_commit >= commit {
        return span.first;
    }
    let (mut low, mut high) = (span.first, span.end);
    while low < high {
        let middle = Seq(low.0 + (high.0 - low.0) / 2);
        match Entries::from(keyspace, *span, middle).next() {
            Some(Ok(entry)) if entry.head.commit < commit => low = entry.end().max(middle.next()),
            Some(Err(_)) => low = middle.next(),
            Some(Ok(_)) | None => high = middle,
        }
    }
    low.min(span.end)
}
