//! Addresses in the configuration: where to listen, where to dial, and the rule for public listeners.
//!
//! In: texts such as `"127.0.0.1:1883"`, `"[::1]:1883"`, `"localhost:0"`, `""`. Out: [`Listen`], [`HostPort`].
//! A listener without authentication that other machines can reach is refused unless the configuration allows it in
//! words ([`PUBLIC_WORDS`]). Resolving a name may block; it is done once, at start.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::ConfigError;

/// What the key `<listener>.unauthenticated_public` must say to open a listener to everyone.
pub const PUBLIC_WORDS: &str = "I understand";

/// A host name or IP address with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 lets the system choose where listening.
    pub port: u16,
}

const EXPECTED: &str = "expected \"host:port\", e.g. \"127.0.0.1:1883\" or \"[::1]:1883\"";

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().map_err(|_| "the port must be a number from 0 to 65535")?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => v6,
            None if host.contains(':') => return Err("an IPv6 address stands in brackets, e.g. \"[::1]:1883\""),
            None => host,
        };
        let well_formed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '[' | ']');
        if host.is_empty() || !host.chars().all(well_formed) {
            return Err(EXPECTED);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    /// All addresses the host has now. Blocks while a name is looked up.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        (self.host.as_str(), self.port).to_socket_addrs().map(Iterator::collect)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A list of addresses to dial; one address may stand without brackets, several may be parted by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct HostPorts(pub Vec<HostPort>);

impl<'de> Deserialize<'de> for HostPorts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = HostPorts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of addresses, e.g. [\"cloud.example.org:4483\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HostPorts, E> {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .map(HostPorts)
                    .map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HostPorts, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(HostPorts(list))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Where a listener binds: `"host:port"`, or `""` for not at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Listen(Option<HostPort>);

impl Listen {
    /// A listener that is switched off.
    pub const OFF: Self = Self(None);

    /// A listener on the loopback address of IPv4.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self(Some(HostPort {
            host: "127.0.0.1".into(),
            port,
        }))
    }

    /// The address to bind; `None` when the listener is off. `field` is named if the host is not known.
    pub fn resolve(&self, field: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(address) = &self.0 else { return Ok(None) };
        let found = address
            .resolve()
            .map_err(|e| ConfigError::invalid(field, self, e.to_string()))?;
        // A name such as `localhost` may have several addresses; IPv4 comes first since that is what clients expect.
        let best = found.iter().find(|a| a.is_ipv4()).or_else(|| found.first());
        best.copied()
            .map(Some)
            .ok_or_else(|| ConfigError::invalid(field, self, "the host has no address"))
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            Ok(Self::OFF)
        } else {
            text.trim().parse().map(|a| Self(Some(a)))
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => write!(f, "\"{address}\""),
            None => f.write_str("\"\""),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(|reason| de::Error::custom(format!("{reason}; \"\" turns it off")))
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }
}

/// What [`check_public_listener`] needs to know of one listener.
#[derive(Debug, Clone, Copy)]
pub struct PublicCheck<'a> {
    /// Key of the address, e.g. `mqtt.listen`.
    pub field: &'a str,
    /// Address as resolved.
    pub address: SocketAddr,
    /// Whether who connects must prove who it is.
    pub authenticated: bool,
    /// Key that can allow it, e.g. `mqtt.unauthenticated_public`.
    pub words_field: &'a str,
    /// What that key says; [`PUBLIC_WORDS`] allows it.
    pub words: &'a str,
}

/// Refuses a listener without authentication on an address that is not loopback, unless told so in words.
pub fn check_public_listener(check: &PublicCheck<'_>) -> Result<(), ConfigError> {
    let local = check.address.ip().to_canonical().is_loopback();
    if check.authenticated || local || check.words == PUBLIC_WORDS {
        return Ok(());
    }
    let address = check.address.to_string();
    Err(ConfigError::public_listener(
        check.field,
        address,
        check.words_field,
        PUBLIC_WORDS,
    ))
}
