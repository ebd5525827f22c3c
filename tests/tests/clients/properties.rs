//! Properties of a PUBLISH, encoded and decoded by the tests themselves.
//!
//! In: the property block of a packet of our raw client. Out: the names and values that the client programs print, as JSON, so that both
//! can be compared. User properties keep their order and their duplicates.

use serde_json::{Map, Value, json};

use crate::program::hex;

/// Message Expiry Interval.
pub(crate) fn expiry(seconds: u32) -> Vec<u8> {
    let mut block = vec![0x02];
    block.extend(seconds.to_be_bytes());
    block
}

/// Response Topic and Correlation Data.
pub(crate) fn request(response_topic: &str, correlation: &[u8]) -> Vec<u8> {
    let mut block = field(0x08, response_topic.as_bytes());
    block.extend(field(0x09, correlation));
    block
}

fn field(key: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("test values are short");
    let mut field = vec![key];
    field.extend(len.to_be_bytes());
    field.extend(value);
    field
}

/// Decodes a block.
///
/// # Panics
/// When it is not a legal one for a PUBLISH.
pub(crate) fn decode(block: &[u8]) -> Value {
    let mut rest = Reader(block);
    let mut found = Map::new();
    while !rest.0.is_empty() {
        let key = rest.take(1)[0];
        let (name, value) = match key {
            0x01 => ("payload_format", json!(rest.number(1))),
            0x02 => ("expiry", json!(rest.number(4))),
            0x03 => ("content_type", json!(rest.text())),
            0x08 => ("response_topic", json!(rest.text())),
            0x09 => ("correlation", json!(hex(rest.binary()))),
            0x23 => ("alias", json!(rest.number(2))),
            0x0B => {
                let number = rest.varint();
                append(&mut found, "identifiers", json!(number));
                continue;
            }
            0x26 => {
                let pair = json!([rest.text(), rest.text()]);
                append(&mut found, "user", pair);
                continue;
            }
            other => panic!("property {other:#04x} in a PUBLISH"),
        };
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} twice");
    }
    Value::Object(found)
}

fn append(found: &mut Map<String, Value>, name: &str, value: Value) {
    let list = found.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().expect("only lists are appended to").push(value);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .expect("a property ends within its block");
        self.0 = rest;
        taken
    }

    fn number(&mut self, width: usize) -> u64 {
        self.take(width)
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }

    fn binary(&mut self) -> &'a [u8] {
        let len = self.number(2);
        self.take(usize::try_from(len).expect("16 bits fit"))
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.binary().to_vec()).expect("strings are UTF-8")
    }

    fn varint(&mut self) -> u64 {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.number(1);
            number |= (byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return number;
            }
        }
        panic!("a variable byte integer has at most four bytes");
    }
}
