//! One version of a subscription as stored. When it begins and ends is the store's stamp on its two keys.

use bytes::Bytes;
use fellbeck_core::varint::{put_bytes, put_u64, take_u32};
use fellbeck_core::{CommitNumber, Filter, QoS};

use super::fields::{take_byte, take_text};
use super::{DecodeError, VERSION, versioned};
use crate::session::versions::{Options, SubscriptionVersion};

const SUB_SHARE: u8 = 1;
const SUB_NO_LOCAL: u8 = 2;
const SUB_RETAIN: u8 = 4;
const SUB_ID: u8 = 8;

/// One version of a subscription. It is written once: the commit that wrote it is the one after which it is in force.
pub(in crate::session) fn subscription(version: &SubscriptionVersion) -> Bytes {
    let mut flags = 0;
    for (flag, set) in [
        (SUB_SHARE, version.share.is_some()),
        (SUB_NO_LOCAL, version.options.no_local),
        (SUB_RETAIN, version.options.retain_as_published),
        (SUB_ID, version.options.id.is_some()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let mut out = vec![VERSION, flags, version.options.qos as u8];
    put_bytes(&mut out, version.filter.as_str().as_bytes());
    if let Some(share) = &version.share {
        put_bytes(&mut out, share.as_str().as_bytes());
    }
    if let Some(id) = version.options.id {
        put_u64(&mut out, u64::from(id));
    }
    out.into()
}

/// Reads a version that `commit` wrote under `slot`.
pub(in crate::session) fn decode_subscription(
    value: &[u8],
    slot: u32,
    commit: CommitNumber,
) -> Result<SubscriptionVersion, DecodeError> {
    let mut input = versioned(value)?;
    let stored = take_subscription(&mut input, slot, commit).filter(|_| input.is_empty());
    stored.ok_or(DecodeError::Damaged)
}

fn take_subscription(input: &mut &[u8], slot: u32, commit: CommitNumber) -> Option<SubscriptionVersion> {
    let flags = take_byte(input).filter(|flags| *flags < 16)?;
    let has = |flag: u8| flags & flag != 0;
    let qos = QoS::from_u8(take_byte(input)?)?;
    let filter = take_text(input)?;
    let subscription = match has(SUB_SHARE) {
        // A share name is checked where a SUBSCRIBE is.
        true => Filter::parse_subscription(&format!("$share/{}/{filter}", take_text(input)?)).ok()?,
        false => fellbeck_core::Subscription {
            share: None,
            filter: Filter::parse(filter).ok()?,
        },
    };
    let id = if has(SUB_ID) { Some(take_u32(input)?) } else { None };
    Some(SubscriptionVersion {
        slot,
        share: subscription.share,
        filter: subscription.filter,
        options: Options {
            qos,
            no_local: has(SUB_NO_LOCAL),
            retain_as_published: has(SUB_RETAIN),
            id,
        },
        since: Some(commit),
        until: None,
        closing: false,
        heir: None,
    })
}
