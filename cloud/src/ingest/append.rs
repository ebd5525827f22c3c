//! From what a link brought to one commit: records routed to partitions, W, partition marks, retained messages, gaps.
//!
//! In: an ingest of the link's receiver. Out: a commit that holds all of it, so that W is never ahead of its records (I3, I4).
//! Pure but for the metrics. Each record gets its origin, the path that it has taken, and stamps on this node's clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_broker::session::{RetainedChange, retained_change};
use fellbeck_core::limits::BATCH_MAX_CLOUD;
use fellbeck_core::{
    Batch, BatchError, ClockQuality, DropReason, Epoch, Origin, Position, Properties, QoS, Record, RecordBlockBuilder,
    Run, Seq, TrackId, WallTime, validate_topic_name,
};
use fellbeck_link::{Gap, Ingest, IngestEntry};
use fellbeck_store::{Append, Commit, Put, Space, Urgency};

use crate::dedup::mark::{LaneKey, partition_key, position_value, watermark_key};
use crate::routing::Streams;

/// Where records of this node go.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The streams.
    pub(crate) streams: Streams,
    /// Track of the gaps stream.
    pub(crate) gaps: TrackId,
    /// Names of all tracks, for the keys of partition marks.
    pub(crate) track_names: Arc<HashMap<TrackId, String>>,
}

/// What the commit moves once it is durable.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The lane.
    pub(crate) lane: Arc<str>,
    /// Its run.
    pub(crate) run: Run,
    /// Its new W.
    pub(crate) w: Position,
    /// Its new partition marks.
    pub(crate) partitions: Vec<(TrackId, Position)>,
}

/// One commit under construction, for one ingest of one edge.
pub(crate) struct Appender<'a> {
    places: &'a Places,
    edge: &'a str,
    instance: u32,
    /// Durable partition marks of the lane.
    marks: &'a HashMap<TrackId, Position>,
    now: WallTime,
    clock: ClockQuality,
    builders: BTreeMap<TrackId, RecordBlockBuilder>,
    last: HashMap<TrackId, Position>,
    /// The last word on each topic with a retained message.
    retained: BTreeMap<String, RetainedChange>,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(
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
        }
    }

    /// The commit for `ingest`. An error means a batch that does not open: the edge is broken or hostile.
    pub(crate) fn build(mut self, ingest: &Ingest) -> Result<(Commit, Moved), BatchError> {
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
                IngestEntry::Gap(gap) => self.gap(ingest, gap),
                IngestEntry::Skip(_) => {}
            }
        }
        Ok(self.finish(ingest))
    }

    fn batch(
        &mut self,
        ingest: &Ingest,
        batch: &Batch,
        skip: u32,
        (sent_at, received_at): (WallTime, WallTime),
    ) -> Result<(), BatchError> {
        let block = batch.open(BATCH_MAX_CLOUD)?;
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
        if validate_topic_name(record.topic).is_err() {
            metrics::counter!("fellbeck_link_dropped_total", "reason" => "invalid_topic").increment(1);
            return;
        }
        let track = self.places.streams.track(record.topic, record.device);
        let origin = record.origin.expect("a record of a link has an origin");
        let position = Position {
            epoch: origin.epoch,
            seq: origin.seq,
        };
        if self.marks.get(&track).is_some_and(|mark| position <= *mark) {
            metrics::counter!("fellbeck_link_duplicates_total").increment(1);
            return;
        }
        if record.retain {
            self.retained.insert(record.topic.to_owned(), retained_change(record));
        }
        self.append(track, record, position);
    }

    fn append(&mut self, track: TrackId, record: &Record<'_>, position: Position) {
        self.builders.entry(track).or_default().push(record);
        self.last.insert(track, position);
    }

    /// A declared gap is a record of its own, in the stream of gaps.
    fn gap(&mut self, ingest: &Ingest, gap: &Gap) {
        let count = gap.last.0 - gap.first.0 + 1;
        tracing::error!(
            edge = self.edge, lane = &*ingest.name, first = gap.first.0, last = gap.last.0, count, reason = %gap.reason,
            "an edge declares records as lost"
        );
        metrics::counter!("fellbeck_link_gaps_total").increment(1);
        metrics::counter!("fellbeck_link_gap_records_total").increment(count);
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
        for change in std::mem::take(&mut self.retained).into_values() {
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
