//! The end of a server: nobody delays it, and what was acknowledged was delivered.

use std::time::{Duration, Instant};

use fellbeck_broker::front::Shutdown;

use crate::client::{Client, connect, publish};
use crate::node::Node;

const WITHIN: Duration = Duration::from_secs(10);

/// Stops the server, which must not take long.
fn stop_quickly(node: &mut Node) {
    let server = node.server.take().unwrap();
    let started = Instant::now();
    assert_eq!(server.shutdown(WITHIN), Shutdown::Clean);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn sockets_without_a_connect_do_not_delay_shutdown() {
    let mut node = Node::start();
    let mut silent = Client::open(node.addr());
    let mut half = Client::open(node.addr());
    half.send(&connect(5, "half", 2, 60, &[])[..9]);
    // Accepted after those two, so they are waited for by then.
    let mut served = Client::clean(node.addr(), 5, "served");
    stop_quickly(&mut node);
    served.expect_disconnect(0x8B);
    assert_eq!(silent.packet(), None);
    assert_eq!(half.packet(), None);
}

#[test]
fn a_half_sent_packet_does_not_delay_shutdown() {
    let mut node = Node::start();
    let mut half = Client::clean(node.addr(), 5, "half");
    half.send(&publish(5, 0x02, "t", 1, &[0; 100_000])[..50_000]);
    stop_quickly(&mut node);
    half.expect_disconnect(0x8B);
}

#[test]
fn clients_that_connect_during_shutdown_do_not_delay_it() {
    let mut node = Node::start();
    let addr = node.addr();
    let connecting: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut answered = 0;
                // Until the listener is gone.
                while std::net::TcpStream::connect(addr).is_ok_and(|probe| {
                    drop(probe);
                    true
                }) {
                    let Ok(stream) = std::net::TcpStream::connect(addr) else {
                        break;
                    };
                    let mut client = Client::of(stream, 4);
                    client.try_send(&connect(4, &format!("c{thread}"), 0, 60, &[]));
                    answered += u32::from(client.packet().is_some());
                }
                answered
            })
        })
        .collect();
    let deadline = Instant::now() + WITHIN;
    while node.server.as_ref().unwrap().connections() == 0 {
        assert!(Instant::now() < deadline, "nobody connects");
        std::thread::yield_now();
    }
    stop_quickly(&mut node);
    let answered: u32 = connecting.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(answered > 0);
}

#[test]
fn what_is_acked_during_shutdown_was_delivered_to_clean_subscribers() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 4, "sub");
    subscriber.subscribe("t", 0);
    // The shutdown waits a while for its acks, which never come.
    let mut mute = Client::clean(node.addr(), 4, "mute");
    mute.subscribe("t", 1);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let receiving = std::thread::spawn(move || {
        let mut received = 0;
        while let Some(packet) = subscriber.packet() {
            let id = [packet[packet.len() - 2], packet[packet.len() - 1]];
            received = u16::from_be_bytes(id);
        }
        received
    });
    let publishing = std::thread::spawn(move || {
        let mut acked = 0;
        for sent in 1..=u16::MAX {
            publisher.try_send(&publish(4, 0x02, "t", sent, &sent.to_be_bytes()));
            if sent > 32 {
                match publisher.packet() {
                    Some(packet) => acked = u16::from_be_bytes([packet[2], packet[3]]),
                    None => break,
                }
            }
        }
        while let Some(packet) = publisher.packet() {
            acked = u16::from_be_bytes([packet[2], packet[3]]);
        }
        acked
    });
    let deadline = Instant::now() + WITHIN;
    let lane = node.store.track("lane/default/0").unwrap();
    while node.store.bounds(lane).end.0 < 500 {
        assert!(Instant::now() < deadline, "nothing is appended");
        std::thread::yield_now();
    }
    drop(node.stop());
    let (received, acked) = (receiving.join().unwrap(), publishing.join().unwrap());
    assert!(acked > 0);
    // In order and without holes, so the last one tells.
    assert!(received >= acked, "acked {acked}, delivered {received}");
}
