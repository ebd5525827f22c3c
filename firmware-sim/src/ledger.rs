//! The books of a run: what each device published, and what each reader received.
//!
//! In: publishes, acks, resends and refusals of the devices; stamps seen by the readers. Out: a [`Verdict`].
//! One byte per message for the devices and one per message and reader, so that ten million messages cost some 30 MB.
//!
//! A message that a device sent again, since a kill took its ack, may be stored twice: the broker cannot know better
//! once it has lost the packet ID. Such doubles are counted as `resent by device` and are no failure. They are allowed
//! for QoS 1, and for QoS 2 only where the broker had lost the session.

use std::collections::HashMap;

use crate::histogram::Histogram;
use crate::qos::Qos;

/// A device may not run ahead of this: protects the reader against hostile sequence numbers.
const SEQ_MAX: u64 = 50_000_000;

const QOS_MASK: u8 = 0b11;
const ACKED: u8 = 1 << 2;
const RESENT: u8 = 1 << 3;
const REFUSED: u8 = 1 << 4;
const PUBLISHED: u8 = 1 << 5;

/// Index of a device in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceKey(usize);

/// Index of a reader in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderKey(usize);

/// How a message was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// With its packet ID and DUP, in a session that lived on.
    Resumed,
    /// As a new message, since the session was gone.
    Afresh,
}

/// What one device did. The fate of sequence `n` is at `n - 1`.
#[derive(Debug, Default)]
pub(crate) struct DeviceBook {
    pub(crate) name: String,
    pub(crate) fates: Vec<u8>,
}

/// What one reader saw of one device.
#[derive(Debug, Default, Clone)]
struct Tally {
    /// Deliveries per sequence, as in [`DeviceBook::fates`].
    counts: Vec<u8>,
    /// Highest sequence seen so far.
    highest: u64,
    /// First deliveries of a sequence below one already seen.
    out_of_order: u64,
}

#[derive(Debug)]
struct ReaderBook {
    name: String,
    tallies: Vec<Tally>,
    deliveries: u64,
    foreign: u64,
    latency_us: Histogram,
}

/// The books of all devices and readers.
#[derive(Debug, Default)]
pub struct Ledger {
    devices: Vec<DeviceBook>,
    names: HashMap<String, DeviceKey>,
    readers: Vec<ReaderBook>,
    totals: Totals,
}

/// Running totals, for progress lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Messages handed to the MQTT clients.
    pub published: u64,
    /// Messages acknowledged by the broker (QoS 1 and 2).
    pub acked: u64,
    /// Packets sent again.
    pub resent: u64,
    /// Messages that the broker refused with a reason code.
    pub refused: u64,
}

/// What a device message is known to be once a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// First delivery to this reader.
    First,
    /// Delivered before.
    Double,
    /// Of no device that this ledger knows.
    Foreign,
}

impl Ledger {
    /// Opens the book of a device; the same name gives the same book.
    pub fn device(&mut self, name: &str) -> DeviceKey {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        let key = DeviceKey(self.devices.len());
        self.devices.push(DeviceBook {
            name: name.to_owned(),
            fates: Vec::new(),
        });
        self.names.insert(name.to_owned(), key);
        key
    }

    /// Opens the book of a reader.
    pub fn reader(&mut self, name: &str) -> ReaderKey {
        let latency_us = Histogram::new();
        let book = ReaderBook {
            name: name.to_owned(),
            tallies: Vec::new(),
            deliveries: 0,
            foreign: 0,
            latency_us,
        };
        self.readers.push(book);
        ReaderKey(self.readers.len() - 1)
    }

    /// A device handed `seq` to its client.
    pub fn handle_published(&mut self, device: DeviceKey, seq: u64, qos: Qos) {
        *self.fate(device, seq) = PUBLISHED | qos.level();
        self.totals.published += 1;
    }

