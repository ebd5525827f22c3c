//! Whole packets come out however the stream is cut; broken ones give the right reason and never pass.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Default)]
struct Plain(Vec<u8>);

impl Buffer for Plain {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
    fn prepend(&mut self, bytes: &[u8]) {
        self.0.splice(0..0, bytes.iter().copied());
    }
}

fn frames(version: Version) -> Frames {
    Frames::new(version, 1 << 20, &Assembly::new(1 << 20))
}

fn publish(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x32];
    let mut n = 7 + payload;
    loop {
        let byte = (n & 0x7F) as u8;
        n >>= 7;
        packet.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            break;
        }
    }
    packet.extend_from_slice(&[0, 3, b'a', b'/', b'b', 0, 1]);
    packet.extend(std::iter::repeat_n(0xAB, payload));
    packet
}

fn fault(version: Version, bytes: &[u8]) -> Option<u8> {
    frames(version)
        .admit(&mut Plain(bytes.to_vec()))
        .err()
        .map(|(_, fault)| fault.reason)
}

#[test]
fn malformed_packets_are_told_from_protocol_errors() {
    let table: &[(Version, &[u8], Option<u8>)] = &[
        (Version::V3, &[0xC0, 0], None),
        (Version::V3, &[0xC0, 1, 0], Some(0x81)),
        (Version::V3, &[0xC1, 0], Some(0x81)),
        (Version::V3, &[0x00, 0], Some(0x81)),
        (Version::V3, &[0xF0, 0], Some(0x81)),
        (Version::V5, &[0xF0, 0], None),
        (Version::V3, &[0x20, 2, 0, 0], Some(0x82)),
        (Version::V5, &[0xD0, 0], Some(0x82)),
        (Version::V3, &[0x60, 2, 0, 1], Some(0x81)),
        (Version::V3, &[0x36, 5, 0, 1, b'a', 0, 1], Some(0x81)),
        (Version::V3, &[0x38, 3, 0, 1, b'a'], Some(0x81)),
        (Version::V3, &[0x30, 2, 0, 10], Some(0x81)),
        (Version::V3, &[0x32, 3, 0, 1, b'a'], Some(0x81)),
        // A property length far beyond the packet.
        (Version::V5, &[0x30, 7, 0, 1, b'a', 0xFF, 0xFF, 0xFF, 0x7F], Some(0x81)),
        (Version::V5, &[0x30, 3, 0, 1, b'a'], Some(0x81)),
        (Version::V3, &[0x82, 2, 0, 1], Some(0x82)),
        (Version::V3, &[0x82, 6, 0, 1, 0, 1, b'a', 0x04], Some(0x81)),
        (Version::V3, &[0x82, 6, 0, 1, 0, 1, b'a', 0x03], Some(0x81)),
        (Version::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], Some(0x82)),
        (Version::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40], Some(0x81)),
        (Version::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x2E], None),
        (Version::V3, &[0x82, 5, 0, 1, 0, 1, b'a'], Some(0x81)),
        (Version::V3, &[0xA2, 2, 0, 1], Some(0x82)),
        (Version::V3, &[0xA2, 5, 0, 1, 0, 1, b'a'], None),
        (Version::V3, &[0xE0, 1, 0], Some(0x81)),
        (Version::V5, &[0xE0, 1, 0], None),
        (Version::V3, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Some(0x81)),
        (Version::V3, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], Some(0x95)),
    ];
    for (version, bytes, expected) in table {
        assert_eq!(fault(*version, bytes), *expected, "{version:?} {bytes:02X?}");
    }
}

#[test]
fn whole_packets_before_a_broken_one_still_count() {
    let mut buffer = Plain([publish(3), publish(4), vec![0xC1, 0]].concat());
    let (count, fault) = frames(Version::V3).admit(&mut buffer).unwrap_err();
    assert_eq!((count, fault.reason), (2, 0x81));
    assert_eq!(buffer.0, [publish(3), publish(4)].concat());
}

#[test]
fn the_budget_for_partial_packets_is_kept_and_given_back() {
    let budget = Assembly::new(10_000);
    let mut one = Frames::new(Version::V3, 1 << 20, &budget);
    let mut two = Frames::new(Version::V3, 1 << 20, &budget);
    let part = publish(100_000);
    assert_eq!(one.admit(&mut Plain(part[..12_000].to_vec())), Ok(0));
    assert_eq!(budget.used(), 12_000 - FREE_BYTES);
    assert!(one.is_partial() && !budget.is_exceeded());
    assert_eq!(two.admit(&mut Plain(part[..12_000].to_vec())), Ok(0));
    assert!(budget.is_exceeded());
    one.forget();
    assert_eq!((one.charged(), two.charged()), (0, 12_000 - FREE_BYTES));
    assert!(!budget.is_exceeded());
    drop(two);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_whole_packet_that_is_kept_is_charged_until_it_is_dropped() {
    let budget = Assembly::new(10_000);
    let small = budget.charge(FREE_BYTES);
    assert_eq!(budget.used(), 0);
    let large = budget.charge(FREE_BYTES + 10_001);
    assert_eq!((small.bytes(), large.bytes()), (0, 10_001));
    assert!(budget.is_exceeded());
    drop(large);
    assert_eq!(budget.used(), 0);
}

proptest! {
    #[test]
    fn packets_come_out_whole_however_the_stream_is_cut(
        sizes in prop::collection::vec(0usize..9000, 1..20),
        cuts in prop::collection::vec(1usize..5000, 1..40),
    ) {
        let packets: Vec<Vec<u8>> = sizes.iter().map(|&size| publish(size)).collect();
        let stream = packets.concat();
        let mut frames = frames(Version::V3);
        let (mut seen, mut out, mut at) = (0, Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(stream.len());
            let mut buffer = Plain(stream[at..end].to_vec());
            seen += frames.admit(&mut buffer).unwrap() as usize;
            out.extend_from_slice(&buffer.0);
            at = end;
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(seen, packets.len());
        prop_assert_eq!(out, stream);
        prop_assert_eq!(frames.charged(), 0);
        prop_assert!(!frames.is_partial());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V3 };
        let mut buffer = Plain(bytes);
        if let Ok(count) = frames(version).admit(&mut buffer) {
            prop_assert!(count == 0 || !buffer.0.is_empty());
        }
    }
}
