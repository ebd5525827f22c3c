//! The books of a test: what each device sent and had acknowledged, what each reader received, and the comparison.
//!
//! In: entries made by device and reader threads. Out: a [`Verdict`] with the stamps that break a rule.
//! The rules are those of issue MAIN: nothing acknowledged is lost; first receptions of a device's messages rise; nothing is doubled
//! except a QoS 1 message that its device itself sent more than once.

use std::collections::HashMap;

use crate::stamp::Stamp;

/// How many offending stamps a verdict keeps for its message.
const SHOWN: usize = 10;

/// What one device did.
#[derive(Debug, Clone, Default)]
pub struct DeviceBook {
    /// Name of the device.
    pub device: String,
    /// QoS of its publishes.
    pub qos: u8,
    /// Per sequence: how often it was written to a socket.
    pub sends: Vec<u32>,
    /// Per sequence: the node acknowledged it.
    pub acked: Vec<bool>,
    /// Per sequence: the node refused it with this code.
    pub rejected: HashMap<usize, u8>,
    /// Connections made.
    pub connects: u32,
    /// Reconnects at which the node did not know the persistent session any more.
    pub sessions_lost: u32,
}

impl DeviceBook {
    /// Writes beyond the first, over all messages: how many copies of its messages a QoS 1 device may have caused.
    #[must_use]
    pub fn resends(&self) -> usize {
        self.sends.iter().map(|sends| sends.saturating_sub(1) as usize).sum()
    }

    /// Messages acknowledged.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        self.acked.iter().filter(|acked| **acked).count()
    }
}

/// What one reader received, in its order.
#[derive(Debug, Clone, Default)]
pub struct ReaderBook {
    /// Stamps in the order of reception, repeated ones too.
    pub received: Vec<Stamp>,
    /// Messages that carry no stamp.
    pub strange: usize,
    /// Connections made.
    pub connects: u32,
    /// Reconnects at which the node did not know the persistent session any more.
    pub sessions_lost: u32,
    counts: HashMap<Stamp, u32>,
}

impl ReaderBook {
    /// Enters a payload.
    pub fn enter(&mut self, payload: &[u8]) {
        let Some(stamp) = Stamp::parse(payload) else {
            self.strange += 1;
            return;
        };
        *self.counts.entry(stamp.clone()).or_default() += 1;
        self.received.push(stamp);
    }

    /// How often `stamp` was received.
    #[must_use]
    pub fn count(&self, stamp: &Stamp) -> u32 {
        self.counts.get(stamp).copied().unwrap_or(0)
    }

    /// True when everything that the device had acknowledged is here.
    #[must_use]
    pub fn has_all_acked(&self, device: &DeviceBook) -> bool {
        if self.distinct() < device.acked_count() {
            return false;
        }
        let stamp = |seq| Stamp {
            device: device.device.clone(),
            seq,
        };
        let mut seqs = device
            .acked
            .iter()
            .enumerate()
            .filter(|(_, acked)| **acked)
            .map(|(seq, _)| seq);
        seqs.all(|seq| self.count(&stamp(seq)) > 0)
    }

    /// Distinct stamps received.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.counts.len()
    }
}

/// Outcome of a comparison. All lists are cut to a few entries; the counts are whole.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Messages that the devices published.
    pub published: usize,
    /// Messages acknowledged to them.
    pub acked: usize,
    /// Receptions.
    pub received: usize,
    /// Acknowledged and not received.
    pub lost: usize,
    /// Received more often than the rules allow, at QoS 2.
    pub doubled: usize,
    /// Received more often than the device sent it, at QoS 1. Legal when the reader's own node was killed: it may see again what it
    /// acknowledged in the last second before.
    pub repeated: usize,
    /// Received more than once since the device itself resent it.
    pub resent: usize,
    /// First receptions behind a later one of the same device.
    pub disordered: usize,
    /// Some of the stamps that broke a rule, with the rule.
    pub examples: Vec<(&'static str, Stamp)>,
}

impl Verdict {
    /// Demands that no rule is broken.
    ///
    /// # Panics
    /// When one is.
    pub fn assert_clean(&self, who: &str) {
        assert_eq!(self.repeated, 0, "{who}: the books do not balance: {self:?}");
        self.assert_clean_across_kills(who);
    }

