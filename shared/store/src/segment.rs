//! Reading inside one segment: its entries in order, and the entry at a number or a commit.

use bytes::Bytes;
use fellbeck_core::{CommitNumber, Seq};
use fjall::Keyspace;

use crate::catalog::{Located, Span};
use crate::error::{ReadError, is_refusal};
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

/// Why an entry cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The system refuses at this moment: to be asked again, nothing is known to be lost.
    Refused(ReadError),
    /// What is on disk is not what was written.
    Damaged(String),
}

impl From<fjall::Error> for Unreadable {
    fn from(error: fjall::Error) -> Self {
        if is_refusal(&error) {
            Self::Refused(error.into())
        } else {
            Self::Damaged(error.to_string())
        }
    }
}

/// The entries of a span, rising. Behind an error nothing more comes of it.
pub(crate) struct Entries(fjall::Iter);

impl Entries {
    /// Entries with a first number in `from..span.end`.
    pub(crate) fn from(keyspace: &Keyspace, span: Span, from: Seq) -> Self {
        let from = from.min(span.end);
        Self(keyspace.range(entry_key(span.track, from)..entry_key(span.track, span.end)))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(parse)
    }
}

fn parse(guard: fjall::Guard) -> Result<Entry, Unreadable> {
    let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
    let (key, value) = guard.into_inner()?;
    let (_, first) = parse_entry_key(&key).ok_or_else(|| damaged("a key that is not one of an entry"))?;
    let mut batch = Bytes::from(value);
    let head = Head::take(&mut batch).ok_or_else(|| damaged("a value without a head"))?;
    Ok(Entry { first, head, batch })
}

/// Opens the entries of a located span such that the first one holds `at`, where there is such an entry.
pub(crate) fn open_at(located: &Located, at: Seq) -> Result<Entries, ReadError> {
    let Located { keyspace, span, .. } = located;
    if at <= span.first {
        return Ok(Entries::from(keyspace, *span, span.first));
    }
    let below = keyspace
        .range(entry_key(span.track, span.first)..=entry_key(span.track, at))
        .next_back()
        .map(|guard| guard.key().map_err(Unreadable::from));
    let first = match below {
        Some(Ok(key)) => parse_entry_key(&key).map(|(_, first)| first),
        Some(Err(Unreadable::Refused(error))) => return Err(error),
        Some(Err(Unreadable::Damaged(_))) => Some(at),
        None => None,
    };
    Ok(Entries::from(keyspace, *span, first.unwrap_or(span.first)))
}

/// A number above `damaged` from which on there is something to read again, or the end: behind one stretch of damage the first
/// such number. Takes O(log n) probes, of which those inside the damage read a block each.
pub(crate) fn resume(located: &Located, damaged: Seq) -> Result<Seq, ReadError> {
    let Located { keyspace, span, .. } = located;
    let sound = |at: u128| match Entries::from(keyspace, *span, Seq(at as u64)).next() {
        Some(Err(Unreadable::Refused(error))) => Err(error),
        Some(Err(Unreadable::Damaged(_))) => Ok(false),
        Some(Ok(_)) | None => Ok(true),
    };
    let found = behind(u128::from(damaged.0), u128::from(span.end.0), sound)?;
    Ok(Seq(u64::try_from(found).unwrap_or(u64::MAX)))
}

/// The first number above `damaged` that is `sound`, or `end`; widens its steps, then halves them.
pub(crate) fn behind<E>(damaged: u128, end: u128, mut sound: impl FnMut(u128) -> Result<bool, E>) -> Result<u128, E> {
    let (mut low, mut high, mut step) = (damaged, end, 1u128);
    while low.saturating_add(step) < end {
        let at = low + step;
        if sound(at)? {
            high = at;
            break;
        }
        low = at;
        step = step.saturating_mul(2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if sound(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

/// A number in the span such that no entry before it has a commit at or above `commit`: the first of such a commit, unless the
/// search comes upon damage. The end of the span when there is none.
///
/// Commits rise with the numbers, so this probes O(log n) entries.
pub(crate) fn seek_commit(located: &Located, commit: CommitNumber) -> Result<Seq, ReadError> {
    let Located { keyspace, span, .. } = located;
    if located.first_commit >= commit {
        return Ok(span.first);
    }
    let (mut low, mut high) = (span.first, span.end);
    while low < high {
        let middle = Seq(low.0 + (high.0 - low.0) / 2);
        match Entries::from(keyspace, *span, middle).next() {
            Some(Ok(entry)) if entry.head.commit < commit => low = entry.end().max(middle.next()),
            Some(Err(Unreadable::Refused(error))) => return Err(error),
            Some(Ok(_) | Err(Unreadable::Damaged(_))) | None => high = middle,
        }
    }
    Ok(low.min(span.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_on_right_behind_the_damage_wherever_it_is() {
        for (end, from, to) in [
            (100, 0, 1),
            (100, 10, 11),
            (100, 10, 50),
            (100, 99, 100),
            (100, 0, 100),
            (9, 3, 8),
        ] {
            let mut probes = 0;
            let found = behind(from, end, |at| {
                probes += 1;
                Ok::<_, ()>(at >= to)
            });
            assert_eq!(found, Ok(to), "damage at {from}..{to}");
            assert!(probes < 16, "{probes}");
        }
        assert_eq!(behind(1, 9, |_| Err("refused")), Err("refused"));
    }
}
