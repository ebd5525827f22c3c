//! Reads the fields that MQTT packets are made of: lengths, strings, binary data.
//!
//! In: bytes from a client. Out: a field and what follows it, or the fault that the standard names. Nothing is copied.
//! A *name* (topic name, topic filter, client identifier, user name) is a string that also has no control characters and no
//! Unicode non-characters: the standard lets a receiver refuse those (1.5.4), and mosquitto does so too. Strings in properties
//! may hold them, since nobody looks names up there.

use super::frames::Fault;

/// A packet ends before its fields do.
pub(super) const SHORT: Fault = Fault::malformed("packet is shorter than its fields");
const NOT_TEXT: Fault = Fault::malformed("string is not UTF-8");
const NUL: Fault = Fault::malformed("null character in a string");
const CONTROL: Fault = Fault::malformed("control character in a name");
const WILDCARD: Fault = Fault::malformed("wildcard in a topic name");

/// A variable byte integer and its length; `None` while it is cut off.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Fault::malformed("length of more than four bytes"));
    }
    Ok(None)
}

/// The same in its shortest form, which MQTT 5 wants. [MQTT5-1.5.5-1]
pub(super) fn shortest_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let found = varint(bytes)?;
    if let Some((_, used)) = found
        && used > 1
        && bytes[used - 1] == 0
    {
        return Err(Fault::malformed("length is not in its shortest form"));
    }
    Ok(found)
}

/// A field with a length of two bytes, and what follows it.
pub(super) fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A string. [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT3-1.5.3-1] [MQTT3-1.5.3-2]
pub(super) fn take_text(bytes: &[u8]) -> Result<(&str, &[u8]), Fault> {
    let (field, rest) = take_field(bytes).ok_or(SHORT)?;
    let text = std::str::from_utf8(field).map_err(|_| NOT_TEXT)?;
    if field.contains(&0) {
        return Err(NUL);
    }
    Ok((text, rest))
}

/// A name.
pub(super) fn take_name(bytes: &[u8]) -> Result<(&str, &[u8]), Fault> {
    let (field, rest) = take_field(bytes).ok_or(SHORT)?;
    name(field, false).map(|name| (name, rest))
}

/// A topic name; may be empty, which is for the caller to judge. [MQTT5-3.3.2-1] [MQTT5-3.3.2-2] [MQTT3-3.3.2-2]
pub(super) fn take_topic(bytes: &[u8]) -> Result<(&str, &[u8]), Fault> {
    let (field, rest) = take_field(bytes).ok_or(SHORT)?;
    name(field, true).map(|name| (name, rest))
}

/// Looks at each byte once, since every PUBLISH comes here.
fn name(field: &[u8], is_topic: bool) -> Result<&str, Fault> {
    let text = std::str::from_utf8(field).map_err(|_| NOT_TEXT)?;
    let mut is_ascii = true;
    let mut has_wildcard = false;
    for &byte in field {
        match byte {
            0 => return Err(NUL),
            1..=0x1F | 0x7F => return Err(CONTROL),
            b'+' | b'#' => has_wildcard = true,
            0x80.. => is_ascii = false,
            _ => {}
        }
    }
    if !is_ascii && text.chars().any(is_unwanted) {
        return Err(CONTROL);
    }
    if is_topic && has_wildcard {
        return Err(WILDCARD);
    }
    Ok(text)
}

/// Control characters beyond ASCII, and code points that are no characters.
fn is_unwanted(c: char) -> bool {
    let point = u32::from(c);
    (0x80..=0x9F).contains(&point) || (0xFDD0..=0xFDEF).contains(&point) || point & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes(), text].concat()
    }

    #[test]
    fn lengths_have_at_most_four_bytes_and_one_form() {
        assert_eq!(varint(&[0x80, 0x80]), Ok(None));
        assert_eq!(varint(&[0xFF, 0xFF, 0xFF, 0x7F, 9]), Ok(Some((268_435_455, 4))));
        assert!(varint(&[0x80, 0x80, 0x80, 0x80]).is_err());
        assert_eq!(varint(&[0x80, 0x00]), Ok(Some((0, 2))));
        for long in [&[0x80, 0][..], &[0x81, 0x80, 0], &[0xFF, 0xFF, 0x80, 0]] {
            assert_eq!(shortest_varint(long).unwrap_err().reason, 0x81, "{long:02X?}");
        }
        assert_eq!(shortest_varint(&[0]), Ok(Some((0, 1))));
        assert_eq!(shortest_varint(&[0x80, 1]), Ok(Some((128, 2))));
    }

    #[test]
    fn strings_are_utf_8_without_nul() {
        let reason = |text: &[u8]| take_text(&field(text)).err().map(|fault| fault.reason);
        assert_eq!(reason("a\u{FEFF}\u{1}\u{2A6D4}".as_bytes()), None);
        for bad in [&[0xC3, 0x28][..], &[0xED, 0xA0, 0x80], b"a\0b"] {
            assert_eq!(reason(bad), Some(0x81), "{bad:02X?}");
        }
        assert_eq!(take_text(&[0, 3, b'a']), Err(SHORT));
        assert_eq!(take_text(&[0, 1, b'a', 7]), Ok(("a", &[7][..])));
    }

    #[test]
    fn names_have_no_control_characters_and_topics_no_wildcards() {
        let name = |text: &str| take_name(&field(text.as_bytes())).err().map(|fault| fault.reason);
        let topic = |text: &str| take_topic(&field(text.as_bytes())).err().map(|fault| fault.reason);
        for good in ["", "a/b", "/", "\u{A0}ß\u{2A6D4}", "\u{FEFF}x", "~ "] {
            assert_eq!((name(good), topic(good)), (None, None), "{good:?}");
        }
        for bad in [
            "\u{1}",
            "a\u{1F}",
            "\u{7F}",
            "\u{80}",
            "\u{9F}",
            "\u{FDD0}",
            "\u{FFFF}",
            "\u{10FFFE}",
            "a\0",
        ] {
            assert_eq!((name(bad), topic(bad)), (Some(0x81), Some(0x81)), "{bad:?}");
        }
        for wild in ["+", "a/#", "a+b"] {
            assert_eq!((name(wild), topic(wild)), (None, Some(0x81)), "{wild:?}");
        }
    }
}
