//! Wills: kept with the session, sent when the connection ends in any way but a DISCONNECT with reason 0x00.
//!
//! A will of a durable session is part of its stored state; sending it (the record) and forgetting it (the state) are one
//! commit, so a crash neither loses nor doubles it. After a restart every will that is still stored belongs to a connection that
//! the crash ended. Wills of other sessions die with the process.

use std::time::Duration;

use fellbeck_core::{Properties, Record};

use super::Core;
use super::expiry::Timer;
use super::state::SessionKey;
use super::turn::Turn;
use crate::wire::Wire;

impl Core {
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

    /// A new connection goes on with the session: only a will without delay is sent.
    pub(super) fn will_at_takeover<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let session = self.sessions.get_mut(key);
        if session.is_some_and(|session| session.will.as_ref().is_some_and(|will| will.delay_secs == 0)) {
            self.send_will(key, turn);
        }
    }

    /// Publishes the will, if there is one, and forgets it.
    pub(super) fn send_will<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.timers.cancel(&mut session.will_due);
        let Some(will) = session.will.take() else {
            return;
        };
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
        self.store_session(key, turn.now);
        self.work.want_commit();
    }
}
