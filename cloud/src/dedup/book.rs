//! The marks of one edge in memory: its last incarnation, W of its lanes, and the partition marks.
//!
//! In: entries of the store at start, then every commit of the edge's one link. Out: what admission and the ingest ask.
//! The marks here are those that are durable: a link moves them when its commit is, and only one link per edge exists at a time.

use std::collections::HashMap;

use fellbeck_core::{Incarnation, Position, Run, TrackId};
use fellbeck_link::{Hello, KnownEdge, LaneHello, LaneMark};
use fellbeck_store::{Put, Space};

use super::mark::{LaneKey, Mark, partition_key, position_value, watermark_key};
use super::start::LaneStart;

/// How an edge stands to the marks of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footing {
    /// It is of their instance.
    Same,
    /// Of a newer one, and it goes on behind them.
    Carried,
    /// Of a newer one, and it begins with marks of its own.
    Anew,
}

/// What the log holds of one edge instance.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Instance that the entries belong to; 0: none.
    instance: u32,
    incarnation: Option<Incarnation>,
    /// Incarnations that the admitted edge showed; empty where that is not known.
    chain: Vec<Incarnation>,
    watermarks: HashMap<(String, Run), Position>,
    partitions: HashMap<(String, Run, TrackId), Position>,
}

impl Book {
    /// Takes an entry of the store. Entries of older instances are history and are passed over.
    pub fn load(&mut self, mark: Mark, track_of: impl Fn(&str) -> Option<TrackId>) {
        let instance = match &mark {
            Mark::Edge { instance, .. } => *instance,
            Mark::Watermark { lane, .. } | Mark::Partition { lane, .. } => lane.instance,
        };
        if instance < self.instance {
            return;
        }
        if instance > self.instance {
            *self = Self {
                instance,
                ..Self::default()
            };
        }
        match mark {
            Mark::Edge { epoch, incarnation, .. } => {
                // The parent is of no interest here: the edge shows its chain itself.
                self.incarnation = Some(Incarnation {
                    epoch,
                    id: incarnation,
                    parent: incarnation,
                });
            }
            Mark::Watermark {
                lane: LaneKey { lane, run, .. },
                position,
            } => {
                self.watermarks.insert((lane, run), position);
            }
            Mark::Partition {
                lane: LaneKey { lane, run, .. },
                track,
                position,
            } => {
                // A partition that no stream has any more takes no records either.
                if let Some(track) = track_of(&track) {
                    self.partitions.insert((lane, run, track), position);
                }
            }
        }
    }

    /// Instance that the marks belong to; 0: there are none.
    pub fn instance(&self) -> u32 {
        self.instance
    }

    /// Takes the chain that the store has of the last admission.
    pub fn load_chain(&mut self, instance: u32, chain: Vec<Incarnation>) {
        if instance == self.instance {
            self.chain = chain;
        }
    }

    /// The incarnations of the store that was admitted last, as far as they are known.
    pub fn chain(&self) -> Vec<Incarnation> {
        self.chain.iter().copied().chain(self.incarnation).collect()
    }

    /// W of a lane.
    pub fn watermark(&self, lane: &str, run: Run) -> Option<Position> {
        self.watermarks.get(&(lane.to_owned(), run)).copied()
    }

    /// How an edge that shows `hello` under `instance` relates to these marks.
    ///
    /// A store that joined again and whose chain has the known incarnation goes on behind the marks, so that a new certificate alone
    /// sends nothing twice. One that would mint again what is marked cannot: it was restored, and begins anew.
    pub fn footing(&self, instance: u32, hello: &Hello) -> Footing {
        if instance <= self.instance {
            return Footing::Same;
        }
        let known = self.incarnation.map(|known| known.id);
        let has_known = known.is_some_and(|id| hello.chain.iter().any(|incarnation| incarnation.id == id));
        let is_behind = |lane: &LaneHello| {
            let w = self.watermark(&lane.lane, lane.run);
            w.is_some_and(|w| w.seq >= lane.end)
        };
        if has_known && !hello.lanes.iter().any(is_behind) {
            Footing::Carried
        } else {
            Footing::Anew
        }
    }

    /// What admission needs to know of the edge under `instance`, which stands on these marks.
    pub fn known(&self, instance: u32) -> KnownEdge {
        let lanes = self.watermarks.iter().map(|((lane, run), w)| LaneMark {
            lane: lane.clone(),
            run: *run,
            w: *w,
        });
        KnownEdge {
            instance,
            incarnation: self.incarnation,
            lanes: lanes.collect(),
        }
    }

    /// Entries for the store that carry all marks over to `instance`.
    pub fn carried(&self, edge: &str, instance: u32, track_names: &HashMap<TrackId, String>) -> Vec<Put> {
        let key = |lane: &String, run: Run| LaneKey {
            edge: edge.to_owned(),
            instance,
            lane: lane.clone(),
            run,
        };
        let put = |key, position| Put {
            space: Space::Mark,
            key,
            value: position_value(position),
        };
        let watermarks = self
            .watermarks
            .iter()
            .map(|((lane, run), w)| put(watermark_key(&key(lane, *run)), *w));
        let partitions = self.partitions.iter().filter_map(|((lane, run, track), position)| {
            let name = track_names.get(track)?;
            Some(put(partition_key(&key(lane, *run), name), *position))
        });
        watermarks.chain(partitions).collect()
    }

    /// The edge was admitted with this chain, and that is durable.
    pub fn admitted(&mut self, instance: u32, chain: &[Incarnation]) {
        self.instance = instance;
        self.incarnation = chain.last().copied();
        self.chain = chain.to_vec();
    }

    /// Begins anew with these marks. Before [`Book::admitted`], in one go with it.
    pub fn begin(&mut self, starts: &[LaneStart], tracks: &HashMap<TrackId, String>) {
        *self = Self::default();
        for start in starts {
            let key = (start.lane.clone(), start.run);
            if let Some(w) = start.w {
                self.watermarks.insert(key.clone(), w);
            }
            for (held, track) in start
                .held
                .iter()
                .flat_map(|held| tracks.keys().map(move |track| (held, track)))
            {
                self.partitions.insert((key.0.clone(), key.1, *track), *held);
            }
        }
    }

    /// W of a lane moved, and that is durable.
    pub fn moved(&mut self, lane: &str, run: Run, w: Position) {
        match self.watermarks.get_mut(&(lane.to_owned(), run)) {
            Some(mark) => {
                debug_assert!(*mark <= w, "W moved backwards");
                *mark = w;
            }
            None => {
                self.watermarks.insert((lane.to_owned(), run), w);
            }
        }
    }

    /// Last position of the lane in each partition, as far as there is one.
    pub fn partitions(&self, lane: &str, run: Run) -> HashMap<TrackId, Position> {
        let of_lane = self
            .partitions
            .iter()
            .filter(|((name, r, _), _)| name == lane && *r == run);
        of_lane.map(|((_, _, track), position)| (*track, *position)).collect()
    }

    /// Partition marks moved, and that is durable.
    pub fn appended(&mut self, lane: &str, run: Run, marks: &[(TrackId, Position)]) {
        for (track, position) in marks {
            self.partitions.insert((lane.to_owned(), run, *track), *position);
        }
    }
}

#[cfg(test)]
mod tests;
