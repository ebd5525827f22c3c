//! MQTT over TLS, WebSocket and both, on the real binaries: mosquitto's clients, raw frames, and whoever means no good.
//!
//! In: nodes of both kinds with certificates made for the test. Out: messages that cross transports, answers to hostile openers, and the
//! counters that tell of them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version, encode};
use fellbeck_tests::ws::{self, BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, WsClient};
use fellbeck_tests::{Kind, Node, Ready, Site, run_to_end, wait};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const BOTH: [Kind; 2] = [Kind::Edge, Kind::Cloud];
const REJECTS: &str = "fellbeck_broker_rejects_total";

/// Certificates of one test, as files.
struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// A CA of servers with one server, a CA of clients with one client.
    fn new(site: &Site) -> Self {
        let dir = site.path("pki");
        fs::create_dir_all(&dir).expect("a directory can be made in the site");
        let pki = Self { dir };
        pki.make("ca", "server");
        pki.make("clients", "client");
        pki
    }

    fn make(&self, ca: &str, leaf: &str) {
        let ca_key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are legal names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, ca);
        let certificate = params.self_signed(&ca_key).expect("a CA can sign itself");
        self.write(ca, "pem", &certificate.pem());
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("these are legal names");
        let certificate = params.signed_by(&key, &issuer).expect("the CA signs");
        self.write(leaf, "pem", &certificate.pem());
        self.write(leaf, "key", &key.serialize_pem());
    }

    fn write(&self, name: &str, extension: &str, text: &str) {
        fs::write(self.path(name, extension), text).expect("a file can be written in the site");
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    fn text(&self, name: &str, extension: &str) -> String {
        self.path(name, extension)
            .to_str()
            .expect("test paths are UTF-8")
            .to_owned()
    }

    /// Gives a node the certificate of the server, and a listener of each kind.
    fn equip(&self, node: &mut Node) {
        node.set("mqtt.tls_cert", &toml_path(&self.path("server", "pem")));
        node.set("mqtt.tls_key", &toml_path(&self.path("server", "key")));
        node.set("mqtt.wss_listen", "\"127.0.0.1:0\"");
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca", "pem")).expect("the CA was just written");
        roots.add(ca).expect("the CA is one");
        ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("ring has both versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
            .into()
    }
}

fn toml_path(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("test paths are UTF-8"))
}

fn tcp(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("the node accepts");
    stream.set_read_timeout(Some(wait::SOON)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("an option can be set");
    stream
}

fn tls(at: SocketAddr, pki: &Pki) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").expect("a legal name");
    let connection = ClientConnection::new(pki.client(), name).expect("the settings are sound");
    StreamOwned::new(connection, tcp(at))
}

/// Opens MQTT on an upgraded connection.
fn greet<S: Read + Write>(web: &mut WsClient<S>, version: Version, id: &str) {
    web.send_mqtt(&encode::connect(&ConnectOptions::clean(version, id)));
    let answer = web.packet().expect("CONNACK");
    assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02X?}");
}

/// Runs one of mosquitto's clients to its end.
fn mosquitto(program: &str, at: SocketAddr, args: &[&str]) -> Output {
    let port = at.port().to_string();
    Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(args)
        .output()
        .expect("mosquitto's clients are there: run tests/setup.sh")
}

fn started(kind: Kind, site: &Site, pki: Option<&Pki>, settings: &[(&str, &str)]) -> (Node, Ready) {
    let mut node = Node::new(kind, &site.path(kind.binary()));
    if let Some(pki) = pki {
        pki.equip(&mut node);
    }
    for (key, value) in settings {
        node.set(key, value);
    }
    let ready = node.start();
    (node, ready)
}

