//! From what a link brought to one commit: records routed to partitions, W, partition marks, retained messages, gaps.
//!
//! In: an ingest of the link's receiver. Out: a commit that holds all of it, so that W is never ahead of its records (I3, I4).
//! Pure. Each record gets its origin, the path that it has taken, and stamps on this node's clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_broker::session::{RetainedChange, retained_change};
use fellbeck_core::limits::BATCH_MAX_EDGE;
use fellbeck_core::{
    Batch, BatchError, ClockQuality, DropReason, Epoch, Origin, Position, Properties, QoS, Record, RecordBlockBuilder,
    Run, Seq, TrackId, WallTime,
};
use fellbeck_link::{Gap, Heartbeat, Ingest, IngestEntry};
use fellbeck_store::{Append, Commit, Put, Space, Urgency};

use crate::dedup::index::{DeviceIds, Intake, Verdict};
use crate::dedup::mark::{LaneKey, partition_key, position_value, watermark_key};
use crate::ledger::{Beat, Brought, LaneCounts, LaneId};
use crate::routing::Streams;

/// Where records of this node go.
#[derive(Debug, Clone)]
pub struct Places {
    /// The streams.
    pub streams: Streams,
    /// Track of the gaps stream.
    pub gaps: TrackId,
    /// Names of all tracks, for the keys of partition marks.
    pub track_names: Arc<HashMap<TrackId, String>>,
    /// Device message IDs that are known.
    pub device_ids: Arc<DeviceIds>,
}

/// What the commit moves once it is durable.
#[derive(Debug)]
pub struct Moved {
    /// The lane.
    pub lane: Arc<str>,
    /// Its run.
    pub run: Run,
    /// Its new W.
    pub w: Position,
    /// Its new partition marks.
    pub partitions: Vec<(TrackId, Position)>,
    /// Its new counters.
    pub counts: LaneCounts,
    /// The last heartbeat in it.
    pub beat: Option<Beat>,
}

/// One commit under construction, for one ingest of one edge.
pub(crate) struct Appender<'p, 'a> {
    places: &'p Places,
    edge: &'a str,
    instance: u32,
    /// Durable partition marks of the lane.
    marks: &'a HashMap<TrackId, Position>,
    now: WallTime,
    clock: ClockQuality,
    builders: BTreeMap<TrackId, RecordBlockBuilder>,
    last: HashMap<TrackId, Position>,
    /// The last word on each topic with a retained message, and the track of its record. Readers see the records of a commit in the
    /// order of their tracks, so that of two the one in the higher track is the later.
    retained: BTreeMap<String, (TrackId, RetainedChange)>,
    /// Ranges of records that broke a rule, to be declared.
    invalid: Vec<Gap>,
    brought: Brought,
    /// Counters of the lane before this ingest; `None`: there are none yet.
    counts: Option<LaneCounts>,
    beat: Option<Beat>,
    tally: Tally,
    /// Identifiers of the commit, from the first record that has one.
    intake: Option<Intake<'p>>,
}

/// A commit, and what follows when the store has taken it.
pub(crate) struct Built<'a> {
    /// For the store.
    pub(crate) commit: Commit,
    /// What it moves once it is durable.
    pub(crate) moved: Moved,
    /// What to count.
    pub(crate) tally: Tally,
    /// To be settled when the store has taken the commit, and dropped when it has not.
    pub(crate) intake: Option<Intake<'a>>,
}

/// What happened on the way, to be counted once the commit was taken.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records dropped since a partition mark covers them.
    pub duplicates: u64,
    /// Records dropped since their device message ID is known.
    pub device_duplicates: u64,
    /// Records stored although their device message ID breaks the bounds.
    pub bad_ids: u64,
    /// Ranges declared as lost.
    pub gaps: Vec<Gap>,
}

