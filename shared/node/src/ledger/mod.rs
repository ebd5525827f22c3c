//! The books of a node (P9): what was appended, matched or received, and what became of it.
//!
//! In: counts from the store, the readers and the links, each taken where it arises. Out: [`Ledger`], which says of each book whether
//! it closes and by how much it does not; its JSON (`/api/v1/ledger`), its table, and the commands `fellbeck-edge ledger` and
//! `fellbeck-cloud ledger`. The equations are pure; no side of one is computed from the other.

mod command;
mod fetch;
mod gather;
mod source;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use command::{LedgerArgs, ledger_command};
pub use gather::{ReaderSource, Shelf, readers, track_book};
pub use source::LedgerSource;

/// All books of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// `edge` or `cloud`.
    pub node: String,
    /// Whether all books close.
    pub closes: bool,
    /// Books that do not.
    pub open: u64,
    /// Lanes of an edge, partitions of a cloud.
    pub tracks: Vec<TrackBook>,
    /// Of a cloud: each lane of each edge as the links brought it.
    pub lanes: Vec<LaneBook>,
    /// Of a cloud: the links against the log.
    pub log: Option<LogBook>,
    /// Persistent sessions and shared groups, as far as there was room.
    pub readers: Vec<ReaderBook>,
    /// All readers, listed or not.
    pub readers_total: ReaderTotal,
}

/// A lane or partition, by position: appended = acked + queued + expired + gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackBook {
    /// Name of the track, e.g. `lane/default/0` or `stream/default/3`.
    pub track: String,
    /// Positions handed out over the life of the store.
    pub appended: u64,
    /// Acknowledged by the cloud; of a track without uplink: no session needs them any more.
    pub acked: u64,
    /// Still to be sent (lane), or held for readers (partition).
    pub queued: u64,
    /// Not sent since they had expired (lane), or deleted by retention (partition).
    pub expired: u64,
    /// Lost, and declared.
    pub gap: u64,
    /// Appended less all of the above; 0 when the book closes.
    pub difference: i64,
}

/// One lane of one edge instance as the cloud received it: through = base + stored + known + heartbeats + expired + gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneBook {
    /// Edge.
    pub edge: String,
    /// Its instance.
    pub instance: u32,
    /// Lane.
    pub lane: String,
    /// Run within it.
    pub run: u16,
    /// W: all up to here is accounted for.
    pub through: u64,
    /// Positions from before this book was opened: by an older program, or under an older instance.
    pub base: u64,
    /// Records appended to partitions.
    pub stored: u64,
    /// Records that a partition had already.
    pub known: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Declared as expired by the edge.
    pub expired: u64,
    /// Declared as lost, by the edge or by this node.
    pub gap: u64,
    /// What the edge said last that it had appended, where it said so since this node started.
    pub edge_appended: Option<u64>,
    /// Of that, what is still to come.
    pub waiting: Option<u64>,
    /// Through less all of the above: holes that nobody declared; 0 when the book closes.
    pub difference: i64,
}

/// The links against the log: no more can have been stored than was appended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBook {
    /// Records ever appended to the streams, declared gaps apart.
    pub appended: u64,
    /// Of those, records of links, by the books of the lanes.
    pub stored: u64,
    /// The rest: published on this node, or stored before the books were opened.
    pub others: u64,
    /// Records by which the lanes claim more than the log got; 0 when the book closes.
    pub difference: i64,
}

/// A reader, by counters kept with its cursor: matched = acked + in flight + expired + dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderBook {
    /// Client ID, or `$share/NAME/FILTER`.
    pub reader: String,
    /// It has a connection.
    pub connected: bool,
    /// Taken up for delivery.
    pub matched: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Sent, or about to be, and not acknowledged: counted from the table.
    pub in_flight: u64,
    /// Not delivered since it had expired.
    pub expired: u64,
    /// Not delivered, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Records that were gone before this reader came to them.
    pub skipped: u64,
    /// Records of the log behind the head, whether they match or not. `None`: could not be counted now.
    pub unread: Option<u64>,
    /// Matched less acked, in flight, expired and dropped; 0 when the book closes.
    pub difference: i64,
}

/// Readers together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderTotal {
    /// Readers.
    pub readers: u64,
    /// Those whose books do not close.
    pub open: u64,
    /// Those that are not listed.
    pub omitted: u64,
}

