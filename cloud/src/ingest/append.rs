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
use fellbeck_link::{Gap, Ingest, IngestEntry};
use fellbeck_store::{Append, Commit, Put, Space, Urgency};

use crate::dedup::mark::{LaneKey, partition_key, position_value, watermark_key};
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
}

/// One commit under construction, for one ingest of one edge.
pub struct Appender<'a> {
    places: &'a Places,
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
    duplicates: u64,
}

/// What happened on the way, to be counted once the commit was taken.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records dropped since a partition mark covers them.
    pub duplicates: u64,
    /// Ranges declared as lost.
    pub gaps: Vec<Gap>,
}

impl<'a> Appender<'a> {
    pub fn new(
        places: &'a Places,
        edge: (&'a str, u32),
        marks: &'a HashMap<TrackId, Position>,
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
            duplicates: 0,
        }
    }

    /// The commit for `ingest`. An error means a batch that does not open: the edge is broken or hostile.
    pub fn build(mut self, ingest: &Ingest) -> Result<(Commit, Moved, Tally), BatchError> {
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
                IngestEntry::Skip(_) => {}
            }
        }
        gaps.append(&mut self.invalid);
        for gap in &gaps {
            self.gap(ingest, gap);
        }
        let tally = Tally {
            duplicates: self.duplicates,
            gaps,
        };
        let (commit, moved) = self.finish(ingest);
        Ok((commit, moved, tally))
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
            self.duplicates += 1;
            return;
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
        self.last.insert(track, position);
    }

    /// A declared gap is a record of its own, in the stream of gaps.
    fn gap(&mut self, ingest: &Ingest, gap: &Gap) {
        let count = gap.last.0 - gap.first.0 + 1;
        let payload = serde_json::json!({
            "edge": self.edge, "instance": self.instance, "lane": &*ingest.name, "run": ingest.run.0,
            "epoch": gap.epoch.0, "first": gap.first.0, "last": gap.last.0, "count": count,
            "reason": DropReason::as_str(gap.reason),
        })
        .to_string();
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

    fn finish(mut self, ingest: &Ingest) -> (Commit, Moved) {
        let lane = LaneKey {
            edge: self.edge.to_owned(),
            instance: self.instance,
            lane: ingest.name.to_string(),
            run: ingest.run,
        };
        let mut puts = vec![mark(watermark_key(&lane), ingest.through)];
        for (track, position) in &self.last {
            puts.push(mark(partition_key(&lane, &self.places.track_names[track]), *position));
        }
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
            },
        )
    }
}

fn mark(key: Bytes, position: Position) -> Put {
    Put {
        space: Space::Mark,
        key,
        value: position_value(position),
    }
}
