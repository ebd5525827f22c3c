//! The brokers under test: each test body runs against a real edge and a real cloud.
//!
//! In: a test body. Out: the same body, run on each node and, where asked for, in each version. Most tests share one edge and one cloud,
//! started by the first test that needs them and ended with this process; so they use names of their own ([`unique`]). A test that
//! needs other settings, or restarts its node, gets one for itself ([`on_own`]).

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fellbeck_tests::mqtt::{Answer, Connect, Publish, Raw, Version};
use fellbeck_tests::{Kind, Node, Site};

const KINDS: [Kind; 2] = [Kind::Edge, Kind::Cloud];

/// Where a test body runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Edge or cloud.
    pub(crate) kind: Kind,
    /// Its MQTT listener.
    pub(crate) at: SocketAddr,
    /// Its WebSocket listener.
    pub(crate) ws: SocketAddr,
    /// The version that the body is to speak.
    pub(crate) version: Version,
}

impl Target {
    /// A CONNECT in the version of this run: clean, without Keep Alive, with a unique client identifier.
    pub(crate) fn hello(&self, name: &str) -> Connect {
        Connect::new(self.version, unique(name))
    }

    /// An accepted connection with [`Target::hello`].
    pub(crate) fn client(&self, name: &str) -> Raw {
        Raw::connected(self.at, &self.hello(name))
    }

    /// A socket on which nothing is sent yet.
    pub(crate) fn open(&self) -> Raw {
        Raw::open(self.at, self.version)
    }

    /// A connection with this CONNECT, which must be accepted.
    pub(crate) fn connect(&self, connect: &Connect) -> Raw {
        Raw::connected(self.at, connect)
    }

    /// True when the body runs in MQTT 5.
    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }
}

/// A name that no other run of any test has: `name-17`.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Demands that nothing is on its way to `client` of all that `sender` has sent: a marker of `sender` is what comes next.
pub(crate) fn expect_nothing(client: &mut Raw, sender: &mut Raw) {
    let topic = unique("marker");
    assert_eq!(client.subscribe(&topic, 0), 0);
    sender.publish(&Publish::new(&topic, "marker").qos(1));
    assert_eq!(client.expect_publish().topic, topic);
}

/// The same for what `client` sent itself.
pub(crate) fn expect_nothing_own(client: &mut Raw) {
    let topic = unique("marker");
    assert_eq!(client.subscribe(&topic, 0), 0);
    client.send_publish(&Publish::new(&topic, "marker").qos(1).id(9999));
    for answer in [client.recv(), client.recv()] {
        match answer {
            Answer::Publish(delivery) => assert_eq!(delivery.topic, topic),
            other => assert!(matches!(other, Answer::Ack { id: 9999, .. }), "{other:?}"),
        }
    }
}

/// Runs `body` against the shared edge and the shared cloud, in MQTT 5.
pub(crate) fn on_each(body: impl Fn(Target) + Sync) {
    on_shared(&[Version::V5], body);
}

/// Runs `body` against the shared edge and the shared cloud, in MQTT 3.1.1.
pub(crate) fn on_each_v3(body: impl Fn(Target) + Sync) {
    on_shared(&[Version::V3], body);
}

/// Runs `body` against the shared edge and the shared cloud, in both versions.
pub(crate) fn on_each_version(body: impl Fn(Target) + Sync) {
    on_shared(&Version::BOTH, body);
}

/// All runs of a body go on at once; each has its own names.
fn on_shared(versions: &[Version], body: impl Fn(Target) + Sync) {
    let shared = SHARED.get_or_init(Shared::start);
    let targets = shared
        .nodes
        .iter()
        .flat_map(|node| versions.iter().map(|version| target(node, *version)));
    thread::scope(|scope| {
        for target in targets {
            let body = &body;
            scope.spawn(move || {
                let _said = Said(format!("on {:?} in {:?}", target.kind, target.version));
                body(target);
            });
        }
    });
}

/// Runs `body` with an edge and with a cloud of its own, started with `settings` (config keys and TOML values). The body may restart it;
/// [`target`] says where it listens.
pub(crate) fn on_own(settings: &[(&str, &str)], body: impl Fn(&mut Node) + Sync) {
    let site = Site::new();
    thread::scope(|scope| {
        for kind in KINDS {
            let (site, body) = (&site, &body);
            scope.spawn(move || {
                let mut node = Node::new(kind, &site.path(kind.binary()));
                for (key, value) in settings {
                    node.set(key, value);
                }
                node.start();
                let _said = Said(format!("on {kind:?} of its own"));
                body(&mut node);
            });
        }
    });
}

/// A running node as a target in `version`.
pub(crate) fn target(node: &Node, version: Version) -> Target {
    Target {
        kind: node.kind(),
        at: node.ready().mqtt,
        ws: node.ready().mqtt_ws.expect("MQTT over WebSocket is on"),
        version,
    }
}

/// Says where a body failed, once it has.
struct Said(String);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed {}", self.0);
        }
    }
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// One edge and one cloud for all tests of this process.
struct Shared {
    nodes: Vec<Node>,
    _janitor: Child,
}

impl Shared {
    fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("fellbeck-mqtt-")
            .tempdir()
            .expect("a temporary directory can be made")
            .keep();
        let mut nodes: Vec<Node> = KINDS
            .into_iter()
            .map(|kind| Node::new(kind, &dir.join(kind.binary())))
            .collect();
        for node in &mut nodes {
            node.spawn();
        }
        let pids: Vec<u32> = nodes.iter().map(Node::pid).collect();
        let janitor = janitor(dir, &pids);
        for node in &mut nodes {
            node.await_ready();
        }
        Self {
            nodes,
            _janitor: janitor,
        }
    }
}

/// What is shared is never dropped, so a process ends it: its standard input closes with this process, however that ends. Then it kills
/// the nodes and removes their directory.
fn janitor(dir: PathBuf, pids: &[u32]) -> Child {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let keep = std::env::var_os("FELLBECK_KEEP").is_some();
    let remove = if keep { "true" } else { "rm -rf \"$dir\"" };
    let script = format!(
        "trap '' INT TERM HUP; read -r dir; read -r _; kill -9 {}; {remove}",
        pids.join(" ")
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be started");
    let stdin = child.stdin.as_mut().expect("its input is a pipe");
    writeln!(stdin, "{}", dir.display()).expect("it reads");
    child
}
