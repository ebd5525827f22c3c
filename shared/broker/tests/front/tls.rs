//! MQTT over TLS, and WebSocket over it: both versions, client certificates, large packets, and handshakes that fail.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fellbeck_broker::front::{MqttServerConfig, Transport};
use fellbeck_broker::session::CoreLimits;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned,
    SupportedProtocolVersion, version,
};

use crate::client::{Client, ack, connect, publish, subscribe};
use crate::node::{Node, config};
use crate::ws_client::{TEXT, WsClient};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A CA for tests.
struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self { certificate, issuer }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.der().clone(),
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
    }
}

fn server_tls(ca: &Ca, clients: Option<&Ca>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(clients.roots().into(), default_provider().into());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let (certificate, key) = ca.issue("localhost");
    builder.with_single_cert(vec![certificate], key).unwrap().into()
}

fn client_tls(ca: &Ca, versions: &[&'static SupportedProtocolVersion], own: Option<Identity>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(ca.roots());
    let config = match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.into()
}

fn start_with(tls: Arc<ServerConfig>, tune: impl FnOnce(MqttServerConfig) -> MqttServerConfig) -> Node {
    let loopback = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let config = MqttServerConfig {
        tls_listen: loopback.clone(),
        wss_listen: loopback,
        tls: Some(tls),
        ..config()
    };
    Node::start_with(tune(config), CoreLimits::default())
}

fn addr(node: &Node, wanted: Transport) -> SocketAddr {
    let listeners = node.server.as_ref().unwrap().listeners();
    listeners.iter().find(|(transport, _)| *transport == wanted).unwrap().1
}

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn dial(addr: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), tcp(addr))
}

fn exact(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn connected(addr: SocketAddr, config: &Arc<ClientConfig>, id: &str) -> Stream {
    let mut stream = dial(addr, config);
    stream.write_all(&connect(4, id, 2, 60, &[])).unwrap();
    assert_eq!(exact(&mut stream, 4), [0x20, 2, 0, 0]);
    stream
}

/// The alert with which a handshake or the first read ends.
fn alert(mut stream: Stream) -> Option<AlertDescription> {
    let written = stream.write_all(&connect(4, "refused", 2, 60, &[]));
    let error = written.and_then(|()| stream.read_exact(&mut [0; 4])).unwrap_err();
    match error.into_inner()?.downcast::<rustls::Error>().ok().map(|error| *error) {
        Some(rustls::Error::AlertReceived(alert)) => Some(alert),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_cross_with_both_versions_of_tls() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    let mut plain = Client::clean(node.addr(), 4, "plain");
    plain.subscribe("t", 0);
    for version in [&version::TLS12, &version::TLS13] {
        let config = client_tls(&ca, &[version], None);
        let mut device = connected(addr(&node, Transport::Tls), &config, "device");
        assert_eq!(device.conn.protocol_version(), Some(version.version));
        device.write_all(&publish(4, 0x02, "t", 9, b"sealed")).unwrap();
        assert_eq!(exact(&mut device, 4), ack(0x40, 9));
        assert_eq!(plain.publish().payload, b"sealed");
        // It comes again: the session of TLS is resumed.
        drop(device);
        let device = connected(addr(&node, Transport::Tls), &config, "device");
        assert_eq!(device.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    node.stop();
}

#[test]
fn websocket_works_over_tls() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    let config = client_tls(&ca, &[&version::TLS13], None);
    let mut web = WsClient::open(dial(addr(&node, Transport::Wss), &config));
    web.send_mqtt(&connect(4, "web", 2, 60, &[]));
    assert_eq!(web.packet(), Some(vec![0x20, 2, 0, 0]));
    web.send_mqtt(&subscribe(4, 1, "t", 0));
    assert_eq!(web.packet().unwrap()[0], 0x90);
    let payload: Vec<u8> = (0..900_000_u32).map(|n| (n % 249) as u8).collect();
    web.send_mqtt(&publish(4, 0, "t", 0, &payload));
    assert!(web.packet().unwrap().ends_with(&payload));
    web.send(TEXT, b"text");
    web.expect_close(1003);
    node.stop();
}

#[test]
fn large_packets_and_bursts_pass_in_both_directions() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    let config = client_tls(&ca, &[&version::TLS12, &version::TLS13], None);
    let mut device = connected(addr(&node, Transport::Tls), &config, "device");
    device.write_all(&subscribe(4, 1, "t", 0)).unwrap();
    exact(&mut device, 5);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 253) as u8).collect();
    let packet = publish(4, 0, "t", 0, &payload);
    device.write_all(&packet).unwrap();
    assert_eq!(exact(&mut device, packet.len()), packet);
    let burst: Vec<u8> = (0..500)
        .flat_map(|n: u16| publish(4, 0, "t", 0, &n.to_be_bytes()))
        .collect();
    device.write_all(&burst).unwrap();
    assert_eq!(exact(&mut device, burst.len()), burst);
    node.stop();
}

