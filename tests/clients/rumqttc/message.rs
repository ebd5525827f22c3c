//! A message as both versions of rumqttc give it, and its properties under one name.
//!
//! In: PUBLISH packets of rumqttc's two modules. Out: one type, and the line that the test reads.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use serde_json::{Map, Value, json};

use crate::task::say;

/// A message that came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Topic name.
    pub(crate) topic: String,
    /// Payload.
    pub(crate) payload: Bytes,
    /// QoS of the delivery.
    pub(crate) qos: u8,
    /// Retain flag.
    pub(crate) retain: bool,
    /// Properties; none with 3.1.1.
    pub(crate) properties: PublishProperties,
}

impl Message {
    /// From 3.1.1.
    pub(crate) fn of_3(publish: rumqttc::Publish) -> Self {
        Self {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: PublishProperties::default(),
        }
    }

    /// From 5.0.
    pub(crate) fn of_5(publish: Publish) -> Self {
        Self {
            topic: String::from_utf8(publish.topic.to_vec()).expect("a topic is UTF-8"),
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: publish.properties.unwrap_or_default(),
        }
    }

    /// Prints the line.
    pub(crate) fn print(&self, client: &str) {
        let fields = [
            ("client", json!(client)),
            ("topic", json!(self.topic)),
            ("payload", json!(hex(&self.payload))),
            ("qos", json!(self.qos)),
            ("retain", json!(self.retain)),
            ("properties", plain(&self.properties)),
        ];
        say("message", &fields);
    }
}

fn plain(properties: &PublishProperties) -> Value {
    let all = [
        ("payload_format", properties.payload_format_indicator.map(Value::from)),
        ("expiry", properties.message_expiry_interval.map(Value::from)),
        ("content_type", properties.content_type.clone().map(Value::from)),
        ("response_topic", properties.response_topic.clone().map(Value::from)),
        (
            "correlation",
            properties.correlation_data.as_ref().map(|data| hex(data).into()),
        ),
        ("alias", properties.topic_alias.map(Value::from)),
    ];
    let mut found: Map<String, Value> = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    if !properties.user_properties.is_empty() {
        found.insert("user".to_owned(), json!(properties.user_properties));
    }
    if !properties.subscription_identifiers.is_empty() {
        found.insert("identifiers".to_owned(), json!(properties.subscription_identifiers));
    }
    Value::Object(found)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pair = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(pair).map(char::from).collect()
}
