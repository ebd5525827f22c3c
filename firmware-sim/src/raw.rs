//! A plain MQTT connection over TCP: connect, read packets, write bytes.
//!
//! In: an address and a [`Connect`]. Out: packets as they are on the wire. It keeps no session state and answers nothing:
//! who uses it decides. One packet is buffered at most beyond what one read brought.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::{self, Connect, Packet, Version, WireError};

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// TCP connect and CONNACK must come within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Why a raw connection ended. It is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The socket failed, or nobody listens.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// No CONNACK in time.
    #[error("no CONNACK within {} s", CONNECT_WITHIN.as_secs())]
    Timeout,
    /// The broker said no.
    #[error("the broker refused: code {code:#04x}")]
    Refused {
        /// Return or reason code.
        code: u8,
    },
    /// The broker answered SUBSCRIBE with an error.
    #[error("the broker refused the subscription: code {code:#04x}")]
    Subscription {
        /// Return or reason code.
        code: u8,
    },
    /// This side left.
    #[error("told to leave")]
    Left,
    /// The broker sent DISCONNECT.
    #[error("the broker disconnected: reason {reason:#04x}")]
    Disconnected {
        /// Reason code.
        reason: u8,
    },
    /// The broker sent nonsense.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Bytes of `input` already parsed.
    used: usize,
}

impl RawClient {
    /// Connects; also says whether the broker kept the session.
    pub async fn connect(host: &str, port: u16, connect: &Connect<'_>) -> Result<(Self, bool), RawError> {
        timeout(CONNECT_WITHIN, Self::connect_now(host, port, connect))
            .await
            .map_err(|_| RawError::Timeout)?
    }

    async fn connect_now(host: &str, port: u16, connect: &Connect<'_>) -> Result<(Self, bool), RawError> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            version: connect.version,
            input: Vec::new(),
            used: 0,
        };
        let mut bytes = Vec::new();
        wire::put_connect(&mut bytes, connect);
        client.write(&bytes).await?;
        loop {
            match client.next_packet()? {
                Some(Packet::ConnAck {
                    session_present,
                    code: 0,
                }) => return Ok((client, session_present)),
                Some(Packet::ConnAck { code, .. }) => return Err(RawError::Refused { code }),
                Some(_) => {}
                None => client.read_more().await?,
            }
        }
    }

    /// The next packet already read, if any.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, WireError> {
        let Some((packet, length)) = wire::parse(&self.input[self.used..], self.version)? else {
            return Ok(None);
        };
        self.used += length;
        Ok(Some(packet))
    }

    /// Waits for more bytes. Cancelling it loses nothing.
    pub async fn read_more(&mut self) -> Result<(), RawError> {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(RawError::Closed);
        }
        Ok(())
    }

    /// Sends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        Ok(self.stream.write_all(bytes).await?)
    }
}

/// Makes the broker forget the session of a client ID: a clean connect in 3.1.1, then DISCONNECT.
pub async fn forget_session(host: &str, port: u16, client_id: &str) -> Result<(), RawError> {
    let connect = Connect {
        version: Version::V4,
        client_id,
        clean: true,
        keep_alive: 10,
        session_expiry: 0,
    };
    let (mut client, _) = RawClient::connect(host, port, &connect).await?;
    let mut bytes = Vec::new();
    wire::put_disconnect(&mut bytes);
    client.write(&bytes).await
}
