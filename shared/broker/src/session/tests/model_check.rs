//! What must hold at the end of a run of the model, when everything was drained.

use std::collections::BTreeMap;

use super::model::{Client, FILTERS, Interval, Run, TOPICS};

impl Run {
    pub(super) fn check(&self) {
        let mut log = BTreeMap::new();
        for block in &self.world.store.log {
            for track in &block.tracks {
                for (index, record) in track.block.iter().enumerate() {
                    let payload = String::from_utf8_lossy(record.payload).into_owned();
                    let position = (block.commit, track.first_index + index as u32);
                    assert!(
                        log.insert(payload.clone(), position).is_none(),
                        "{payload} was stored twice"
                    );
                }
            }
        }
        for client in &self.clients[..2] {
            self.check_subscriber(client, &log);
            self.world.assert_books_balance(client.name);
            assert_eq!(self.world.status(client.name).in_flight, 0);
        }
        for client in &self.clients[2..] {
            assert!(
                client.qos2.is_empty() && client.sent.is_empty(),
                "everything is answered"
            );
        }
    }

    fn check_subscriber(&self, client: &Client, log: &BTreeMap<String, (fellbeck_core::CommitNumber, u32)>) {
        let mut times: BTreeMap<&str, (u32, u8)> = BTreeMap::new();
        let mut first_seen = Vec::new();
        for (payload, qos) in &client.taken {
            let entry = times.entry(payload).or_insert((0, *qos));
            entry.0 += 1;
            if entry.0 == 1 {
                first_seen.push((log[payload], payload));
            }
            if *qos != 1 {
                assert_eq!(entry.0, 1, "{}: {payload} at QoS {qos} came twice", client.name);
            }
        }
        assert!(
            first_seen.is_sorted(),
            "{}: order of the log, {first_seen:?}",
            client.name
        );
        if !self.crashed {
            assert!(
                client.fresh.values().all(|count| *count == 1),
                "{}: {:?}",
                client.name,
                client.fresh
            );
        }
        for (payload, &(accepted, topic, qos)) in &self.accepted {
            if !log.contains_key(payload) {
                continue;
            }
            let matches = |interval: &&Interval| {
                fellbeck_core::Filter::parse(FILTERS[interval.filter])
                    .unwrap()
                    .matches(TOPICS[topic])
            };
            let matching: Vec<_> = client.intervals.iter().filter(matches).collect();
            let must = qos > 0
                && matching.iter().any(|interval| {
                    interval.qos > 0
                        && interval.granted.is_some_and(|granted| granted < accepted)
                        && interval.left.is_none_or(|left| accepted < left)
                });
            let may = matching
                .iter()
                .any(|interval| interval.asked <= accepted && interval.gone.is_none_or(|gone| accepted <= gone));
            let has = times.contains_key(payload.as_str());
            assert!(
                has || !must,
                "{} lost {payload}: {matching:?}, accepted {accepted}",
                client.name
            );
            assert!(
                may || !has,
                "{} should not have {payload}: {matching:?}, accepted {accepted}",
                client.name
            );
        }
    }

    pub(super) fn check_group(&self) {
        let mut times: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for client in &self.clients[..2] {
            for (payload, qos) in &client.taken {
                times.entry(payload).or_default().push(*qos);
            }
            assert_eq!(self.world.status(client.name).in_flight, 0);
        }
        for (payload, (_, _, qos)) in self
            .accepted
            .iter()
            .filter(|(payload, _)| self.position(payload).is_some())
        {
            let got = times.get(payload.as_str()).cloned().unwrap_or_default();
            assert!(!got.is_empty() || *qos == 0, "the group lost {payload}");
            // After a crash a member at QoS 2 may be given what another had at QoS 1.
            let at = |qos: u8| got.iter().filter(|of| **of == qos).count();
            assert!(at(2) <= 1 && at(0) <= 1, "{payload} came at {got:?}");
        }
        for group in self.world.core.groups.iter() {
            assert!(group.outstanding.is_empty() && group.returned.is_empty(), "{group:?}");
            assert_eq!(group.reader.ledger.in_flight(), 0, "{:?}", group.reader.ledger);
        }
    }
}
