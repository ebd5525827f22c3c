//! Frames as clients send them, and as nobody should.

use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0xA1, 0x00, 0x5B, 0xFF];

/// A frame of a client; `length` is encoded in the shortest form.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_head(&mut bytes, first & 0x0F, payload.len());
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Feeds `bytes` in pieces of the given sizes, and the rest at once.
fn read(frame_max: u64, bytes: &[u8], cuts: &[usize]) -> Framed {
    let mut rest = bytes;
    let mut portions = Vec::new();
    for cut in cuts {
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        portions.push(now);
        rest = later;
    }
    portions.push(rest);
    read_all(frame_max, portions.into_iter())
}

fn end(bytes: &[u8]) -> Option<u16> {
    read(1000, bytes, &[]).end
}

#[test]
fn lengths_of_each_form_are_read() {
    for length in [0, 1, 7, 8, 125, 126, 127, 65_535, 65_536, 70_001] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let seen = read(100_000, &frame(0x82, &payload), &[]);
        assert_eq!((seen.mqtt, seen.end), (payload, None), "{length}");
    }
}

#[test]
fn bytes_are_handed_on_before_their_frame_is_whole() {
    let bytes = frame(0x82, b"abcdefgh");
    assert_eq!(read(1000, &bytes[..9], &[]).mqtt, b"abc");
}

#[test]
fn fragments_are_joined_and_pings_between_them_answered() {
    let bytes = [
        frame(0x02, b"ab"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x00, b"cd"),
        frame(0x8A, b"pong"),
        frame(0x80, b"ef"),
        frame(0x82, b"gh"),
    ];
    let seen = read(1000, &bytes.concat(), &[]);
    assert_eq!(seen.mqtt, b"abcdefgh");
    assert_eq!(seen.pings, [b"ping"]);
    assert_eq!(seen.end, None);
}

#[test]
fn what_is_not_allowed_ends_with_its_code() {
    let protocol = Some(1002);
    assert_eq!(end(&frame(0x81, b"text")), Some(1003));
    assert_eq!(end(&frame(0x01, b"text")), Some(1003));
    assert_eq!(end(&[0x82, 0x01, b'a']), protocol, "without a mask");
    for reserved in [0xC2, 0xA2, 0x92] {
        assert_eq!(end(&frame(reserved, b"")), protocol, "reserved bit");
    }
    for opcode in [0x83, 0x87, 0x8B, 0x8F] {
        assert_eq!(end(&frame(opcode, b"")), protocol, "opcode {opcode:02X}");
    }
    assert_eq!(end(&frame(0x80, b"")), protocol, "continuation of nothing");
    assert_eq!(
        end(&[frame(0x02, b"a"), frame(0x82, b"b")].concat()),
        protocol,
        "message in a message"
    );
    assert_eq!(end(&frame(0x09, b"")), protocol, "fragmented ping");
    assert_eq!(end(&frame(0x89, &[0; 126])), protocol, "ping of 126 bytes");
    assert_eq!(end(&frame(0x82, &[0; 1001])), Some(1009));
    let endless = [&[0x82, 0xFF][..], &[0xFF; 8], &MASK].concat();
    assert_eq!(end(&endless), Some(1009));
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    let close = |payload: &[u8]| end(&frame(0x88, payload));
    assert_eq!(close(b""), Some(CLOSE_NORMAL));
    assert_eq!(close(&1001_u16.to_be_bytes()), Some(1001));
    assert_eq!(close(&[&4000_u16.to_be_bytes()[..], b"why"].concat()), Some(4000));
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert_eq!(close(&code.to_be_bytes()), Some(1002), "{code}");
    }
    assert_eq!(close(b"\x03"), Some(1002), "half a code");
    assert_eq!(close(b"\x03\xE8\xFF"), Some(1002), "reason is not UTF-8");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
                              cuts in prop::collection::vec(1_usize..40, 0..40)) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload)).collect();
        let seen = read(1000, &bytes, &cuts);
        prop_assert_eq!(&seen.mqtt, &payloads.concat());
        prop_assert_eq!(seen.end, None);
    }

    #[test]
    fn noise_never_panics_and_cuts_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..400),
                                                 start in prop::sample::select(vec![0x82_u8, 0x02, 0x88, 0x89]),
                                                 cuts in prop::collection::vec(1_usize..20, 0..30)) {
        let mut bytes = bytes;
        if let [first, second, ..] = bytes.as_mut_slice() {
            (*first, *second) = (start, *second | 0x80);
        }
        prop_assert_eq!(read(500, &bytes, &cuts), read(500, &bytes, &[]));
    }
}
