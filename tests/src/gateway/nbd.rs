//! The part of the NBD protocol that the emulator speaks with a drive: one export, simple replies, flush and forced writes.
//!
//! In: a connected stream and a [`Drive`]. Out: its answers. Ends when the emulator has gone or the drive has lost its power.
//! Nothing here decides what is durable. Lengths are bounded, whatever is asked for.

use std::io::{self, ErrorKind, Read, Write};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Fixed newstyle, no padding.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// Flags are given; flush; forced unit access.
const EXPORT_FLAGS: u16 = 0b1101;

const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FORCED: u16 = 1;

const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// Bytes of an option or a request at most.
const LENGTH_MAX: u32 = 32 << 20;

/// What a connection serves.
pub(crate) trait Drive {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `into`.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes, durably when `forced`.
    fn write(&self, at: u64, bytes: &[u8], forced: bool) -> io::Result<()>;
    /// Makes durable what was written.
    fn flush(&self) -> io::Result<()>;
    /// False once the power has gone: then nothing is answered any more.
    fn has_power(&self) -> bool;
}

/// Serves one connection to its end.
pub(crate) fn serve(stream: &mut (impl Read + Write), drive: &impl Drive) -> io::Result<()> {
    if !handshake(stream, drive)? {
        return Ok(());
    }
    let mut buffer = Vec::new();
    loop {
        let request = Request::read(stream)?;
        if request.kind == DISCONNECT {
            return Ok(());
        }
        if matches!(request.kind, READ | WRITE) {
            if request.len > LENGTH_MAX {
                return Err(refused("a request is too long"));
            }
            buffer.resize(request.len as usize, 0);
        }
        if request.kind == WRITE {
            stream.read_exact(&mut buffer)?;
        }
        let done = match request.kind {
            READ => drive.read(request.at, &mut buffer),
            WRITE => drive.write(request.at, &buffer, request.flags & FORCED != 0),
            FLUSH => drive.flush(),
            _ => Err(refused("a command that was not offered")),
        };
        if !drive.has_power() {
            // Neither an answer nor an end of the connection, which would be an answer too, until the emulator itself is gone.
            return io::copy(stream, &mut io::sink()).map(drop);
        }
        let error = match &done {
            Ok(()) => 0,
            Err(error) if error.kind() == ErrorKind::InvalidInput => EINVAL,
            Err(_) => EIO,
        };
        let mut reply = Vec::with_capacity(16);
        reply.extend(REPLY_MAGIC.to_be_bytes());
        reply.extend(error.to_be_bytes());
        reply.extend(request.handle.to_be_bytes());
        stream.write_all(&reply)?;
        if request.kind == READ && error == 0 {
            stream.write_all(&buffer)?;
        }
    }
}

/// False when the emulator has left again.
fn handshake(stream: &mut (impl Read + Write), drive: &impl Drive) -> io::Result<bool> {
    let mut hello = Vec::new();
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend(HANDSHAKE_FLAGS.to_be_bytes());
    stream.write_all(&hello)?;
    u32_of(stream)?;
    loop {
        if u64_of(stream)? != OPTION_MAGIC {
            return Err(refused("not an option"));
        }
        let (option, len) = (u32_of(stream)?, u32_of(stream)?);
        if len > LENGTH_MAX {
            return Err(refused("an option is too long"));
        }
        stream.read_exact(&mut vec![0; len as usize])?;
        match option {
            OPTION_INFO | OPTION_GO => {
                // Kind of information 0: size and flags.
                let mut info = vec![0, 0];
                info.extend(drive.size().to_be_bytes());
                info.extend(EXPORT_FLAGS.to_be_bytes());
                reply(stream, option, REPLY_INFO, &info)?;
                reply(stream, option, REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_ABORT => {
                reply(stream, option, REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => reply(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let len = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    for number in [option, kind, len] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(data);
    stream.write_all(&bytes)
}

struct Request {
    flags: u16,
    kind: u16,
    handle: u64,
    at: u64,
    len: u32,
}

impl Request {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        if u32_of(stream)? != REQUEST_MAGIC {
            return Err(refused("not a request"));
        }
        Ok(Self {
            flags: u16_of(stream)?,
            kind: u16_of(stream)?,
            handle: u64_of(stream)?,
            at: u64_of(stream)?,
            len: u32_of(stream)?,
        })
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

fn u16_of(stream: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_of(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_of(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
