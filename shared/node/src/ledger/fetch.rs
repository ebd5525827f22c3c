//! The ledger of a running node, asked over its HTTP API.
//!
//! In: `host:port`, with or without `http://`. Out: the ledger. One request on one connection; time and size are bounded.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Ledger;

/// Path of the ledger.
pub(crate) const PATH: &str = "/api/v1/ledger";
/// Time to connect, and between two pieces of the answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Largest answer.
const BYTES_MAX: u64 = 64 << 20;

/// Asks the node at `address`.
pub(super) fn fetch(address: &str) -> Result<Ledger, String> {
    let host = address.trim_start_matches("http://").trim_end_matches('/');
    let fault = |error: &dyn std::fmt::Display| format!("{host}: {error}");
    let mut addresses = host.to_socket_addrs().map_err(|error| fault(&error))?;
    let address = addresses.next().ok_or_else(|| fault(&"the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, WITHIN).map_err(|error| fault(&error))?;
    stream.set_read_timeout(Some(WITHIN)).map_err(|error| fault(&error))?;
    // HTTP/1.0: the body is not chunked and ends with the connection.
    let request = format!("GET {PATH} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| fault(&error))?;
    let mut answer = Vec::new();
    stream
        .take(BYTES_MAX)
        .read_to_end(&mut answer)
        .map_err(|error| fault(&error))?;
    parse(&answer).map_err(|error| fault(&error))
}

fn parse(answer: &[u8]) -> Result<Ledger, String> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or("the answer is not one of HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("the node answered with status {status:?}"));
    }
    serde_json::from_slice(&answer[end + 4..]).map_err(|error| format!("the ledger does not decode: {error}"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_that_is_no_ledger_is_an_error() {
        assert!(parse(b"HTTP/1.0 200 OK\r\n\r\n{\"node\":\"edge\"}").is_ok());
        for answer in [
            &b""[..],
            b"HTTP/1.0 404 Not Found\r\n\r\n{}",
            b"HTTP/1.0 200 OK\r\n\r\n[1",
            b"\r\n\r\n",
        ] {
            assert!(parse(answer).is_err());
        }
    }
}
