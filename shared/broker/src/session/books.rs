//! The books of all durable readers (P9): matched = acked + in flight + expired + dropped by reason.
//!
//! In: the ledgers that are kept with each cursor. Out: totals, the books of single readers as far as there is room, and the totals as
//! gauges for an operator. The count in flight is taken from the tables themselves, not computed, so that the equation can fail.
//! Readers are durable sessions and durable shared groups. Sessions that end with their connection have no books; what a session is
//! sent for a shared group is in the books of the group.

use std::collections::BTreeMap;

use fellbeck_core::{DropReason, LogPosition};
use metrics::gauge;

use super::shared::{Group, GroupKey};
use super::state::Session;
use super::{Core, ReaderLedger};

/// Readers that are listed one by one; of more, those whose books are open and those that lag come first.
pub const READERS_LISTED_MAX: usize = 500;

/// Totals over all durable readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// Durable sessions and groups.
    pub readers: u64,
    /// Those of them whose books do not close.
    pub open: u64,
    /// Taken up, acked, expired, dropped, skipped.
    pub ledger: ReaderLedger,
    /// Sent and not acknowledged, or waiting for their packet ID to be durable.
    pub in_flight: u64,
    /// Single readers, at most [`READERS_LISTED_MAX`].
    pub listed: Vec<ReaderBook>,
}

/// The books of one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderBook {
    /// Client ID, or `$share/NAME/FILTER` of a group.
    pub name: String,
    /// It has a connection, or one of its members has.
    pub connected: bool,
    /// Its counters.
    pub ledger: ReaderLedger,
    /// Counted from its tables.
    pub in_flight: u64,
    /// First position that is neither delivered nor in flight. `None`: it is level with the log.
    pub head: Option<LogPosition>,
}

impl Books {
    fn add(&mut self, ledger: &ReaderLedger, in_flight: u64) {
        self.readers += 1;
        self.open += u64::from(ledger.is_open(in_flight));
        self.in_flight += in_flight;
        self.ledger.matched += ledger.matched;
        self.ledger.acked += ledger.acked;
        self.ledger.expired += ledger.expired;
        self.ledger.skipped += ledger.skipped;
        for (reason, count) in &ledger.dropped {
            self.ledger.drop_taken(*reason, *count);
        }
    }

    /// Sets the gauges `fellbeck_reader_*`.
    pub fn publish(&self) {
        let ledger = &self.ledger;
        for (name, value) in [
            ("fellbeck_reader_count", self.readers),
            ("fellbeck_reader_matched", ledger.matched),
            ("fellbeck_reader_acked", ledger.acked),
            ("fellbeck_reader_in_flight", self.in_flight),
            ("fellbeck_reader_expired", ledger.expired),
            ("fellbeck_reader_skipped", ledger.skipped),
        ] {
            gauge!(name).set(value as f64);
        }
        for reason in DropReason::ALL {
            gauge!("fellbeck_reader_dropped", "reason" => reason.as_str()).set(ledger.dropped_for(*reason) as f64);
        }
    }
}

/// A durable reader, before its book is written out.
enum Candidate<'a> {
    Session(&'a Session, u64),
    Group(&'a Group, u64),
}

impl Candidate<'_> {
    fn ledger(&self) -> (&ReaderLedger, u64) {
        match self {
            Self::Session(session, in_flight) => (&session.reader.ledger, *in_flight),
            Self::Group(group, in_flight) => (&group.reader.ledger, *in_flight),
        }
    }

    /// 0 is listed first.
    fn rank(&self) -> u8 {
        let (ledger, in_flight) = self.ledger();
        let level = match self {
            Self::Session(session, _) => session.reader.is_level(),
            Self::Group(group, _) => group.reader.is_level(),
        };
        match (ledger.is_open(in_flight), level) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        }
    }
}

impl Core {
    /// The books of all durable readers. Costs a look at each: once a second is often enough.
    #[must_use]
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        let held = self.held_for_groups();
        let sessions = self.sessions.iter().filter(|session| session.is_durable());
        let sessions = sessions.map(|session| Candidate::Session(session, session.in_flight.of_its_own() as u64));
        let groups = self.groups.iter().filter(|group| group.is_durable());
        let groups = groups.map(|group| Candidate::Group(group, held.get(&group.key).copied().unwrap_or(0)));
        let candidates: Vec<_> = sessions.chain(groups).collect();
        for candidate in &candidates {
            let (ledger, in_flight) = candidate.ledger();
            books.add(ledger, in_flight);
        }
        for rank in 0..=2 {
            let room = READERS_LISTED_MAX - books.listed.len();
            let of_rank = candidates.iter().filter(|candidate| candidate.rank() == rank);
            books
                .listed
                .extend(of_rank.take(room).map(|candidate| self.book(candidate)));
        }
        books
    }

    /// What members of shared groups hold, by group.
    fn held_for_groups(&self) -> BTreeMap<GroupKey, u64> {
        let mut held = BTreeMap::new();
        // One that has left a group may still finish what it was sent.
        for session in self.sessions.iter() {
            for group in session.in_flight.iter().filter_map(|entry| entry.source.group()) {
                *held.entry(group).or_default() += 1;
            }
        }
        held
    }

    fn book(&self, candidate: &Candidate<'_>) -> ReaderBook {
        let (ledger, in_flight) = candidate.ledger();
        let (name, connected, reader) = match candidate {
            Candidate::Session(session, _) => (
                session.client_id.to_string(),
                session.attached.is_some(),
                &session.reader,
            ),
            Candidate::Group(group, _) => {
                let name = format!("$share/{}/{}", group.share, group.filter);
                (name, !group.is_away(&self.sessions), &group.reader)
            }
        };
        ReaderBook {
            name,
            connected,
            ledger: ledger.clone(),
            in_flight,
            head: (!reader.is_level()).then(|| reader.head(self.fanned)),
        }
    }
}
