//! The RAM window: which segments have records in memory tables, and when these must be written out.
//!
//! The engine keeps what was committed in memory tables and in its journal. Segments that die young never reach a table file,
//! which halves the flash writes of an edge that is online; but old ones must go, or memory and journals grow without bound.
//! Rules: over the window, the oldest goes first; over its own bound, a segment goes; and after each stretch of journal,
//! whatever was dirty before that stretch goes, so that a track with little traffic does not keep a journal alive.

/// A segment with records in its memory table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dirty {
    segment: u64,
    bytes: u64,
    /// Place in the journal of its oldest record that is not in a table.
    since: u64,
}

#[derive(Debug)]
pub(crate) struct Memory {
    dirty: Vec<Dirty>,
    /// Bytes written to the journal since open.
    journal: u64,
    last_nudge: u64,
    window: u64,
    segment_max: u64,
    nudge: u64,
}

/// What is to be written out now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flush {
    pub(crate) segments: Vec<u64>,
    /// The keyed stores and the index, too.
    pub(crate) keyed: bool,
    /// Bytes of the segments.
    pub(crate) bytes: u64,
}

impl Memory {
    pub(crate) fn new(window: u64, segment_max: u64, nudge: u64) -> Self {
        Self {
            dirty: Vec::new(),
            journal: 0,
            last_nudge: 0,
            window,
            segment_max,
            nudge,
        }
    }

    /// Notes `bytes` of records in a segment.
    pub(crate) fn wrote(&mut self, segment: u64, bytes: u64) {
        match self.dirty.iter_mut().find(|dirty| dirty.segment == segment) {
            Some(dirty) => dirty.bytes += bytes,
            None => self.dirty.push(Dirty {
                segment,
                bytes,
                since: self.journal,
            }),
        }
    }

    /// Notes `bytes` of journal.
    pub(crate) fn journaled(&mut self, bytes: u64) {
        self.journal += bytes;
    }

    /// The segment is gone.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.dirty.retain(|dirty| dirty.segment != segment);
    }

    /// Chooses what to write out, and takes it as done.
    pub(crate) fn choose(&mut self) -> Flush {
        let nudge = self.journal - self.last_nudge >= self.nudge;
        let mut flush = Flush {
            keyed: nudge,
            ..Flush::default()
        };
        let (segment_max, last_nudge) = (self.segment_max, self.last_nudge);
        let mut total: u64 = self.dirty.iter().map(|dirty| dirty.bytes).sum();
        self.dirty.retain(|dirty| {
            let stale = nudge && dirty.since <= last_nudge;
            let go = stale || dirty.bytes >= segment_max || total > self.window;
            if go {
                total -= dirty.bytes;
                flush.segments.push(dirty.segment);
                flush.bytes += dirty.bytes;
            }
            !go
        });
        if nudge {
            self.last_nudge = self.journal;
        }
        flush
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_segment_leaves_when_the_window_is_full() {
        let mut memory = Memory::new(100, 1000, 10_000);
        memory.wrote(1, 60);
        memory.wrote(2, 40);
        assert_eq!(memory.choose(), Flush::default());
        memory.wrote(3, 1);
        assert_eq!(memory.choose().segments, [1]);
        memory.forget(2);
        memory.wrote(4, 99);
        assert_eq!(memory.choose(), Flush::default());
    }

    #[test]
    fn a_quiet_segment_leaves_at_the_second_nudge_and_a_large_one_at_once() {
        let mut memory = Memory::new(1000, 50, 100);
        memory.journaled(10);
        memory.wrote(1, 1);
        memory.wrote(2, 50);
        assert_eq!(memory.choose().segments, [2]);
        memory.journaled(100);
        let flush = memory.choose();
        assert!(flush.keyed && flush.segments.is_empty());
        memory.wrote(3, 1);
        memory.journaled(100);
        let flush = memory.choose();
        assert_eq!((flush.keyed, flush.segments), (true, vec![1, 3]));
    }
}
