//! The heartbeat: a record that the edge itself puts into a lane, to see it come back as W.
//!
//! In: number, interval, last round trip. Out: the topic and payload of the record, and back. The record takes the way of every other
//! one: appended, committed, sent, committed by the cloud together with W, acknowledged. The cloud keeps the newest one per edge and
//! appends none to its log. Its topic is reserved: no device can publish there. The layout is in `docs/format/link.md`.

/// What topics of heartbeats begin with.
const TOPIC_PREFIX: &str = "$fellbeck/heartbeat/";
/// Version of the payload.
const VERSION: &str = "1";
/// Longest payload that is looked at.
const BYTES_MAX: usize = 128;

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Counts from 1 with each start of the edge.
    pub number: u64,
    /// Milliseconds until the next one is due.
    pub interval_ms: u64,
    /// Milliseconds that the one before took from its commit on the edge until W had passed it; `None`: not measured.
    pub round_trip_ms: Option<u64>,
}

impl Heartbeat {
    /// Topic of the heartbeats of `edge`.
    #[must_use]
    pub fn topic(edge: &str) -> String {
        format!("{TOPIC_PREFIX}{edge}")
    }

    /// Whether a record with this topic and device is a heartbeat of `edge`: no device has an empty client ID.
    #[must_use]
    pub fn is_of(edge: &str, topic: &str, device: &str) -> bool {
        device.is_empty() && topic.strip_prefix(TOPIC_PREFIX) == Some(edge)
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let round_trip = self.round_trip_ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        format!("{VERSION} {} {} {round_trip}", self.number, self.interval_ms).into_bytes()
    }

    /// Reads a payload. `None`: of a later version, or no heartbeat. Fields behind the known ones are of a later version and ignored.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload.get(..payload.len().min(BYTES_MAX))?).ok()?;
        let mut fields = text.split(' ');
        if fields.next()? != VERSION {
            return None;
        }
        Some(Self {
            number: fields.next()?.parse().ok()?,
            interval_ms: fields.next()?.parse().ok()?,
            round_trip_ms: match fields.next()? {
                "-" => None,
                ms => Some(ms.parse().ok()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_comes_back_from_its_bytes() {
        let beat = Heartbeat {
            number: 7,
            interval_ms: 15_000,
            round_trip_ms: None,
        };
        assert_eq!(beat.encode(), b"1 7 15000 -");
        let measured = Heartbeat {
            round_trip_ms: Some(12),
            ..beat
        };
        assert_eq!(measured.encode(), b"1 7 15000 12");
        for beat in [beat, measured] {
            assert_eq!(Heartbeat::decode(&beat.encode()), Some(beat));
        }
        assert_eq!(Heartbeat::decode(b"1 7 15000 12 more"), Some(measured));
    }

    #[test]
    fn what_is_no_heartbeat_is_refused_without_a_panic() {
        let digits = "9".repeat(1000);
        let long = format!("1 {digits} 1 -");
        for payload in [
            &b""[..],
            b"1",
            b"2 7 15000 -",
            b"1 -1 5 -",
            b"1 7 15000",
            b"\xff\xfe",
            long.as_bytes(),
        ] {
            assert_eq!(Heartbeat::decode(payload), None);
        }
        for n in 0..=u8::MAX {
            assert_eq!(Heartbeat::decode(&[n; 200]), None);
        }
    }

    #[test]
    fn only_the_edge_itself_sends_its_heartbeats() {
        assert!(Heartbeat::is_of("gate-1", "$fellbeck/heartbeat/gate-1", ""));
        assert!(!Heartbeat::is_of("gate-1", "$fellbeck/heartbeat/gate-1", "device"));
        assert!(!Heartbeat::is_of("gate-1", "$fellbeck/heartbeat/gate-2", ""));
        assert!(!Heartbeat::is_of("gate-1", "gate-1", ""));
    }
}
