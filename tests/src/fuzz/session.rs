//! Stored state of sessions: whatever a store gives back, a node starts with it, goes on, and leaves nothing behind.
//!
//! Through the public [`Core`] only: restored, turned until it is quiet, restarted, its clients connected and ended.

use std::collections::BTreeSet;

use bytes::Bytes;
use fellbeck_broker::session::SessionStatus;
use fellbeck_core::CommitNumber;
use fellbeck_core::varint::{take_bytes, take_u64};
use fellbeck_store::commit::Stored;

use super::node::{NEWEST, Node};

/// Values of one input at most.
const VALUES_MAX: usize = 64;
/// Longest client identifier of the inputs; well within the bound of the session core.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// The input is a list of stored values: key and value with their lengths, then the commit that wrote it, all as varints.
pub(super) fn session_state(data: &[u8]) -> bool {
    let mut rest = data;
    let mut values = Vec::new();
    while let Some(stored) = take_stored(&mut rest) {
        values.push(stored);
        if values.len() == VALUES_MAX {
            break;
        }
    }
    let keys: BTreeSet<Bytes> = values.iter().map(|stored| stored.key.clone()).collect();
    if keys.len() < values.len() {
        // A store has one value for a key.
        return false;
    }
    let clients: Vec<String> = keys.iter().filter_map(client_of).collect();
    if clients.iter().any(|client| !is_client_id(client)) {
        // CONNECT refuses it, so no store has it.
        return false;
    }
    let Ok(mut node) = Node::restored(values, NEWEST) else {
        return false;
    };
    node.run();
    let before = statuses(&node, &clients);
    assert!(node.session_count() <= clients.len(), "no session without a stored one");

    let Ok(mut node) = Node::restored(node.stored(), node.newest()) else {
        panic!("a node reads what it wrote itself");
    };
    node.run();
    for (after, before) in statuses(&node, &clients).iter().zip(&before) {
        // Time passes, so one may have expired.
        assert!(
            after.is_none() || after == before,
            "a second restart changes {before:?} to {after:?}"
        );
    }
    let mut ended = 0;
    for client in &clients {
        if node.status(client).is_none() {
            continue;
        }
        ended += 1;
        assert!(node.connect(client, false), "a session that is there is present");
        node.run();
        assert!(node.connect(client, true), "the client starts anew");
        node.run();
        node.close_all();
        node.run();
        assert_eq!(
            node.status(client),
            None,
            "a session without expiry ends with its connection"
        );
    }
    let left: Vec<_> = node
        .stored()
        .iter()
        .filter_map(|stored| client_of_any(&stored.key))
        .collect();
    assert!(left.is_empty(), "values of {left:?} are left behind");
    ended > 0
}

fn take_stored(rest: &mut &[u8]) -> Option<Stored> {
    Some(Stored {
        key: Bytes::copy_from_slice(take_bytes(rest)?),
        value: Bytes::copy_from_slice(take_bytes(rest)?),
        commit: CommitNumber(take_u64(rest)?.min(NEWEST.0)),
    })
}

/// What has to survive a restart. Not so the number of unread messages, which a node knows only as far as it has read.
fn statuses(node: &Node, clients: &[String]) -> Vec<Option<SessionStatus>> {
    let surviving = |status| SessionStatus { unread: 0, ..status };
    clients
        .iter()
        .map(|client| node.status(client).map(surviving))
        .collect()
}

/// The client of the key of a session.
fn client_of(key: &Bytes) -> Option<String> {
    key.strip_prefix(b"M")
        .and_then(|client| String::from_utf8(client.to_vec()).ok())
}

fn is_client_id(client: &str) -> bool {
    (1..=CLIENT_ID_BYTES_MAX).contains(&client.len()) && !client.contains('\0')
}

/// The client of any key that belongs to one: session, cursor, subscription, received packet ID.
fn client_of_any(key: &Bytes) -> Option<String> {
    let (kind, rest) = key.split_first()?;
    let client = rest.split(|byte| *byte == 0).next()?;
    b"MCSQEB"
        .contains(kind)
        .then(|| String::from_utf8_lossy(client).into_owned())
}
