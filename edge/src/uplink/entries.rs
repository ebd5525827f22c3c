//! Entries of the store as the link sends them; batches that have expired as a whole become a Skip.
//!
//! In: what a read of a track brought. Out: the same in order. A batch of which some records live is sent whole: whoever delivers
//! them looks at each record's own expiry.

use fellbeck_core::limits::BATCH_MAX_EDGE;
use fellbeck_core::{Batch, ClockQuality, DropReason, WallTime};
use fellbeck_link::{Entry, Gap, Skip};
use fellbeck_store::TrackEntry;

/// Turns what was read into what is sent.
pub(crate) fn entries(read: Vec<TrackEntry>, now: WallTime, clock: ClockQuality) -> Vec<Entry> {
    read.into_iter()
        .map(|entry| match entry {
            TrackEntry::Gap(gap) => Entry::Gap(Gap {
                epoch: gap.epoch,
                first: gap.first,
                last: gap.last,
                reason: gap.reason,
            }),
            TrackEntry::Batch(batch) => match expired(&batch, now, clock) {
                true => skip(&batch),
                false => Entry::Batch(batch),
            },
        })
        .collect()
}

fn skip(batch: &Batch) -> Entry {
    metrics::counter!("fellbeck_link_dropped_total", "reason" => DropReason::Expired.as_str())
        .increment(u64::from(batch.header.count));
    Entry::Skip(Skip {
        epoch: batch.header.epoch,
        first: batch.header.first,
        last: batch.last(),
    })
}

/// Whether every record of the batch has expired. Cheap unless the first of them has.
fn expired(batch: &Batch, now: WallTime, clock: ClockQuality) -> bool {
    let due = batch.header.earliest_expiry.is_some_and(|at| at <= now);
    if !due || clock == ClockQuality::Unknown {
        return false;
    }
    // What does not open is sent on: the cloud refuses it with a clear error, and nothing is skipped by mistake.
    batch
        .open(BATCH_MAX_EDGE)
        .is_ok_and(|block| block.iter().all(|record| record.remaining_expiry_secs(now) == Some(0)))
}

#[cfg(test)]
mod tests {
    use fellbeck_core::{Epoch, Properties, QoS, Record, RecordBlockBuilder, Seq};

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
        entries(vec![TrackEntry::Batch(batch(expiries))], WallTime(now), clock).remove(0)
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
}
