//! Raw MQTT packets over a blocking socket. Reads wait at most ten seconds, then the test fails.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    version: u8,
}

/// A PUBLISH as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) flags: u8,
    pub(crate) topic: String,
    pub(crate) packet_id: Option<u16>,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Client {
    /// A socket without a CONNECT.
    pub(crate) fn open(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).unwrap(), 4)
    }

    /// The same, for a conversation in version 5.
    pub(crate) fn open_v5(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).unwrap(), 5)
    }

    /// The same of a socket that is there.
    pub(crate) fn of(stream: TcpStream, version: u8) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            version,
        }
    }

    /// Connects with clean start and returns once CONNACK says yes.
    pub(crate) fn clean(addr: SocketAddr, version: u8, id: &str) -> Self {
        let (client, ack) = Self::connect(addr, version, &connect(version, id, 0x02, 60, &[]));
        assert_eq!(ack[3], 0, "{ack:02X?}");
        client
    }

    /// Connects with a session to keep; returns Session Present too.
    pub(crate) fn keep(addr: SocketAddr, version: u8, id: &str) -> (Self, bool) {
        // Session Expiry Interval of an hour.
        let (client, ack) = Self::connect(
            addr,
            version,
            &connect(version, id, 0x00, 60, &[0x11, 0, 0, 0x0E, 0x10]),
        );
        assert_eq!(ack[3], 0, "{ack:02X?}");
        (client, ack[2] == 1)
    }

    pub(crate) fn connect(addr: SocketAddr, version: u8, packet: &[u8]) -> (Self, Vec<u8>) {
        let mut client = Self::open(addr);
        client.version = version;
        client.send(packet);
        let ack = client.packet().expect("CONNACK");
        assert_eq!(ack[0], 0x20);
        (client, ack)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Like `send`, for a peer that may have closed already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// False once the server has closed.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Without waiting, and without taking it.
    pub(crate) fn has_something_to_read(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        seen
    }

    /// Next whole packet; `None` when the server has closed.
    pub(crate) fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = whole(&self.buffer) {
                return Some(self.buffer.drain(..length).collect());
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// True when nothing comes before the read timeout.
    pub(crate) fn waits_in_vain(&mut self) -> bool {
        let waiting = self.stream.read(&mut [0; 16]);
        self.buffer.is_empty() && waiting.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let packet = self.packet();
        assert_eq!(
            packet.as_deref(),
            Some(bytes),
            "expected {bytes:02X?}, got {packet:02X?}"
        );
    }

    /// Reads a DISCONNECT with this reason (5.0), then the end.
    pub(crate) fn expect_disconnect(&mut self, reason: u8) {
        let packet = self.packet().expect("DISCONNECT");
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "{packet:02X?}");
        assert_eq!(self.packet(), None);
    }

    pub(crate) fn publish(&mut self) -> Publish {
        let packet = self.packet().expect("PUBLISH");
        parse_publish(self.version, &packet)
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(&subscribe(self.version, 1, filter, qos));
        let ack = self.packet().expect("SUBACK");
        assert_eq!((ack[0], *ack.last().unwrap()), (0x90, qos), "{ack:02X?}");
    }

    /// Nothing is waiting: PINGREQ is answered by PINGRESP and nothing before it.
    pub(crate) fn expect_nothing(&mut self) {
        self.send(&[0xC0, 0]);
        self.expect(&[0xD0, 0]);
    }
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let (remaining, used) = varint(bytes.get(1..)?)?;
    let length = 1 + used + remaining;
    (bytes.len() >= length).then_some(length)
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

pub(crate) fn parse_publish(version: u8, packet: &[u8]) -> Publish {
    assert_eq!(packet[0] >> 4, 3, "{packet:02X?}");
    let (_, used) = varint(&packet[1..]).unwrap();
    let mut rest = &packet[1 + used..];
    let take = |rest: &mut &[u8], n: usize| {
        let (head, tail) = rest.split_at(n);
        *rest = tail;
        head.to_vec()
    };
    let length = take(&mut rest, 2);
    let topic = take(&mut rest, usize::from(u16::from_be_bytes([length[0], length[1]])));
    let packet_id = (packet[0] & 6 != 0).then(|| {
        let id = take(&mut rest, 2);
        u16::from_be_bytes([id[0], id[1]])
    });
    let mut properties = Vec::new();
    if version == 5 {
        let (length, used) = varint(rest).unwrap();
        take(&mut rest, used);
        properties = take(&mut rest, length);
    }
    Publish {
        flags: packet[0] & 0x0F,
        topic: String::from_utf8(topic).unwrap(),
        packet_id,
        properties,
        payload: rest.to_vec(),
    }
}

/// Puts the fixed header in front.
pub(crate) fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut n = body.len();
    loop {
        let byte = (n & 0x7F) as u8;
        n >>= 7;
        out.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_properties(out: &mut Vec<u8>, version: u8, properties: &[u8]) {
    if version == 5 {
        assert!(properties.len() < 128);
        out.push(properties.len() as u8);
        out.extend_from_slice(properties);
    }
}

pub(crate) fn connect(version: u8, id: &str, flags: u8, keep_alive: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[version, flags]);
    body.extend_from_slice(&keep_alive.to_be_bytes());
    put_properties(&mut body, version, properties);
    text(&mut body, id);
    frame(0x10, &body)
}

/// PUBLISH; `flags` holds DUP, QoS and RETAIN, `packet_id` is left out for QoS 0.
pub(crate) fn publish(version: u8, flags: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(version, flags, topic, packet_id, &[], payload)
}

pub(crate) fn publish_with(
    version: u8,
    flags: u8,
    topic: &str,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if flags & 6 != 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    put_properties(&mut body, version, properties);
    body.extend_from_slice(payload);
    frame(0x30 | flags, &body)
}

pub(crate) fn subscribe(version: u8, packet_id: u16, filter: &str, options: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    put_properties(&mut body, version, &[]);
    text(&mut body, filter);
    body.push(options);
    frame(0x82, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte.
pub(crate) fn ack(first: u8, packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![first, 2, high, low]
}
