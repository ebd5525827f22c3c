//! One TCP connection that speaks MQTT: blocking, with deadlines on each read and write.
//!
//! In: encoded packets. Out: decoded packets, in order. Owns the socket and the bytes read ahead.
//! Knows nothing of sessions: it neither acknowledges nor resends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::packet::{ConnectOptions, Packet, Version, decode, encode, property_u32};

/// Longest wait for a connection, its CONNACK or a write.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);
/// Bytes asked from the socket at once.
const READ_SIZE: usize = 64 * 1024;
/// Receive Maximum where the server names none.
const WINDOW_DEFAULT: u16 = u16::MAX;

/// The server's answer to CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Return code or reason code; 0 is accepted.
    pub reason: u8,
    /// Receive Maximum of the server.
    pub receive_maximum: u16,
    /// Maximum Packet Size of the server, where it names one.
    pub packet_max: Option<u32>,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
    /// First byte of `buffer` that is not decoded yet.
    start: usize,
}

impl Connection {
    /// Connects, sends CONNECT and waits for CONNACK.
    ///
    /// # Errors
    /// When the socket fails, closes, or the first packet is no CONNACK. A refusal is not an error: look at `reason`.
    pub fn open(at: SocketAddr, options: &ConnectOptions) -> io::Result<(Self, ConnAck)> {
        let stream = TcpStream::connect_timeout(&at, HANDSHAKE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(HANDSHAKE_MAX))?;
        let mut connection = Self {
            stream,
            version: options.version,
            buffer: Vec::new(),
            start: 0,
        };
        connection.send(&encode::connect(options))?;
        match connection.recv(HANDSHAKE_MAX)? {
            Some(Packet::ConnAck {
                session_present,
                reason,
                properties,
            }) => {
                let receive_maximum = property_u32(&properties, 0x21).and_then(|n| u16::try_from(n).ok());
                let answer = ConnAck {
                    session_present,
                    reason,
                    receive_maximum: receive_maximum.unwrap_or(WINDOW_DEFAULT),
                    packet_max: property_u32(&properties, 0x27),
                };
                Ok((connection, answer))
            }
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("expected CONNACK, got {other:?}"),
            )),
        }
    }

    /// Writes encoded packets.
    ///
    /// # Errors
    /// When the socket fails or takes nothing for long.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; `None` when none came within `within`.
    ///
    /// # Errors
    /// When the socket fails or is closed, or the server breaks the protocol.
    pub fn recv(&mut self, within: Duration) -> io::Result<Option<Packet>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.fill(left)? {
                return Ok(None);
            }
        }
    }

    /// The next packet that is already here in full, without touching the socket.
    ///
    /// # Errors
    /// When the server breaks the protocol.
    pub fn buffered(&mut self) -> io::Result<Option<Packet>> {
        match decode(self.version, &self.buffer[self.start..]) {
            Ok(Some((packet, len))) => {
                self.start += len;
                Ok(Some(packet))
            }
            Ok(None) => {
                self.buffer.drain(..self.start);
                self.start = 0;
                Ok(None)
            }
            Err(rule) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("server broke the protocol: {}", rule.0),
            )),
        }
    }

    /// Reads once; false when nothing came in time.
    fn fill(&mut self, within: Duration) -> io::Result<bool> {
        self.stream
            .set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let end = self.buffer.len();
        self.buffer.resize(end + READ_SIZE, 0);
        let outcome = self.stream.read(&mut self.buffer[end..]);
        self.buffer.truncate(end + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}