    /// Demands that no rule is broken, of a reader at QoS 2 whose node was killed: what QoS 2 devices sent came once. What QoS 1 devices
    /// sent is delivered at QoS 1 whatever the reader asked for ([MQTT5-3.8.4-8]), so it may be repeated.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn assert_clean_across_kills(&self, who: &str) {
        let broken = self.lost + self.doubled + self.disordered;
        assert_eq!(broken, 0, "{who}: the books do not balance: {self:?}");
        assert!(
            self.acked > 0,
            "{who}: nothing was acknowledged, so nothing was tested: {self:?}"
        );
    }

    /// The same for a QoS 1 reader that may see again what it acknowledged before a kill: doubles are allowed.
    ///
    /// # Panics
    /// When something is lost or out of order.
    pub fn assert_complete(&self, who: &str) {
        let broken = self.lost + self.disordered;
        assert_eq!(broken, 0, "{who}: the books do not balance: {self:?}");
        assert!(
            self.acked > 0,
            "{who}: nothing was acknowledged, so nothing was tested: {self:?}"
        );
    }

    fn note(&mut self, rule: &'static str, stamp: Stamp) {
        if self.examples.len() < SHOWN {
            self.examples.push((rule, stamp));
        }
    }
}

/// Compares what `devices` did with what a reader received.
#[must_use]
pub fn judge(devices: &[DeviceBook], reader: &ReaderBook) -> Verdict {
    let mut verdict = Verdict {
        received: reader.received.len(),
        ..Verdict::default()
    };
    for device in devices {
        judge_counts(device, reader, &mut verdict);
    }
    let mut newest: HashMap<&str, usize> = HashMap::new();
    let mut seen: std::collections::HashSet<&Stamp> = std::collections::HashSet::new();
    for stamp in reader
        .received
        .iter()
        .filter(|stamp| devices.iter().any(|d| d.device == stamp.device))
    {
        if !seen.insert(stamp) {
            continue;
        }
        let newest = newest.entry(&stamp.device).or_insert(stamp.seq);
        if stamp.seq < *newest {
            verdict.disordered += 1;
            verdict.note("order", stamp.clone());
        }
        *newest = stamp.seq.max(*newest);
    }
    verdict
}

fn judge_counts(device: &DeviceBook, reader: &ReaderBook, verdict: &mut Verdict) {
    for (seq, sends) in device.sends.iter().enumerate() {
        let stamp = Stamp {
            device: device.device.clone(),
            seq,
        };
        let acked = device.acked.get(seq).copied().unwrap_or(false);
        let received = reader.count(&stamp);
        verdict.published += 1;
        verdict.acked += usize::from(acked);
        if acked && received == 0 {
            verdict.lost += 1;
            verdict.note("lost", stamp.clone());
        }
        // A QoS 2 message is there once however often its device sent it: the packet ID is in the record's commit.
        let allowed = if device.qos == 1 { *sends } else { 1 };
        if received > allowed && device.qos == 1 {
            verdict.repeated += 1;
            verdict.note("repeated", stamp);
        } else if received > allowed {
            verdict.doubled += 1;
            verdict.note("doubled", stamp);
        } else if received > 1 {
            verdict.resent += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceBook, ReaderBook, judge};

    fn device(qos: u8, sends: &[u32]) -> DeviceBook {
        DeviceBook {
            device: "d".into(),
            qos,
            sends: sends.to_vec(),
            acked: vec![true; sends.len()],
            ..DeviceBook::default()
        }
    }

    fn reader(seqs: &[usize]) -> ReaderBook {
        let mut book = ReaderBook::default();
        for seq in seqs {
            book.enter(format!("d {seq} ").as_bytes());
        }
        book
    }

    #[test]
    fn a_loss_a_double_and_a_swap_are_each_found() {
        assert_eq!(judge(&[device(1, &[1, 1, 1])], &reader(&[0, 2])).lost, 1);
        assert_eq!(judge(&[device(1, &[1, 1])], &reader(&[0, 1, 1])).repeated, 1);
        assert_eq!(judge(&[device(2, &[1, 1])], &reader(&[0, 1, 1])).doubled, 1);
        assert_eq!(judge(&[device(1, &[1, 1])], &reader(&[1, 0])).disordered, 1);
    }

    #[test]
    fn a_resent_message_may_come_twice_at_qos_1_but_not_at_qos_2() {
        assert_eq!(judge(&[device(1, &[1, 2])], &reader(&[0, 1, 1])).repeated, 0);
        assert_eq!(judge(&[device(1, &[1, 2])], &reader(&[0, 1, 1, 1])).repeated, 1);
        assert_eq!(judge(&[device(2, &[1, 2])], &reader(&[0, 1, 1])).doubled, 1);
    }

    #[test]
    fn a_repeat_of_older_messages_keeps_the_order() {
        let verdict = judge(&[device(1, &[2, 2, 1])], &reader(&[0, 1, 0, 1, 2]));
        assert_eq!((verdict.disordered, verdict.repeated, verdict.resent), (0, 0, 2));
    }
}
