//! What a session with a cursor and a shared group have in common: a place in the log, and the messages taken from there.
//!
//! A reader is *live* while it is level with the fan-out: committed blocks are offered to it as they come, and it keeps what it
//! cannot send at once. It is *behind* when it is not: then it reads the log from `filled` on, and the fan-out passes it by.
//! Invariants: everything below `filled` was delivered, is in flight, is in the queue, or did not match. A live reader's
//! `filled` is never behind the fan-out (the stored value may be, see [`Reader::filled`]), so no record is missed or seen twice
//! when it changes from one to the other.

use fellbeck_core::{CommitNumber, LogPosition, QoS};

use super::ledger::ReaderLedger;
use super::message::{Item, Queue};

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Fed by the fan-out.
    Live,
    /// Reads the log.
    Behind,
}

/// Where a reader's request for a read of the log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing asked for.
    No,
    /// In the list of those who want one.
    Listed,
    /// Handed out by `poll_read`, not answered.
    Asked,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) mode: Mode,
    filled: LogPosition,
    pub(super) queue: Queue,
    /// Matching records at QoS 1 and 2 that the fan-out has seen behind `filled` while this reader was behind. A lower bound
    /// after a restart.
    pub(super) unread: u64,
    /// Behind and not connected: the record at `filled` is known to match, so there is no use in reading on.
    pub(super) found: bool,
    pub(super) reading: Reading,
    pub(super) ledger: ReaderLedger,
    /// The stored cursor is out of date.
    pub(super) dirty: bool,
    /// Fan-out: the record that this reader last matched, and where its match stands.
    pub(super) stamp: u64,
    pub(super) match_at: u32,
}

impl Reader {
    /// A reader that sees what is committed after `since`, and is level with the fan-out.
    pub(super) fn live(since: CommitNumber) -> Self {
        Self {
            mode: Mode::Live,
            filled: LogPosition::after(since),
            queue: Queue::default(),
            unread: 0,
            found: false,
            reading: Reading::No,
            ledger: ReaderLedger::default(),
            dirty: false,
            stamp: 0,
            match_at: 0,
        }
    }

    /// A reader that has to read the log from `head` on.
    pub(super) fn behind(head: LogPosition) -> Self {
        Self {
            mode: Mode::Behind,
            filled: head,
            ..Self::live(head.commit)
        }
    }

    /// First position that has not been considered. `fanned` is the last commit that was fanned out.
    pub(super) fn filled(&self, fanned: CommitNumber) -> LogPosition {
        match self.mode {
            Mode::Live => self.filled.max(LogPosition::after(fanned)),
            Mode::Behind => self.filled,
        }
    }

    /// Whether the fan-out may offer the record at `position`.
    pub(super) fn takes(&self, position: LogPosition) -> bool {
        self.mode == Mode::Live && position >= self.filled
    }

    /// First position that was neither delivered nor is in flight: what the durable cursor says.
    pub(super) fn head(&self, fanned: CommitNumber) -> LogPosition {
        self.queue.first_position().unwrap_or_else(|| self.filled(fanned))
    }

    /// Nothing is left to deliver: the head follows the fan-out without a write of its own.
    pub(super) fn is_level(&self) -> bool {
        self.mode == Mode::Live && self.queue.is_empty()
    }

    /// The record at `position` was not taken: it will be read from the log.
    pub(super) fn fall_behind(&mut self, position: LogPosition) {
        debug_assert!(
            self.mode == Mode::Behind || position >= self.filled,
            "a live reader goes back only to what it has not considered"
        );
        self.mode = Mode::Behind;
        self.filled = position;
    }

    /// Gives the queue up: the log has it. What no log holds is handed back.
    pub(super) fn rewind(&mut self, fanned: CommitNumber) -> Vec<Item> {
        let head = self.head(fanned);
        if head < self.filled(fanned) {
            let logged = self.queue.iter().filter(|item| item.position().is_some());
            let mut kept = logged.map(|item| item.qos != QoS::AtMostOnce);
            // A QoS 0 message at the head is nothing to wait for: a reader that is away reads on past it.
            self.found = kept.next().unwrap_or(false);
            self.unread += u64::from(self.found) + kept.filter(|kept| *kept).count() as u64;
            self.mode = Mode::Behind;
            self.filled = head;
        }
        self.queue.take().filter(|item| item.position().is_none()).collect()
    }

    /// All below `next` has been considered, and what is there is not taken now.
    pub(super) fn advance_behind(&mut self, next: LogPosition) {
        debug_assert!(next >= self.filled, "a reader never goes back");
        self.filled = next;
    }

    /// All below `next` has been considered. `fanned` is the last commit that was fanned out.
    pub(super) fn advance(&mut self, next: LogPosition, fanned: CommitNumber) {
        debug_assert!(next >= self.filled, "a reader never goes back");
        self.filled = next;
        if next >= LogPosition::after(fanned) {
            self.mode = Mode::Live;
            self.unread = 0;
            self.found = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_read_ahead_of_the_fan_out_skips_what_it_has() {
        let mut reader = Reader::behind(LogPosition::after(CommitNumber(3)));
        let ahead = LogPosition::after(CommitNumber(9));
        reader.advance(ahead, CommitNumber(7));
        assert_eq!(reader.mode, Mode::Live);
        assert!(!reader.takes(LogPosition::start_of(CommitNumber(9))) && reader.takes(ahead));
        assert_eq!(reader.head(CommitNumber(8)), ahead);
        assert_eq!(reader.head(CommitNumber(20)), LogPosition::after(CommitNumber(20)));
    }
}
