//! A message that names itself, and the packets between devices and nodes, owned.

use fellbeck_core::QoS;

/// The `n`th message of a device, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    pub(crate) device: u8,
    pub(crate) n: u32,
}

impl Message {
    pub(crate) fn payload(self) -> [u8; 6] {
        let n = self.n.to_be_bytes();
        [b'M', self.device, n[0], n[1], n[2], n[3]]
    }

    /// Panics at anything that is not such a payload: a record was damaged on its way.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let [b'M', device, n0, n1, n2, n3] = *payload else {
            panic!("a record with a foreign payload: {payload:02x?}");
        };
        Self {
            device,
            n: u32::from_be_bytes([n0, n1, n2, n3]),
        }
    }
}

/// A PUBLISH of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish {
    pub(crate) message: Message,
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) packet_id: u16,
    pub(crate) expiry_secs: Option<u32>,
}

/// A packet to a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ToNode {
    Connect,
    Publish(Publish),
    Subscribe,
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
}

/// A packet to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToDevice {
    ConnAck {
        present: bool,
        reason: u8,
    },
    Publish {
        message: Message,
        qos: QoS,
        packet_id: u16,
        dup: bool,
    },
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    SubAck(u8),
    Close(u8),
}
