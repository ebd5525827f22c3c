//! From a frame of messages to what is published here: what is new, not expired and well formed, on this node's clock.
//!
//! In: frames, the mark, the time. Out: a block of records, the mark that goes with it, and the packet IDs to acknowledge when both
//! are durable. Pure. A message whose place in the cloud's log is at or below the mark was taken before: it is only acknowledged.

use fellbeck_broker::session::FROM_CLOUD;
use fellbeck_core::limits::BATCH_MAX_EDGE;
use fellbeck_core::{BatchError, ClockQuality, LogPosition, Record, RecordBlock, RecordBlockBuilder, Tick, WallTime};
use fellbeck_link::downlink::{DownMark, Messages, Opened};

/// What was taken off one frame.
#[derive(Debug)]
pub(crate) struct Taken {
    /// To be published, in order.
    pub(crate) block: RecordBlock,
    /// To be stored with it, if it moved.
    pub(crate) mark: Option<DownMark>,
    /// To be acknowledged then.
    pub(crate) acks: Vec<u16>,
    /// What became of the others.
    pub(crate) tally: Tally,
}

/// Counts of one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Published.
    pub(crate) new: u64,
    /// Taken before.
    pub(crate) duplicates: u64,
    /// Expired on the way.
    pub(crate) expired: u64,
    /// Of a topic or form that no node may take, or passed through this edge before.
    pub(crate) invalid: u64,
}

/// The time at this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) tick: Tick,
    pub(crate) wall: WallTime,
    pub(crate) clock: ClockQuality,
}

/// How far the downlink of this edge has come.
#[derive(Debug)]
pub(crate) struct Intake {
    edge: String,
    mark: Option<DownMark>,
    /// The cloud as of the present link, and when it said so.
    opened: Option<(Opened, Tick)>,
}

impl Intake {
    /// `mark` is what the store holds.
    pub(crate) fn new(edge: &str, mark: Option<DownMark>) -> Self {
        Self {
            edge: edge.to_owned(),
            mark,
            opened: None,
        }
    }

    /// Newest message that was taken.
    pub(crate) fn mark(&self) -> Option<DownMark> {
        self.mark
    }

    /// A link begins. False: part of what was taken is of a state that the cloud has lost, so something may come twice.
    pub(crate) fn handle_opened(&mut self, opened: Opened, now: Tick) -> bool {
        let before = self.mark.map(|mark| mark.position);
        self.mark = match (self.mark, opened.shared) {
            (Some(mark), Some(position)) => Some(DownMark {
                position: position.min(mark.position),
                ..mark
            }),
            _ => None,
        };
        self.opened = Some((opened, now));
        self.mark.map(|mark| mark.position) == before
    }

    /// Takes a frame. An error means a batch that does not open, or messages before Opened: the cloud is broken.
    pub(crate) fn handle_messages(&mut self, messages: &Messages, now: Now) -> Result<Taken, BatchError> {
        let block = messages.batch.open(BATCH_MAX_EDGE)?;
        let sent = self.cloud_time(messages.sent_at, now.tick);
        let mut taken = Taken {
            block: RecordBlock::default(),
            mark: None,
            acks: Vec::new(),
            tally: Tally::default(),
        };
        let mut builder = RecordBlockBuilder::default();
        for (record, tag) in block.iter().zip(&messages.tags) {
            taken.acks.extend(tag.packet_id);
            if let Some(position) = tag.position {
                if self.mark.is_some_and(|mark| position <= mark.position) {
                    taken.tally.duplicates += 1;
                    continue;
                }
                self.advance(position);
                // What is never sent again needs no mark on flash.
                if tag.packet_id.is_some() {
                    taken.mark = self.mark;
                }
            }
            self.publish(&record, sent, now, &mut builder, &mut taken.tally);
        }
        taken.block = builder.finish();
        Ok(taken)
    }

    /// The cloud's clock as it is now. A frame may have waited long for this node, so its own stamp is only the least.
    fn cloud_time(&self, sent_at: WallTime, now: Tick) -> WallTime {
        let Some((opened, at)) = &self.opened else {
            return sent_at;
        };
        let passed = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
        sent_at.max(WallTime(opened.now.0.saturating_add(passed)))
    }

