//! An edge and a cloud whose data directories are disks that can lose power, the link between them, and readers at both.
//!
//! In: a seed. Out: cuts with restarts, and the checks that hold after each of them.

use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version};
use fellbeck_tests::power_cut::{CutPlan, PowerDisk};
use fellbeck_tests::{
    DeviceBook, Kind, Node, Reader, ReaderPlan, Site, UdpProxy, World, join, judge, names, token, wait,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

/// A node and its disk.
pub(crate) struct Powered {
    pub(crate) node: Node,
    pub(crate) disk: PowerDisk,
    journaled: bool,
    log_seen: usize,
}

impl Powered {
    fn new(mut node: Node, rng: &mut StdRng) -> Self {
        let journaled = rng.random_bool(0.3);
        let disk = PowerDisk::mount(&node.data_dir(), journaled, rng.random());
        node.set("log.level", "\"info\"");
        Self {
            node,
            disk,
            journaled,
            log_seen: 0,
        }
    }

    /// The power goes, the process with it.
    pub(crate) fn lose_power(&mut self) {
        self.disk.fail();
        let pid = i32::try_from(self.node.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        self.disk.off();
        self.node.kill();
    }

    /// The power is back; the node is not started.
    pub(crate) fn regain_power(&mut self, rng: &mut StdRng) -> String {
        let plan = CutPlan::random(self.journaled, rng);
        let report = self.disk.restore(&plan, rng.random());
        let (names, files) = (report.names, report.files);
        let CutPlan { journaled, torn, .. } = plan;
        format!(
            "journaled {journaled}, torn {torn:?}, names {:?}: {} of {} kept, bytes {:?}: {} of {} files changed",
            plan.names, names.1, names.0, plan.data, files.1, files.0
        )
    }

    /// The node has said nothing since the last look that it may not say.
    pub(crate) fn assert_undamaged(&mut self, context: &str) {
        let log = self.node.log();
        let new = &log[self.log_seen.min(log.len())..];
        for line in new.lines() {
            let bad = names::DAMAGE.iter().find(|words| line.contains(*words));
            assert!(bad.is_none(), "{context}: {line}");
        }
        self.log_seen = log.len();
    }
}

/// All of it. Dropped in this order: processes, then disks, then the place.
pub(crate) struct PowerWorld {
    pub(crate) edge: Powered,
    pub(crate) cloud: Powered,
    pub(crate) link: UdpProxy,
    site: Site,
}

impl PowerWorld {
    /// Starts and joins both nodes on empty disks.
    pub(crate) fn start(rng: &mut StdRng) -> Self {
        let mut world = Self::prepare(rng);
        world.start_cloud();
        let token = world.token();
        join(&world.edge.node, &token).assert_ok();
        world.edge.node.start();
        world
    }

    /// Both nodes on empty disks; nothing runs yet.
    pub(crate) fn prepare(rng: &mut StdRng) -> Self {
        let World {
            mut edge,
            mut cloud,
            link,
            site,
        } = World::prepare();
        edge.set("uplink.keep_alive_ms", "200")
            .set("uplink.idle_timeout_ms", "800")
            .set("uplink.backoff_min_ms", "10");
        cloud
            .set("link.keep_alive_ms", "200")
            .set("link.idle_timeout_ms", "800");
        // Small segments are made and removed all the time.
        if rng.random_bool(0.7) {
            edge.set("store.segment", "65536").set("store.grace", "0");
            cloud.set("store.segment", "262144");
        }
        let (edge, cloud) = (Powered::new(edge, rng), Powered::new(cloud, rng));
        Self {
            edge,
            cloud,
            link,
            site,
        }
    }

    /// A token for the edge.
    pub(crate) fn token(&self) -> String {
        token(&self.cloud.node, "gate-1", Some(self.link.address()))
    }

    pub(crate) fn start_cloud(&mut self) {
        let ready = self.cloud.node.start();
        self.link.aim(ready.link);
    }

    pub(crate) fn powered(&mut self, kind: Kind) -> &mut Powered {
        match kind {
            Kind::Edge => &mut self.edge,
            Kind::Cloud => &mut self.cloud,
        }
    }

    /// One look of a supervisor at both nodes; true when both are ready.
    pub(crate) fn supervise(&mut self) -> bool {
        let cloud = self.cloud.node.supervise();
        self.link.aim(if cloud { self.cloud.node.ready().link } else { None });
        self.edge.node.supervise() && cloud
    }

    /// Starts whichever of `kinds` are down, the cloud first.
    pub(crate) fn restart(&mut self, kinds: &[Kind]) {
        if kinds.contains(&Kind::Cloud) {
            self.start_cloud();
        }
        if kinds.contains(&Kind::Edge) {
            self.edge.node.start();
        }
    }

    pub(crate) fn await_drained(&self) {
        wait::until_true("the edge's backlog is empty", wait::EVENTUALLY, || {
            self.edge.node.metric(names::TRACK_QUEUED, names::DEFAULT_LANE) as usize == 0
        });
    }

    /// Keeps the place of a failed test.
    pub(crate) fn path(&self) -> String {
        self.site.path("").display().to_string()
    }
}

/// Persistent readers, local and behind the link.
pub(crate) struct Readers {
    pub(crate) cloud_twice: Reader,
    pub(crate) cloud_once: Reader,
    pub(crate) edge_twice: Reader,
}

impl Readers {
    pub(crate) fn start(world: &PowerWorld) -> Self {
        let (edge, cloud) = (world.edge.node.mqtt(), world.cloud.node.mqtt());
        Self {
            cloud_twice: Reader::start(&ReaderPlan::all("cloud-2", Version::V5, 2), &cloud),
            cloud_once: Reader::start(&ReaderPlan::all("cloud-1", Version::V3, 1), &cloud),
            edge_twice: Reader::start(&ReaderPlan::all("edge-2", Version::V3, 2), &edge),
        }
    }

    pub(crate) fn await_all_acked(&self, books: &[DeviceBook]) {
        for (who, reader) in [
            ("edge-2", &self.edge_twice),
            ("cloud-2", &self.cloud_twice),
            ("cloud-1", &self.cloud_once),
        ] {
            let told = Told(who);
            reader.await_all_acked(books);
            std::mem::forget(told);
        }
    }

    /// Everything once and in order, over all that has happened, and nothing refused.
    pub(crate) fn check(&self, world: &PowerWorld, books: &[DeviceBook], others: usize) {
        for book in books {
            assert!(book.rejected.is_empty(), "{}: {:?}", book.device, book.rejected);
        }
        self.check_acked(world, books, others);
    }

    /// The same where a full disk may have refused some.
    pub(crate) fn check_acked(&self, world: &PowerWorld, books: &[DeviceBook], others: usize) {
        self.await_all_acked(books);
        world.await_drained();
        judge(books, &self.cloud_twice.book()).assert_clean_across_kills("QoS 2 reader at the cloud");
        judge(books, &self.edge_twice.book()).assert_clean_across_kills("QoS 2 reader at the edge");
        judge(books, &self.cloud_once.book()).assert_complete("QoS 1 reader at the cloud");
        let published: usize = books.iter().map(|book| book.sends.len()).sum();
        let by_devices: usize = books.iter().filter(|book| book.qos == 1).map(DeviceBook::resends).sum();
        let log = world.cloud.node.metric(names::TRACK_END, names::DEFAULT_STREAM) as usize;
        let least: usize = books.iter().map(DeviceBook::acked_count).sum();
        assert!(log >= least, "the log holds {log} records, {least} were acknowledged");
        assert!(
            log <= published + by_devices + others,
            "the log holds {log} records of {published} messages, of which QoS 1 devices resent {by_devices}, and {others} others"
        );
        let gaps = world
            .cloud
            .node
            .metrics()
            .sum_where(names::LINK_GAPS, "")
            .unwrap_or(0.0);
        assert_eq!(
            gaps as u64, 0,
            "nothing that was synced was lost, and yet a gap was declared"
        );
        for book in books {
            assert_eq!(book.sessions_lost, 0, "{}: the edge forgot a session", book.device);
        }
        for reader in [&self.cloud_twice, &self.cloud_once, &self.edge_twice] {
            assert_eq!(reader.book().sessions_lost, 0, "a node forgot a persistent reader");
        }
    }
}

/// Says at a panic which reader was waited for.
struct Told(&'static str);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the reader {} was waited for", self.0);
    }
}

/// Publishes a rising number as a retained message, and looks whether the edge still has it.
pub(crate) struct Keeper {
    client: Client,
    /// Numbers published.
    pub(crate) sent: usize,
    acked: Option<usize>,
    /// Times that anything was written.
    pub(crate) writes: usize,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self {
            client: Client::new(ConnectOptions::persistent(Version::V5, "keeper")),
            sent: 0,
            acked: None,
            writes: 0,
        }
    }

    /// Publishes once, or takes what has come.
    pub(crate) fn turn(&mut self, edge: &Node, within: Duration) {
        if !self.client.is_connected() {
            let again = self.client.unacked_tags().count();
            let Some(at) = edge.mqtt().get() else { return };
            if !self.client.connect(at).is_ok_and(|answer| answer.reason == 0) {
                return;
            }
            self.writes += again;
        }
        if self.client.in_flight() < 4 {
            let number = self.sent;
            self.client
                .publish_retained("keep/number", number.to_string().into_bytes(), 1, number);
            self.sent += 1;
            self.writes += 1;
        }
        for event in self.client.poll(within) {
            if let Event::Acked { tag } = event {
                self.acked = self.acked.max(Some(tag));
            }
        }
    }

    /// A new subscriber gets the newest number that was acknowledged, or a later one.
    pub(crate) fn check(&self, edge: &Node, context: &str) {
        let Some(acked) = self.acked else { return };
        let at = edge.mqtt().get().expect("the edge is up");
        let mut client = Client::connected(at, ConnectOptions::clean(Version::V5, "looks"));
        client.subscribe(&[("keep/number", 1)]);
        let mut found = None;
        client.poll_until(wait::SOON, |event| {
            if let Event::Message(message) = event {
                found = String::from_utf8_lossy(&message.payload).parse::<usize>().ok();
            }
            found.is_some()
        });
        assert!(
            found.is_some_and(|found| found >= acked && found < self.sent),
            "{context}: retained {found:?}, acknowledged {acked}, sent {}",
            self.sent
        );
    }
}

/// A generator of its own for each world of a run.
pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
