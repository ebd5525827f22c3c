//! A UDP proxy between edge and cloud, on loopback, that can be cut and healed.
//!
//! In: datagrams from any number of edges. Out: the same datagrams at the target, and back. Cut means: both directions dropped, no
//! error for either side, as when a radio link is gone. The target may change while it runs (a restarted cloud).
//! One thread for what edges send and one per edge for what comes back; all are joined on drop. Flows are bounded.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Time in which a thread notices that it shall end.
const TURN: Duration = Duration::from_millis(20);
/// Edges at once.
const FLOWS_MAX: usize = 64;
/// Largest UDP payload.
const DATAGRAM_MAX: usize = 65_536;
/// Socket buffers; the kernel may give less.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A running proxy.
#[derive(Debug)]
pub struct UdpProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    cut: AtomicBool,
    stop: AtomicBool,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl UdpProxy {
    /// Starts a proxy on a free loopback port; without a target it drops everything, as an unreachable cloud does.
    ///
    /// # Panics
    /// When no socket can be had.
    #[must_use]
    pub fn start(target: Option<SocketAddr>) -> Self {
        let front = socket().expect("a UDP socket on loopback can be had");
        let address = front.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            cut: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let inner = Arc::clone(&shared);
        let thread = thread::spawn(move || forward(&inner, &Arc::new(front)));
        Self {
            shared,
            address,
            thread: Some(thread),
        }
    }

    /// Where edges dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Directs everything to another target.
    pub fn aim(&self, target: Option<SocketAddr>) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Drops everything in both directions.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Datagrams passed so far, both directions.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Datagrams dropped so far, both directions.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn target(&self) -> Option<SocketAddr> {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn relay(&self, from: &UdpSocket, to: Option<SocketAddr>, datagram: &[u8]) {
        let sent = !self.cut.load(Ordering::SeqCst) && to.is_some_and(|to| from.send_to(datagram, to).is_ok());
        let counter = if sent { &self.passed } else { &self.dropped };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // A small buffer would lose datagrams that nobody asked to lose; how much the kernel grants is its affair.
    socket.set_recv_buffer_size(BUFFER_BYTES).ok();
    socket.set_send_buffer_size(BUFFER_BYTES).ok();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    socket.set_read_timeout(Some(TURN))?;
    Ok(socket.into())
}

/// One source address: an edge makes a new one with each dial.
struct Flow {
    back: Arc<UdpSocket>,
    thread: JoinHandle<()>,
    ended: Arc<AtomicBool>,
    used: u64,
}

impl Flow {
    fn start(shared: &Arc<Shared>, front: &Arc<UdpSocket>, edge: SocketAddr) -> Self {
        let back = Arc::new(socket().expect("a UDP socket on loopback can be had"));
        let ended = Arc::new(AtomicBool::new(false));
        let (inner, out, source, end) = (shared.clone(), front.clone(), back.clone(), ended.clone());
        let thread = thread::spawn(move || backward(&inner, &source, &out, (edge, &end)));
        Self {
            back,
            thread,
            ended,
            used: 0,
        }
    }

    fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().ok();
    }
}

fn forward(shared: &Arc<Shared>, front: &Arc<UdpSocket>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut count = 0;
    while !shared.stopped() {
        let Ok((len, edge)) = front.recv_from(&mut buffer) else {
            continue;
        };
        if !flows.contains_key(&edge) && flows.len() >= FLOWS_MAX {
            // The address that was silent for longest belongs to a connection that is gone.
            let oldest = flows.iter().min_by_key(|(_, flow)| flow.used).map(|(edge, _)| *edge);
            if let Some(flow) = oldest.and_then(|oldest| flows.remove(&oldest)) {
                flow.end();
            }
        }
        count += 1;
        let flow = flows.entry(edge).or_insert_with(|| Flow::start(shared, front, edge));
        flow.used = count;
        shared.relay(&flow.back, shared.target(), &buffer[..len]);
    }
    flows.into_values().for_each(Flow::end);
}

fn backward(shared: &Shared, source: &UdpSocket, front: &UdpSocket, (edge, ended): (SocketAddr, &AtomicBool)) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    while !shared.stopped() && !ended.load(Ordering::SeqCst) {
        if let Ok((len, _)) = source.recv_from(&mut buffer) {
            shared.relay(front, Some(edge), &buffer[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long kill loop dials from hundreds of addresses; the proxy used to forward only the first 64 of them.
    #[test]
    fn addresses_beyond_the_bound_take_the_place_of_silent_ones() {
        let server = socket().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let proxy = UdpProxy::start(Some(server.local_addr().unwrap()));
        let mut buffer = [0; 16];
        for _ in 0..=FLOWS_MAX {
            socket().unwrap().send_to(b"hello", proxy.address()).unwrap();
            assert_eq!(server.recv_from(&mut buffer).unwrap().0, 5);
        }
        assert_eq!(proxy.dropped(), 0);
    }

    #[test]
    fn a_cut_drops_both_ways_and_a_heal_lets_pass() {
        let server = socket().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let proxy = UdpProxy::start(Some(server.local_addr().unwrap()));
        let edge = socket().unwrap();
        edge.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];

        edge.send_to(b"up", proxy.address()).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"down", from).unwrap();
        assert_eq!(edge.recv_from(&mut buffer).unwrap().0, 4);

        proxy.cut();
        edge.send_to(b"lost", proxy.address()).unwrap();
        crate::wait::until_true("the datagram is dropped", crate::wait::SOON, || proxy.dropped() == 1);
        server.send_to(b"lost", from).unwrap();
        crate::wait::until_true("the answer is dropped", crate::wait::SOON, || proxy.dropped() == 2);

        proxy.heal();
        edge.send_to(b"again", proxy.address()).unwrap();
        assert_eq!(server.recv_from(&mut buffer).unwrap(), (5, from));
        // Counted just after it was sent, so the last one may still be under way to the counter.
        crate::wait::until_true("three passed", crate::wait::SOON, || proxy.passed() == 3);
    }
}
