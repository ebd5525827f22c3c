//! Which message a device says that this is: the identifier in its MQTT 5 user properties.
//!
//! In: a record. Out: a [`DeviceId`] of fixed size, nothing, or the finding that there is one that breaks the bounds.
//! Two records with equal identifiers are one message that was sent twice, through whatever gateways. Pure.
//!
//! Identifiers are compared by the first 128 bits of a SHA-256 over scope and text, each field with its length before it. Nobody can
//! make two texts that compare equal with less than 2^64 attempts, and a long text costs no more memory than a short one.

use fellbeck_core::Record;
use fellbeck_core::properties::Property;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// Longest identifier, in bytes. A message with a longer one is stored like one without, and counted.
pub(crate) const ID_BYTES_MAX: usize = 256;
/// Longest `source` of a CloudEvent, in bytes.
pub(crate) const SOURCE_BYTES_MAX: usize = 1024;

const KIND_EVENT: u8 = b'e';
const KIND_OF_DEVICE: u8 = b'd';
const KIND_OF_CLOUD: u8 = b'c';

/// A device message ID, as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId(pub(crate) [u8; 16]);

/// Among whose messages an identifier is unique. CloudEvents name their own scope, the `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of one MQTT client ID, on whatever gateway.
    #[default]
    Device,
    /// All of this cloud: for UUIDs and the like, of devices that change their client ID.
    Cloud,
}

/// Where identifiers are looked for.
#[derive(Debug, Clone)]
pub struct Scheme {
    /// Name of the user property; empty: none.
    pub property: String,
    /// Scope of that property.
    pub scope: Scope,
    /// Whether `id` and `source` of a CloudEvent in binary mode count.
    pub cloud_events: bool,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identified {
    /// No identifier.
    No,
    /// This one.
    As(DeviceId),
    /// One that is empty or too long.
    Badly,
}

impl Scheme {
    /// Looks for an identifier. The configured property goes before a CloudEvent's; of several of one name the first counts.
    pub(crate) fn identify(&self, record: &Record<'_>) -> Identified {
        if record.properties.is_empty() {
            return Identified::No;
        }
        let (mut own, mut id, mut source, mut is_event) = (None, None, None, false);
        for property in record.properties.iter() {
            let Property::User(name, value) = property else {
                continue;
            };
            if own.is_none() && !self.property.is_empty() && name == self.property {
                own = Some(value);
            }
            match name {
                "id" if id.is_none() => id = Some(value),
                "source" if source.is_none() => source = Some(value),
                "specversion" => is_event = true,
                _ => {}
            }
        }
        if let Some(own) = own {
            if !(1..=ID_BYTES_MAX).contains(&own.len()) {
                return Identified::Badly;
            }
            return Identified::As(match self.scope {
                Scope::Device => digest(KIND_OF_DEVICE, &[record.device, own]),
                Scope::Cloud => digest(KIND_OF_CLOUD, &[own]),
            });
        }
        match (id, source) {
            (Some(id), Some(source)) if self.cloud_events && is_event => {
                if (1..=ID_BYTES_MAX).contains(&id.len()) && (1..=SOURCE_BYTES_MAX).contains(&source.len()) {
                    Identified::As(digest(KIND_EVENT, &[source, id]))
                } else {
                    Identified::Badly
                }
            }
            _ => Identified::No,
        }
    }
}

fn digest(kind: u8, fields: &[&str]) -> DeviceId {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    let whole = context.finish();
    let (first, _) = whole.as_ref().split_first_chunk().expect("a SHA-256 has 32 bytes");
    DeviceId(*first)
}

#[cfg(test)]
mod tests {
    use fellbeck_core::properties::put;
    use fellbeck_core::{ClockQuality, Properties, QoS, WallTime};

    use super::*;

    fn scheme() -> Scheme {
        Scheme {
            property: "message-id".into(),
            scope: Scope::Device,
            cloud_events: true,
        }
    }

    fn identify(scheme: &Scheme, device: &str, users: &[(&str, &str)]) -> Identified {
        let mut block = Vec::new();
        for (name, value) in users {
            put(&mut block, &Property::User(name, value)).unwrap();
        }
        scheme.identify(&Record {
            device,
            topic: "t",
            payload: b"",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::parse(&block).unwrap(),
            accepted_at: WallTime(0),
            clock: ClockQuality::Unknown,
            expiry_secs: None,
            origin: None,
            path: "",
        })
    }

    fn id(scheme: &Scheme, device: &str, users: &[(&str, &str)]) -> DeviceId {
        match identify(scheme, device, users) {
            Identified::As(id) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_identifier_is_unique_within_its_device_or_within_the_cloud_as_configured() {
        let of_device = scheme();
        let a = id(&of_device, "d1", &[("message-id", "7")]);
        assert_eq!(
            a,
            id(
                &of_device,
                "d1",
                &[("other", "x"), ("message-id", "7"), ("message-id", "8")]
            )
        );
        assert_ne!(a, id(&of_device, "d2", &[("message-id", "7")]));
        assert_ne!(a, id(&of_device, "d1", &[("message-id", "8")]));
        let of_cloud = Scheme {
            scope: Scope::Cloud,
            ..scheme()
        };
        assert_eq!(
            id(&of_cloud, "d1", &[("message-id", "7")]),
            id(&of_cloud, "d2", &[("message-id", "7")])
        );
    }

    #[test]
    fn fields_do_not_run_into_one_another() {
        let event = |source, event_id| {
            id(
                &scheme(),
                "d",
                &[("specversion", "1.0"), ("source", source), ("id", event_id)],
            )
        };
        assert_ne!(event("ab", "c"), event("a", "bc"));
        assert_ne!(event("d", "7"), id(&scheme(), "d", &[("message-id", "7")]));
    }

    #[test]
    fn a_cloud_event_is_known_by_source_and_id_on_any_device_and_only_as_a_cloud_event() {
        let event = [
            ("specversion", "1.0"),
            ("type", "t"),
            ("source", "/pump/7"),
            ("id", "41"),
        ];
        assert_eq!(id(&scheme(), "d1", &event), id(&scheme(), "d2", &event));
        assert_eq!(
            identify(&scheme(), "d", &event[1..]),
            Identified::No,
            "no CloudEvent without a version"
        );
        let off = Scheme {
            cloud_events: false,
            ..scheme()
        };
        assert_eq!(identify(&off, "d", &event), Identified::No);
    }

    #[test]
    fn what_is_empty_or_too_long_is_no_identifier() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for bad in ["", &long] {
            assert_eq!(identify(&scheme(), "d", &[("message-id", bad)]), Identified::Badly);
            let event = [("specversion", "1.0"), ("source", "s"), ("id", bad)];
            assert_eq!(identify(&scheme(), "d", &event), Identified::Badly);
        }
        assert_eq!(identify(&scheme(), "d", &[]), Identified::No);
        let off = Scheme {
            property: String::new(),
            ..scheme()
        };
        assert_eq!(identify(&off, "d", &[("message-id", "7"), ("", "8")]), Identified::No);
    }
}
