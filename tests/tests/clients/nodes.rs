//! The edge and the cloud that all tests of this process share, joined by a link, with all listeners of both.
//!
//! Out: their addresses. They live as long as a test holds them, so that none outlives the test process; the next test starts new ones.
//! Topics and client IDs are unique per test. Tests that kill a node have nodes of their own. The certificate is its own issuer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fellbeck_tests::World;
use tempfile::TempDir;

static SHARED: Mutex<Weak<Nodes>> = Mutex::new(Weak::new());

/// Both nodes and their certificate.
#[derive(Debug)]
pub(crate) struct Nodes {
    world: World,
    certificate: TempDir,
}

/// The shared nodes.
pub(crate) fn shared() -> Arc<Nodes> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let nodes = Arc::new(Nodes::start());
        *shared = Arc::downgrade(&nodes);
        nodes
    })
}

/// Name and MQTT address of both nodes.
pub(crate) fn both(nodes: &Nodes) -> [(&'static str, SocketAddr); 2] {
    let world = &nodes.world;
    [("edge", world.edge.ready().mqtt), ("cloud", world.cloud.ready().mqtt)]
}

impl Nodes {
    fn start() -> Self {
        let certificate = tempfile::tempdir().expect("a temporary directory can be made");
        make_certificate(certificate.path());
        let quoted = |name: &str| format!("\"{}\"", certificate.path().join(name).display());
        let world = World::start_with(|edge, cloud| {
            for node in [edge, cloud] {
                node.set("mqtt.tls_cert", &quoted("cert.pem"));
                node.set("mqtt.tls_key", &quoted("key.pem"));
                for listener in ["mqtt.tls_listen", "mqtt.ws_listen", "mqtt.wss_listen"] {
                    node.set(listener, "\"127.0.0.1:0\"");
                }
            }
        });
        Self { world, certificate }
    }

    /// What clients must trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.certificate.path().join("cert.pem")
    }

    /// Name, plain address and address over `transport` of both nodes.
    pub(crate) fn over(&self, transport: &str) -> [(&'static str, SocketAddr, SocketAddr); 2] {
        let nodes = [("edge", self.world.edge.ready()), ("cloud", self.world.cloud.ready())];
        nodes.map(|(node, ready)| {
            let listener = match transport {
                "tls" => ready.mqtt_tls,
                "ws" => ready.mqtt_ws,
                "wss" => ready.mqtt_wss,
                other => panic!("no transport {other}"),
            };
            let listener = listener.unwrap_or_else(|| panic!("{node} has no listener for {transport}"));
            (node, ready.mqtt, listener)
        })
    }
}

fn make_certificate(dir: &Path) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    let write = |name: &str, text: String| fs::write(dir.join(name), text).expect("a temporary file can be written");
    write("cert.pem", made.cert.pem());
    write("key.pem", made.signing_key.serialize_pem());
}
