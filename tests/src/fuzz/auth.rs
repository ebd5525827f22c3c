//! The dialogue of AUTH packets: what the broker front makes of it is what a plain model of section 4.12 of MQTT 5 makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fellbeck_broker::front::fuzz::{self, Authenticated};
use fellbeck_broker::front::{Authenticator, ConnectRequest, Decision, Exchange, Step};
use fellbeck_broker::wire::Version;

/// The method that the hook knows.
const METHOD: &str = "m";

/// What the hook answers to data: it repeats them, is content with `!`, and refuses `x`.
fn script(data: Option<&[u8]>) -> Step {
    match data {
        Some([b'!', rest @ ..]) => Step::Done(rest.to_vec()),
        Some([b'x', ..]) => Step::Refuse(0x87),
        Some(data) => Step::Continue(data.to_vec()),
        None => Step::Continue(Vec::new()),
    }
}

/// Counts its exchanges, of which there may be one at a time.
#[derive(Debug, Default)]
struct Hook(Arc<AtomicUsize>);

struct Running(Arc<AtomicUsize>);

impl Authenticator for Hook {
    fn connect(&self, _: &ConnectRequest<'_>) -> Decision {
        Decision::Accept
    }

    fn begin(&self, client_id: &str, method: &str) -> Option<Box<dyn Exchange>> {
        assert_eq!(client_id, "client");
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "one exchange at a time");
        (method == METHOD).then(|| {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::new(Running(self.0.clone())) as Box<dyn Exchange>
        })
    }
}

impl Exchange for Running {
    fn step(&mut self, data: Option<&[u8]>) -> Step {
        script(data)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The input is the kind of CONNECT (bits: a method, data, an unknown method), the Maximum Packet Size, the data, and packets.
pub(super) fn mqtt_auth(bytes: &[u8]) -> bool {
    let [kind, packet_max, data, packets @ ..] = bytes else {
        return false;
    };
    let method = (kind & 1 != 0).then_some(if kind & 4 == 0 { METHOD } else { "unknown" });
    let data = std::slice::from_ref(data);
    let data = (kind & 2 != 0 && method.is_some()).then_some(data);
    let packet_max = u32::from(*packet_max).max(1);
    let hook = Hook::default();
    let found = fuzz::authenticate(&hook, (method, data), packet_max, packets);
    assert_eq!(hook.0.load(Ordering::Relaxed), 0, "no exchange outlives its connection");
    let mut model = Model {
        method,
        packet_max,
        ..Model::default()
    };
    model.play(data, packets);
    assert_eq!(found, model.events);
    for event in &found {
        if let Authenticated::Sent(packet) = event {
            assert!(packet.len() <= packet_max as usize);
        }
    }
    found.iter().any(|event| matches!(event, Authenticated::Accepted(_)))
}

/// The standard, in plain words.
#[derive(Debug, Default)]
struct Model<'a> {
    method: Option<&'a str>,
    packet_max: u32,
    is_connected: bool,
    is_running: bool,
    events: Vec<Authenticated>,
}

impl Model<'_> {
    fn play(&mut self, data: Option<&[u8]>, mut packets: &[u8]) {
        match self.method {
            None => self.is_connected = true,
            Some(METHOD) => self.step(data),
            Some(_) => self.end(0x8C),
        }
        while !matches!(self.events.last(), Some(Authenticated::Ended(_) | Authenticated::Left)) {
            let Some((&first, rest)) = packets.split_first() else {
                return;
            };
            let (length, rest) = match length(rest) {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(()) => return self.end(0x81),
            };
            if length > rest.len() {
                return;
            }
            let (body, behind) = rest.split_at(length);
            packets = behind;
            if !self.is_connected || first >> 4 == 15 {
                self.packet(first, body);
            }
        }
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        if first >> 4 == 3 {
            return self.end(0x82);
        }
        if let Err(reason) = fuzz::control(Version::V5, first, body) {
            return self.end(reason);
        }
        match first >> 4 {
            14 => self.events.push(Authenticated::Left),
            15 => self.auth(body),
            _ => self.end(0x82),
        }
    }

    fn auth(&mut self, body: &[u8]) {
        let reason = body.first().copied().unwrap_or(0);
        let of = |id: u8| property(body, id);
        let fits = self.method.is_some() && of(0x15) == self.method.map(str::as_bytes);
        match (fits, reason, self.is_running) {
            (true, 0x18, true) => self.step(of(0x16)),
            (true, 0x19, false) if self.is_connected => self.step(of(0x16)),
            _ => self.end(0x82),
        }
    }

    fn step(&mut self, data: Option<&[u8]>) {
        self.is_running = false;
        match script(data) {
            Step::Refuse(reason) => self.end(reason),
            Step::Done(data) if self.is_connected => self.send(0x00, &data),
            Step::Done(data) => {
                self.is_connected = true;
                self.events.push(Authenticated::Accepted(data));
            }
            Step::Continue(data) => {
                self.is_running = true;
                self.send(0x18, &data);
            }
        }
    }

    fn send(&mut self, reason: u8, data: &[u8]) {
        let mut block = vec![0x15, 0, METHOD.len() as u8];
        block.extend_from_slice(METHOD.as_bytes());
        if !data.is_empty() {
            block.push(0x16);
            block.extend_from_slice(&(data.len() as u16).to_be_bytes());
            block.extend_from_slice(data);
        }
        let body = [vec![reason], varint(block.len()), block].concat();
        let packet = [vec![0xF0], varint(body.len()), body].concat();
        if packet.len() > self.packet_max as usize {
            return self.end(0x95);
        }
        self.events.push(Authenticated::Sent(packet));
    }

    fn end(&mut self, reason: u8) {
        self.events.push(Authenticated::Ended(reason));
    }
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7F {
        out.push(value as u8 & 0x7F | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A length in its shortest form, and what follows it. `None`: it goes on.
fn length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, ()> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let is_shortest = at == 0 || *byte != 0;
            return if is_shortest {
                Ok(Some((value, &bytes[at + 1..])))
            } else {
                Err(())
            };
        }
    }
    if bytes.len() >= 4 { Err(()) } else { Ok(None) }
}

/// The value of a string or binary property of an AUTH that is well formed: all that it may have are such, or pairs of such.
fn property(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let (_, mut rest) = length(body.get(1..)?).ok()??;
    fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (value, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        *rest = behind;
        Some(value)
    }
    while let Some((&id, behind)) = rest.split_first() {
        rest = behind;
        let value = take(&mut rest)?;
        if id == wanted {
            return Some(value);
        }
        if id == 0x26 {
            take(&mut rest)?;
        }
    }
    None
}
