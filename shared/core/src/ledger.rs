//! Why a record did not reach a reader: the reasons of the ledger (I6, P9).
//!
//! Each has a label for metrics and a number for gaps on flash and on the link. Numbers and labels are never reused.
//! The counters themselves belong to whoever drops.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal $label:literal,)*) => {
        /// Reason of a drop, counted under [`DropReason::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in rising number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Label in metrics and in reports.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// The reason with the wire number `n`. A number of a later version gives `None`.
            #[must_use]
            pub fn from_u8(n: u8) -> Option<Self> {
                match n {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// The quota was full, and the policy of the lane gives up what is new.
    Quota = 1 "quota",
    /// The Message Expiry Interval ran out.
    Expired = 2 "expired",
    /// The bound of a session's queue was reached.
    SessionQueueFull = 3 "session_queue_full",
    /// QoS 0 for a session that is not connected.
    Qos0Offline = 4 "qos0_offline",
    /// QoS 0 shed because the quota is nearly used up.
    Qos0Quota = 5 "qos0_quota",
    /// QoS 0 for a connection that reads too slowly.
    Qos0SlowReader = 6 "qos0_slow_reader",
    /// Above the Maximum Packet Size of the subscriber.
    PacketTooLarge = 7 "packet_too_large",
    /// Known to have been synced, yet missing at the end of the store when it was opened.
    LostSuffix = 8 "lost_suffix",
    /// A stored range could not be read back.
    Damaged = 9 "damaged",
    /// Retention or a bound on what a lagging reader may pin deleted it before the reader came.
    Trimmed = 10 "trimmed",
    /// The session ended with messages still queued.
    SessionEnded = 11 "session_ended",
    /// Asked for again by a restored cloud, but no longer in the edge's grace window.
    BeyondGrace = 12 "beyond_grace",
    /// The publisher may not send to this topic, and QoS 0 has no answer.
    NotPermitted = 13 "not_permitted",
    /// QoS 1 or 2 for a session that is not connected, of a message that no log holds.
    NotLogged = 14 "not_logged",
    /// The record breaks a rule of MQTT or of this node; an edge that forwards it is broken or hostile.
    Invalid = 15 "invalid",
    /// Space ran out, and the policy of the lane gives up what is oldest.
    DropOldest = 16 "drop_oldest",
    /// Space ran out, and the policy of the lane keeps the newest of each topic.
    KeepLatest = 17 "keep_latest",
    /// Space ran out, and the policy of the lane keeps one per topic and interval.
    Thin = 18 "thin",
    /// Only ever in memory, and the process ended: numbers of such records, of which some may not have been used.
    Volatile = 19 "volatile",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_labels_differ() {
        let labels: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        for n in 0..=u8::MAX {
            let known = DropReason::ALL.iter().copied().find(|reason| *reason as u8 == n);
            assert_eq!(DropReason::from_u8(n), known);
        }
    }
}
