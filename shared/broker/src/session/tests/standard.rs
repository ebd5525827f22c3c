//! A plain broker as the standard describes it, to compare the session core with: no log, no commits, no windows.
//!
//! In: what clients do, one act at a time, and the time. Out: what each client must be sent. Where the standard leaves a choice,
//! ours is taken: QoS 0 is not kept for who is away, overlapping subscriptions make one delivery.

use std::collections::BTreeMap;

use fellbeck_core::Filter;

/// What a client must be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) ids: Vec<u32>,
    pub(super) expiry_secs: Option<u32>,
    /// It may also be missing.
    pub(super) is_optional: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) from: usize,
    pub(super) topic: &'static str,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) expiry_secs: Option<u32>,
    /// Second of its publication.
    pub(super) at: u64,
}

impl Message {
    fn remaining(&self, now: u64) -> Option<u32> {
        let age = u32::try_from(now - self.at).unwrap();
        self.expiry_secs.map(|secs| secs.saturating_sub(age))
    }

    fn due(&self, now: u64, qos: u8, retain: bool, ids: Vec<u32>) -> Due {
        Due {
            topic: self.topic.to_owned(),
            payload: self.payload.clone(),
            qos,
            retain,
            dup: false,
            ids,
            expiry_secs: self.remaining(now),
            is_optional: false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Sub {
    pub(super) filter: &'static str,
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) retain_handling: u8,
    pub(super) id: Option<u32>,
}

impl Sub {
    fn matches(&self, topic: &str) -> bool {
        Filter::parse(self.filter).unwrap().matches(topic)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Will {
    pub(super) payload: String,
    pub(super) topic: &'static str,
    pub(super) delay_secs: u32,
    pub(super) retain: bool,
    pub(super) expiry_secs: Option<u32>,
}

/// Sent and not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Unacked {
    pub(super) packet_id: u16,
    pub(super) message: Message,
    pub(super) due: Due,
    pub(super) is_retained: bool,
    /// It is nowhere but in the retained store, since the process that sent it has ended.
    pub(super) is_looked_up: bool,
    /// QoS 2: PUBREC was received.
    pub(super) is_received: bool,
    /// QoS 2: the message is gone, and its packet ID is being released. Only the running process knows.
    pub(super) is_given_up: bool,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) subs: Vec<Sub>,
    pub(super) is_connected: bool,
    pub(super) expiry_secs: u32,
    will: Option<Will>,
    will_due: Option<u64>,
    expires: Option<u64>,
    /// For who is away: message, QoS, RETAIN, subscription identifiers.
    waiting: Vec<(Message, u8, bool, Vec<u32>)>,
    pub(super) unacked: Vec<Unacked>,
    /// Unfinished QoS 2 messages of the client.
    pub(super) inbound: Vec<u16>,
}

/// The broker.
#[derive(Debug, Default)]
pub(super) struct Standard {
    pub(super) now: u64,
    pub(super) sessions: BTreeMap<usize, Session>,
    retained: BTreeMap<&'static str, Message>,
    /// By client: what is due since it was last looked at, with what a resend needs.
    pub(super) due: BTreeMap<usize, Vec<(Due, Message, bool)>>,
    pub(super) releases: BTreeMap<usize, Vec<u16>>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Goodbye,
    WithWill,
    TakenOver,
}

impl Standard {
    /// [MQTT5-3.1.2-4] [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] Gives Session Present.
    pub(super) fn connect(&mut self, who: usize, clean: bool, expiry_secs: u32, will: Option<Will>) -> bool {
        if self.is_connected(who) {
            let end = if clean { End::WithWill } else { End::TakenOver };
            self.disconnect(who, end, None);
        }
        if clean {
            self.end(who);
        }
        let present = self.sessions.contains_key(&who);
        let now = self.now;
        let session = self.sessions.entry(who).or_default();
        (session.is_connected, session.expiry_secs, session.will) = (true, expiry_secs, will);
        (session.will_due, session.expires) = (None, None);
        let due = self.due.entry(who).or_default();
        let releases = self.releases.entry(who).or_default();
        // [MQTT5-4.4.0-1]
        let unacked = std::mem::take(&mut session.unacked);
        for entry in &unacked {
            if entry.is_received {
                releases.push(entry.packet_id);
                continue;
            }
            // Where the value was replaced, the old one is nowhere any more.
            let present = self.retained.get(entry.message.topic);
            let is_gone = present.is_none_or(|present| present.payload != entry.message.payload);
            let again = Due {
                dup: true,
                is_optional: entry.is_looked_up && is_gone,
                expiry_secs: entry.message.remaining(now).map(|secs| secs.max(1)),
                ..entry.due.clone()
            };
            due.push((again, entry.message.clone(), entry.is_retained));
        }
        session.unacked = unacked.into_iter().filter(|entry| entry.is_received).collect();
        for (message, qos, retain, ids) in std::mem::take(&mut session.waiting) {
            if message.remaining(now) != Some(0) {
                let is_optional = qos == 0;
                let waited = Due {
                    is_optional,
                    ..message.due(now, qos, retain, ids)
                };
                due.push((waited, message, false));
            }
        }
        present
    }

    pub(super) fn is_connected(&self, who: usize) -> bool {
        self.sessions.get(&who).is_some_and(|session| session.is_connected)
    }

    pub(super) fn disconnect(&mut self, who: usize, end: End, expiry_secs: Option<u32>) {
        let now = self.now;
        let session = self.sessions.get_mut(&who).unwrap();
        session.is_connected = false;
        session.expiry_secs = expiry_secs.unwrap_or(session.expiry_secs);
        if end == End::Goodbye {
            session.will = None;
        }
        let expiry = session.expiry_secs;
        session.expires = Some(now + u64::from(expiry));
        let delay = session.will.as_ref().map(|will| will.delay_secs.min(expiry));
        if expiry == 0 {
            return self.end(who);
        }
        match (end, delay) {
            (_, None) => {}
            (_, Some(0)) => self.send_will(who),
            // [MQTT5-3.1.3-9]
            (End::TakenOver, Some(_)) => session.will = None,
            (_, Some(delay)) => session.will_due = Some(now + u64::from(delay)),
        }
    }

    /// The session ends, and so does the delay of its will.
    fn end(&mut self, who: usize) {
        if self.sessions.contains_key(&who) {
            self.send_will(who);
            self.sessions.remove(&who);
        }
    }

    fn send_will(&mut self, who: usize) {
        let session = self.sessions.get_mut(&who).unwrap();
        session.will_due = None;
        let Some(will) = session.will.take() else {
            return;
        };
        self.publish(&Message {
            from: who,
            topic: will.topic,
            payload: will.payload,
            qos: 1,
            retain: will.retain,
            expiry_secs: will.expiry_secs,
            at: self.now,
        });
    }

    /// Time passes. Wills and sessions end in their order; a will is sent before its session ends.
    pub(super) fn pass(&mut self, secs: u64) {
        let until = self.now + secs;
        loop {
            let next = self.sessions.iter().flat_map(|(who, session)| {
                let will = session.will_due.map(|at| (at, 0, *who));
                let expiry = session
                    .expires
                    .filter(|_| !session.is_connected)
                    .map(|at| (at, 1, *who));
                will.into_iter().chain(expiry)
            });
            let Some((at, what, who)) = next.min().filter(|(at, ..)| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = at.max(self.now);
            if what == 0 {
                self.send_will(who);
            } else {
                self.end(who);
            }
        }
    }

    /// The process ends and starts again: all connections are gone.
    pub(super) fn restart(&mut self) {
        let connected: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_connected)
            .map(|(who, _)| *who)
            .collect();
        // Nobody is there when the first of the wills is sent.
        for who in &connected {
            self.sessions.get_mut(who).unwrap().is_connected = false;
        }
        for who in connected {
            self.disconnect(who, End::WithWill, None);
        }
        for session in self.sessions.values_mut() {
            session.unacked.retain(|entry| !entry.is_given_up);
            for entry in session.unacked.iter_mut().filter(|entry| entry.is_retained) {
                entry.is_looked_up = true;
            }
        }
    }

    /// [MQTT5-3.8.4-3] [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
    pub(super) fn subscribe(&mut self, who: usize, sub: Sub) {
        let now = self.now;
        let session = self.sessions.get_mut(&who).unwrap();
        let is_new = session.subs.iter().all(|present| present.filter != sub.filter);
        session.subs.retain(|present| present.filter != sub.filter);
        session.subs.push(sub.clone());
        if sub.retain_handling == 2 || (sub.retain_handling == 1 && !is_new) {
            return;
        }
        let due = self.due.entry(who).or_default();
        for message in self.retained.values().filter(|message| sub.matches(message.topic)) {
            let is_local = sub.no_local && message.from == who;
            if !is_local && message.remaining(now) != Some(0) {
                let ids = sub.id.into_iter().collect();
                due.push((
                    message.due(now, message.qos.min(sub.qos), true, ids),
                    message.clone(),
                    true,
                ));
            }
        }
    }

    /// True when there was one.
    pub(super) fn unsubscribe(&mut self, who: usize, filter: &str) -> bool {
        let subs = &mut self.sessions.get_mut(&who).unwrap().subs;
        let before = subs.len();
        subs.retain(|sub| sub.filter != filter);
        subs.len() < before
    }

    pub(super) fn publish(&mut self, message: &Message) {
        if message.retain {
            self.retained.remove(message.topic);
            if !message.payload.is_empty() {
                self.retained.insert(message.topic, message.clone());
            }
        }
        let now = self.now;
        for (who, session) in &mut self.sessions {
            let matching = session.subs.iter().filter(|sub| sub.matches(message.topic));
            let matching: Vec<&Sub> = matching.filter(|sub| !(sub.no_local && message.from == *who)).collect();
            let Some(qos) = matching.iter().map(|sub| sub.qos.min(message.qos)).max() else {
                continue;
            };
            let retain = message.retain && matching.iter().any(|sub| sub.retain_as_published);
            let mut ids: Vec<u32> = matching.iter().filter_map(|sub| sub.id).collect();
            ids.sort_unstable();
            if message.remaining(now) == Some(0) {
                continue;
            }
            if session.is_connected {
                let due = message.due(now, qos, retain, ids);
                self.due.entry(*who).or_default().push((due, message.clone(), false));
            } else if qos > 0 || message.from == *who {
                // The own will at a takeover: at QoS 0 it is nobody's duty to keep it until the client is back, but it may come.
                session.waiting.push((message.clone(), qos, retain, ids));
            }
        }
    }
}