impl<'p, 'a> Appender<'p, 'a> {
    pub(crate) fn new(
        places: &'p Places,
        edge: (&'a str, u32),
        (marks, counts): (&'a HashMap<TrackId, Position>, Option<LaneCounts>),
        now: WallTime,
        clock: ClockQuality,
    ) -> Self {
        Self {
            places,
            edge: edge.0,
            instance: edge.1,
            marks,
            now,
            clock,
            builders: BTreeMap::new(),
            last: HashMap::new(),
            retained: BTreeMap::new(),
            invalid: Vec::new(),
            brought: Brought::default(),
            counts,
            beat: None,
            tally: Tally::default(),
            intake: None,
        }
    }

    /// The commit for `ingest`. An error means a batch that does not open: the edge is broken or hostile.
    pub(crate) fn build(mut self, ingest: &Ingest) -> Result<Built<'p>, BatchError> {
        let mut gaps = Vec::new();
        for entry in &ingest.entries {
            match entry {
                IngestEntry::Batch {
                    batch,
                    skip,
                    sent_at,
                    received_at,
                } => {
                    self.batch(ingest, batch, *skip, (*sent_at, *received_at))?;
                }
                IngestEntry::Gap(gap) => gaps.push(*gap),
                IngestEntry::Skip(skip) => self.brought.expired += skip.last.0 - skip.first.0 + 1,
            }
        }
        gaps.append(&mut self.invalid);
        let lost = gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1);
        self.brought.gap = lost.fold(0, u64::saturating_add);
        self.brought.first = ingest.entries.first().map_or(0, first_of);
        self.brought.through = ingest.through.seq.0;
        for gap in &gaps {
            self.gap(ingest, gap);
        }
        let mut tally = std::mem::take(&mut self.tally);
        tally.gaps = gaps;
        let mut intake = self.intake.take();
        let lane = self.lane_key(ingest);
        let (mut commit, moved) = self.finish(ingest, &lane);
        if let Some(intake) = &mut intake {
            tally.device_duplicates = intake.duplicates();
            intake.seal(&mut commit, &lane);
        }
        Ok(Built {
            commit,
            moved,
            tally,
            intake,
        })
    }

    fn batch(
        &mut self,
        ingest: &Ingest,
        batch: &Batch,
        skip: u32,
        (sent_at, received_at): (WallTime, WallTime),
    ) -> Result<(), BatchError> {
        let block = batch.open(BATCH_MAX_EDGE)?;
        let mut path = String::new();
        for index in skip as usize..block.len() {
            let record = block.get(index);
            let seq = batch.header.first.plus(index as u64);
            let accepted_at = IngestEntry::restamp(sent_at, received_at, record.accepted_at);
            path.clear();
            path.push_str(record.path);
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(self.edge);
            if Heartbeat::is_of(self.edge, record.topic, record.device) {
                let waited_ms = sent_at.0.saturating_sub(record.accepted_at.0);
                self.heartbeat(seq, record.payload, waited_ms);
                continue;
            }
            let origin = self.origin(&ingest.name, ingest.run, batch.header.epoch, seq);
            self.record(&Record {
                accepted_at,
                clock: self.stamp(record.clock),
                origin: Some(origin),
                path: &path,
                ..record
            });
        }
        Ok(())
    }

    /// A heartbeat is counted and its newest kept; it goes into no partition. One of a later version counts too.
    fn heartbeat(&mut self, seq: Seq, payload: &[u8], waited_ms: u64) {
        self.brought.heartbeats += 1;
        let Some(said) = Heartbeat::decode(payload) else { return };
        self.beat = Some(Beat {
            instance: self.instance,
            seq: seq.0,
            said,
            received_at: self.now,
            waited_ms,
        });
    }

    /// A record whose edge did not know its clock keeps that: its stamp is an age only in name.
    fn stamp(&self, edge: ClockQuality) -> ClockQuality {
        if edge == ClockQuality::Unknown {
            ClockQuality::Unknown
        } else {
            self.clock
        }
    }

