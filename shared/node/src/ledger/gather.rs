//! From the store and the session core to books.
//!
//! In: a store, and the books of readers: those of a running broker, or those that the sessions in a store at rest give.
//! Out: books of tracks and readers. Blocks: counts unread records on flash.

use std::sync::Arc;

use fellbeck_broker::session::{Books, Core, CoreConfig, CoreLimits, Mode, Now, Route};
use fellbeck_core::{ClockQuality, Tick, TrackId, WallTime};
use fellbeck_store::{Space, Store, TrackLedger};
use tokio::sync::watch;

use super::{ReaderBook, ReaderTotal, TrackBook};
use crate::NodeError;

/// Readers behind the log whose unread records are counted in one ledger: each costs some reads of flash.
const UNREAD_MAX: usize = 100;

/// Where the books of readers come from. `None`: the broker is off.
pub type ReaderSource = Option<watch::Receiver<Arc<Books>>>;

/// What a track's end, held records and gaps stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Read by sessions only: what is gone is no longer needed.
    Sessions,
    /// Of a cloud: what is gone was deleted by retention.
    Retention,
}

/// The book of a track without an uplink.
#[must_use]
pub fn track_book(track: &TrackLedger, shelf: Shelf) -> TrackBook {
    let gone = track.first.0.saturating_sub(1);
    let (acked, expired) = match shelf {
        Shelf::Sessions => (gone, 0),
        Shelf::Retention => (0, gone),
    };
    TrackBook {
        track: track.name.clone(),
        appended: track.appended,
        acked,
        queued: track.held.records,
        expired,
        gap: track.held.gap,
        ..TrackBook::default()
    }
    .balanced()
}

/// The books of all readers of a node. With a `store` what is unread is counted, which blocks.
#[must_use]
pub fn readers(books: &Books, store: Option<&Store>) -> (Vec<ReaderBook>, ReaderTotal) {
    let mut counted = 0;
    let book = |reader: &fellbeck_broker::session::ReaderBook| {
        let unread = match reader.head {
            None => Some(0),
            Some(head) if counted < UNREAD_MAX => {
                counted += 1;
                store.and_then(|store| store.unread(head).ok())
            }
            Some(_) => None,
        };
        let ledger = &reader.ledger;
        let dropped = ledger
            .dropped
            .iter()
            .map(|(reason, count)| (reason.as_str().to_owned(), *count));
        ReaderBook {
            reader: reader.name.clone(),
            connected: reader.connected,
            matched: ledger.matched,
            acked: ledger.acked,
            in_flight: reader.in_flight,
            expired: ledger.expired,
            dropped: dropped.collect(),
            skipped: ledger.skipped,
            unread,
            difference: 0,
        }
        .balanced()
    };
    let listed: Vec<_> = books.listed.iter().map(book).collect();
    let total = ReaderTotal {
        readers: books.readers,
        open: books.open,
        omitted: books.readers - listed.len() as u64,
    };
    (listed, total)
}

/// Routes nothing: a core that only reads what is stored.
struct Nowhere;

impl Route for Nowhere {
    fn route(&self, _topic: &str, _device: &str) -> Option<TrackId> {
        None
    }
}

/// The books of the sessions in a store at rest. Blocks.
pub(super) fn books_at_rest(store: &Store) -> Result<Books, NodeError> {
    let state = |error: &dyn std::fmt::Display| NodeError::State(error.to_string());
    let values = store.load(Space::Session).map_err(|error| state(&error))?;
    let config = CoreConfig {
        mode: Mode::CommittedOnly,
        local_track: None,
        limits: CoreLimits::default(),
    };
    let mut core = Core::new(config, Box::new(Nowhere), "ledger");
    let now = Now {
        tick: Tick::default(),
        wall: WallTime(0),
        clock: ClockQuality::Unknown,
        runs_since: WallTime(0),
    };
    core.restore(values, store.newest_commit(), now)
        .map_err(|error| state(&error))?;
    Ok(core.books())
}
