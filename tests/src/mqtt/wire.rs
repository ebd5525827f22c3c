//! Pieces of packets as bytes, for tests that write packets by hand, right or wrong.
//!
//! In: values. Out: bytes as the standard encodes them. Nothing is checked: what is put together here may be illegal on purpose.

/// A packet: first byte, Remaining Length, and the parts of its body.
#[must_use]
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    out.extend(varint(body.len()));
    out.extend(body);
    out
}

/// A variable byte integer.
#[must_use]
pub fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return out;
        }
    }
}

/// A string with its length; any bytes, valid UTF-8 or not.
///
/// # Panics
/// Beyond 65,535 bytes.
#[must_use]
pub fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = u16::try_from(bytes.len()).expect("a string has at most 65,535 bytes");
    [&len.to_be_bytes(), bytes].concat()
}

/// Bytes from hexadecimal digits; spaces are skipped.
///
/// # Panics
/// When there is anything else.
#[must_use]
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits are ASCII");
        u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("not hexadecimal: {pair}"))
    };
    digits.chunks(2).map(pair).collect()
}

/// A property section: its length and the properties.
#[must_use]
pub fn properties(list: &[Vec<u8>]) -> Vec<u8> {
    let body = list.concat();
    [varint(body.len()), body].concat()
}

/// Single properties of MQTT 5, with their identifiers.
pub mod property {
    use super::{text, varint};

    macro_rules! numbers {
        ($($(#[$doc:meta])* $name:ident = $id:literal: $kind:ty;)*) => {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(value: $kind) -> Vec<u8> {
                [&[$id][..], &value.to_be_bytes()].concat()
            }
        )*};
    }

    macro_rules! strings {
        ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(value: impl AsRef<[u8]>) -> Vec<u8> {
                [vec![$id], text(value)].concat()
            }
        )*};
    }

    numbers! {
        /// Payload Format Indicator.
        payload_format = 0x01: u8;
        /// Message Expiry Interval.
        message_expiry = 0x02: u32;
        /// Session Expiry Interval.
        session_expiry = 0x11: u32;
        /// Server Keep Alive.
        server_keep_alive = 0x13: u16;
        /// Request Problem Information.
        request_problem = 0x17: u8;
        /// Will Delay Interval.
        will_delay = 0x18: u32;
        /// Request Response Information.
        request_response = 0x19: u8;
        /// Receive Maximum.
        receive_maximum = 0x21: u16;
        /// Topic Alias Maximum.
        alias_maximum = 0x22: u16;
        /// Topic Alias.
        alias = 0x23: u16;
        /// Maximum QoS.
        maximum_qos = 0x24: u8;
        /// Retain Available.
        retain_available = 0x25: u8;
        /// Maximum Packet Size.
        packet_maximum = 0x27: u32;
    }

    strings! {
        /// Content Type.
        content_type = 0x03;
        /// Response Topic.
        response_topic = 0x08;
        /// Correlation Data.
        correlation_data = 0x09;
        /// Assigned Client Identifier.
        assigned_client = 0x12;
        /// Authentication Method.
        auth_method = 0x15;
        /// Authentication Data.
        auth_data = 0x16;
        /// Reason String.
        reason_string = 0x1F;
    }

    /// Subscription Identifier.
    #[must_use]
    pub fn subscription_id(value: usize) -> Vec<u8> {
        [vec![0x0B], varint(value)].concat()
    }

    /// User Property.
    #[must_use]
    pub fn user(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
        [vec![0x26], text(name), text(value)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{hex, packet, properties, property, text, varint};

    #[test]
    fn a_packet_has_its_length_in_front() {
        assert_eq!(packet(0x30, &[&text("a"), b"xy"]), hex("30 05 0001 61 7879"));
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(268_435_455), hex("ffffff7f"));
        assert_eq!(
            properties(&[property::alias(5), property::user("k", "v")]),
            hex("0a 230005 26 00016b 000176")
        );
    }
}
