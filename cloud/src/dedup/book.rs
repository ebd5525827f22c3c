//! The marks of one edge in memory: its last incarnation, W of its lanes, and the partition marks.
//!
//! In: entries of the store at start, then every commit of the edge's one link. Out: what admission and the ingest ask.
//! The marks here are those that are durable: a link moves them when its commit is, and only one link per edge exists at a time.

use std::collections::HashMap;

use fellbeck_core::{Incarnation, Position, Run, TrackId};
use fellbeck_link::{KnownEdge, LaneMark};
use fellbeck_store::{Commit, Put, Space, Urgency};

use super::mark::{LaneKey, Mark, edge_key, edge_value, partition_key, position_value, watermark_key};

/// What the log holds of one edge instance.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Instance that the entries belong to; 0: none.
    instance: u32,
    incarnation: Option<Incarnation>,
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

    /// Whether an edge that joined again as `instance` is the store that these entries are about: its chain says so.
    ///
    /// Then the entries go on under the new instance, so that a new certificate alone sends nothing twice.
    pub fn continues(&self, instance: u32, chain: &[Incarnation]) -> bool {
        let known = self.incarnation.map(|known| known.id);
        instance > self.instance && known.is_some_and(|id| chain.iter().any(|incarnation| incarnation.id == id))
    }

    /// What admission needs to know of the edge under `instance`.
    pub fn known(&self, instance: u32, chain: &[Incarnation]) -> KnownEdge {
        if instance != self.instance && !self.continues(instance, chain) {
            return KnownEdge {
                instance,
                incarnation: None,
                lanes: Vec::new(),
            };
        }
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

    /// The commit that remembers who is admitted, with the marks where they are carried over to a new instance; and whether they
    /// are. To be durable before the edge is welcomed: then no later crash of the cloud lifts the fence.
    pub fn admission(
        &self,
        (edge, instance): (&str, u32),
        incarnation: Incarnation,
        chain: &[Incarnation],
        track_names: &HashMap<TrackId, String>,
    ) -> (Commit, bool) {
        let carried = self.continues(instance, chain);
        let mut puts = vec![Put {
            space: Space::Mark,
            key: edge_key(edge),
            value: edge_value(instance, incarnation.epoch, &incarnation.id),
        }];
        if carried {
            puts.extend(self.carried(edge, instance, track_names));
        }
        let commit = Commit {
            puts,
            urgency: Urgency::Now,
            ..Commit::default()
        };
        (commit, carried)
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

    /// The edge was admitted in this incarnation, with its marks carried over or not, and that is durable.
    pub fn admitted(&mut self, instance: u32, incarnation: Incarnation, carried: bool) {
        if instance != self.instance && !carried {
            *self = Self::default();
        }
        self.instance = instance;
        self.incarnation = Some(incarnation);
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
mod tests {
    use fellbeck_core::{Epoch, Seq};

    use super::*;

    fn lane(instance: u32) -> LaneKey {
        LaneKey {
            edge: "barn".into(),
            instance,
            lane: "default".into(),
            run: Run(0),
        }
    }

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch(1),
            seq: Seq(seq),
        }
    }

    #[test]
    fn marks_of_an_older_instance_are_history_in_whatever_order_they_are_loaded() {
        let older = Mark::Watermark {
            lane: lane(1),
            position: at(100),
        };
        let newer = Mark::Watermark {
            lane: lane(2),
            position: at(3),
        };
        for marks in [[older.clone(), newer.clone()], [newer, older]] {
            let mut book = Book::default();
            marks.into_iter().for_each(|mark| book.load(mark, |_| None));
            assert_eq!(
                book.known(2, &[]).lanes,
                [LaneMark {
                    lane: "default".into(),
                    run: Run(0),
                    w: at(3)
                }]
            );
            assert!(
                book.known(3, &[]).lanes.is_empty(),
                "a new instance begins with nothing"
            );
        }
    }

    #[test]
    fn an_edge_admitted_under_a_new_instance_starts_with_an_empty_book() {
        let mut book = Book::default();
        book.load(
            Mark::Watermark {
                lane: lane(1),
                position: at(100),
            },
            |_| None,
        );
        book.admitted(
            2,
            Incarnation {
                epoch: Epoch(1),
                id: [1; 16],
                parent: [0; 16],
            },
            false,
        );
        assert!(book.known(2, &[]).lanes.is_empty());
        book.moved("default", Run(0), at(7));
        book.moved("default", Run(0), at(9));
        assert_eq!(book.known(2, &[]).lanes[0].w, at(9));
    }
    /// A re-join with an intact store must not send everything again: a new certificate is not a new history.
    #[test]
    fn a_store_that_joined_again_keeps_its_marks_under_the_new_instance() {
        let known = Incarnation {
            epoch: Epoch(1),
            id: [1; 16],
            parent: [0; 16],
        };
        let later = Incarnation {
            epoch: Epoch(2),
            id: [2; 16],
            parent: [1; 16],
        };
        let mut book = Book::default();
        book.admitted(1, known, false);
        book.moved("default", Run(0), at(100));
        assert!(book.continues(2, &[known, later]));
        assert_eq!(book.known(2, &[known, later]).lanes[0].w, at(100));
        assert!(
            book.known(2, &[later]).lanes.is_empty(),
            "another store begins with nothing"
        );
        let carried = book.carried("barn", 2, &HashMap::new());
        let mut loaded = Book::default();
        loaded.load(
            Mark::Watermark {
                lane: lane(1),
                position: at(50),
            },
            |_| None,
        );
        for put in carried {
            loaded.load(super::super::mark::decode(&put.key, &put.value).unwrap(), |_| None);
        }
        assert_eq!(loaded.known(2, &[]).lanes[0].w, at(100));
        book.admitted(2, later, true);
        assert_eq!(book.known(2, &[]).lanes[0].w, at(100));
    }
}
