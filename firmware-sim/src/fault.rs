//! A UDP forwarder that can cut the link between edge and cloud, and heal it.
//!
//! In: datagrams of edges at an address of its own. Out: the same datagrams at the cloud, each edge from a socket of its
//! own, and the answers back. While cut, everything is dropped in both directions, as when a radio is gone.
//! Memory is bounded: one datagram per direction and flow, at most [`FLOWS_MAX`] flows; beyond, new flows are dropped.
//! It runs without privileges and without the kernel's help.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Edge addresses served at once.
pub const FLOWS_MAX: usize = 64;
/// QUIC bursts are larger than the usual socket buffers.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
const DATAGRAM_MAX: usize = 65_536;

/// What the forwarder has seen.
#[derive(Debug, Default)]
struct Link {
    cut: AtomicBool,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

impl Link {
    /// Whether a datagram may pass; counts it.
    fn lets_pass(&self) -> bool {
        let cut = self.cut.load(Ordering::Relaxed);
        let counter = if cut { &self.dropped } else { &self.forwarded };
        counter.fetch_add(1, Ordering::Relaxed);
        !cut
    }
}

/// A running forwarder; dropping it ends it.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    link: Arc<Link>,
    _forwarding: JoinSet<()>,
}

impl UdpProxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(bind()?);
        let address = socket.local_addr()?;
        let link = Arc::new(Link::default());
        let mut forwarding = JoinSet::new();
        forwarding.spawn(forward(socket, upstream, Arc::clone(&link)));
        Ok(Self {
            address,
            link,
            _forwarding: forwarding,
        })
    }

    /// Where edges dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything from now on.
    pub fn cut(&self) {
        self.link.cut.store(true, Ordering::Relaxed);
    }

    /// Forwards again.
    pub fn heal(&self) {
        self.link.cut.store(false, Ordering::Relaxed);
    }

    /// Datagrams forwarded and dropped so far.
    pub fn datagrams(&self) -> (u64, u64) {
        (
            self.link.forwarded.load(Ordering::Relaxed),
            self.link.dropped.load(Ordering::Relaxed),
        )
    }
}

fn bind() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    UdpSocket::from_std(socket.into())
}

/// From the edges to the cloud; opens a way back for each new edge address.
async fn forward(socket: Arc<UdpSocket>, upstream: SocketAddr, link: Arc<Link>) {
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut backward = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is an ICMP answer to an earlier datagram: as lossy as the network it stands for.
        let Ok((length, edge)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        if !link.lets_pass() {
            continue;
        }
        let flow = match flows.get(&edge) {
            Some(flow) => Arc::clone(flow),
            None => {
                if flows.len() >= FLOWS_MAX {
                    continue;
                }
                let Ok(flow) = open_flow(upstream).await else { continue };
                flows.insert(edge, Arc::clone(&flow));
                backward.spawn(answer(Arc::clone(&flow), Arc::clone(&socket), edge, Arc::clone(&link)));
                flow
            }
        };
        if flow.send(&datagram[..length]).await.is_err() {
            link.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn open_flow(upstream: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    let flow = bind()?;
    flow.connect(upstream).await?;
    Ok(Arc::new(flow))
}

/// From the cloud back to one edge.
async fn answer(flow: Arc<UdpSocket>, socket: Arc<UdpSocket>, edge: SocketAddr, link: Arc<Link>) {
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let Ok(length) = flow.recv(&mut datagram).await else {
            continue;
        };
        if link.lets_pass() && socket.send_to(&datagram[..length], edge).await.is_err() {
            link.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(5);

    async fn local() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port")
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut bytes = [0; 64];
        let received = timeout(DEADLINE, socket.recv_from(&mut bytes))
            .await
            .expect("a datagram in time");
        let (length, from) = received.expect("a datagram");
        (bytes[..length].to_vec(), from)
    }

    /// Datagrams on loopback keep their order, so what is sent after healing proves that what was cut is gone.
    #[tokio::test]
    async fn a_cut_link_drops_both_ways_and_a_healed_one_forwards_again() {
        let (edge, cloud) = (local().await, local().await);
        let proxy = UdpProxy::start(cloud.local_addr().expect("bound")).expect("a free port");
        edge.connect(proxy.address()).await.expect("loopback");

        edge.send(b"up 1").await.expect("loopback");
        let (bytes, way_back) = receive(&cloud).await;
        assert_eq!(bytes, b"up 1");
        cloud.send_to(b"down 1", way_back).await.expect("loopback");
        assert_eq!(receive(&edge).await.0, b"down 1");

        proxy.cut();
        edge.send(b"up 2").await.expect("loopback");
        cloud.send_to(b"down 2", way_back).await.expect("loopback");
        timeout(DEADLINE, async {
            while proxy.datagrams().1 < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("both datagrams are dropped in time");

        proxy.heal();
        edge.send(b"up 3").await.expect("loopback");
        assert_eq!(receive(&cloud).await.0, b"up 3");
        cloud.send_to(b"down 3", way_back).await.expect("loopback");
        assert_eq!(receive(&edge).await.0, b"down 3");
    }

    #[tokio::test]
    async fn each_edge_has_a_way_back_of_its_own() {
        let (one, other, cloud) = (local().await, local().await, local().await);
        let proxy = UdpProxy::start(cloud.local_addr().expect("bound")).expect("a free port");
        one.send_to(b"one", proxy.address()).await.expect("loopback");
        let (_, to_one) = receive(&cloud).await;
        other.send_to(b"other", proxy.address()).await.expect("loopback");
        let (_, to_other) = receive(&cloud).await;
        assert_ne!(to_one, to_other);
        cloud.send_to(b"for other", to_other).await.expect("loopback");
        assert_eq!(receive(&other).await.0, b"for other");
    }
}
