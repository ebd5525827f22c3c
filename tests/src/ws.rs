//! A WebSocket client of raw frames, for what no library would send.
//!
//! In: a stream (TCP, or TLS over it), bytes of frames. Out: frames of the server, or the MQTT packets within them. Frames are masked
//! unless a test makes its own. Reads wait as long as the stream lets them, then the test fails.

use std::io::{ErrorKind, Read, Write};

/// A good upgrade request; a test that wants a bad one replaces a part of it.
pub const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// First byte of a whole binary frame.
pub const BINARY: u8 = 0x82;
/// First byte of a whole text frame.
pub const TEXT: u8 = 0x81;
/// First byte of a Close.
pub const CLOSE: u8 = 0x88;
/// First byte of a Ping.
pub const PING: u8 = 0x89;
/// First byte of a Pong.
pub const PONG: u8 = 0x8A;

/// A client on a stream.
#[derive(Debug)]
pub struct WsClient<S> {
    /// The stream, for what goes around the frames.
    pub stream: S,
    bytes: Vec<u8>,
    mqtt: Vec<u8>,
}

impl<S: Read + Write> WsClient<S> {
    /// Opens a WebSocket and checks the answer.
    ///
    /// # Panics
    /// When it is refused.
    pub fn open(stream: S) -> Self {
        let (client, answer) = Self::request(stream, UPGRADE.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // The answer to the key of RFC 6455 section 1.3.
        assert!(
            answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{answer}"
        );
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
        client
    }

    /// Sends `request` and returns the head of the answer; empty when there was none.
    pub fn request(stream: S, request: &[u8]) -> (Self, String) {
        let mut client = Self {
            stream,
            bytes: Vec::new(),
            mqtt: Vec::new(),
        };
        // The server may have closed before all was written.
        client.stream.write_all(request).ok();
        client.stream.flush().ok();
        loop {
            if let Some(end) = client.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = client.bytes.drain(..end + 4).collect();
                return (client, String::from_utf8_lossy(&head).into_owned());
            }
            if !client.read() {
                return (client, String::new());
            }
        }
    }

    /// Sends one frame with this first byte (FIN, reserved bits, opcode).
    ///
    /// # Panics
    /// When the server has closed.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&frame(first, payload)).expect("the server reads");
        self.stream.flush().expect("the server reads");
    }

    /// Sends MQTT in one binary frame.
    ///
    /// # Panics
    /// When the server has closed.
    pub fn send_mqtt(&mut self, bytes: &[u8]) {
        self.send(BINARY, bytes);
    }

    /// The next frame of the server, first byte and payload; `None`: it has closed the socket.
    ///
    /// # Panics
    /// When nothing comes in time, or the frame is masked.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, from, end)) = whole_frame(&self.bytes) {
                let frame: Vec<u8> = self.bytes.drain(..end).collect();
                return Some((first, frame[from..].to_vec()));
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// The next MQTT packet; `None`: the server has closed, be it with a Close or without.
    ///
    /// # Panics
    /// When another frame than a binary one or a Close comes.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = whole_packet(&self.mqtt) {
                return Some(self.mqtt.drain(..length).collect());
            }
            match self.frame()? {
                (BINARY, payload) => self.mqtt.extend_from_slice(&payload),
                (CLOSE, _) => return None,
                (other, _) => panic!("a frame that begins with {other:02X}"),
            }
        }
    }

    /// Reads a Close with this code, and then the end of the socket.
    ///
    /// # Panics
    /// When something else comes.
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.frame(), Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.frame(), None);
    }

    /// Reads once. False at the end.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.bytes.extend_from_slice(&chunk[..n]);
                true
            }
            // A TLS stream reports a socket that ends without close_notify as an unexpected end.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

/// A masked frame.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// First byte, start of the payload and end of the frame at the front of `bytes`.
fn whole_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, from) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    (bytes.len() >= from + length).then_some((first, from, from + length))
}

/// Length of the MQTT packet at the front of `bytes`, once it is whole.
fn whole_packet(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for index in 0..4 {
        let byte = *bytes.get(1 + index)?;
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let whole = 2 + index + remaining;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    panic!("a length of more than four bytes: {bytes:02X?}");
}