#[test]
fn the_last_message_before_the_end_is_taken() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    let config = client_tls(&ca, &[&version::TLS13], None);
    let mut plain = Client::clean(node.addr(), 4, "plain");
    plain.subscribe("#", 0);
    for n in 0..20_u8 {
        let mut device = dial(addr(&node, Transport::Tls), &config);
        let will = [&[0, 4][..], b"will", &[0, 4], b"dead"].concat();
        let mut packet = connect(4, "device", 6, 60, &[]);
        packet.extend(will);
        packet[1] += 12;
        device.write_all(&packet).unwrap();
        exact(&mut device, 4);
        // PUBLISH, DISCONNECT, the end of TLS and of the socket, as fast as it goes.
        device.conn.writer().write_all(&publish(4, 0, "t", 0, &[n])).unwrap();
        device.conn.writer().write_all(&[0xE0, 0]).unwrap();
        device.conn.send_close_notify();
        device.flush().unwrap();
        drop(device);
        let message = plain.publish();
        assert_eq!(
            (message.topic.as_str(), message.payload),
            ("t", vec![n]),
            "DISCONNECT was seen: no will"
        );
    }
    node.stop();
}

#[test]
fn a_client_certificate_is_demanded_where_a_ca_is_named() {
    let (ca, clients, strangers) = (Ca::new(), Ca::new(), Ca::new());
    let node = start_with(server_tls(&ca, Some(&clients)), |config| config);
    for version in [&version::TLS12, &version::TLS13] {
        for transport in [Transport::Tls, Transport::Wss] {
            let dial = |own| dial(addr(&node, transport), &client_tls(&ca, &[version], own));
            // The alert says why, so that the client can.
            assert_eq!(alert(dial(None)), Some(AlertDescription::CertificateRequired));
            let stranger = alert(dial(Some(strangers.issue("device"))));
            assert!(
                matches!(
                    stranger,
                    Some(AlertDescription::UnknownCA | AlertDescription::DecryptError)
                ),
                "{stranger:?}"
            );
        }
        let own = client_tls(&ca, &[version], Some(clients.issue("device")));
        connected(addr(&node, Transport::Tls), &own, "device");
    }
    node.stop();
}

#[test]
fn what_is_not_tls_ends_with_an_alert() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    for transport in [Transport::Tls, Transport::Wss] {
        for bytes in [
            &connect(4, "plain", 2, 60, &[])[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xFF; 300],
        ] {
            let mut stream = tcp(addr(&node, transport));
            stream.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // To its end: the node closes.
            stream.read_to_end(&mut answer).unwrap();
            // A record of type alert, of two bytes: fatal, and what.
            assert_eq!(answer.first(), Some(&0x15), "{answer:02X?}");
            assert_eq!(answer.len(), 7, "{answer:02X?}");
        }
    }
    connected(
        addr(&node, Transport::Tls),
        &client_tls(&ca, &[&version::TLS13], None),
        "bystander",
    );
    node.stop();
}

#[test]
fn a_broken_record_ends_an_open_connection_with_an_alert() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| config);
    let config = client_tls(&ca, &[&version::TLS13], None);
    let mut device = connected(addr(&node, Transport::Tls), &config, "device");
    // A record that nobody encrypted.
    device.sock.write_all(&[0x17, 3, 3, 0, 4, 1, 2, 3, 4]).unwrap();
    let error = device.read_exact(&mut [0]).unwrap_err();
    let error = error.into_inner().unwrap().downcast::<rustls::Error>().unwrap();
    assert!(matches!(*error, rustls::Error::AlertReceived(_)), "{error:?}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while node.server.as_ref().unwrap().connections() > 0 {
        assert!(Instant::now() < deadline, "still connected");
        std::thread::yield_now();
    }
    node.stop();
}