    /// The broker acknowledged `seq`: PUBACK, or PUBREC at QoS 2.
    pub fn handle_acked(&mut self, device: DeviceKey, seq: u64) {
        let fate = self.fate(device, seq);
        let new = *fate & ACKED == 0;
        *fate |= ACKED;
        self.totals.acked += u64::from(new);
    }

    /// The broker refused `seq` with a reason code: it may be lost.
    pub fn handle_refused(&mut self, device: DeviceKey, seq: u64) {
        *self.fate(device, seq) |= REFUSED;
        self.totals.refused += 1;
    }

    /// The device sent `seq` again.
    pub fn handle_resent(&mut self, device: DeviceKey, seq: u64, resend: Resend) {
        let fate = self.fate(device, seq);
        if resend == Resend::Afresh || *fate & QOS_MASK != Qos::ExactlyOnce.level() {
            *fate |= RESENT;
        }
        self.totals.resent += 1;
    }

    /// A reader saw a message; `latency_us` is its age. A sequence of 0 or beyond all reason is foreign.
    pub fn handle_received(&mut self, reader: ReaderKey, device: &str, seq: u64, latency_us: u64) -> Seen {
        let key = self.names.get(device).copied();
        let book = &mut self.readers[reader.0];
        let (Some(key), 1..=SEQ_MAX) = (key, seq) else {
            book.foreign += 1;
            return Seen::Foreign;
        };
        book.deliveries += 1;
        if book.tallies.len() <= key.0 {
            book.tallies.resize(key.0 + 1, Tally::default());
        }
        let seen = book.tallies[key.0].handle_received(seq);
        if seen == Seen::First {
            book.latency_us.record(latency_us);
        }
        seen
    }

    /// Messages delivered to a reader so far.
    pub fn deliveries(&self, reader: ReaderKey) -> u64 {
        self.readers[reader.0].deliveries
    }

    /// Latency of the first deliveries to a reader, and a fresh histogram in its place.
    pub fn take_latency(&mut self, reader: ReaderKey) -> Histogram {
        std::mem::take(&mut self.readers[reader.0].latency_us)
    }

    /// Running totals of the devices.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether each acknowledged message has reached this reader.
    pub fn is_complete(&self, reader: ReaderKey) -> bool {
        self.judge(reader).lost == 0
    }

    /// Compares the book of a reader with those of the devices.
    ///
    /// Where a device has no book of its own (`check` without a ledger file), each sequence up to the highest seen
    /// counts as acknowledged: a hole is a loss.
    pub fn judge(&self, reader: ReaderKey) -> ReaderVerdict {
        let book = &self.readers[reader.0];
        let mut verdict = ReaderVerdict {
            name: book.name.clone(),
            deliveries: book.deliveries,
            foreign: book.foreign,
            ..ReaderVerdict::default()
        };
        let empty = Tally::default();
        for (index, device) in self.devices.iter().enumerate() {
            let tally = book.tallies.get(index).unwrap_or(&empty);
            verdict.out_of_order += tally.out_of_order;
            judge_device(&device.fates, tally, &mut verdict);
        }
        verdict
    }

    /// Judges all readers.
    pub fn verdict(&self) -> Verdict {
        let readers = (0..self.readers.len())
            .map(|index| self.judge(ReaderKey(index)))
            .collect();
        let mut qos_0 = 0;
        let mut unacked = 0;
        for fate in self.devices.iter().flat_map(|device| &device.fates) {
            let is_qos_0 = fate & QOS_MASK == 0;
            qos_0 += u64::from(is_qos_0 && fate & PUBLISHED != 0);
            unacked += u64::from(!is_qos_0 && fate & (ACKED | REFUSED) == 0);
        }
        Verdict {
            totals: self.totals,
            qos_0,
            unacked,
            readers,
        }
    }

    pub(crate) fn books(&self) -> &[DeviceBook] {
        &self.devices
    }