    fn origin<'b>(&self, lane: &'b str, run: Run, epoch: Epoch, seq: Seq) -> Origin<'b>
    where
        'a: 'b,
    {
        Origin {
            edge: self.edge,
            instance: self.instance,
            lane,
            run,
            epoch,
            seq,
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        let origin = record.origin.expect("a record of a link has an origin");
        if record.check(BATCH_MAX_EDGE).is_err() {
            return self.refuse(origin.epoch, origin.seq);
        }
        let track = self.places.streams.track(record.topic, record.device);
        let position = Position {
            epoch: origin.epoch,
            seq: origin.seq,
        };
        if self.marks.get(&track).is_some_and(|mark| position <= *mark) {
            self.brought.known += 1;
            self.tally.duplicates += 1;
            return;
        }
        match self.places.device_ids.judge(&mut self.intake, record, self.now) {
            Verdict::Store => {}
            Verdict::Unidentified => self.tally.bad_ids += 1,
            Verdict::Known => {
                self.brought.known += 1;
                return;
            }
        }
        if record.retain {
            let known = self.retained.get(record.topic).map(|(track, _)| *track);
            if known.is_none_or(|known| known <= track) {
                self.retained
                    .insert(record.topic.to_owned(), (track, retained_change(record)));
            }
        }
        self.append(track, record, position);
    }

    /// A record that breaks a rule is declared like any other loss; neighbours share a declaration.
    fn refuse(&mut self, epoch: Epoch, seq: Seq) {
        match self.invalid.last_mut() {
            Some(gap) if gap.epoch == epoch && gap.last.next() == seq => gap.last = seq,
            _ => self.invalid.push(Gap {
                epoch,
                first: seq,
                last: seq,
                reason: DropReason::Invalid,
            }),
        }
    }

    fn append(&mut self, track: TrackId, record: &Record<'_>, position: Position) {
        self.builders.entry(track).or_default().push(record);
        self.brought.stored += 1;
        self.last.insert(track, position);
    }

    /// A declared gap is a record of its own, in the stream of gaps.
    fn gap(&mut self, ingest: &Ingest, gap: &Gap) {
        let payload = gap_json(self.edge, self.instance, ingest, gap).to_string();
        let topic = format!("$fellbeck/gaps/{}/{}", self.edge, ingest.name);
        let origin = self.origin(&ingest.name, ingest.run, gap.epoch, gap.last);
        let record = Record {
            device: self.edge,
            topic: &topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: self.now,
            clock: self.clock,
            expiry_secs: None,
            origin: Some(origin),
            path: self.edge,
        };
        self.builders.entry(self.places.gaps).or_default().push(&record);
    }

    fn lane_key(&self, ingest: &Ingest) -> LaneKey {
        LaneKey {
            edge: self.edge.to_owned(),
            instance: self.instance,
            lane: ingest.name.to_string(),
            run: ingest.run,
        }
    }

    fn finish(mut self, ingest: &Ingest, lane: &LaneKey) -> (Commit, Moved) {
        let mut puts = vec![mark(watermark_key(lane), ingest.through)];
        for (track, position) in &self.last {
            puts.push(mark(partition_key(lane, &self.places.track_names[track]), *position));
        }
        let mut counts = self.counts.unwrap_or_else(|| LaneCounts::before(self.brought.first));
        counts.add(&self.brought);
        puts.push(counts.put(self.edge, &LaneId::new(self.instance, &ingest.name, ingest.run)));
        puts.extend(self.beat.as_ref().map(|beat| beat.put(self.edge)));
        let mut deletes = Vec::new();
        for (_, change) in std::mem::take(&mut self.retained).into_values() {
            match change {
                RetainedChange::Put(put) => puts.push(put),
                RetainedChange::Delete(delete) => deletes.push(delete),
            }
        }
        let appends = self.builders.into_iter().map(|(track, mut builder)| Append {
            track,
            block: builder.finish(),
        });
        let commit = Commit {
            appends: appends.collect(),
            puts,
            deletes,
            urgency: Urgency::Now,
            ..Commit::default()
        };
        let partitions = self.last.into_iter().collect();
        (
            commit,
            Moved {
                lane: ingest.name.clone(),
                run: ingest.run,
                w: ingest.through,
                partitions,
                counts,
                beat: self.beat,
            },
        )
    }
}

/// A declared gap, as its stream and the list of gaps show it.
pub(crate) fn gap_json(edge: &str, instance: u32, ingest: &Ingest, gap: &Gap) -> serde_json::Value {
    serde_json::json!({
        "edge": edge, "instance": instance, "lane": &*ingest.name, "run": ingest.run.0,
        "epoch": gap.epoch.0, "first": gap.first.0, "last": gap.last.0, "count": gap.last.0 - gap.first.0 + 1,
        "reason": DropReason::as_str(gap.reason),
    })
}

/// The first position of an entry that is new.
fn first_of(entry: &IngestEntry) -> u64 {
    match entry {
        IngestEntry::Batch { batch, skip, .. } => batch.header.first.0 + u64::from(*skip),
        IngestEntry::Gap(gap) => gap.first.0,
        IngestEntry::Skip(skip) => skip.first.0,
    }
}

fn mark(key: Bytes, position: Position) -> Put {
    Put {
        space: Space::Mark,
        key,
        value: position_value(position),
    }
}
