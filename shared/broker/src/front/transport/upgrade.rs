//! The HTTP request with which a WebSocket begins (RFC 6455 section 4.2), and its answer.
//!
//! In: the first bytes of a connection, from anybody. Out: 101 with the sub-protocol `mqtt`, and a connection that is ready for
//! frames; or 400, 403, 426 or 431 with a line that says what is wrong, and the reason for the metric. At most 8 KiB and 64 header
//! fields are looked at. Any path is served. Bytes behind the request stay in the buffer.

use httparse::{Error as ParseError, Header, Request, Status};
use ntex::codec::Decoder;
use ntex::io::IoBoxed;
use ntex::util::BytesMut;

use crate::front::linger::{WriteHalf, linger};

/// Largest request, up to the empty line.
const REQUEST_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// Sub-protocols that we speak, the preferred one first ([MQTT5-6.0.0-3], [MQTT5-6.0.0-4]; the other is of MQTT 3.1 clients).
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    /// Write this and go on with frames.
    Accept(String),
    /// Write this and close.
    Refuse(Refusal),
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    /// Label of the metric.
    reason: &'static str,
    status: &'static str,
    text: &'static str,
}

impl Refusal {
    const fn bad(reason: &'static str, text: &'static str) -> Self {
        Self {
            reason,
            status: "400 Bad Request",
            text,
        }
    }

    const fn upgrade(reason: &'static str, text: &'static str) -> Self {
        Self {
            reason,
            status: "426 Upgrade Required",
            text,
        }
    }

    fn answer(self) -> String {
        let Self { status, text, .. } = self;
        let length = text.len() + 1;
        // A 426 must name what to upgrade to (RFC 9110 section 15.5.22); it does no harm with the others.
        format!(
            "HTTP/1.1 {status}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
        )
    }
}

const NOT_HTTP: Refusal = Refusal::bad("ws_not_http", "not an HTTP/1.1 request");
const TOO_LARGE: Refusal = Refusal {
    reason: "ws_request_too_large",
    status: "431 Request Header Fields Too Large",
    text: "the request is too large",
};
const METHOD: Refusal = Refusal::bad("ws_method", "only GET opens a WebSocket");
const NO_HOST: Refusal = Refusal::bad("ws_header", "there must be one Host header");
const NO_UPGRADE: Refusal = Refusal::upgrade("ws_no_upgrade", "this port speaks MQTT over WebSocket only");
const VERSION: Refusal = Refusal::upgrade("ws_version", "WebSocket version 13 is wanted");
const KEY: Refusal = Refusal::bad("ws_header", "Sec-WebSocket-Key must be 16 bytes in base64");
const SUBPROTOCOL: Refusal = Refusal::bad("ws_subprotocol", "of the sub-protocols, only mqtt is spoken here");

/// A page of an origin that is not on the list.
const ORIGIN: Refusal = Refusal {
    reason: "ws_origin",
    status: "403 Forbidden",
    text: "pages of this origin may not connect",
};

/// Reads the request and answers it. An error is the reason, and the client has been told.
pub(super) async fn answer(io: &IoBoxed, origins: &[String]) -> Result<(), &'static str> {
    let opening = io.recv(&Requests { origins }).await;
    match opening {
        Ok(Some(Opening::Accept(answer))) => io.encode_slice(answer.as_bytes()).map_err(|_| "ws_closed"),
        Ok(Some(Opening::Refuse(refusal))) => {
            // Whoever is gone by now is not told.
            drop(io.encode_slice(refusal.answer().as_bytes()));
            linger(io, WriteHalf::NONE).await;
            drop(io.shutdown().await);
            Err(refusal.reason)
        }
        Ok(None) | Err(_) => Err("ws_closed"),
    }
}

struct Requests<'a> {
    origins: &'a [String],
}

impl Decoder for Requests<'_> {
    type Item = Opening;
    type Error = std::convert::Infallible;

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Opening>, Self::Error> {
        Ok(look(buffer, self.origins).map(|(taken, opening)| {
            buffer.advance_to(taken);
            opening
        }))
    }
}