    /// Adds the book of a device as it was written by another process.
    pub(crate) fn restore(&mut self, name: &str, fates: Vec<u8>) {
        for fate in &fates {
            self.totals.published += u64::from(fate & PUBLISHED != 0);
            self.totals.acked += u64::from(fate & ACKED != 0);
            self.totals.refused += u64::from(fate & REFUSED != 0);
            self.totals.resent += u64::from(fate & RESENT != 0);
        }
        let key = self.device(name);
        self.devices[key.0].fates = fates;
    }

    fn fate(&mut self, device: DeviceKey, seq: u64) -> &mut u8 {
        assert!(
            (1..=SEQ_MAX).contains(&seq),
            "sequence {seq} of a device is out of range"
        );
        let fates = &mut self.devices[device.0].fates;
        slot(fates, seq)
    }
}

impl Tally {
    fn handle_received(&mut self, seq: u64) -> Seen {
        let count = slot(&mut self.counts, seq);
        *count = count.saturating_add(1);
        if *count > 1 {
            return Seen::Double;
        }
        if seq < self.highest {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(seq);
        Seen::First
    }
}

/// The byte of a sequence; the vector grows by need.
fn slot(bytes: &mut Vec<u8>, seq: u64) -> &mut u8 {
    let index = usize::try_from(seq - 1).expect("bounded by SEQ_MAX");
    if bytes.len() <= index {
        bytes.resize(index + 1, 0);
    }
    &mut bytes[index]
}

fn judge_device(fates: &[u8], tally: &Tally, verdict: &mut ReaderVerdict) {
    for index in 0..fates.len().max(tally.counts.len()) {
        let count = u64::from(tally.counts.get(index).copied().unwrap_or(0));
        let fate = match fates.get(index) {
            Some(fate) => *fate,
            None if fates.is_empty() => ACKED | Qos::AtLeastOnce.level(),
            None => 0,
        };
        verdict.received += u64::from(count > 0);
        let promised = fate & ACKED != 0 && fate & REFUSED == 0;
        verdict.lost += u64::from(count == 0 && promised);
        let extra = count.saturating_sub(1);
        if fate & RESENT == 0 {
            verdict.doubled += extra;
        } else {
            verdict.resent_by_device += extra;
        }
    }
}

/// What a reader got, compared with what the devices were promised.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ReaderVerdict {
    /// Name of the reader.
    pub name: String,
    /// Messages delivered, doubles included.
    pub deliveries: u64,
    /// Different messages received.
    pub received: u64,
    /// Acknowledged messages that never came.
    pub lost: u64,
    /// Second and later deliveries without an excuse.
    pub doubled: u64,
    /// Second and later deliveries of what the device itself had sent again.
    pub resent_by_device: u64,
    /// First deliveries after a later message of the same device.
    pub out_of_order: u64,
    /// Messages of no known device.
    pub foreign: u64,
}

impl ReaderVerdict {
    /// Nothing lost, nothing doubled, order kept.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.out_of_order == 0
    }
}

/// The end of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the devices did.
    pub totals: Totals,
    /// Messages published at QoS 0, of which nothing is promised.
    pub qos_0: u64,
    /// Messages at QoS 1 and 2 without an ack.
    pub unacked: u64,
    /// One entry per reader.
    pub readers: Vec<ReaderVerdict>,
}

