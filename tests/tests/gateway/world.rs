//! A cloud on this machine, a gateway with an emulated machine's memory, kernel and drive, and the link between them.
//!
//! In: MiB of memory, a seed, orders. Out: power-ons and power cuts, and the checks that hold after each of them. A failed test leaves
//! the drive and the console behind.

use std::path::PathBuf;
use std::time::Duration;

use fellbeck_tests::gateway::{Clock, Flash, FlashCut, Hardware, Kit, Machine, data_image};
use fellbeck_tests::{Address, Node, Site, UdpProxy, World, join, names, token, wait};
use rand::Rng;
use rand::rngs::StdRng;

/// MiB of the drive with the data.
const DRIVE: usize = 512;

/// All of it. Dropped in this order: machine, drive, cloud, then the place.
pub(crate) struct GatewayWorld {
    machine: Option<Machine>,
    /// The drive with the data.
    pub(crate) flash: Flash,
    /// Forwarded MQTT port, while the edge is up.
    pub(crate) mqtt: Address,
    /// The cloud.
    pub(crate) cloud: Node,
    /// The link to it.
    pub(crate) link: UdpProxy,
    kit: Kit,
    memory: usize,
    site: Site,
}

impl GatewayWorld {
    /// Starts the cloud and joins the edge, whose machine has no power yet. Fails with what is missing on this machine.
    pub(crate) fn start(memory: usize, rng: &mut StdRng) -> Result<Self, String> {
        let World {
            edge,
            mut cloud,
            link,
            site,
        } = World::prepare();
        let kit = Kit::make(&site.path("kit"))?;
        link.aim(cloud.start().link);
        join(&edge, &token(&cloud, "gate-1", Some(link.address()))).assert_ok();
        // Small segments are made and removed all the time.
        let store = if rng.random_bool(0.7) {
            "quota = \"96 MiB\"\nsegment = 65536\ngrace = 0"
        } else {
            "quota = \"96 MiB\"\ngrace = \"8 MiB\""
        };
        let image = site.path("data.ext4");
        data_image(&edge.data_dir(), &Machine::config(link.address(), store), &image, DRIVE);
        Ok(Self {
            machine: None,
            flash: Flash::start(&image),
            mqtt: Address::default(),
            cloud,
            link,
            kit,
            memory,
            site,
        })
    }

    /// The power comes, and the edge opens by itself. Returns how long that took.
    pub(crate) fn power_on(&mut self, clock: Clock) -> Duration {
        let took = self.insert(clock).await_ready();
        self.mqtt.put(Some(self.machine().mqtt));
        took
    }

    /// The power comes for a while only.
    pub(crate) fn power_on_for(&mut self, clock: Clock, span: Duration) {
        self.insert(clock);
        wait::last(span);
    }

    /// The power goes. Returns how many sectors of the drive were not flushed.
    pub(crate) fn power_off(&mut self, how: FlashCut, rng: &mut StdRng) -> usize {
        self.flash.fail();
        self.mqtt.put(None);
        self.machine.take().unwrap().power_off();
        self.flash.restore(how, rng)
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.machine.as_ref().unwrap()
    }

    fn insert(&mut self, clock: Clock) -> &mut Machine {
        let memory = self.memory;
        let machine = Machine::power_on(&self.kit, Hardware { memory, clock }, &self.flash, &self.console());
        self.machine.insert(machine)
    }

    /// Neither kernel nor edge has said since the power came what it may not say.
    pub(crate) fn assert_undamaged(&self, context: &str) {
        self.machine().assert_healthy(context);
        for line in self.machine().said().lines() {
            let bad = names::DAMAGE.iter().find(|words| line.contains(*words));
            assert!(bad.is_none(), "{context}: {line}");
        }
    }

    pub(crate) fn await_drained(&self) {
        wait::until_true("the edge's backlog is empty", wait::EVENTUALLY, || {
            let queued = self
                .machine()
                .metrics()
                .sum_where(names::TRACK_QUEUED, names::DEFAULT_LANE);
            queued.is_some_and(|queued| queued as usize == 0)
        });
    }

    /// Prints what the edge takes of the machine's memory.
    pub(crate) fn tell_memory(&self, when: &str) {
        let bytes = self.machine().metrics().sum_where("process_resident_memory_bytes", "");
        let (mb, stats) = (bytes.unwrap_or(0.0) / 1e6, self.flash.stats());
        println!(
            "{when}: the edge takes {mb:.1} MB of {} MiB; drive: {stats:?}",
            self.memory
        );
    }

    /// The place of a failed test.
    pub(crate) fn path(&self) -> String {
        self.site.path("").display().to_string()
    }

    fn console(&self) -> PathBuf {
        self.site.path("console.log")
    }
}

impl Drop for GatewayWorld {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // The machine first: it shall not write into what is kept.
        self.flash.fail();
        self.machine = None;
        let kept = tempfile::Builder::new()
            .prefix("fellbeck-gateway-")
            .tempdir()
            .map(tempfile::TempDir::keep);
        let Ok(kept) = kept else { return };
        for name in ["data.ext4", "console.log", "console.emulator", "cloud/node.log"] {
            let target = kept.join(name.replace('/', "-"));
            std::fs::copy(self.site.path(name), target).ok();
        }
        eprintln!("kept: {} (the drive holds what was durable)", kept.display());
    }
}
