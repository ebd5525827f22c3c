//! The power of a gateway goes at random moments under load, also while it boots, with and without its cloud.
//!
//! In: a seed and a number of cuts. Out: after each cut the machine boots, the edge opens by itself and says that nothing is missing; what
//! was acknowledged arrives at readers of the cloud and of the edge, once and in order; sessions are there.

use std::time::{Duration, Instant};

use fellbeck_tests::gateway::{Clock, FlashCut, Machine};
use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, judge, names, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::GatewayWorld;

/// Cuts in the gate.
const SHORT: u64 = 20;
/// Cuts of one gateway before a new one takes its place.
const LIFE: u64 = 20;
/// Time under load before a cut, at most.
const LOAD_MAX: Duration = Duration::from_millis(2500);
/// Flushes under load before a cut that comes at a flush, at most.
const FLUSHES_MAX: u64 = 200;
/// Time from the power to a cut during boot, at most.
const BOOT_MAX: Duration = Duration::from_millis(6000);
/// MiB of memory of the machine.
const MEMORY: u64 = 128;
/// Devices under load.
const DEVICES: usize = 4;

#[test]
fn power_cuts_of_a_whole_gateway_lose_nothing_and_double_nothing() {
    if let Some(reason) = Machine::unavailable() {
        skip(&reason);
        return;
    }
    let seed = from_env("FELLBECK_GATEWAY_SEED").unwrap_or_else(|| rand::rng().random());
    println!("gateway: FELLBECK_GATEWAY_SEED={seed}");
    let total = from_env("FELLBECK_GATEWAY_CUTS").unwrap_or(SHORT);
    let start = Instant::now();
    let (mut done, mut acked) = (0, 0);
    while done < total {
        let seed = seed.wrapping_add(done / LIFE);
        let cuts = LIFE.min(total - done);
        let Some(life) = Life::start(seed) else { return };
        acked += life.run(cuts);
        done += cuts;
        let secs = start.elapsed().as_secs();
        println!(
            "gateway: {done} of {total} cuts in {secs} s, {acked} messages acknowledged, none lost, none doubled (seed {seed})"
        );
    }
}

/// Number from the environment.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    })
}

fn skip(reason: &str) {
    assert!(
        std::env::var_os("FELLBECK_GATEWAY_REQUIRED").is_none(),
        "no gateway can be made here: {reason}"
    );
    println!("skipped: no gateway can be made here ({reason})");
}

/// One cut, all of it from the seed.
struct CutPlan {
    /// The link is cut before.
    offline: bool,
    /// Clock of the power-on behind it.
    clock: Clock,
    /// Time under load.
    span: Duration,
    /// Flushes after which the power goes earlier.
    flushes: Option<u64>,
    how: FlashCut,
    /// A second cut, while the machine boots.
    again: Option<(Duration, FlashCut)>,
}

impl CutPlan {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            offline: rng.random_bool(0.3),
            clock: [Clock::Host, Clock::Host, Clock::Dead][rng.random_range(0..3)],
            span: rng.random_range(Duration::from_millis(20)..LOAD_MAX),
            flushes: rng.random_bool(0.6).then(|| rng.random_range(0..FLUSHES_MAX)),
            how: FlashCut::random(rng),
            again: rng
                .random_bool(0.2)
                .then(|| (rng.random_range(Duration::ZERO..BOOT_MAX), FlashCut::random(rng))),
        }
    }
}

/// What was refused to a device.
fn told(book: &DeviceBook) -> String {
    format!(
        "refused to {}: {:?} of {}",
        book.device,
        book.rejected,
        book.sends.len()
    )
}

struct Life {
    seed: u64,
    cloud_twice: Reader,
    cloud_once: Reader,
    edge_twice: Reader,
    devices: Vec<Device>,
    world: GatewayWorld,
}

