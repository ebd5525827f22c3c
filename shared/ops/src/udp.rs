//! UDP sockets with room for a QUIC link.
//!
//! In: an address. Out: a bound, non-blocking socket whose buffers are [`BUFFER_BYTES`] where the system allows it. The
//! system's default of some 200 KiB loses packets even on loopback once a link is busy.
//! What the system grants is logged once; a smaller buffer costs speed, never data.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes asked for, in each direction.
pub const BUFFER_BYTES: usize = 4 << 20;

/// Binds `address`; port 0 lets the system choose.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // An edge that binds [::] reaches clouds on IPv4 and IPv6 alike.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    enlarge(&socket);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks for large buffers, first with the privilege that lifts the system's bound, then without.
fn enlarge(socket: &Socket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES).ok();
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES).ok();
    }
    let granted = (
        socket.recv_buffer_size().unwrap_or(0),
        socket.send_buffer_size().unwrap_or(0),
    );
    if granted.0 < BUFFER_BYTES || granted.1 < BUFFER_BYTES {
        tracing::warn!(
            receive = granted.0,
            send = granted.1,
            wanted = BUFFER_BYTES,
            "the system grants small UDP buffers: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_socket_tells_its_port_and_a_used_port_is_an_error() {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
