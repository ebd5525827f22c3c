//! One cloud, one edge and the link between them, which can be cut.
//!
//! In: settings. Out: running, joined nodes. The edge dials the proxy and nothing else; after a restart of the cloud the proxy is aimed at
//! its new port. Owns the site of the test, which outlives the nodes.

use std::net::SocketAddr;

use crate::command::Finished;
use crate::names;
use crate::node::{Kind, Node};
use crate::proxy::UdpProxy;
use crate::site::Site;
use crate::wait;

/// Name of the edge of a world.
const EDGE_NAME: &str = "gate-1";

/// Cloud, edge and link. Fields are dropped in this order: nodes first, their directory last.
#[derive(Debug)]
pub struct World {
    /// The edge.
    pub edge: Node,
    /// The cloud.
    pub cloud: Node,
    /// The link between them.
    pub link: UdpProxy,
    /// Where all of it lives.
    pub site: Site,
}

impl World {
    /// Starts and joins both nodes with default settings.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// Starts and joins both nodes; `configure` gets edge and cloud before their first start.
    #[must_use]
    pub fn start_with(configure: impl FnOnce(&mut Node, &mut Node)) -> Self {
        let mut world = Self::prepare();
        configure(&mut world.edge, &mut world.cloud);
        world.start_cloud();
        world.join();
        world.edge.start();
        world
    }

    /// Both nodes and the link; nothing runs yet and the link leads nowhere.
    #[must_use]
    pub fn prepare() -> Self {
        let site = Site::new();
        let link = UdpProxy::start(None);
        let mut edge = Node::new(Kind::Edge, &site.path("edge"));
        let mut cloud = Node::new(Kind::Cloud, &site.path("cloud"));
        // A dead peer shows by silence alone: short times keep a test from waiting for it, and change no rule.
        edge.set("uplink.keep_alive_ms", "400")
            .set("uplink.idle_timeout_ms", "2000");
        edge.set("uplink.connect_timeout_ms", "2000")
            .set("uplink.backoff_max_ms", "500");
        cloud
            .set("link.keep_alive_ms", "400")
            .set("link.idle_timeout_ms", "2000");
        edge.set("uplink.cloud", &format!("[\"{}\"]", link.address()));
        Self {
            edge,
            cloud,
            link,
            site,
        }
    }

    /// Starts the cloud and aims the link at it.
    ///
    /// # Panics
    /// When the cloud has no link listener.
    pub fn start_cloud(&mut self) {
        let ready = self.cloud.start();
        assert!(ready.link.is_some(), "the cloud's ready file names its link listener");
        self.link.aim(ready.link);
    }

    /// kill -9 of the cloud.
    pub fn kill_cloud(&mut self) {
        self.link.aim(None);
        self.cloud.kill();
    }

    /// Lets the edge join the cloud through the link.
    pub fn join(&self) {
        let token = token(&self.cloud, EDGE_NAME, Some(self.link.address()));
        join(&self.edge, &token).assert_ok();
    }

    /// Records ever appended to the cloud's default stream.
    #[must_use]
    pub fn records_in_log(&self) -> usize {
        self.cloud.metric(names::TRACK_END, names::DEFAULT_STREAM) as usize
    }

    /// Records of the edge's default lane that the cloud has not acknowledged.
    #[must_use]
    pub fn records_queued(&self) -> usize {
        self.edge.metric(names::TRACK_QUEUED, names::DEFAULT_LANE) as usize
    }

    /// Waits until the edge has nothing left to send.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_drained(&self) {
        wait::until_true("the edge's backlog is empty", wait::EVENTUALLY, || {
            self.records_queued() == 0
        });
    }
}

/// A join token for the edge `name`, for the address `via` or, without one, for the cloud's own.
///
/// # Panics
/// When there is no token on standard output.
#[must_use]
pub fn token(cloud: &Node, name: &str, via: Option<SocketAddr>) -> String {
    let via = via.map(|at| at.to_string());
    let mut args = vec!["token", "create", "--edge", name];
    if let Some(via) = &via {
        args.extend(["--address", via]);
    }
    let made = cloud.command(&args);
    made.assert_ok();
    let token = made.out.trim().to_owned();
    assert!(
        !token.is_empty() && !token.contains(char::is_whitespace),
        "not a token alone on stdout: {:?}",
        made.out
    );
    token
}

/// `fellbeck-edge join TOKEN` in the home of `edge`.
#[must_use]
pub fn join(edge: &Node, token: &str) -> Finished {
    edge.command(&["join", token])
}