impl Life {
    fn start(seed: u64) -> Option<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let memory = from_env("FELLBECK_GATEWAY_MEMORY").unwrap_or(MEMORY) as usize;
        let mut world = match GatewayWorld::start(memory, &mut rng) {
            Ok(world) => world,
            Err(reason) => {
                skip(&reason);
                return None;
            }
        };
        println!("seed {seed} in {}", world.path());
        let took = world.power_on(Clock::Host);
        world.tell_memory(&format!("fresh, ready after {:.1} s", took.as_secs_f64()));
        let (edge, cloud) = (world.mqtt.clone(), world.cloud.mqtt());
        let size = [60, 400, 1500][rng.random_range(0..3)];
        let plan = |n: usize| DevicePlan {
            size,
            // As much as a QoS 2 reader, which needs two commits for each message, can follow on a slow machine.
            window: 2,
            ..DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2)
        };
        let life = Self {
            cloud_twice: Reader::start(&ReaderPlan::all("cloud-2", Version::V5, 2), &cloud),
            cloud_once: Reader::start(&ReaderPlan::all("cloud-1", Version::V3, 1), &cloud),
            edge_twice: Reader::start(&ReaderPlan::all("edge-2", Version::V3, 2), &edge),
            devices: (0..DEVICES).map(|n| Device::start(plan(n), edge.clone())).collect(),
            seed,
            world,
        };
        life.devices.iter().for_each(|device| device.await_acked(1));
        Some(life)
    }

    /// Returns the messages that were acknowledged.
    fn run(mut self, cuts: u64) -> usize {
        for cut in 0..cuts {
            self.cut(cut);
        }
        let devices = std::mem::take(&mut self.devices);
        let books: Vec<DeviceBook> = devices.into_iter().map(Device::settle).collect();
        self.await_all_acked(&books);
        self.world.await_drained();
        self.world.tell_memory("end");
        self.judge(&books);
        books.iter().map(DeviceBook::acked_count).sum()
    }

    fn cut(&mut self, cut: u64) {
        let mut rng = StdRng::seed_from_u64(self.seed.rotate_left(32) ^ cut);
        let plan = CutPlan::random(&mut rng);
        let mut context = format!("FELLBECK_GATEWAY_SEED={} cut {cut}", self.seed);
        if plan.offline {
            self.world.link.cut();
            context.push_str(", without the cloud");
        }
        let moment = self.load(&plan);
        let waiting = self.world.power_off(plan.how, &mut rng);
        context.push_str(&format!(", {moment}: {:?} of {waiting} sectors", plan.how));
        // What was acknowledged by now is acknowledged for ever.
        let books: Vec<DeviceBook> = self.devices.iter().map(Device::book).collect();
        let acked: usize = books.iter().map(DeviceBook::acked_count).sum();
        if let Some((moment, how)) = plan.again {
            self.world.power_on_for(plan.clock, moment);
            let waiting = self.world.power_off(how, &mut rng);
            let after = moment.as_millis();
            context.push_str(&format!(
                "; again {after} ms after the power: {how:?} of {waiting} sectors"
            ));
        }
        println!("{context}; clock {:?}, {acked} acknowledged", plan.clock);
        let took = self.world.power_on(plan.clock);
        self.world.link.heal();
        println!("ready after {:.1} s", took.as_secs_f64());
        self.await_all_acked(&books);
        self.world.assert_undamaged(&context);
        let refused = self
            .devices
            .iter()
            .map(Device::book)
            .find(|book| !book.rejected.is_empty());
        assert!(
            refused.is_none(),
            "{context}: {}",
            refused.map_or(String::new(), |book| told(&book))
        );
    }

    /// Lets the load run until the power shall go, or has gone at a flush.
    fn load(&mut self, plan: &CutPlan) -> String {
        if let Some(flushes) = plan.flushes {
            self.world.flash.arm(flushes);
        }
        let deadline = Instant::now() + plan.span;
        wait::until_true("the time under load is over", wait::SOON, || {
            Instant::now() >= deadline || self.world.flash.has_failed()
        });
        match plan.flushes {
            Some(flushes) if self.world.flash.has_failed() => format!("at flush {flushes}"),
            _ => format!("after {} ms", plan.span.as_millis()),
        }
    }

    fn readers(&self) -> [(&'static str, &Reader); 3] {
        [
            ("cloud-2", &self.cloud_twice),
            ("cloud-1", &self.cloud_once),
            ("edge-2", &self.edge_twice),
        ]
    }

    fn await_all_acked(&self, books: &[DeviceBook]) {
        for (_, reader) in self.readers() {
            reader.await_all_acked(books);
        }
    }

    /// Everything once and in order, over all that has happened, and nothing refused.
    fn judge(&self, books: &[DeviceBook]) {
        judge(books, &self.cloud_twice.book()).assert_clean_across_kills("QoS 2 reader at the cloud");
        judge(books, &self.edge_twice.book()).assert_clean_across_kills("QoS 2 reader at the edge");
        judge(books, &self.cloud_once.book()).assert_clean("QoS 1 reader at the cloud, which was not cut");
        let published: usize = books.iter().map(|book| book.sends.len()).sum();
        let by_devices: usize = books.iter().filter(|book| book.qos == 1).map(DeviceBook::resends).sum();
        let least: usize = books.iter().map(DeviceBook::acked_count).sum();
        let log = self.world.cloud.metric(names::TRACK_END, names::DEFAULT_STREAM) as usize;
        assert!(
            (least..=published + by_devices).contains(&log),
            "the log holds {log} records of {published} messages, {least} of them acknowledged, of which QoS 1 devices resent {by_devices}"
        );
        let gaps = self
            .world
            .cloud
            .metrics()
            .sum_where(names::LINK_GAPS, "")
            .unwrap_or(0.0);
        assert_eq!(
            gaps as u64, 0,
            "nothing that was synced was lost, and yet a gap was declared"
        );
        for book in books {
            assert!(book.rejected.is_empty(), "{}", told(book));
            assert_eq!(book.sessions_lost, 0, "{}: the edge forgot a session", book.device);
        }
        for (who, reader) in self.readers() {
            assert_eq!(
                reader.book().sessions_lost,
                0,
                "a node forgot the persistent reader {who}"
            );
        }
    }
}
