//! Walks the entries of one track, segment by segment, up to a fixed end.
//!
//! Holes and damaged stretches come out as such, never as an error that would stop a reader for ever. What the system refuses at
//! the moment (descriptors, memory, the device) is an error: it says nothing of the records, and is asked for again.

use fellbeck_core::{Seq, TrackId};

use crate::catalog::Located;
use crate::error::ReadError;
use crate::segment::{Entries, Entry, Unreadable, open_at, resume};
use crate::shared::Shared;

/// What stands at a position of a track.
#[derive(Debug)]
pub(crate) enum Step {
    /// An entry.
    Entry(Entry),
    /// Nothing readable: `first..end`.
    Hole { first: Seq, end: Seq },
}

pub(crate) struct TrackCursor<'a> {
    shared: &'a Shared,
    track: TrackId,
    /// The next number to come out.
    at: Seq,
    /// Where the track ended when the read began.
    end: Seq,
    open: Option<Open>,
    /// An entry behind a hole that has just come out.
    waiting: Option<Entry>,
}

struct Open {
    located: Located,
    entries: Entries,
    /// Where the segment's numbers of this track end.
    end: Seq,
}

impl<'a> TrackCursor<'a> {
    pub(crate) fn new(shared: &'a Shared, track: TrackId, at: Seq, end: Seq) -> Self {
        Self {
            shared,
            track,
            at,
            end,
            open: None,
            waiting: None,
        }
    }

    pub(crate) fn at(&self) -> Seq {
        self.at
    }

    /// The next entry or hole; the first entry may begin below the start. `None` at the end. After an error the same is read
    /// again.
    pub(crate) fn next(&mut self) -> Result<Option<Step>, ReadError> {
        if let Some(entry) = self.waiting.take() {
            return Ok(Some(self.entry(entry)));
        }
        while self.at < self.end {
            if self.open.is_none() {
                let Some(located) = self.shared.catalog().locate(self.track, self.at) else {
                    return Ok(Some(self.hole(self.end)));
                };
                self.open = Some(Open {
                    end: located.span.end.min(self.end),
                    entries: open_at(&located, self.at)?,
                    located,
                });
            }
            if let Some(step) = self.step()? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    /// One step within the open segment. `None`: look further.
    fn step(&mut self) -> Result<Option<Step>, ReadError> {
        let Some(open) = self.open.as_mut() else {
            return Ok(None);
        };
        Ok(match open.entries.next() {
            Some(Ok(entry)) if entry.end() <= self.at => None,
            Some(Ok(entry)) if entry.first >= self.end => self.leave(),
            Some(Ok(entry)) if entry.first > self.at => {
                let hole = self.hole(entry.first);
                self.waiting = Some(entry);
                Some(hole)
            }
            Some(Ok(entry)) => Some(self.entry(entry)),
            Some(Err(Unreadable::Damaged(reason))) => {
                let (track, seq) = (self.track.0, self.at.0);
                tracing::error!(track, seq, reason, "a segment cannot be read here");
                metrics::counter!("fellbeck_store_unreadable_stretches_total").increment(1);
                let next = match resume(&open.located, self.at) {
                    Ok(next) => next,
                    Err(error) => {
                        self.open = None;
                        return Err(error);
                    }
                };
                open.entries = Entries::from(&open.located.keyspace, open.located.span, next);
                None
            }
            Some(Err(Unreadable::Refused(error))) => {
                self.open = None;
                return Err(error);
            }
            None => self.leave(),
        })
    }

    /// Closes the open segment; what it should have held and did not is a hole.
    fn leave(&mut self) -> Option<Step> {
        let end = self.open.take()?.end;
        (self.at < end).then(|| self.hole(end))
    }

    fn entry(&mut self, entry: Entry) -> Step {
        self.at = entry.end();
        Step::Entry(entry)
    }

    fn hole(&mut self, end: Seq) -> Step {
        let first = std::mem::replace(&mut self.at, end);
        Step::Hole { first, end }
    }
}