/// The request at the front of `bytes` and its length; `None` while it is not whole.
fn look(bytes: &[u8], origins: &[String]) -> Option<(usize, Opening)> {
    let bounded = &bytes[..bytes.len().min(REQUEST_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let refuse = |refusal| Some((bytes.len(), Opening::Refuse(refusal)));
    match request.parse(bounded) {
        Ok(Status::Complete(length)) => match check(&request, origins) {
            Ok(answer) => Some((length, Opening::Accept(answer))),
            Err(refusal) => refuse(refusal),
        },
        Ok(Status::Partial) if bytes.len() >= REQUEST_MAX => refuse(TOO_LARGE),
        Ok(Status::Partial) => None,
        Err(ParseError::TooManyHeaders) => refuse(TOO_LARGE),
        Err(_) => refuse(NOT_HTTP),
    }
}

/// What [`look`] found, for fuzz bodies: the bytes that were taken and the answer, or the answer of a refusal.
pub(in crate::front) fn read(bytes: &[u8]) -> Option<Result<(usize, String), String>> {
    look(bytes, &[]).map(|(taken, opening)| match opening {
        Opening::Accept(answer) => Ok((taken, answer)),
        Opening::Refuse(refusal) => Err(refusal.answer()),
    })
}

fn check(request: &Request<'_, '_>, origins: &[String]) -> Result<String, Refusal> {
    let headers = &*request.headers;
    if request.method != Some("GET") {
        return Err(METHOD);
    }
    if request.version != Some(1) {
        return Err(NOT_HTTP);
    }
    if values(headers, "Host").count() != 1 {
        return Err(NO_HOST);
    }
    let is_listed = |origin: &str| origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin));
    if !origins.is_empty() && !values(headers, "Origin").all(is_listed) {
        return Err(ORIGIN);
    }
    let asks = tokens(headers, "Connection").any(|token| token.eq_ignore_ascii_case("upgrade"))
        && tokens(headers, "Upgrade").any(|token| token.eq_ignore_ascii_case("websocket"));
    if !asks {
        return Err(NO_UPGRADE);
    }
    if !values(headers, "Sec-WebSocket-Version").eq(["13"]) {
        return Err(VERSION);
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    let key = keys
        .next()
        .filter(|key| is_key(key) && keys.next().is_none())
        .ok_or(KEY)?;
    let accept = ntex::ws::hash_key(key.as_bytes()).map_err(|_| KEY)?;
    let subprotocol = match subprotocol(headers)? {
        Some(name) => format!("Sec-WebSocket-Protocol: {name}\r\n"),
        None => String::new(),
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    ))
}

/// The one to answer with. A client that offers none is served too, as other brokers do.
fn subprotocol(headers: &[Header<'_>]) -> Result<Option<&'static str>, Refusal> {
    const FIELD: &str = "Sec-WebSocket-Protocol";
    if values(headers, FIELD).next().is_none() {
        return Ok(None);
    }
    let offered = |name: &&str| tokens(headers, FIELD).any(|token| token == *name);
    SUBPROTOCOLS.into_iter().find(offered).map(Some).ok_or(SUBPROTOCOL)
}

/// Values of the header fields of this name; bytes that are not text make an empty one.
fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
}

/// The members of a list in header fields of this name.
fn tokens<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name).flat_map(|value| value.split(',')).map(str::trim)
}