impl Verdict {
    /// All acknowledged, and each reader clean.
    pub fn is_clean(&self) -> bool {
        self.unacked == 0 && self.totals.refused == 0 && self.readers.iter().all(ReaderVerdict::is_clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(qos: Qos, published: u64) -> (Ledger, DeviceKey, ReaderKey) {
        let mut ledger = Ledger::default();
        let device = ledger.device("d");
        let reader = ledger.reader("r");
        for seq in 1..=published {
            ledger.handle_published(device, seq, qos);
        }
        (ledger, device, reader)
    }

    fn receive(ledger: &mut Ledger, reader: ReaderKey, seqs: &[u64]) {
        for seq in seqs {
            ledger.handle_received(reader, "d", *seq, 10);
        }
    }

    #[test]
    fn complete_and_ordered_books_are_clean() {
        let (mut ledger, device, reader) = books(Qos::AtLeastOnce, 3);
        (1..=3).for_each(|seq| ledger.handle_acked(device, seq));
        receive(&mut ledger, reader, &[1, 2, 3]);
        let verdict = ledger.verdict();
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.readers[0].received, 3);
    }

    #[test]
    fn an_acked_message_that_never_came_is_lost_and_an_unacked_one_is_not() {
        let (mut ledger, device, reader) = books(Qos::AtLeastOnce, 3);
        ledger.handle_acked(device, 1);
        ledger.handle_acked(device, 2);
        receive(&mut ledger, reader, &[1]);
        assert_eq!(ledger.judge(reader).lost, 1);
        assert_eq!(ledger.verdict().unacked, 1);
        assert!(!ledger.verdict().is_clean());
    }

    #[test]
    fn doubles_of_what_the_device_sent_again_are_no_failure() {
        let (mut ledger, device, reader) = books(Qos::AtLeastOnce, 3);
        (1..=3).for_each(|seq| ledger.handle_acked(device, seq));
        ledger.handle_resent(device, 2, Resend::Resumed);
        receive(&mut ledger, reader, &[1, 2, 2, 3]);
        let verdict = ledger.judge(reader);
        assert!(verdict.is_clean());
        assert_eq!(verdict.resent_by_device, 1);
        receive(&mut ledger, reader, &[3]);
        assert_eq!(ledger.judge(reader).doubled, 1);
    }

    #[test]
    fn a_qos_2_message_sent_again_in_its_session_may_not_double() {
        let (mut ledger, device, reader) = books(Qos::ExactlyOnce, 2);
        ledger.handle_resent(device, 1, Resend::Resumed);
        ledger.handle_resent(device, 2, Resend::Afresh);
        receive(&mut ledger, reader, &[1, 1, 2, 2]);
        let verdict = ledger.judge(reader);
        assert_eq!((verdict.doubled, verdict.resent_by_device), (1, 1));
    }

    /// The log then holds 1 2 3 | 2 3 4: the first deliveries are in order.
    #[test]
    fn a_resent_run_is_in_order_and_a_late_first_delivery_is_not() {
        let (mut ledger, device, reader) = books(Qos::AtLeastOnce, 6);
        ledger.handle_resent(device, 2, Resend::Resumed);
        ledger.handle_resent(device, 3, Resend::Resumed);
        receive(&mut ledger, reader, &[1, 2, 3, 2, 3, 4]);
        assert_eq!(ledger.judge(reader).out_of_order, 0);
        receive(&mut ledger, reader, &[6, 5]);
        assert_eq!(ledger.judge(reader).out_of_order, 1);
    }

    #[test]
    fn without_a_device_book_a_hole_is_a_loss() {
        let mut ledger = Ledger::default();
        ledger.device("d");
        let reader = ledger.reader("r");
        receive(&mut ledger, reader, &[1, 2, 4]);
        let verdict = ledger.judge(reader);
        assert_eq!((verdict.received, verdict.lost), (3, 1));
    }

    #[test]
    fn foreign_messages_change_no_book() {
        let (mut ledger, _, reader) = books(Qos::AtLeastOnce, 1);
        assert_eq!(ledger.handle_received(reader, "somebody", 1, 0), Seen::Foreign);
        assert_eq!(ledger.handle_received(reader, "d", 0, 0), Seen::Foreign);
        assert_eq!(ledger.handle_received(reader, "d", u64::MAX, 0), Seen::Foreign);
        let verdict = ledger.judge(reader);
        assert_eq!((verdict.foreign, verdict.deliveries), (3, 0));
    }
}
