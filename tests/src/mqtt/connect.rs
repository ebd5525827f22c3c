//! CONNECT with every field, for tests on raw sockets.
//!
//! In: a version and a client identifier, then what is to differ. Out: the packet's bytes. A test that needs a CONNECT no builder would
//! make changes the bytes, or puts them together from `wire`.

use super::Version;
use super::wire::{packet, properties, text};

/// CONNECT, as it is to be sent. Clean by default, without Keep Alive.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    client_id: Vec<u8>,
    clean: bool,
    keep_alive: u16,
    properties: Vec<Vec<u8>>,
    will: Option<LastWill>,
    user: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

/// The will of a [`Connect`].
#[derive(Debug, Clone)]
pub struct LastWill {
    topic: Vec<u8>,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<Vec<u8>>,
}

impl LastWill {
    /// A will with QoS 0, not retained.
    #[must_use]
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Self {
        Self {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            properties: Vec::new(),
        }
    }

    /// Sets the QoS.
    #[must_use]
    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// Sets Will Retain.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Adds a will property (5.0 only).
    #[must_use]
    pub fn property(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

impl Connect {
    /// A clean CONNECT without Keep Alive.
    #[must_use]
    pub fn new(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        Self {
            version,
            client_id: client_id.as_ref().to_vec(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user: None,
            password: None,
        }
    }

    /// A session that is kept: Clean 0, and in 5.0 a Session Expiry Interval of an hour.
    #[must_use]
    pub fn kept(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        let connect = Self::new(version, client_id).clean(false);
        match version {
            Version::V3 => connect,
            Version::V5 => connect.property(super::wire::property::session_expiry(3600)),
        }
    }

    /// Sets Clean Session or Clean Start.
    #[must_use]
    pub fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    /// Sets the Keep Alive in seconds.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Adds a property; 3.1.1 has none and leaves it out.
    #[must_use]
    pub fn property(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    /// Sets the will.
    #[must_use]
    pub fn will(mut self, will: LastWill) -> Self {
        self.will = Some(will);
        self
    }

    /// Sets the user name.
    #[must_use]
    pub fn user(mut self, user: impl AsRef<[u8]>) -> Self {
        self.user = Some(user.as_ref().to_vec());
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    /// Connect Flags as the fields demand.
    #[must_use]
    pub fn flags(&self) -> u8 {
        let will = self.will.as_ref();
        let will = will.map_or(0, |will| 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5));
        let login = (u8::from(self.password.is_some()) << 6) | (u8::from(self.user.is_some()) << 7);
        login | will | (u8::from(self.clean) << 1)
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(b"MQTT", if self.version == Version::V3 { 4 } else { 5 }, self.flags())
    }

    /// The packet with another protocol name, level or flags than its fields demand.
    #[must_use]
    pub fn bytes_with(&self, name: &[u8], level: u8, flags: u8) -> Vec<u8> {
        let section = |list: &[Vec<u8>]| match self.version {
            Version::V3 => Vec::new(),
            Version::V5 => properties(list),
        };
        let mut body = text(name);
        body.extend([level, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(section(&self.properties));
        body.extend(text(&self.client_id));
        if let Some(will) = &self.will {
            body.extend(section(&will.properties));
            body.extend(text(&will.topic));
            body.extend(text(&will.payload));
        }
        for field in [&self.user, &self.password].into_iter().flatten() {
            body.extend(text(field));
        }
        packet(0x10, &[&body])
    }
}
