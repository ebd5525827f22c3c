//! One connection with rumqttc, either version: a thread that polls it, and waits with deadlines.
//!
//! In: a task and what kind of session. Out: answers, messages, the end. A lost connection is not repaired: polling ends with the first
//! error. What comes while something else is waited for is kept in its order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::{PublishProperties, SubscribeProperties};
use serde_json::json;

use crate::message::Message;
use crate::polling::{Came, Client, connect_3, connect_5, level_3, level_5};
use crate::task::{Task, say};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Time in which a message that is there already is found.
const AT_ONCE: Duration = Duration::from_millis(2);

/// What CONNECT says.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Goes behind the client ID.
    pub(crate) suffix: &'static str,
    /// Outlives its connection.
    pub(crate) lasting: bool,
    /// Topic, payload and QoS of the will.
    pub(crate) will: Option<(String, Vec<u8>, u8)>,
    /// Another port than the task's.
    pub(crate) port: Option<u16>,
}

impl Session {
    /// Ends with its connection.
    pub(crate) fn clean(suffix: &'static str) -> Self {
        Self {
            suffix,
            ..Self::default()
        }
    }

    /// Outlives its connection.
    pub(crate) fn lasting() -> Self {
        Self {
            lasting: true,
            ..Self::default()
        }
    }
}

/// A connection.
pub(crate) struct Device {
    id: String,
    fence: String,
    client: Client,
    incoming: Receiver<Came>,
    messages: VecDeque<Message>,
    unacked: usize,
    session_present: bool,
}

impl Device {
    /// Connects.
    pub(crate) fn connect(task: &Task, session: &Session) -> Self {
        let id = format!("{}{}", task.id, session.suffix);
        let port = session.port.unwrap_or_else(|| task.number("port") as u16);
        let (sender, incoming) = channel();
        let start = if task.version == 5 { connect_5 } else { connect_3 };
        let client = start(&id, (task.text("host"), port), session, sender);
        let mut device = Self {
            id,
            fence: format!("{}/fence", task.topic),
            client,
            incoming,
            messages: VecDeque::new(),
            unacked: 0,
            session_present: false,
        };
        let Came::Connected { session_present } = device.take("CONNACK") else {
            panic!("{}: the first packet is CONNACK", device.id);
        };
        device.session_present = session_present;
        let fields = [
            ("client", json!(device.id)),
            ("session_present", json!(session_present)),
        ];
        say("connected", &fields);
        device
    }

    /// True when the node had the session.
    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Subscribes and demands the QoS that was asked for.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8, identifier: Option<usize>) {
        let asked = match &self.client {
            Client::V3(client) => client
                .subscribe(filter, level_3(qos))
                .map_err(|error| error.to_string()),
            Client::V5(client) => {
                let properties = SubscribeProperties {
                    id: identifier,
                    user_properties: Vec::new(),
                };
                let asked = client.subscribe_with_properties(filter, level_5(qos), properties);
                asked.map_err(|error| error.to_string())
            }
        };
        asked.expect("the polling thread runs");
        loop {
            match self.take("SUBACK") {
                Came::Granted(granted) => return assert_eq!(granted, [qos], "{filter}: granted"),
                other => self.keep(other),
            }
        }
    }

    /// Publishes without waiting.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let payload = payload.to_vec();
        let asked = match &self.client {
            Client::V3(client) => client
                .publish(topic, level_3(qos), retain, payload)
                .map_err(|error| error.to_string()),
            Client::V5(client) => client
                .publish(topic, level_5(qos), retain, payload)
                .map_err(|error| error.to_string()),
        };
        asked.expect("the polling thread runs");
        self.unacked += 1;
    }

    /// Publishes with properties, which 3.1.1 does not have.
    pub(crate) fn publish_described(&mut self, topic: &str, payload: &[u8], qos: u8, described: PublishProperties) {
        let Client::V5(client) = &self.client else {
            return self.publish(topic, payload, qos, false);
        };
        let asked = client.publish_with_properties(topic, level_5(qos), false, payload.to_vec(), described);
        asked.expect("the polling thread runs");
        self.unacked += 1;
    }

    /// Waits until all that was published is acknowledged; at QoS 0, written.
    pub(crate) fn await_acked(&mut self) {
        while self.unacked > 0 {
            let came = self.take("acknowledgements");
            self.keep(came);
        }
    }

    /// Returns once the node has handled all that was sent before: it answers in order.
    pub(crate) fn fence(&mut self) {
        let fence = self.fence.clone();
        self.publish(&fence, b"fence", 1, false);
        self.await_acked();
    }

    /// The next message.
    pub(crate) fn next_message(&mut self) -> Message {
        while self.messages.is_empty() {
            let came = self.take("a message");
            self.keep(came);
        }
        self.print_first()
    }

    /// The next message if there is one.
    pub(crate) fn ready_message(&mut self) -> Option<Message> {
        if let Ok(came) = self.incoming.recv_timeout(AT_ONCE) {
            self.keep(came);
        }
        (!self.messages.is_empty()).then(|| self.print_first())
    }

    /// Waits for the end of the connection; the reason is that of DISCONNECT.
    pub(crate) fn await_end(&mut self) -> Option<u8> {
        loop {
            match self.take("the end") {
                Came::Ended { reason } => return reason,
                other => self.keep(other),
            }
        }
    }

    /// Says goodbye and waits for the end of the connection.
    pub(crate) fn disconnect(mut self) {
        let asked = match &self.client {
            Client::V3(client) => client.disconnect().map_err(|error| error.to_string()),
            Client::V5(client) => client.disconnect().map_err(|error| error.to_string()),
        };
        asked.expect("the polling thread runs");
        self.await_end();
    }

    fn print_first(&mut self) -> Message {
        let message = self.messages.pop_front().expect("the caller looked");
        message.print(&self.id);
        message
    }

    fn take(&self, what: &str) -> Came {
        let deadline = Instant::now() + DEADLINE;
        let left = deadline.saturating_duration_since(Instant::now());
        let came = self.incoming.recv_timeout(left);
        came.unwrap_or_else(|_| panic!("{}: waited {DEADLINE:?} in vain: {what}", self.id))
    }

    fn keep(&mut self, came: Came) {
        match came {
            Came::Message(message) => self.messages.push_back(message),
            Came::Acked => self.unacked -= 1,
            Came::Ended { reason } => panic!("{}: the connection ended with {reason:?}", self.id),
            Came::Connected { .. } | Came::Granted(_) => panic!("{}: an answer that nobody asked for", self.id),
        }
    }
}
