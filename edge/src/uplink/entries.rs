//! Entries of the store as the link sends them; batches that have expired as a whole become a Skip.
//!
//! In: what a read of a track brought. Out: the same in order. A batch of which some records live is sent whole: whoever delivers
//! them looks at each record's own expiry.

use fellbeck_core::limits::BATCH_MAX_EDGE;
use fellbeck_core::{Batch, ClockQuality, Epoch, Record, WallTime};
use fellbeck_link::{Entry, Gap, Skip};
use fellbeck_store::TrackEntry;

/// What decides whether a record has expired.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// The clock.
    pub now: WallTime,
    /// What is known of it.
    pub clock: ClockQuality,
    /// The running incarnation.
    pub epoch: Epoch,
}

/// Turns what was read into what is sent.
pub fn entries(read: Vec<TrackEntry>, expiry: Expiry) -> Vec<Entry> {
    let entry = |entry| match entry {
        TrackEntry::Gap(gap) => Entry::Gap(Gap {
            epoch: gap.epoch,
            first: gap.first,
            last: gap.last,
            reason: gap.reason,
        }),
        TrackEntry::Batch(batch) if expiry.has_taken(&batch) => Entry::Skip(Skip {
            epoch: batch.header.epoch,
            first: batch.header.first,
            last: batch.last(),
        }),
        TrackEntry::Batch(batch) => Entry::Batch(batch),
    };
    read.into_iter().map(entry).collect()
}

impl Expiry {
    /// Whether every record of the batch has expired. Cheap unless the first of them is due.
    ///
    /// A stamp and the clock are only compared when both follow a time source, or when both are of this run of the node: after a
    /// reboot a free-running clock may have jumped by years.
    fn has_taken(&self, batch: &Batch) -> bool {
        let due = batch.header.earliest_expiry.is_some_and(|at| at <= self.now);
        if !due || self.clock == ClockQuality::Unknown {
            return false;
        }
        let same_run = batch.header.epoch == self.epoch;
        let expired = |record: Record<'_>| {
            let comparable = record.clock == self.clock && (same_run || self.clock == ClockQuality::Synced);
            comparable && record.remaining_expiry_secs(self.now) == Some(0)
        };
        // What does not open is sent on: the cloud refuses it with a clear error, and nothing is skipped by mistake.
        batch.open(BATCH_MAX_EDGE).is_ok_and(|block| block.iter().all(expired))
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::{Properties, QoS, RecordBlockBuilder, Seq};

    use super::*;

    fn batch(expiries: &[Option<u32>]) -> Batch {
        let mut builder = RecordBlockBuilder::default();
        for expiry_secs in expiries {
            builder.push(&Record {
                device: "d",
                topic: "t",
                payload: b"p",
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: Properties::default(),
                accepted_at: WallTime(1_000_000),
                clock: ClockQuality::Synced,
                expiry_secs: *expiry_secs,
                origin: None,
                path: "",
            });
        }
        Batch::seal(Epoch(1), Seq(5), &builder.finish())
    }

    fn sent(expiries: &[Option<u32>], now: u64, clock: ClockQuality) -> Entry {
        let expiry = Expiry {
            now: WallTime(now),
            clock,
            epoch: Epoch(1),
        };
        entries(vec![TrackEntry::Batch(batch(expiries))], expiry).remove(0)
    }

    #[test]
    fn only_a_batch_that_expired_as_a_whole_is_skipped() {
        let late = 1_000_000 + 61_000;
        let both = sent(&[Some(60), Some(10)], late, ClockQuality::Synced);
        assert!(matches!(both, Entry::Skip(skip) if skip.first == Seq(5) && skip.last == Seq(6)));
        assert!(matches!(
            sent(&[Some(60), None], late, ClockQuality::Synced),
            Entry::Batch(_)
        ));
        assert!(matches!(
            sent(&[Some(60)], 1_000_000, ClockQuality::Synced),
            Entry::Batch(_)
        ));
    }

    #[test]
    fn nothing_expires_while_the_clock_is_not_known() {
        assert!(matches!(
            sent(&[Some(1)], u64::MAX / 2, ClockQuality::Unknown),
            Entry::Batch(_)
        ));
    }

    #[test]
    fn a_free_running_clock_expires_nothing_of_an_earlier_run() {
        let late = WallTime(1_000_000 + 61_000);
        let mut builder = RecordBlockBuilder::default();
        let block = batch(&[Some(60)]).open(1000).unwrap();
        builder.push(&Record {
            clock: ClockQuality::Unsynced,
            ..block.get(0)
        });
        let batch = Batch::seal(Epoch(1), Seq(5), &builder.finish());
        let skips = |epoch, clock| {
            Expiry {
                now: late,
                clock,
                epoch: Epoch(epoch),
            }
            .has_taken(&batch)
        };
        assert!(
            skips(1, ClockQuality::Unsynced),
            "the same run counts by the same clock"
        );
        assert!(!skips(2, ClockQuality::Unsynced), "a reboot may have set the clock");
        assert!(!skips(1, ClockQuality::Synced), "the clock was set since");
    }
}
