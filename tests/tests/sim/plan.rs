//! What kind of world a seed gives: its size, its settings, and which faults it knows; and the bug that a test plants in it.

use super::dice::Dice;

/// A bug in the drivers or the store of the world, each of a class that the invariants are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The store answers a submission before its commit is durable (I1, I3).
    AckBeforeCommit,
    /// The cloud's marks reach flash one commit after their records (I4).
    MarkNotAtomic,
    /// The uplink remembers one record more than the cloud has acknowledged (I2).
    CursorAhead,
    /// The cloud acknowledges what it has only submitted (I3).
    LinkAckAhead,
    /// A declared gap moves W without leaving a record (I3, I6).
    LostGapRecord,
    /// A crash loses the note that a QoS 2 message was received, and keeps the message (P3).
    LostQos2Note,
    /// A read of the log moves a reader's cursor over a commit that it did not bring.
    ReaderAhead,
    /// A commit number is used again after a restart (I5).
    CommitNumberReused,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) planted: Option<Planted>,
    pub(crate) steps: u64,
    /// Lanes that are forwarded.
    pub(crate) lanes: usize,
    /// Partitions of the default stream.
    pub(crate) partitions: u32,
    pub(crate) edge_publishers: usize,
    pub(crate) edge_readers: usize,
    pub(crate) cloud_publishers: usize,
    pub(crate) cloud_readers: usize,
    /// The edge may lose the last synced commit.
    pub(crate) damage: bool,
    /// The cloud may be put back to a copy.
    pub(crate) cloud_restore: bool,
    /// The edge may be put back to a copy.
    pub(crate) edge_restore: bool,
    /// Clocks jump, and messages expire.
    pub(crate) clock_jumps: bool,
    /// The stores may be full for a while.
    pub(crate) pressure: bool,
    /// One reader never reads before the end.
    pub(crate) stuck_reader: bool,
    /// Records per sealed segment on the edge; all are kept where it is `None`.
    pub(crate) segment_records: Option<u64>,
    /// Bytes that the edge keeps for a restored cloud.
    pub(crate) grace_bytes: u64,
    /// Bytes that sessions may pin.
    pub(crate) pin_bytes: u64,
    /// Bytes of the tail.
    pub(crate) tail_bytes: usize,
    /// Weight of crashes, cuts and so on, in percent of the usual.
    pub(crate) fury: u64,
}

impl Plan {
    pub(crate) fn of(dice: &mut Dice, planted: Option<Planted>) -> Self {
        let segment_records = dice.chance(70).then(|| dice.between(1..=6));
        Self {
            planted,
            steps: dice.between(600..=3600),
            lanes: dice.between(1..=2) as usize,
            partitions: dice.between(1..=3) as u32,
            edge_publishers: dice.between(1..=3) as usize,
            edge_readers: dice.between(0..=2) as usize,
            cloud_publishers: dice.below(2) as usize,
            cloud_readers: dice.between(1..=2) as usize,
            damage: dice.chance(20),
            cloud_restore: dice.chance(10),
            edge_restore: dice.chance(8),
            clock_jumps: dice.chance(25),
            pressure: dice.chance(30),
            stuck_reader: dice.chance(20),
            segment_records,
            grace_bytes: dice.pick(&[0, 0, 500, 2000]),
            pin_bytes: if dice.chance(15) { 400 } else { u64::MAX },
            tail_bytes: dice.pick(&[300, 2000, 1 << 20]),
            fury: dice.pick(&[5, 10, 20, 40, 100]),
        }
    }
}
