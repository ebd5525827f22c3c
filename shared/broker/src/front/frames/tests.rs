//! Whole packets come out however the stream is cut, and what is kept is charged.

use proptest::prelude::*;

use super::*;

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

/// Gives bytes to `frames` as a connection would, and returns the packets that are whole.
fn give(frames: &mut Frames, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
    let mut packets = Vec::new();
    if frames.is_partial() {
        let Completed { used, packet } = frames.complete(bytes)?;
        bytes = &bytes[used..];
        match packet {
            Some(packet) => {
                packets.push(packet.clone());
                frames.recycle(packet);
            }
            None => {
                assert!(bytes.is_empty(), "bytes are left over");
                return Ok(packets);
            }
        }
    }
    loop {
        match frames.head(bytes)? {
            Head::Known { whole, .. } if whole <= bytes.len() => {
                packets.push(bytes[..whole].to_vec());
                bytes = &bytes[whole..];
            }
            _ => {
                if !bytes.is_empty() {
                    frames.keep(bytes);
                }
                return Ok(packets);
            }
        }
    }
}

#[test]
fn a_length_that_cannot_be_is_refused() {
    let reason = |version, bytes: &[u8]| give(&mut frames(version), bytes).err().map(|fault| fault.reason);
    assert_eq!(reason(Version::V3, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF]), Some(0x81));
    assert_eq!(reason(Version::V3, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Some(0x95));
    assert_eq!(reason(Version::V5, &[0xC0, 0x80, 0x00]), Some(0x81));
    assert_eq!(reason(Version::V3, &[0xC0, 0x80, 0x00]), None);
}

#[test]
fn a_length_that_cannot_be_is_refused_when_it_comes_byte_by_byte() {
    let mut frames = frames(Version::V5);
    for byte in [0x30, 0xFF, 0xFF, 0xFF] {
        assert_eq!(give(&mut frames, &[byte]), Ok(Vec::new()));
    }
    assert_eq!(give(&mut frames, &[0x7F]).unwrap_err().reason, 0x95);
}

#[test]
fn the_budget_for_partial_packets_is_kept_and_given_back() {
    let budget = Assembly::new(10_000);
    let mut one = Frames::new(Version::V3, 1 << 20, &budget);
    let mut two = Frames::new(Version::V3, 1 << 20, &budget);
    let part = publish(100_000);
    assert_eq!(give(&mut one, &part[..12_000]), Ok(Vec::new()));
    assert_eq!(budget.used(), 12_000 - FREE_BYTES);
    assert!(one.is_partial() && !budget.is_exceeded());
    assert_eq!(give(&mut two, &part[..12_000]), Ok(Vec::new()));
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
        let (mut out, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(stream.len());
            out.extend(give(&mut frames, &stream[at..end]).unwrap());
            at = end;
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(out, packets);
        prop_assert_eq!(frames.charged(), 0);
        prop_assert!(!frames.is_partial());
    }

    #[test]
    fn random_bytes_never_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..6), v5: bool) {
        let mut frames = frames(if v5 { Version::V5 } else { Version::V3 });
        let (mut given, mut taken) = (0, 0);
        for part in parts {
            given += part.len();
            match give(&mut frames, &part) {
                Ok(packets) => taken += packets.iter().map(Vec::len).sum::<usize>(),
                Err(_) => return Ok(()),
            }
            prop_assert!(taken <= given);
        }
    }
}
