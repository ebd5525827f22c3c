//! What each test payload says about itself: which device, and the how-manieth message of it.
//!
//! In: device name and sequence. Out: text bytes `device sequence padding`, and back. Readable in a failure message and with
//! mosquitto_sub. Knows nothing of MQTT.

/// Identity of one test message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device that published it.
    pub device: String,
    /// Counts from 0 without a hole per device.
    pub seq: usize,
}

impl Stamp {
    /// The payload, filled up to `size` bytes.
    #[must_use]
    pub fn payload(&self, size: usize) -> Vec<u8> {
        let mut text = format!("{} {} ", self.device, self.seq).into_bytes();
        // Bytes that compress badly, so that a backlog on disk is about as large as what was published.
        let mut state = (self.seq as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while text.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(b'!' + (state % 90) as u8);
        }
        text
    }

    /// Reads a payload back; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = payload.splitn(3, |byte| *byte == b' ');
        let device = std::str::from_utf8(words.next()?).ok()?.to_owned();
        let seq = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        Some(Self { device, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn a_stamp_survives_its_payload_at_any_size() {
        for size in [0, 5, 17, 300] {
            let stamp = Stamp {
                device: "dev-7".into(),
                seq: 12_345,
            };
            let payload = stamp.payload(size);
            assert!(payload.len() >= size);
            assert_eq!(Stamp::parse(&payload), Some(stamp));
        }
        assert_eq!(Stamp::parse(b"hello"), None);
    }
}