    fn advance(&mut self, position: LogPosition) {
        if let Some((opened, _)) = &self.opened {
            self.mark = Some(DownMark {
                log_id: opened.log_id,
                opening: opened.opening,
                position,
            });
        }
    }

    fn publish(
        &self,
        record: &Record<'_>,
        sent: WallTime,
        now: Now,
        builder: &mut RecordBlockBuilder,
        tally: &mut Tally,
    ) {
        let passed_here = record.path.split('/').any(|node| node == self.edge);
        if passed_here || record.check(BATCH_MAX_EDGE).is_err() {
            tally.invalid += 1;
            return;
        }
        if record.remaining_expiry_secs(sent) == Some(0) {
            tally.expired += 1;
            return;
        }
        let age = sent.0.saturating_sub(record.accepted_at.0);
        let path = if record.path.is_empty() {
            FROM_CLOUD.to_owned()
        } else {
            format!("{}/{FROM_CLOUD}", record.path)
        };
        let clock = if record.clock == ClockQuality::Unknown {
            ClockQuality::Unknown
        } else {
            now.clock
        };
        builder.push(&Record {
            accepted_at: WallTime(now.wall.0.saturating_sub(age)),
            clock,
            path: &path,
            ..*record
        });
        tally.new += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fellbeck_core::{Batch, CommitNumber, Epoch, Properties, QoS, Seq};
    use fellbeck_link::downlink::Tag;
    use proptest::prelude::*;

    use super::*;

    const NOW: Now = Now {
        tick: Tick(Duration::ZERO),
        wall: WallTime(5_000_000),
        clock: ClockQuality::Synced,
    };

    fn record<'a>(payload: &'a [u8]) -> Record<'a> {
        Record {
            device: "app",
            topic: "cmd/a",
            payload,
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1_000_000),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        }
    }

    fn at(commit: u64, index: u32) -> LogPosition {
        LogPosition {
            commit: CommitNumber(commit),
            index,
        }
    }

    fn frame(records: &[(Record<'_>, Option<LogPosition>)]) -> Messages {
        let mut builder = RecordBlockBuilder::default();
        records.iter().for_each(|(record, _)| builder.push(record));
        let tags = records.iter().enumerate().map(|(n, (_, position))| Tag {
            packet_id: Some(n as u16 + 1),
            position: *position,
        });
        Messages {
            sent_at: WallTime(1_010_000),
            tags: tags.collect(),
            batch: Batch::seal(Epoch(0), Seq(1), &builder.finish()),
        }
    }

    fn opened(opening: u8, shared: Option<LogPosition>) -> Opened {
        Opened {
            log_id: [1; 16],
            opening: [opening; 16],
            shared,
            now: WallTime(1_010_000),
        }
    }

    fn linked() -> Intake {
        let mut intake = Intake::new("a", None);
        intake.handle_opened(opened(1, None), NOW.tick);
        intake
    }

    fn payloads(taken: &Taken) -> Vec<String> {
        let text = |record: Record<'_>| String::from_utf8_lossy(record.payload).into_owned();
        taken.block.iter().map(text).collect()
    }

    #[test]
    fn what_comes_again_is_acknowledged_and_not_published_again() {
        let mut intake = linked();
        let both = frame(&[(record(b"1"), Some(at(3, 0))), (record(b"2"), Some(at(3, 1)))]);
        let first = intake.handle_messages(&both, NOW).unwrap();
        assert_eq!(payloads(&first), ["1", "2"]);
        assert_eq!(first.mark.map(|mark| mark.position), Some(at(3, 1)));
        let again = intake.handle_messages(&both, NOW).unwrap();
        assert_eq!((payloads(&again).len(), again.acks, again.mark), (0, vec![1, 2], None));
        assert_eq!(again.tally.duplicates, 2);
        // After a restart of this node: the mark of the store.
        let mut restarted = Intake::new("a", first.mark);
        assert!(restarted.handle_opened(opened(2, Some(at(3, 1))), NOW.tick));
        let third = frame(&[(record(b"2"), Some(at(3, 1))), (record(b"3"), Some(at(3, 2)))]);
        assert_eq!(payloads(&restarted.handle_messages(&third, NOW).unwrap()), ["3"]);
    }

    #[test]
    fn a_restored_cloud_may_use_its_numbers_again() {
        let mut intake = linked();
        intake
            .handle_messages(&frame(&[(record(b"old"), Some(at(9, 0)))]), NOW)
            .unwrap();
        assert!(
            !intake.handle_opened(opened(2, Some(at(4, u32::MAX))), NOW.tick),
            "it is told"
        );
        let new = frame(&[(record(b"known"), Some(at(4, 7))), (record(b"new"), Some(at(5, 0)))]);
        assert_eq!(payloads(&intake.handle_messages(&new, NOW).unwrap()), ["new"]);
        assert!(!intake.handle_opened(opened(3, None), NOW.tick));
        let other = frame(&[(record(b"any"), Some(at(1, 0)))]);
        assert_eq!(payloads(&intake.handle_messages(&other, NOW).unwrap()), ["any"]);
    }

    #[test]
    fn the_age_of_a_message_counts_on_whatever_clock_it_is_on() {
        let expiring = |secs| Record {
            expiry_secs: Some(secs),
            ..record(b"x")
        };
        // 10 s old when the frame was made.
        let mut intake = linked();
        let taken = intake
            .handle_messages(&frame(&[(expiring(60), Some(at(1, 0)))]), NOW)
            .unwrap();
        assert_eq!(taken.block.get(0).remaining_expiry_secs(NOW.wall), Some(50));
        let taken = intake
            .handle_messages(&frame(&[(expiring(10), Some(at(1, 1)))]), NOW)
            .unwrap();
        assert_eq!(
            (taken.tally.expired, taken.acks.len()),
            (1, 1),
            "it is over, and acknowledged"
        );
        // A frame that waited 45 s in the buffers of the link.
        let late = Now {
            tick: Tick(Duration::from_secs(45)),
            ..NOW
        };
        let taken = intake
            .handle_messages(&frame(&[(expiring(60), Some(at(1, 2)))]), late)
            .unwrap();
        assert_eq!(taken.block.get(0).remaining_expiry_secs(late.wall), Some(5));
    }

    #[test]
    fn what_passed_through_here_or_is_malformed_is_not_published() {
        let mut intake = linked();
        let mine = Record {
            path: "b/a",
            ..record(b"x")
        };
        let own = Record {
            topic: "$SYS/x",
            ..record(b"x")
        };
        let other = Record {
            path: "b",
            ..record(b"other")
        };
        let taken = intake
            .handle_messages(
                &frame(&[(mine, Some(at(1, 0))), (own, Some(at(1, 1))), (other, Some(at(1, 2)))]),
                NOW,
            )
            .unwrap();
        assert_eq!((taken.tally.invalid, taken.acks.len()), (2, 3));
        assert_eq!(taken.block.get(0).path, format!("b/{FROM_CLOUD}"));
    }

    proptest! {
        /// Links break anywhere and the cloud sends again from anywhere at or below what was acknowledged: each message once, in order.
        #[test]
        fn each_message_is_published_once_and_in_order(
            cuts in prop::collection::vec((0usize..30, 0usize..30, any::<bool>()), 0..20),
        ) {
            let all: Vec<String> = (0..40).map(|n| n.to_string()).collect();
            let position = |n: usize| at(n as u64 / 3 + 1, n as u32 % 3);
            let mut intake = linked();
            let mut stored = None;
            let mut published = Vec::new();
            let mut done = 0;
            let rounds = cuts.into_iter().chain([(30, 40, false), (0, 40, false)]);
            for (back, count, restart) in rounds {
                let from = done - back.min(done);
                let to = (from + count).min(all.len());
                let records: Vec<_> = (from..to).map(|n| (record(all[n].as_bytes()), Some(position(n)))).collect();
                if restart {
                    intake = Intake::new("a", stored);
                    intake.handle_opened(opened(1, stored.map(|mark: DownMark| mark.position)), NOW.tick);
                }
                if records.is_empty() {
                    continue;
                }
                let taken = intake.handle_messages(&frame(&records), NOW).unwrap();
                published.extend(payloads(&taken));
                stored = taken.mark.or(stored);
                done = done.max(to);
            }
            prop_assert_eq!(published, all);
        }
    }
}