#[test]
fn slow_handshakes_are_closed() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| MqttServerConfig {
        first_packet_timeout: Duration::from_millis(600),
        ..config
    });
    let start = Instant::now();
    let silent = tcp(addr(&node, Transport::Tls));
    // A record that announces 512 bytes and has five.
    let mut half = tcp(addr(&node, Transport::Wss));
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3]).unwrap();
    let mut no_connect = dial(addr(&node, Transport::Tls), &client_tls(&ca, &[&version::TLS13], None));
    no_connect.flush().unwrap();
    for mut stream in [silent, half] {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok();
        assert!(all.is_empty(), "{all:02X?}");
    }
    assert!(no_connect.read_exact(&mut [0]).is_err());
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
    node.stop();
}

#[test]
fn a_reader_that_stands_still_is_closed_in_the_end() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| MqttServerConfig {
        stalled_after: Duration::from_secs(1),
        ..config
    });
    let config = client_tls(&ca, &[&version::TLS13], None);
    let mut still = connected(addr(&node, Transport::Tls), &config, "still");
    still.write_all(&subscribe(4, 1, "t", 0)).unwrap();
    exact(&mut still, 5);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let payload = vec![0x55; 100_000];
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while node.server.as_ref().unwrap().connections() == 2 {
        n = n % 60_000 + 1;
        publisher.send(&publish(4, 0x02, "t", n, &payload));
        publisher.expect(&ack(0x40, n));
        assert!(Instant::now() < deadline, "still connected");
    }
    publisher.expect_nothing();
    drop(still);
}

fn is_closed_soon(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    matches!(stream.read(&mut [0]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
}

#[test]
fn handshakes_beyond_the_bound_are_refused_and_others_are_served() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| MqttServerConfig {
        handshakes_max: 2,
        first_packet_timeout: Duration::from_secs(60),
        ..config
    });
    let silent: Vec<_> = (0..2).map(|_| tcp(addr(&node, Transport::Tls))).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Which of them the listener looks at first is not given.
    while !is_closed_soon(&mut tcp(addr(&node, Transport::Wss))) {
        assert!(Instant::now() < deadline, "a third handshake is not refused");
    }
    drop(Client::clean(node.addr(), 4, "plain"));
    drop(silent);
    let config = client_tls(&ca, &[&version::TLS13], None);
    loop {
        let mut stream = dial(addr(&node, Transport::Tls), &config);
        let written = stream.write_all(&crate::client::connect(4, "late", 2, 60, &[]));
        if written.is_ok() && stream.read_exact(&mut [0; 4]).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "nobody is let in any more");
    }
    node.stop();
}

/// What `rustls` keeps of a message that is not whole counts like half a packet.
#[test]
fn half_handshakes_hold_no_more_than_the_budget_for_packets() {
    let ca = Ca::new();
    let node = start_with(server_tls(&ca, None), |config| MqttServerConfig {
        packet_max: 64 << 10,
        partial_bytes_max: 256 << 10,
        first_packet_timeout: Duration::from_secs(60),
        ..config
    });
    // A ClientHello of 60,000 bytes, of which 48,000 come.
    let mut hello = vec![1, 0, 0xEA, 0x60, 3, 3];
    hello.resize(48_000, 0);
    let records: Vec<u8> = hello
        .chunks(16_000)
        .flat_map(|part| {
            let [high, low] = (part.len() as u16).to_be_bytes();
            [&[0x16, 3, 1, high, low], part].concat()
        })
        .collect();
    let mut halves = Vec::new();
    for _ in 0..10 {
        let mut half = tcp(addr(&node, Transport::Tls));
        half.write_all(&records).unwrap();
        half.set_nonblocking(true).unwrap();
        halves.push(half);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let closed = |halves: &mut Vec<TcpStream>| {
        let is_open = |half: &mut TcpStream| matches!(half.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        halves
            .iter_mut()
            .filter_map(|half| (!is_open(half)).then_some(()))
            .count()
    };
    while closed(&mut halves) < 4 {
        assert!(Instant::now() < deadline, "480 kB are kept, 256 KiB are allowed");
        std::thread::yield_now();
    }
    drop(Client::clean(node.addr(), 4, "plain"));
    node.stop();
}
