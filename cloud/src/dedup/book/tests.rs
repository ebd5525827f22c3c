//! Marks of an edge under one instance and the next.

use fellbeck_core::{ClockQuality, Epoch, Seq, WallTime};
use fellbeck_link::NodeKind;

use super::super::mark::decode;
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

fn marked(instance: u32, seq: u64) -> Mark {
    Mark::Watermark {
        lane: lane(instance),
        position: at(seq),
    }
}

fn incarnation(id: u8, parent: u8) -> Incarnation {
    Incarnation {
        epoch: Epoch(u32::from(id)),
        id: [id; 16],
        parent: [parent; 16],
    }
}

fn hello(chain: &[Incarnation], end: u64) -> Hello {
    Hello {
        edge: "barn".into(),
        instance: 1,
        kind: NodeKind::Edge,
        chain: chain.to_vec(),
        log_id: None,
        lanes: vec![LaneHello {
            lane: "default".into(),
            run: Run(0),
            epoch: Epoch(1),
            first: Seq(1),
            end: Seq(end),
            acked: None,
        }],
        now: WallTime(0),
        clock: ClockQuality::Synced,
    }
}

#[test]
fn marks_of_an_older_instance_are_history_in_whatever_order_they_are_loaded() {
    for marks in [[marked(1, 100), marked(2, 3)], [marked(2, 3), marked(1, 100)]] {
        let mut book = Book::default();
        marks.into_iter().for_each(|mark| book.load(mark, |_| None));
        assert_eq!(
            book.known(2).lanes,
            [LaneMark {
                lane: "default".into(),
                run: Run(0),
                w: at(3)
            }]
        );
        let chain = [incarnation(1, 0)];
        assert_eq!(
            book.footing(3, &hello(&chain, 1000)),
            Footing::Anew,
            "a new instance begins with nothing"
        );
    }
}

#[test]
fn an_edge_admitted_under_a_new_instance_starts_with_an_empty_book() {
    let mut book = Book::default();
    book.load(marked(1, 100), |_| None);
    book.begin(&[], &HashMap::new());
    book.admitted(2, &[incarnation(1, 0)]);
    assert!(book.known(2).lanes.is_empty());
    book.moved("default", Run(0), at(7));
    book.moved("default", Run(0), at(9));
    assert_eq!(book.known(2).lanes[0].w, at(9));
}

/// A re-join with an intact store must not send everything again: a new certificate is not a new history.
#[test]
fn a_store_that_joined_again_keeps_its_marks_under_the_new_instance() {
    let (known, later) = (incarnation(1, 0), incarnation(2, 1));
    let mut book = Book::default();
    book.admitted(1, &[known]);
    book.moved("default", Run(0), at(100));
    assert_eq!(book.footing(1, &hello(&[later], 101)), Footing::Same);
    assert_eq!(book.footing(2, &hello(&[known, later], 101)), Footing::Carried);
    assert_eq!(
        book.footing(2, &hello(&[later], 101)),
        Footing::Anew,
        "another store begins anew"
    );
    let carried = book.carried("barn", 2, &HashMap::new());
    let mut loaded = Book::default();
    loaded.load(marked(1, 50), |_| None);
    for put in carried {
        loaded.load(decode(&put.key, &put.value).unwrap(), |_| None);
    }
    assert_eq!(loaded.known(2).lanes[0].w, at(100));
    book.admitted(2, &[known, later]);
    assert_eq!(book.known(2).lanes[0].w, at(100));
}

/// Its chain has the known incarnation, but it lacks records that the log has: carried over, the marks would refuse it for ever.
#[test]
fn a_restored_store_that_joined_again_does_not_stand_on_marks_that_lie_above_it() {
    let (known, later) = (incarnation(1, 0), incarnation(2, 1));
    let mut book = Book::default();
    book.admitted(1, &[known]);
    book.moved("default", Run(0), at(100));
    assert_eq!(book.footing(2, &hello(&[known, later], 100)), Footing::Anew);
    assert_eq!(book.footing(2, &hello(&[known, later], 101)), Footing::Carried);
}

#[test]
fn a_book_that_begins_with_marks_comes_back_from_their_entries() {
    let tracks = HashMap::from([(TrackId(3), "stream/default/0".to_owned())]);
    let start = LaneStart {
        lane: "default".into(),
        run: Run(0),
        w: Some(Position {
            epoch: Epoch(0),
            seq: Seq(50),
        }),
        held: Some(at(80)),
    };
    let mut book = Book::default();
    book.load(marked(1, 100), |_| None);
    let puts = start.puts("barn", 2, &tracks);
    book.begin(std::slice::from_ref(&start), &tracks);
    book.admitted(2, &[incarnation(2, 1)]);
    let mut loaded = Book::default();
    loaded.load(marked(1, 100), |_| None);
    for put in puts {
        loaded.load(decode(&put.key, &put.value).unwrap(), |_| Some(TrackId(3)));
    }
    for book in [book, loaded] {
        assert_eq!(book.known(2).lanes[0].w.seq, Seq(50));
        assert_eq!(
            book.partitions("default", Run(0)),
            HashMap::from([(TrackId(3), at(80))])
        );
    }
}