/// 16 bytes in base64: 22 characters and the padding.
fn is_key(key: &str) -> bool {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key.as_bytes().split_at_checked(22), Some((data, b"==")) if data.iter().all(in_alphabet))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

    fn refusal(request: &str) -> Refusal {
        match look(request.as_bytes(), &[]) {
            Some((_, Opening::Refuse(refusal))) => refusal,
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_answered_only_when_it_is_whole() {
        for cut in 0..GOOD.len() {
            assert_eq!(look(&GOOD.as_bytes()[..cut], &[]), None, "{cut}");
        }
        let Some((length, Opening::Accept(answer))) = look(format!("{GOOD}\u{82}rest").as_bytes(), &[]) else {
            panic!("refused");
        };
        assert_eq!(length, GOOD.len());
        // The key and its answer stand in RFC 6455 section 1.3.
        assert!(
            answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{answer}"
        );
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn what_is_wrong_is_answered_with_its_status() {
        let with = |from: &str, to: &str| refusal(&GOOD.replace(from, to));
        assert_eq!(with("GET", "POST"), METHOD);
        assert_eq!(with("HTTP/1.1", "HTTP/1.0"), NOT_HTTP);
        assert_eq!(with("HTTP/1.1", "HTTP/2.0"), NOT_HTTP);
        assert_eq!(with("Host: broker\r\n", ""), NO_HOST);
        assert_eq!(with("Host: broker\r\n", "Host: a\r\nHost: b\r\n"), NO_HOST);
        assert_eq!(with("Upgrade: WebSocket", "Upgrade: h2c"), NO_UPGRADE);
        assert_eq!(with("keep-alive, Upgrade", "keep-alive"), NO_UPGRADE);
        assert_eq!(with("Version: 13", "Version: 8"), VERSION);
        assert_eq!(with("Sec-WebSocket-Version: 13\r\n", ""), VERSION);
        assert_eq!(with("dGhlIHNhbXBsZSBub25jZQ==", "short=="), KEY);
        assert_eq!(with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="), KEY);
        assert_eq!(with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), KEY);
        assert_eq!(with("chat, mqtt", "chat"), SUBPROTOCOL);
        assert_eq!(with("chat, mqtt", "MQTT"), SUBPROTOCOL);
        assert_eq!(refusal("\u{10}\u{d}\u{0}\u{4}MQTT"), NOT_HTTP);
    }

    #[test]
    fn subprotocols_of_old_clients_and_none_at_all_are_served() {
        let answer = |request: String| match look(request.as_bytes(), &[]) {
            Some((_, Opening::Accept(answer))) => answer,
            other => panic!("{other:?}"),
        };
        let old = answer(GOOD.replace("chat, mqtt", "mqttv3.1"));
        assert!(old.contains("Sec-WebSocket-Protocol: mqttv3.1\r\n"), "{old}");
        let both = answer(GOOD.replace("chat, mqtt", "mqttv3.1,mqtt"));
        assert!(both.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{both}");
        let none = answer(GOOD.replace("Sec-WebSocket-Protocol: chat, mqtt\r\n", ""));
        assert!(!none.contains("Sec-WebSocket-Protocol"), "{none}");
    }

    #[test]
    fn a_request_without_an_end_is_refused_at_the_bound() {
        let endless = format!(
            "{}{}",
            &GOOD[..GOOD.len() - 2],
            "X-Long: ".to_owned() + &"a".repeat(REQUEST_MAX)
        );
        assert_eq!(look(&endless.as_bytes()[..REQUEST_MAX - 1], &[]), None);
        assert_eq!(refusal(&endless), TOO_LARGE);
        let crowd = format!("{}{}\r\n", &GOOD[..GOOD.len() - 2], "A: b\r\n".repeat(HEADERS_MAX));
        assert_eq!(refusal(&crowd), TOO_LARGE);
    }

    #[test]
    fn a_page_of_an_origin_that_is_not_listed_is_refused_and_who_has_no_origin_is_served() {
        let listed = ["https://plant.example".to_owned(), "http://127.0.0.1:8080".to_owned()];
        let outcome = |lines: &str, origins: &[String]| {
            let request = GOOD.replace("Host: broker\r\n", &format!("Host: broker\r\n{lines}"));
            match look(request.as_bytes(), origins) {
                Some((_, Opening::Refuse(refusal))) => Some(refusal),
                Some((_, Opening::Accept(_))) => None,
                None => panic!("not whole"),
            }
        };
        assert_eq!(outcome("Origin: https://stranger.example\r\n", &[]), None);
        assert_eq!(outcome("", &listed), None);
        assert_eq!(outcome("Origin: https://PLANT.example\r\n", &listed), None);
        for wrong in [
            "https://plant.example.org",
            "http://plant.example",
            "null",
            "",
            "\u{fc}",
        ] {
            assert_eq!(
                outcome(&format!("Origin: {wrong}\r\n"), &listed),
                Some(ORIGIN),
                "{wrong}"
            );
        }
        let both = "Origin: https://plant.example\r\nOrigin: https://stranger.example\r\n";
        assert_eq!(outcome(both, &listed), Some(ORIGIN));
    }
}
