//! The session core under a script: clients, a store that commits late, a clock, crashes.
//!
//! The input is a list of acts, one byte each and a few for what it is about. Clients mostly behave, and now and then send what they
//! must not. What leaves the core is judged as it leaves ([`client`]): the Receive Maximum, packet IDs, QoS 2 once, what came before
//! has DUP, the acknowledgement after the commit. At the end everybody comes back, acknowledges everything, and the books balance.

mod client;
#[path = "../../../../shared/broker/src/session/tests/store_model.rs"]
mod store_model;
mod wire;
mod world;

use std::time::Duration;

use fellbeck_broker::session::Pressure;
use fellbeck_core::{ClockQuality, QoS};

use world::{Message, World};

/// Acts of one input at most, so that an input takes milliseconds.
const ACTS_MAX: usize = 400;

const TOPICS: [&str; 6] = ["log/a", "log/b", "log/a/c", "log/s", "mem/a", "$SYS/x"];
const FILTERS: [&str; 8] = [
    "log/#",
    "log/a",
    "+/a",
    "#",
    "log/+/c",
    "$share/g/log/s",
    "$share/h/log/s",
    "log/#/",
];
const SECS: [u32; 4] = [0, 1, 30, u32::MAX];
const STEPS_MS: [u64; 4] = [1, 300, 1_500, 40_000];

/// What is left of the input.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pick(&mut self, count: usize) -> Option<usize> {
        Some(usize::from(self.byte()?) % count)
    }
}

/// True when at least one message was delivered.
pub(super) fn session_core(data: &[u8]) -> bool {
    let mut script = Script(data);
    let Some(mode) = script.byte() else {
        return false;
    };
    let mut world = World::new(mode & 1 == 0);
    for _ in 0..ACTS_MAX {
        if act(&mut world, &mut script).is_none() {
            break;
        }
        world.check();
    }
    world.finish();
    world.delivered > 0
}

fn act(world: &mut World, script: &mut Script<'_>) -> Option<()> {
    let kind = script.byte()? % 56;
    match kind {
        0..=8 => publish(world, script)?,
        9..=11 => subscribe(world, script)?,
        12 => world.unsubscribe(script.pick(world::CLIENTS)?, FILTERS[script.pick(FILTERS.len())?]),
        13..=15 => connect(world, script)?,
        16 => {
            let (who, how) = (script.pick(world::CLIENTS)?, script.byte()?);
            let expiry = (how & 4 != 0).then(|| SECS[usize::from(how >> 3) % SECS.len()]);
            world.leave(who, how & 3, expiry);
        }
        17..=22 => world.pay(script.pick(world::CLIENTS)?, script.byte()?),
        23 => world.send_wrong_ack(script.pick(world::CLIENTS)?, script.byte()?, script.byte()?),
        24 | 25 => world.release(script.pick(world::CLIENTS)?, script.byte()?),
        26 => world.backlog(script.pick(world::CLIENTS)?),
        27 => world.submit(),
        28 => world.commit(script.pick(4)?),
        29 => world.deliver(),
        30 => world.ask(),
        31 => world.answer(script.byte()?),
        32 | 33 => world.pass(Duration::from_millis(STEPS_MS[script.pick(STEPS_MS.len())?])),
        34 => world.crash(),
        35 => world.restart(),
        36 => world.press([Pressure::Normal, Pressure::High][script.pick(2)?]),
        37 => world.trim(script.byte()?),
        38..=45 => world.settle(),
        46..=54 => world.turn(),
        _ => match script.pick(3)? {
            0 => world.commit_foreign(TOPICS[script.pick(TOPICS.len())?]),
            1 => world.be_small(script.pick(world::CLIENTS)?),
            _ => world.now.clock = [ClockQuality::Unknown, ClockQuality::Synced][script.pick(2)?],
        },
    }
    Some(())
}

fn qos(bits: u8) -> QoS {
    QoS::from_u8(bits % 3).unwrap_or(QoS::AtMostOnce)
}

fn expiry(bits: u8) -> Option<u32> {
    (bits & 1 != 0).then(|| SECS[usize::from(bits >> 1) % 3])
}

fn publish(world: &mut World, script: &mut Script<'_>) -> Option<()> {
    let who = script.pick(world::CLIENTS)?;
    let topic = TOPICS[script.pick(TOPICS.len())?];
    let (flags, packet_id) = (script.byte()?, script.byte()?);
    world.publish(
        who,
        Message {
            topic,
            qos: qos(flags & 3),
            retain: flags & 4 != 0,
            is_empty: flags & 0x0C == 0x0C,
            packet_id: u16::from(packet_id % 8) + 1,
            expiry_secs: expiry(flags >> 4),
        },
    );
    Some(())
}

fn subscribe(world: &mut World, script: &mut Script<'_>) -> Option<()> {
    let who = script.pick(world::CLIENTS)?;
    let filter = FILTERS[script.pick(FILTERS.len())?];
    let options = script.byte()?;
    world.subscribe(who, filter, options);
    Some(())
}

fn connect(world: &mut World, script: &mut Script<'_>) -> Option<()> {
    let who = script.pick(world::CLIENTS)?;
    let (flags, will) = (script.byte()?, script.byte()?);
    let will = (will & 1 != 0).then(|| {
        let topic = TOPICS[usize::from(will >> 1 & 7) % TOPICS.len()];
        (topic, SECS[usize::from(will >> 4) % 3], will & 0x40 != 0)
    });
    world.connect(who, flags, SECS[usize::from(flags >> 4) % SECS.len()], will);
    Some(())
}
