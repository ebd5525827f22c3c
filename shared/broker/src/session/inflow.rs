//! Messages that came down a link: published here, and forwarded nowhere.
//!
//! An inflow is taken as a whole or not at all: its records, the retained messages among them and the mark that says so are one
//! commit. So what comes again after a crash is known or was never taken. No forward rule sees these messages; a record is logged
//! only for persistent sessions that want it, in the local track.

use bytes::Bytes;
use fellbeck_core::{QoS, Record, RecordBlock};
use fellbeck_store::commit::Space;

use super::turn::Turn;
use super::work::Awaited;
use super::{Core, Now, Outcome, Pressure};
use crate::wire::{ConnId, Wire};

/// Last node in the path of every record that came down a link. No node has such a name.
pub const FROM_CLOUD: &str = "$cloud";

/// No connection has this number.
const NOBODY: ConnId = ConnId(0);

/// Messages from a link, in order.
#[derive(Debug, Clone)]
pub struct Inflow {
    /// By which [`Wire::inflow_taken`] names it.
    pub number: u64,
    /// The records, stamped by this node's clock. The path of each ends with [`FROM_CLOUD`].
    pub block: RecordBlock,
    /// Key and value in `Space::Node` that say how far the link has been taken, once this has.
    pub mark: Option<(Bytes, Bytes)>,
}

/// Whether the record came down a link. Whatever the rules say of its topic, no lane holds it.
pub(super) fn is_inflow(record: &Record<'_>) -> bool {
    record.path.rsplit('/').next() == Some(FROM_CLOUD)
}

impl Core {
    /// Publishes an inflow. [`Outcome::Hold`]: nothing was done, since the store is nearly full; offer it again when it is not.
    /// Otherwise [`Wire::inflow_taken`] follows, at once or after the commit.
    pub fn handle_inflow<W: Wire>(&mut self, inflow: &Inflow, pressure: Pressure, now: Now, wire: &mut W) -> Outcome {
        let turn = &mut Turn::new(now, wire);
        if pressure > Pressure::Normal && inflow.block.iter().any(|record| self.is_inflow_stored(&record)) {
            return Outcome::Hold;
        }
        let mut stored = false;
        for record in inflow.block.iter() {
            let track = self.inflow_track(&record);
            stored |= self.accept_on(track, &record, turn);
        }
        if let Some((key, value)) = &inflow.mark {
            self.work.put(Space::Node, key.clone(), value.clone());
            stored = true;
        }
        let number = inflow.number;
        let taken = Awaited::Inflow { number };
        if stored {
            self.work.wait(NOBODY, taken);
        } else if self.work.waiting.is_empty() {
            turn.wire.inflow_taken(number);
        } else {
            // Not before what may hold an earlier one of the same messages.
            self.work.wait_in_line(NOBODY, taken);
        }
        Outcome::Done
    }

    fn inflow_track(&self, record: &Record<'_>) -> Option<fellbeck_core::TrackId> {
        let is_wanted = record.qos != QoS::AtMostOnce && self.matches_durable(record.topic);
        self.config.local_track.filter(|_| is_wanted)
    }

    fn is_inflow_stored(&self, record: &Record<'_>) -> bool {
        record.retain || self.inflow_track(record).is_some()
    }

    /// A number that is another one whenever the filters that somebody here is subscribed to are others.
    #[must_use]
    pub fn interest_changes(&self) -> u64 {
        self.committed.changes().wrapping_add(self.immediate.changes())
    }

    /// The filters that somebody here is subscribed to, connected or not; a filter may come twice. Costs a look at all of them.
    pub fn interest(&self) -> impl Iterator<Item = String> + '_ {
        self.committed.filters().chain(self.immediate.filters())
    }
}
