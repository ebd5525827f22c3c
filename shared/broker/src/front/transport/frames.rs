//! WebSocket frames of a client, as they arrive: a pure reader.
//!
//! In: bytes. Out: the next piece, unmasked in place: bytes of a binary frame as soon as they are there, whole or not, and
//! control frames whole. Nothing of a data frame is kept here, so its size costs no memory; the bound on it is for clients that
//! announce nonsense. Masking, opcodes, reserved bits, fragments and control frames follow RFC 6455 section 5.

use crate::front::fuzz::Framed;

/// A piece of what the client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes of MQTT; where they begin and end in packets says nothing ([MQTT5-6.0.0-2]).
    Data(&'a [u8]),
    /// To be answered with the same bytes.
    Ping(&'a [u8]),
    /// Nothing to do.
    Pong,
    /// The client closes, with this code.
    Close(u16),
}

/// The client broke the rules; the socket is closed with [`code`](Self::code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A text frame ([MQTT5-6.0.0-1]).
    Text,
    /// A frame beyond the bound.
    TooLarge,
    /// Anything else that RFC 6455 does not allow.
    Protocol,
    /// Too many frames without data.
    Flood,
}

impl Violation {
    /// Close code of RFC 6455 section 7.4.1.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLarge => 1009,
            Self::Protocol => 1002,
            Self::Flood => 1008,
        }
    }

    /// Label of the metric.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "ws_text_frame",
            Self::TooLarge => "ws_frame_too_large",
            Self::Protocol => "ws_protocol_error",
            Self::Flood => "ws_flood",
        }
    }
}

/// Normal closure; also the answer to a Close without a code.
pub(super) const CLOSE_NORMAL: u16 = 1000;

/// Largest payload of a control frame.
const CONTROL_MAX: u64 = 125;

/// Where a client's stream of frames stands.
#[derive(Debug)]
pub(super) struct Reader {
    frame_max: u64,
    /// Bytes of the current data frame that have not arrived.
    left: u64,
    mask: [u8; 4],
    /// A message has begun whose last fragment has not.
    in_message: bool,
}

struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    bytes: usize,
}

impl Reader {
    pub(super) fn new(frame_max: u64) -> Self {
        Self {
            frame_max,
            left: 0,
            mask: [0; 4],
            in_message: false,
        }
    }

    /// The next piece at the front of `bytes`, and how many bytes it took; `None`: more must arrive first.
    pub(super) fn next<'a>(&mut self, bytes: &'a mut [u8]) -> Result<Option<(usize, Piece<'a>)>, Violation> {
        if self.left > 0 {
            return Ok(self.data(0, bytes));
        }
        let Some(head) = self.head(bytes)? else {
            return Ok(None);
        };
        if head.opcode >= 8 {
            return control(&head, bytes);
        }
        self.in_message = !head.fin;
        self.left = head.length;
        self.mask = head.mask;
        if head.length == 0 {
            return Ok(Some((head.bytes, Piece::Data(&[]))));
        }
        // Even when nothing of the payload is there: the head has been taken in.
        Ok(Some(
            self.data(head.bytes, bytes).unwrap_or((head.bytes, Piece::Data(&[]))),
        ))
    }

    /// Payload of the current frame, which begins at `at`.
    fn data<'a>(&mut self, at: usize, bytes: &'a mut [u8]) -> Option<(usize, Piece<'a>)> {
        let there = bytes.len() - at;
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
        if length == 0 {
            return None;
        }
        let payload = &mut bytes[at..at + length];
        unmask(payload, self.mask);
        self.mask.rotate_left(length % 4);
        self.left -= length as u64;
        Some((at + length, Piece::Data(payload)))
    }

    fn head(&self, bytes: &[u8]) -> Result<Option<Head>, Violation> {
        let &[first, second, ..] = bytes else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        // No extension was agreed on, so the reserved bits are 0; a client masks (5.1, 5.2).
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Violation::Protocol);
        }
        match opcode {
            // Neither may a continuation stand alone, nor another message begin between fragments (5.4).
            0 if self.in_message => {}
            2 if !self.in_message => {}
            1 => return Err(Violation::Text),
            8..=10 if fin => {}
            _ => return Err(Violation::Protocol),
        }
        let (length, at) = match (second & 0x7F, bytes) {
            (126, &[_, _, a, b, ..]) => (u16::from_be_bytes([a, b]).into(), 4),
            (127, &[_, _, a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
            (126 | 127, _) => return Ok(None),
            (short, _) => (short.into(), 2),
        };
        if opcode >= 8 && length > CONTROL_MAX {
            return Err(Violation::Protocol);
        }
        if length > self.frame_max.max(CONTROL_MAX) {
            return Err(Violation::TooLarge);
        }
        let Some(&mask) = bytes[at..].first_chunk::<4>() else {
            return Ok(None);
        };
        Ok(Some(Head {
            fin,
            opcode,
            length,
            mask,
            bytes: at + 4,
        }))
    }
}

fn control<'a>(head: &Head, bytes: &'a mut [u8]) -> Result<Option<(usize, Piece<'a>)>, Violation> {
    let end = head.bytes + head.length as usize;
    let Some(payload) = bytes.get_mut(head.bytes..end) else {
        return Ok(None);
    };
    unmask(payload, head.mask);
    let piece = match head.opcode {
        8 => Piece::Close(close_code(payload)?),
        9 => Piece::Ping(payload),
        _ => Piece::Pong,
    };
    Ok(Some((end, piece)))
}

/// The code to answer with: the client's own, if it may be sent at all (7.4).
fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    let Some((&code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(CLOSE_NORMAL)
        } else {
            Err(Violation::Protocol)
        };
    };
    let code = u16::from_be_bytes(code);
    let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if legal && std::str::from_utf8(reason).is_ok() {
        Ok(code)
    } else {
        Err(Violation::Protocol)
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Reads frames that arrive in these portions to their end, for fuzz bodies and tests.
pub(in crate::front) fn read_all<'a>(frame_max: u64, portions: impl Iterator<Item = &'a [u8]>) -> Framed {
    let mut reader = Reader::new(frame_max);
    let mut framed = Framed::default();
    let mut buffer: Vec<u8> = Vec::new();
    for portion in portions {
        buffer.extend_from_slice(portion);
        loop {
            let taken = match reader.next(&mut buffer) {
                Ok(Some((taken, Piece::Data(bytes)))) => {
                    framed.mqtt.extend_from_slice(bytes);
                    taken
                }
                Ok(Some((taken, Piece::Ping(bytes)))) => {
                    framed.pings.push(bytes.to_vec());
                    taken
                }
                Ok(Some((taken, Piece::Pong))) => taken,
                Ok(Some((_, Piece::Close(code)))) => {
                    framed.end = Some(code);
                    return framed;
                }
                Err(violation) => {
                    framed.end = Some(violation.code());
                    return framed;
                }
                Ok(None) => break,
            };
            buffer.drain(..taken);
        }
    }
    framed
}

/// Writes the head of a frame of the server: final, without a mask.
pub(super) fn put_head(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(0x80 | opcode);
    if length < 126 {
        out.push(length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
