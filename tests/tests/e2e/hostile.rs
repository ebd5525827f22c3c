//! MAIN.13: hostile input at the MQTT and link ports. A bystander is served throughout, and memory is bounded.
//!
//! In: random and mutated bytes from a printed seed (`FELLBECK_SEED`), oversized packets, a reader that does not read, 200 connects at
//! once. All of it on loopback, bounded in count. Out: the bystander's books balance, and the process stays the same and small.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Publish, Version, encode};
use fellbeck_tests::{Device, DevicePlan, Kind, Node, Reader, ReaderPlan, World, judge, mutate, random_bytes, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MIB: u64 = 1024 * 1024;
/// Growth of memory allowed in any of these tests, of edge and cloud. The cloud's store alone may take 64 MiB of memory tables, 32 MiB of
/// newest records and 32 MiB of cache.
const RSS_GROWTH_MAX: [u64; 2] = [96 * MIB, 160 * MIB];
/// Connections with broken bytes, per node.
const CONNECTIONS: usize = 300;
/// Broken datagrams.
const DATAGRAMS: usize = 4000;
/// Connects at once.
const CROWD: usize = 200;

/// A device at the edge and a reader at the cloud that are served throughout.
struct Bystander {
    device: Device,
    reader: Reader,
    rss: [u64; 2],
    pids: [u32; 2],
}

impl Bystander {
    fn start(world: &World) -> Self {
        let reader = Reader::start(
            &ReaderPlan::all("bystander-reader", Version::V5, 2),
            &world.cloud.mqtt(),
        );
        let device = Device::start(DevicePlan::steady("bystander", Version::V3, 1), world.edge.mqtt());
        device.await_acked(100);
        let nodes = [&world.edge, &world.cloud];
        Self {
            device,
            reader,
            rss: nodes.map(Node::rss_bytes),
            pids: nodes.map(Node::pid),
        }
    }

    /// Demands that messages pass right now.
    fn assert_served(&self) {
        let (acked, received) = (self.device.acked(), self.reader.received());
        wait::until_true("the bystander is served", wait::SOON, || {
            self.device.acked() >= acked + 20 && self.reader.received() >= received + 20
        });
    }

    fn check(self, world: &mut World) {
        self.assert_served();
        for (n, node) in [&mut world.edge, &mut world.cloud].into_iter().enumerate() {
            assert!(node.is_running(), "node {n} has ended");
            assert_eq!(node.pid(), self.pids[n]);
            let (before, now) = (self.rss[n], node.rss_bytes());
            assert!(
                now < before + RSS_GROWTH_MAX[n],
                "node {n}: memory went from {before} to {now}"
            );
            let log = node.log();
            assert!(!log.contains("panicked at"), "node {n} panicked:\n{log}");
        }
        let book = self.device.settle();
        assert_eq!(book.connects, 1, "the bystander kept its connection");
        let books = [book];
        self.reader.await_all_acked(&books);
        judge(&books, &self.reader.book()).assert_clean("bystander");
    }
}

fn seeded() -> StdRng {
    let seed = std::env::var("FELLBECK_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("hostile: FELLBECK_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A whole conversation of a correct client, to be spoilt.
fn conversation(version: Version, name: &str) -> Vec<u8> {
    let publish = |qos: u8, id: u16| Publish {
        topic: "hostile/x".to_owned(),
        payload: vec![b'h'; 200],
        qos,
        retain: false,
        dup: false,
        id,
        properties: Vec::new(),
    };
    let mut bytes = encode::connect(&ConnectOptions::clean(version, name));
    bytes.extend(encode::subscribe(version, 1, &[("hostile/#", 2), ("$share/g/+/x", 1)]));
    for qos in 0..=2 {
        bytes.extend(encode::publish(version, &publish(qos, 10 + u16::from(qos))));
    }
    bytes.extend(encode::unsubscribe(version, 2, &["hostile/#"]));
    bytes.extend(encode::ping());
    bytes
}

/// Sends `bytes`, says that no more follow, and reads what the node has to say until it closes or falls silent.
fn say(at: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(at).expect("the node accepts");
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout can be set");
    if stream.write_all(bytes).is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok() {
        let mut sink = [0; 4096];
        while matches!(stream.read(&mut sink), Ok(n) if n > 0) {}
    }
}

#[test]
fn random_and_mutated_bytes_at_the_mqtt_ports_harm_nobody() {
    let mut rng = seeded();
    let mut world = World::start();
    let bystander = Bystander::start(&world);
    for at in [world.edge.ready().mqtt, world.cloud.ready().mqtt] {
        for n in 0..CONNECTIONS {
            let version = Version::BOTH[n % 2];
            let valid = conversation(version, &format!("hostile-{}", n % 7));
            let bytes = match n % 3 {
                0 => random_bytes(&mut rng),
                1 => mutate(&mut rng, &valid),
                _ => {
                    // A correct CONNECT, and nonsense behind it.
                    let mut bytes = encode::connect(&ConnectOptions::clean(version, "hostile"));
                    bytes.extend(random_bytes(&mut rng));
                    bytes
                }
            };
            say(at, &bytes);
        }
        bystander.assert_served();
    }
    bystander.check(&mut world);
}

#[test]
fn random_datagrams_at_the_link_port_harm_nobody() {
    let mut rng = seeded();
    let mut world = World::start();
    let bystander = Bystander::start(&world);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port can be had");
    let link = world.cloud.ready().link.expect("the cloud has a link listener");
    for n in 0..DATAGRAMS {
        let mut bytes = random_bytes(&mut rng);
        bytes.truncate(1400);
        if n % 2 == 0 {
            // Looks like the first packet of a QUIC 1 connection.
            bytes.resize(1200, 0);
            bytes[0] |= 0xC0;
            bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            bytes[5] = rng.random_range(0..=20);
        }
        // A full socket buffer drops the datagram, as a network does.
        socket.send_to(&bytes, link).ok();
        if n % 1000 == 0 {
            bystander.assert_served();
        }
    }
    bystander.check(&mut world);
}

#[test]
fn an_oversized_packet_closes_its_connection_only() {
    let mut world = World::start();
    let bystander = Bystander::start(&world);
    let big = usize::try_from(2 * MIB).expect("fits") + 1;
    for version in Version::BOTH {
        let mut device = Client::connected(world.edge.ready().mqtt, ConnectOptions::clean(version, "big"));
        device.publish("big", vec![0; big], 1, 0);
        let mut reason = None;
        let ended = device.poll_until(wait::SOON, |event| {
            assert!(
                !matches!(event, Event::Acked { .. }),
                "{version:?}: an oversized packet was acknowledged"
            );
            if let Event::Lost { reason: code } = event {
                reason = code;
            }
            matches!(event, Event::Lost { .. })
        });
        assert!(ended || !device.is_connected(), "{version:?}: the connection is closed");
        if let Some(code) = reason {
            assert_eq!(code, 0x95, "Packet too large");
        }
    }
    // A claim of 256 MB costs the node nothing, whether or not anything follows.
    let claims: Vec<TcpStream> = (0..50)
        .map(|n| {
            let mut stream = TcpStream::connect(world.edge.ready().mqtt).expect("the node accepts");
            let options = ConnectOptions::clean(Version::V5, &format!("claim-{n}"));
            let mut bytes = if n % 2 == 0 {
                encode::connect(&options)
            } else {
                Vec::new()
            };
            bytes.extend([0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
            bytes.extend([0; 1000]);
            // The node may close before all is written.
            stream.write_all(&bytes).ok();
            stream
        })
        .collect();
    bystander.assert_served();
    drop(claims);
    bystander.check(&mut world);
}

#[test]
fn a_reader_that_does_not_read_slows_nobody_and_fills_no_memory() {
    let mut world = World::start();
    let bystander = Bystander::start(&world);
    let mut stuck = Vec::new();
    for at in [world.edge.ready().mqtt, world.cloud.ready().mqtt] {
        for qos in 0..=2 {
            let mut stream = TcpStream::connect(at).expect("the node accepts");
            let version = Version::BOTH[usize::from(qos % 2)];
            let mut bytes = encode::connect(&ConnectOptions::persistent(version, &format!("stuck-{qos}")));
            bytes.extend(encode::subscribe(version, 1, &[("site/#", qos)]));
            stream.write_all(&bytes).expect("a subscription fits a fresh socket");
            stuck.push(stream);
        }
    }
    let plan = DevicePlan {
        size: 16 * 1024,
        ..DevicePlan::burst("flood", Version::V5, 1, 6000)
    };
    let flood = Device::start(plan, world.edge.mqtt()).finish();
    assert_eq!(flood.acked_count(), 6000);
    bystander.assert_served();
    bystander.check(&mut world);
    drop(stuck);
}

#[test]
fn two_hundred_connects_at_once_are_all_answered() {
    let mut world = World::start();
    let bystander = Bystander::start(&world);
    for (kind, at) in [
        (Kind::Edge, world.edge.ready().mqtt),
        (Kind::Cloud, world.cloud.ready().mqtt),
    ] {
        let mut crowd: Vec<TcpStream> = (0..CROWD)
            .map(|_| TcpStream::connect(at).expect("the node accepts"))
            .collect();
        for (n, stream) in crowd.iter_mut().enumerate() {
            let options = ConnectOptions::clean(Version::BOTH[n % 2], &format!("crowd-{n}"));
            stream
                .write_all(&encode::connect(&options))
                .expect("a CONNECT fits a fresh socket");
        }
        for (n, stream) in crowd.iter_mut().enumerate() {
            stream.set_read_timeout(Some(wait::SOON)).expect("a timeout can be set");
            let mut head = [0; 4];
            stream
                .read_exact(&mut head)
                .unwrap_or_else(|error| panic!("{kind:?}: connect {n}: {error}"));
            assert_eq!(head[0], 0x20, "{kind:?}: connect {n} got {head:?}");
        }
        bystander.assert_served();
    }
    bystander.check(&mut world);
}
