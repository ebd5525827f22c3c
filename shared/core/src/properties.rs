//! MQTT 5 PUBLISH properties that travel from publisher to subscriber, in MQTT's own wire form.
//!
//! Kept encoded, since nodes only carry them. The block holds the identifiers below, in the publisher's order, duplicates of
//! User Property kept. What is not in it: Message Expiry (a field of the record), Topic Alias and Subscription Identifier (of one hop).

use crate::topic::validate_topic_name;

/// Identifier of the Payload Format Indicator ([MQTT5-3.3.2.3.2]).
pub const PAYLOAD_FORMAT: u8 = 0x01;
/// Identifier of the Content Type ([MQTT5-3.3.2.3.9]).
pub const CONTENT_TYPE: u8 = 0x03;
/// Identifier of the Response Topic ([MQTT5-3.3.2.3.5]).
pub const RESPONSE_TOPIC: u8 = 0x08;
/// Identifier of the Correlation Data ([MQTT5-3.3.2.3.6]).
pub const CORRELATION_DATA: u8 = 0x09;
/// Identifier of a User Property ([MQTT5-3.3.2.3.7]).
pub const USER_PROPERTY: u8 = 0x26;

/// A property block that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed MQTT property block")]
pub struct PropertiesError;

/// One property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0 = bytes, 1 = UTF-8 text.
    PayloadFormat(u8),
    /// MIME type or any other text.
    ContentType(&'a str),
    /// Topic for the answer.
    ResponseTopic(&'a str),
    /// Opaque bytes that the answer repeats.
    CorrelationData(&'a [u8]),
    /// Name and value, any number of times.
    User(&'a str, &'a str),
}

/// An encoded, validated property block; empty for MQTT 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Wraps `bytes` after checking that they decode whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PropertiesError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            take(&mut rest).ok_or(PropertiesError)?;
        }
        Ok(Self(bytes))
    }

    /// Wraps `bytes` that were checked before. Where they were not, [`iter`](Self::iter) ends early, nothing worse.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The block as it is stored and sent.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// True when there is no property.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether MQTT allows this block on a PUBLISH: all but User Property at most once, each with a legal value.
    #[must_use]
    pub fn are_legal(&self) -> bool {
        let mut seen = [false; 256];
        let mut rest = self.0;
        while let Some(&id) = rest.first() {
            let Some(property) = take(&mut rest) else { return false };
            let again = std::mem::replace(&mut seen[usize::from(id)], true);
            let legal = match property {
                Property::PayloadFormat(n) => n <= 1,
                Property::ResponseTopic(topic) => validate_topic_name(topic).is_ok(),
                Property::ContentType(text) => !text.contains('\0'),
                Property::User(name, value) => !name.contains('\0') && !value.contains('\0'),
                Property::CorrelationData(_) => true,
            };
            if !legal || (again && id != USER_PROPERTY) {
                return false;
            }
        }
        true
    }

    /// The properties in order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || if rest.is_empty() { None } else { take(&mut rest) })
    }
}

/// Appends one property in wire form. Strings and binary longer than 65,535 bytes are a caller's error and are refused.
pub fn put(out: &mut Vec<u8>, property: &Property<'_>) -> Result<(), PropertiesError> {
    match property {
        Property::PayloadFormat(n) => out.extend_from_slice(&[PAYLOAD_FORMAT, *n]),
        Property::ContentType(s) => put_field(out, CONTENT_TYPE, s.as_bytes())?,
        Property::ResponseTopic(s) => put_field(out, RESPONSE_TOPIC, s.as_bytes())?,
        Property::CorrelationData(b) => put_field(out, CORRELATION_DATA, b)?,
        Property::User(name, value) => {
            let start = out.len();
            put_field(out, USER_PROPERTY, name.as_bytes())?;
            put_text(out, value.as_bytes()).inspect_err(|_| out.truncate(start))?;
        }
    }
    Ok(())
}

fn put_field(out: &mut Vec<u8>, id: u8, bytes: &[u8]) -> Result<(), PropertiesError> {
    out.push(id);
    put_text(out, bytes).inspect_err(|_| {
        out.pop();
    })
}

fn put_text(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), PropertiesError> {
    let len = u16::try_from(bytes.len()).map_err(|_| PropertiesError)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<Property<'a>> {
    let (&id, tail) = rest.split_first()?;
    *rest = tail;
    Some(match id {
        PAYLOAD_FORMAT => {
            let (&n, tail) = rest.split_first()?;
            *rest = tail;
            Property::PayloadFormat(n)
        }
        CONTENT_TYPE => Property::ContentType(take_str(rest)?),
        RESPONSE_TOPIC => Property::ResponseTopic(take_str(rest)?),
        CORRELATION_DATA => Property::CorrelationData(take_field(rest)?),
        USER_PROPERTY => Property::User(take_str(rest)?, take_str(rest)?),
        _ => return None,
    })
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    if len > tail.len() {
        return None;
    }
    let (field, tail) = tail.split_at(len);
    *rest = tail;
    Some(field)
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_field(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_order_of_user_properties_are_kept() {
        let list = [
            Property::User("a", "1"),
            Property::PayloadFormat(1),
            Property::User("a", "1"),
            Property::ContentType("text/plain"),
            Property::CorrelationData(&[0, 255]),
            Property::ResponseTopic("r/t"),
        ];
        let mut bytes = Vec::new();
        list.iter().for_each(|p| put(&mut bytes, p).unwrap());
        let parsed = Properties::parse(&bytes).unwrap();
        assert_eq!(parsed.iter().collect::<Vec<_>>(), list);
    }

    #[test]
    fn a_block_cut_anywhere_is_refused_or_shorter_but_never_panics() {
        let mut bytes = Vec::new();
        put(&mut bytes, &Property::User("name", "value")).unwrap();
        for cut in 1..bytes.len() {
            assert_eq!(Properties::parse(&bytes[..cut]), Err(PropertiesError));
        }
    }
}
