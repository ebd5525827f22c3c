//! Wills: kept with the session, sent when the connection ends in any way but a DISCONNECT with reason 0x00.
//!
//! A will is part of the stored state of its session, also of one that ends with its connection; sending it (the record) and
//! forgetting it (the state) are one commit, so a crash neither loses nor doubles it. After a restart every will that is still
//! stored belongs to a connection that has ended: its delay counts from then, or from the restart where nobody knows when.
//! The bytes of all wills together are bounded.

use std::time::Duration;

use fellbeck_core::{Properties, Record};

use super::Core;
use super::expiry::Timer;
use super::state::SessionKey;
use super::turn::Turn;
use crate::wire::{Connect, Will, Wire};

fn size_of(will: &Will) -> usize {
    will.topic.len() + will.payload.len() + will.properties.len()
}

impl Core {
    /// Replaces the will of a session. [MQTT5-3.1.2-7]
    pub(super) fn set_will(&mut self, key: SessionKey, will: Option<Will>) {
        if let Some(session) = self.sessions.get_mut(key) {
            self.will_bytes -= session.will.as_deref().map_or(0, size_of);
            self.will_bytes += will.as_ref().map_or(0, size_of);
            session.will = will.map(Box::new);
        }
    }

    /// Whether the bound on the bytes of all wills admits the one of this CONNECT, which takes the place of an earlier one.
    pub(super) fn has_room_for_will(&self, connect: &Connect) -> bool {
        let Some(will) = &connect.will else {
            return true;
        };
        let session = self
            .sessions
            .find(&connect.client_id)
            .and_then(|key| self.sessions.get(key));
        let present = session.and_then(|session| session.will.as_deref()).map_or(0, size_of);
        self.will_bytes - present + size_of(will) <= self.config.limits.will_bytes_max
    }

    /// The connection ended abnormally: the will is sent after its delay, or when the session ends if that is earlier.
    /// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]
    pub(super) fn schedule_will<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(will) = &session.will else {
            return;
        };
        let delay_secs = will.delay_secs.min(session.expiry_secs);
        if delay_secs == 0 {
            return self.send_will(key, turn);
        }
        let at = turn.now.tick.after(Duration::from_secs(u64::from(delay_secs)));
        session.will_due = Some(self.timers.add(at, Timer::Will(key)));
    }

    /// A new connection goes on with the session: only a will without delay is sent. [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]
    pub(super) fn will_at_takeover<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let session = self.sessions.get_mut(key);
        if session.is_some_and(|session| session.will.as_ref().is_some_and(|will| will.delay_secs == 0)) {
            self.send_will(key, turn);
        }
    }

    /// Publishes the will, if there is one, and forgets it. Its expiry counts from now. [MQTT5-3.1.2-10]
    pub(super) fn send_will<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.timers.cancel(&mut session.will_due);
        let Some(will) = session.will.take() else {
            return;
        };
        self.will_bytes -= size_of(&will);
        let client_id = session.client_id.clone();
        let record = Record {
            device: &client_id,
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: Properties::parse(&will.properties).unwrap_or_default(),
            accepted_at: turn.now.wall,
            clock: turn.now.clock,
            expiry_secs: will.expiry_secs,
            origin: None,
            path: "",
        };
        self.accept(&record, turn);
        self.store_session(key);
        self.work.want_commit();
        self.note_idle(key);
    }
}