#[test]
fn mosquitto_clients_are_served_over_tls() {
    let site = Site::new();
    let pki = Pki::new(&site);
    for kind in BOTH {
        let (_node, ready) = started(kind, &site, Some(&pki), &[]);
        let at = ready.mqtt_tls.expect("a certificate turns TLS on");
        let ca = pki.text("ca", "pem");
        for (version, tls) in [("mqttv311", "tlsv1.2"), ("mqttv5", "tlsv1.3")] {
            let topic = format!("tls/{version}");
            let common = [
                "--cafile",
                &ca,
                "--tls-version",
                tls,
                "-V",
                version,
                "-t",
                &topic,
                "-q",
                "2",
            ];
            let sent = mosquitto("mosquitto_pub", at, &[&common[..], &["-r", "-m", version]].concat());
            assert!(sent.status.success(), "{kind:?}: {sent:?}");
            let got = mosquitto("mosquitto_sub", at, &[&common[..], &["-C", "1", "-W", "20"]].concat());
            assert_eq!(
                String::from_utf8_lossy(&got.stdout).trim(),
                version,
                "{kind:?}: {got:?}"
            );
        }
        // Another CA is not ours, and no CA is no trust: the client says so, not the node.
        let other = pki.text("clients", "pem");
        let refused = mosquitto("mosquitto_pub", at, &["--cafile", &other, "-t", "t", "-m", "m"]);
        assert!(!refused.status.success(), "{refused:?}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_demanded() {
    let site = Site::new();
    let pki = Pki::new(&site);
    for kind in BOTH {
        let ca_of_clients = toml_path(&pki.path("clients", "pem"));
        let (node, ready) = started(kind, &site, Some(&pki), &[("mqtt.tls_client_ca", &ca_of_clients)]);
        let at = ready.mqtt_tls.expect("a certificate turns TLS on");
        let (ca, own) = (
            pki.text("ca", "pem"),
            (pki.text("client", "pem"), pki.text("client", "key")),
        );
        let message = ["--cafile", &ca, "-t", "t", "-m", "m", "-q", "1"];
        let refused = mosquitto("mosquitto_pub", at, &message);
        assert!(!refused.status.success(), "{kind:?}: {refused:?}");
        wait::until_true("the refusal is counted", wait::SOON, || {
            node.metrics().sum_where(REJECTS, "tls_no_client_certificate") >= Some(1.0)
        });
        // A certificate of another CA does not help.
        let (other, key) = (pki.text("server", "pem"), pki.text("server", "key"));
        let refused = mosquitto(
            "mosquitto_pub",
            at,
            &[&message[..], &["--cert", &other, "--key", &key]].concat(),
        );
        assert!(!refused.status.success(), "{kind:?}: {refused:?}");
        let served = mosquitto(
            "mosquitto_pub",
            at,
            &[&message[..], &["--cert", &own.0, "--key", &own.1]].concat(),
        );
        assert!(served.status.success(), "{kind:?}: {served:?}");
    }
}

#[test]
fn a_message_crosses_every_transport() {
    let site = Site::new();
    let pki = Pki::new(&site);
    for kind in BOTH {
        let (_node, ready) = started(kind, &site, Some(&pki), &[]);
        let mut plain = Client::connected(ready.mqtt, ConnectOptions::clean(Version::V5, "plain"));
        assert_eq!(plain.subscribe(&[("from/#", 1)]), [1]);
        let mut web = WsClient::open(tcp(ready.mqtt_ws.expect("WebSocket is on by default")));
        greet(&mut web, Version::V3, "web");
        let mut sealed = WsClient::open(tls(ready.mqtt_wss.expect("it was turned on"), &pki));
        greet(&mut sealed, Version::V5, "sealed");
        sealed.send_mqtt(&encode::subscribe(Version::V5, 1, &[("from/#", 0)]));
        assert_eq!(sealed.packet().expect("SUBACK")[0], 0x90);
        web.send_mqtt(b"\x32\x0E\x00\x08from/web\x00\x07hi");
        assert_eq!(web.packet(), Some(vec![0x40, 2, 0, 7]));
        let delivery = sealed.packet().expect("PUBLISH");
        assert!(delivery.ends_with(b"hi"), "{delivery:02X?}");
        assert!(plain.poll_until(wait::SOON, |event| {
            matches!(event, Event::Message(message) if message.topic == "from/web" && message.payload == b"hi")
        }));
    }
}

#[test]
fn frames_of_every_shape_carry_mqtt_and_text_is_refused() {
    let site = Site::new();
    for kind in BOTH {
        let (node, ready) = started(kind, &site, None, &[]);
        let at = ready.mqtt_ws.expect("WebSocket is on by default");
        let mut web = WsClient::open(tcp(at));
        let connect = encode::connect(&ConnectOptions::clean(Version::V5, "web"));
        // The CONNECT in pieces: a frame for each byte, then fragments with a ping among them.
        let (bytes, fragments) = connect.split_at(4);
        for byte in bytes {
            web.send_mqtt(&[*byte]);
        }
        web.send(0x02, &fragments[..3]);
        web.send(PING, b"now");
        web.send(0x00, &fragments[3..5]);
        // The last fragment brings two packets more.
        web.send(0x80, &[&fragments[5..], &encode::ping(), &encode::ping()].concat());
        assert_eq!(web.frame(), Some((PONG, b"now".to_vec())));
        assert_eq!(web.packet().expect("CONNACK")[0], 0x20);
        assert_eq!(web.packet(), Some(vec![0xD0, 0]));
        assert_eq!(web.packet(), Some(vec![0xD0, 0]));
        web.stream
            .write_all(&ws::frame(TEXT, &encode::ping()))
            .expect("the node reads");
        web.expect_close(1003);
        for (first, code) in [(0xC2, 1002_u16), (0x85, 1002), (0x80, 1002)] {
            let mut web = WsClient::open(tcp(at));
            web.send(first, b"");
            web.expect_close(code);
        }
        let mut polite = WsClient::open(tcp(at));
        polite.send(CLOSE, &1000_u16.to_be_bytes());
        polite.expect_close(1000);
        assert_eq!(node.metric(REJECTS, "ws_text_frame"), 1.0);
        assert_eq!(node.metric(REJECTS, "ws_protocol_error"), 3.0);
    }
}

#[test]
fn hostile_upgrades_are_answered_and_counted_and_harm_nobody() {
    let site = Site::new();
    for kind in BOTH {
        let (node, ready) = started(kind, &site, None, &[]);
        let at = ready.mqtt_ws.expect("WebSocket is on by default");
        let with = |from: &str, to: &str| UPGRADE.replace(from, to).into_bytes();
        let cases = [
            (with("GET", "DELETE"), "400", "ws_method"),
            (with("Upgrade: websocket\r\n", ""), "426", "ws_no_upgrade"),
            (with("Version: 13", "Version: 0"), "426", "ws_version"),
            (with("Protocol: mqtt", "Protocol: wamp"), "400", "ws_subprotocol"),
            (with("dGhlIHNhbXBsZSBub25jZQ==", ""), "400", "ws_header"),
            (
                encode::connect(&ConnectOptions::clean(Version::V5, "lost")),
                "400",
                "ws_not_http",
            ),
            (b"GET / HTTP/1.1\r\n".repeat(1000), "400", "ws_not_http"),
            (
                [UPGRADE.trim_end().as_bytes(), b"\r\nCookie: ", &[b'a'; 8200]].concat(),
                "431",
                "ws_request_too_large",
            ),
        ];
        for (request, status, reason) in cases {
            let before = node.metrics().sum_where(REJECTS, reason).unwrap_or_default();
            let (_, answer) = WsClient::request(tcp(at), &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
            wait::until_true("the refusal is counted", wait::SOON, || {
                node.metrics().sum_where(REJECTS, reason) == Some(before + 1.0)
            });
        }
        let mut web = WsClient::open(tcp(at));
        greet(&mut web, Version::V3, "bystander");
    }
}

#[test]
fn slow_openers_are_closed_on_each_transport() {
    let site = Site::new();
    let pki = Pki::new(&site);
    for kind in BOTH {
        let (node, ready) = started(kind, &site, Some(&pki), &[("mqtt.first_packet_timeout_ms", "700")]);
        let start = Instant::now();
        let ports = [Some(ready.mqtt), ready.mqtt_tls, ready.mqtt_ws, ready.mqtt_wss];
        let mut openers: Vec<TcpStream> = ports.iter().map(|at| tcp(at.expect("all are on"))).collect();
        // Half of what each waits for; the last one has finished its handshake and stops in the request.
        openers[0].write_all(&[0x10, 0x20, 0x00]).expect("the node reads");
        openers[1]
            .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00])
            .expect("the node reads");
        openers[2]
            .write_all(b"GET /mqtt HTTP/1.1\r\nHost")
            .expect("the node reads");
        let mut sealed = tls(ready.mqtt_wss.expect("it was turned on"), &pki);
        sealed.write_all(b"GET /mqtt").expect("the node reads");
        let mut web = WsClient::open(tcp(ready.mqtt_ws.expect("it is on")));
        web.send(BINARY, &[0x10]);
        for opener in &mut openers {
            assert_eq!(opener.read_to_end(&mut Vec::new()).unwrap_or_default(), 0);
        }
        assert!(sealed.read_exact(&mut [0]).is_err());
        while web.frame().is_some() {}
        assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
        wait::until_true("all six are counted", wait::SOON, || {
            node.metrics().sum_where(REJECTS, "first_packet_timeout") == Some(6.0)
        });
    }
}

#[test]
fn accepts_beyond_the_rate_wait_and_all_are_served() {
    let site = Site::new();
    for kind in BOTH {
        let settings = [("mqtt.connect_rate_per_sec", "20"), ("mqtt.connect_burst", "3")];
        let (node, ready) = started(kind, &site, None, &settings);
        let start = Instant::now();
        // All are in the backlog at once: three are taken, ten wait for 50 ms each.
        let mut sockets: Vec<TcpStream> = (0..13).map(|_| tcp(ready.mqtt)).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            let connect = encode::connect(&ConnectOptions::clean(Version::V3, &format!("c{n}")));
            socket.write_all(&connect).expect("the node reads");
        }
        for socket in &mut sockets {
            let mut answer = [0; 4];
            socket.read_exact(&mut answer).expect("CONNACK");
            assert_eq!(answer, [0x20, 2, 0, 0]);
        }
        assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
        assert!(node.metric("fellbeck_broker_accept_waits_total", "") >= 1.0);
    }
}

