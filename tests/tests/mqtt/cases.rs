//! Tables of packets that must end their connection: each is sent on a connection of its own.
//!
//! In: bytes and the reasons that are right. Out: a panic that names every packet which met another end. A PINGREQ goes behind each, so
//! that a node which takes the packet answers at once.

use std::thread;

use fellbeck_tests::mqtt::wire::hex;
use fellbeck_tests::mqtt::{Raw, Version};

use crate::brokers::Target;

/// Malformed Packet.
pub(crate) const MALFORMED: &[u8] = &[0x81];
/// Protocol Error.
pub(crate) const PROTOCOL_ERROR: &[u8] = &[0x82];
/// Wrong, and the standard does not say which of the two it is.
pub(crate) const WRONG: &[u8] = &[0x81, 0x82];

/// A packet and the reasons with which it may be answered in 5.0.
pub(crate) struct Case {
    what: String,
    bytes: Vec<u8>,
    reasons: &'static [u8],
}

/// A row of a table.
pub(crate) fn case(what: impl Into<String>, bytes: impl AsRef<[u8]>, reasons: &'static [u8]) -> Case {
    Case {
        what: what.into(),
        bytes: bytes.as_ref().to_vec(),
        reasons,
    }
}

/// Each packet ends an accepted connection: by DISCONNECT and the close in 5.0, by the close in 3.1.1.
pub(crate) fn each_ends(target: Target, cases: impl IntoIterator<Item = Case>) {
    judge(cases, (0xE0, 2), || target.client("ended"));
}

/// Each packet, sent first, is refused: by CONNACK and the close in 5.0, by the close without CONNACK in 3.1.1.
pub(crate) fn each_is_refused(target: Target, cases: impl IntoIterator<Item = Case>) {
    judge(cases, (0x20, 3), || target.open());
}

/// Connections of a table that are open at once. A node may take its time to close, so one after the other would take long.
const LANES: usize = 8;

/// `said`: first byte of the packet that tells the reason, and where in it the reason is.
fn judge(cases: impl IntoIterator<Item = Case>, said: (u8, usize), open: impl Fn() -> Raw + Sync) {
    let cases: Vec<Case> = cases.into_iter().collect();
    let failures: Vec<String> = thread::scope(|scope| {
        let open = &open;
        let lanes = cases.chunks(cases.len().div_ceil(LANES).max(1));
        let lanes: Vec<_> = lanes
            .map(|lane| {
                scope.spawn(move || {
                    lane.iter()
                        .filter_map(|case| failure(case, said, open()))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let failures = lanes.into_iter().flat_map(|lane| lane.join().expect("a lane ends"));
        failures.collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What was seen instead, if it was not right.
fn failure(case: &Case, said: (u8, usize), mut client: Raw) -> Option<String> {
    client.send_anyway(&[&case.bytes[..], &hex("c000")].concat());
    let seen = end(&mut client, said, case.reasons).err()?;
    Some(format!("{} ({:02x?}): {seen}", case.what, head(&case.bytes)))
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(40)]
}

fn end(client: &mut Raw, (kind, at): (u8, usize), reasons: &[u8]) -> Result<(), String> {
    let first = client.recv_bytes();
    match (client.version, first) {
        (Version::V3, None) => Ok(()),
        (Version::V3, Some(bytes)) => Err(format!("{bytes:02x?} instead of the close")),
        (Version::V5, None) => Err("closed without a reason".to_owned()),
        (Version::V5, Some(bytes)) => {
            let reason = bytes.get(at).filter(|_| bytes[0] == kind);
            if reason.is_some_and(|reason| reasons.contains(reason)) {
                client.expect_close();
                Ok(())
            } else {
                Err(format!("{bytes:02x?} instead of {reasons:02x?}"))
            }
        }
    }
}