/// `left` less the sum of `right`, as far as an `i64` goes.
fn difference(left: u64, right: impl IntoIterator<Item = u64>) -> i64 {
    let right: i128 = right.into_iter().map(i128::from).sum();
    let difference = i128::from(left) - right;
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

impl TrackBook {
    /// Strikes the balance.
    #[must_use]
    pub fn balanced(mut self) -> Self {
        self.difference = difference(self.appended, [self.acked, self.queued, self.expired, self.gap]);
        self
    }
}

impl LaneBook {
    /// Strikes the balance.
    #[must_use]
    pub fn balanced(mut self) -> Self {
        let right = [
            self.base,
            self.stored,
            self.known,
            self.heartbeats,
            self.expired,
            self.gap,
        ];
        self.difference = difference(self.through, right);
        self.waiting = self.edge_appended.map(|appended| appended.saturating_sub(self.through));
        self
    }
}

impl LogBook {
    /// Strikes the balance between what the log got and what the `lanes` say that they stored.
    #[must_use]
    pub fn of(appended: u64, lanes: &[LaneBook]) -> Self {
        let stored = lanes.iter().map(|lane| lane.stored).fold(0, u64::saturating_add);
        Self {
            appended,
            stored,
            others: appended.saturating_sub(stored),
            difference: difference(appended, [stored]).min(0),
        }
    }
}

impl ReaderBook {
    /// Strikes the balance.
    #[must_use]
    pub fn balanced(mut self) -> Self {
        let dropped = self.dropped.values().copied();
        let right = [self.acked, self.in_flight, self.expired].into_iter().chain(dropped);
        self.difference = difference(self.matched, right);
        self
    }
}

impl Ledger {
    /// Counts the books that do not close. Whoever reads a ledger strikes its balances anew: they are not taken on trust.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.tracks = self.tracks.into_iter().map(TrackBook::balanced).collect();
        self.lanes = self.lanes.into_iter().map(LaneBook::balanced).collect();
        self.readers = self.readers.into_iter().map(ReaderBook::balanced).collect();
        let tracks = self.tracks.iter().map(|book| book.difference);
        let lanes = self.lanes.iter().map(|book| book.difference);
        let log = self.log.iter().map(|book| book.difference);
        let open = tracks
            .chain(lanes)
            .chain(log)
            .filter(|difference| *difference != 0)
            .count() as u64;
        let readers = self.readers.iter().filter(|book| book.difference != 0).count() as u64;
        // Those that do not close are listed first, so the total is the larger only where the list is full.
        self.open = open + readers.max(self.readers_total.open);
        self.closes = self.open == 0;
        self
    }

    /// Sets the gauges `fellbeck_ledger_open_books` and `fellbeck_ledger_difference`.
    pub fn publish(&self) {
        let sum =
            |differences: &mut dyn Iterator<Item = i64>| differences.map(|d| d.unsigned_abs() as f64).sum::<f64>();
        let kinds = [
            ("track", sum(&mut self.tracks.iter().map(|book| book.difference))),
            ("lane", sum(&mut self.lanes.iter().map(|book| book.difference))),
            ("log", sum(&mut self.log.iter().map(|book| book.difference))),
            ("reader", sum(&mut self.readers.iter().map(|book| book.difference))),
        ];
        for (kind, value) in kinds {
            metrics::gauge!("fellbeck_ledger_difference", "book" => kind).set(value);
        }
        metrics::gauge!("fellbeck_ledger_open_books").set(self.open as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closing() -> Ledger {
        Ledger {
            tracks: vec![TrackBook {
                appended: 10,
                acked: 4,
                queued: 3,
                expired: 2,
                gap: 1,
                ..TrackBook::default()
            }],
            lanes: vec![LaneBook {
                through: 30,
                base: 5,
                stored: 10,
                known: 1,
                heartbeats: 2,
                expired: 4,
                gap: 8,
                edge_appended: Some(33),
                ..LaneBook::default()
            }],
            log: Some(LogBook::of(10, &[])),
            readers: vec![ReaderBook {
                matched: 9,
                acked: 3,
                in_flight: 1,
                expired: 2,
                dropped: [("trimmed".to_owned(), 3)].into(),
                ..ReaderBook::default()
            }],
            ..Ledger::default()
        }
    }

    #[test]
    fn books_that_add_up_close_and_one_position_less_opens_them() {
        let ledger = closing().closed();
        assert!(ledger.closes, "{ledger:?}");
        assert_eq!(ledger.lanes[0].waiting, Some(3));
        type Change = fn(&mut Ledger);
        let changes: [(Change, i64); 9] = [
            (|ledger| ledger.tracks[0].acked -= 1, 1),
            (|ledger| ledger.tracks[0].gap += 1, -1),
            (|ledger| ledger.tracks[0].expired -= 1, 1),
            (|ledger| ledger.lanes[0].stored -= 1, 1),
            (|ledger| ledger.lanes[0].known += 1, -1),
            (|ledger| ledger.lanes[0].heartbeats -= 1, 1),
            (|ledger| ledger.readers[0].in_flight += 1, -1),
            (|ledger| ledger.readers[0].dropped.clear(), 3),
            (|ledger| ledger.readers[0].matched = u64::MAX, i64::MAX),
        ];
        for (change, expected) in changes {
            let mut ledger = closing();
            change(&mut ledger);
            let ledger = ledger.closed();
            assert!(!ledger.closes && ledger.open == 1, "{ledger:?}");
            let found = ledger.tracks[0].difference + ledger.lanes[0].difference;
            assert_eq!(found.saturating_add(ledger.readers[0].difference), expected);
        }
    }

    #[test]
    fn lanes_that_claim_more_than_the_log_got_do_not_close() {
        let lanes = [LaneBook {
            stored: 11,
            ..LaneBook::default()
        }];
        assert_eq!(LogBook::of(10, &lanes).difference, -1);
        assert_eq!(LogBook::of(12, &lanes).others, 1);
    }

    /// What a node says of itself is not believed: a JSON with `closes` and balances of 0 is balanced anew.
    #[test]
    fn a_ledger_from_outside_is_balanced_anew() {
        let json = r#"{"node":"cloud","closes":true,"tracks":[{"track":"t","appended":2,"acked":0,"queued":1,"expired":0,"gap":0,"difference":0}]}"#;
        let ledger: Ledger = serde_json::from_str(json).unwrap();
        assert!(!ledger.closed().closes);
    }

    #[test]
    fn a_ledger_comes_back_from_its_json() {
        let ledger = closing().closed();
        let json = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&json).unwrap(), ledger);
    }
}