#[test]
fn the_ready_file_names_what_listens_and_nothing_else() {
    let site = Site::new();
    let pki = Pki::new(&site);
    for kind in BOTH {
        let mut node = Node::new(kind, &site.path(kind.binary()));
        let ready = node.start();
        assert!(
            ready.mqtt_ws.is_some() && ready.mqtt_tls.is_none() && ready.mqtt_wss.is_none(),
            "{ready:?}"
        );
        node.terminate(wait::SOON);
        pki.equip(&mut node);
        let ready = node.start();
        assert!(
            ready.mqtt_ws.is_some() && ready.mqtt_tls.is_some() && ready.mqtt_wss.is_some(),
            "{ready:?}"
        );
        node.terminate(wait::SOON);
        node.set("mqtt.ws_listen", "\"\"")
            .set("mqtt.tls_listen", "\"\"")
            .set("mqtt.wss_listen", "\"\"");
        let ready = node.start();
        assert!(
            ready.mqtt_ws.is_none() && ready.mqtt_tls.is_none() && ready.mqtt_wss.is_none(),
            "{ready:?}"
        );
    }
}

#[test]
fn bad_certificates_and_listeners_are_refused_in_one_line() {
    let site = Site::new();
    let pki = Pki::new(&site);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a loopback port can be had");
    let taken = format!("\"{}\"", taken.local_addr().expect("a bound socket has an address"));
    let absent = toml_path(&site.path("absent.pem"));
    let (other_key, other) = (toml_path(&pki.path("client", "key")), toml_path(&pki.path("ca", "pem")));
    for kind in BOTH {
        let refused = |equipped: bool, settings: &[(&str, &str)], code: i32, words: &[&str]| {
            let mut node = Node::new(kind, &site.path(kind.binary()));
            if equipped {
                pki.equip(&mut node);
            }
            for (key, value) in settings {
                node.set(key, value);
            }
            let finished = node.run_refused();
            finished.assert_refused(words);
            assert_eq!(finished.code, Some(code), "{}", finished.text());
        };
        refused(
            true,
            &[("mqtt.tls_cert", &absent)],
            2,
            &["mqtt.tls_cert", "absent.pem", "cannot be read"],
        );
        refused(
            true,
            &[("mqtt.tls_key", &other_key)],
            2,
            &["mqtt.tls_key", "client.key", "does not belong"],
        );
        refused(
            true,
            &[("mqtt.tls_key", &other)],
            2,
            &["mqtt.tls_key", "ca.pem", "no private key"],
        );
        refused(true, &[("mqtt.tls_key", "\"\"")], 2, &["mqtt.tls_key", "mqtt.tls_cert"]);
        refused(
            true,
            &[("mqtt.tls_client_ca", &other_key)],
            2,
            &["mqtt.tls_client_ca", "no certificate"],
        );
        refused(
            false,
            &[("mqtt.tls_listen", "\"127.0.0.1:0\"")],
            2,
            &["mqtt.tls_cert", "is needed"],
        );
        refused(false, &[("mqtt.tls_client_ca", &other)], 2, &["mqtt.tls_client_ca"]);
        refused(
            false,
            &[("mqtt.ws_listen", &taken)],
            4,
            &["mqtt.ws_listen", "cannot listen"],
        );
        for key in ["mqtt.listen", "mqtt.tls_listen", "mqtt.ws_listen", "mqtt.wss_listen"] {
            let words = [key, "unauthenticated_public", "I understand"];
            refused(true, &[(key, "\"0.0.0.0:0\"")], 2, &words);
        }
        let args = [
            "check",
            "--set",
            &format!("mqtt.tls_cert={absent}"),
            "--set",
            &format!("mqtt.tls_key={absent}"),
        ];
        run_to_end(kind.binary(), &args, &[], wait::SOON).assert_refused(&["mqtt.tls_cert", "absent.pem"]);
    }
}
