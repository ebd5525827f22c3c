//! What may come next in a world, and how it comes to rest when the faults end.

use fellbeck_broker::session::Pressure;
use fellbeck_core::ClockQuality;

use super::device::Side;
use super::world::{Fate, World, jump, press};

/// Rounds in which a world without faults must have come to rest.
const ROUNDS_MAX: usize = 4000;

impl World {
    /// One step, thrown with the dice.
    pub(crate) fn step(&mut self) {
        let ms = self.dice.below(8);
        self.pass_time(ms);
        let side = if self.dice.chance(50) { Side::Edge } else { Side::Cloud };
        let fault = self.dice.below(10_000) < 900 * self.plan.fury / 100;
        if fault {
            self.fault(side);
        } else {
            self.progress(side);
        }
        self.drain_link();
        if self.trace.count().is_multiple_of(4) {
            self.check_books();
        }
    }

    fn progress(&mut self, side: Side) {
        let at = self.dice.index(self.devices.len());
        match self.dice.below(100) {
            0..=14 => {
                if self.devices[at].conn.is_none() {
                    self.connect_device(at);
                } else if self.devices[at].is_reader {
                    self.devices[at].pay();
                } else {
                    for _ in 0..self.dice.between(1..=3) {
                        self.publish(at);
                    }
                }
            }
            15..=34 => {
                for _ in 0..self.dice.between(1..=4) {
                    self.deliver_up(at);
                }
            }
            35..=47 => {
                let count = self.dice.between(1..=4);
                if !self.devices[at].is_stuck {
                    for _ in 0..count {
                        self.deliver_down(at);
                    }
                }
                if self.dice.chance(70) {
                    self.devices[at].pay();
                }
            }
            48..=55 => self.turn(side),
            56..=62 => {
                let count = self.dice.between(1..=5) as usize;
                self.begin_commit(side, count);
            }
            63..=70 => {
                self.finish_commit(side);
            }
            71..=77 => {
                let blocks = self.dice.between(1..=3) as usize;
                self.follow_store(side, blocks);
            }
            78..=80 => {
                self.answer_read(side, false);
            }
            81..=84 => {
                self.finish_uplink_read(false);
            }
            85..=95 => {
                let bytes_max = self.dice.pick(&[1, 50, 400, 4000]);
                self.deliver_link(bytes_max);
            }
            96..=97 => self.connect_link(),
            _ => {
                let ms = self.dice.pick(&[30, 300, 1100, 4000]);
                self.pass_time(ms);
            }
        }
    }

    fn fault(&mut self, side: Side) {
        let at = self.dice.index(self.devices.len());
        match self.dice.below(100) {
            0..=19 => self.cut_device(at),
            20..=29 => self.miss_sockets(),
            30..=41 => self.cut_link(),
            42..=53 => self.edge_misses_link(),
            54..=62 => self.cloud_misses_links(),
            63..=66 => {
                self.answer_read(side, true);
            }
            67..=70 => {
                self.finish_uplink_read(true);
            }
            71..=84 => self.crash_somehow(side),
            85..=88 => {
                let node = match side {
                    Side::Edge => &mut self.edge,
                    Side::Cloud => &mut self.cloud,
                };
                let may =
                    (side == Side::Edge && self.plan.edge_restore) || (side == Side::Cloud && self.plan.cloud_restore);
                if may {
                    node.store.take_snapshot();
                }
            }
            89..=92 if self.plan.clock_jumps => {
                self.seen.clock_jumps += 1;
                self.trace.note("the clock of node {a} jumps", [side as u64, 0, 0]);
                match side {
                    Side::Edge => jump(&mut self.edge, &mut self.dice),
                    Side::Cloud => jump(&mut self.cloud, &mut self.dice),
                }
            }
            93..=96 if self.plan.pressure => {
                self.seen.pressures += 1;
                match side {
                    Side::Edge => press(&mut self.edge, &mut self.dice),
                    Side::Cloud => press(&mut self.cloud, &mut self.dice),
                }
                let level = self.node(side).pressure as u64;
                self.trace.note(
                    "the store of node {a} is at level {b} of fullness",
                    [side as u64, level, 0],
                );
            }
            _ => {
                let ms = self.dice.pick(&[1500, 20_000, 120_000]);
                self.pass_time(ms);
            }
        }
    }

    fn crash_somehow(&mut self, side: Side) {
        let survives = self.dice.chance(40);
        let damaged = side == Side::Edge && self.plan.damage && self.dice.chance(30);
        let may_go_back = match side {
            Side::Edge => self.plan.edge_restore && self.edge.store.has_snapshot(),
            Side::Cloud => self.plan.cloud_restore && self.cloud.store.has_snapshot(),
        };
        let fate = if damaged {
            Fate::Damaged
        } else if may_go_back && self.dice.chance(30) {
            Fate::Restored
        } else {
            Fate::Kept
        };
        self.crash(side, survives, fate);
    }

    // ---- the end

    /// No more faults: everything must come to rest in bounded time. A reader that does not read must not hold up the rest (I7).
    pub(crate) fn settle(&mut self) {
        self.trace.note("the faults end", [0; 3]);
        for node in [&mut self.edge, &mut self.cloud] {
            node.pressure = Pressure::Normal;
            node.clock_ahead_ms = 0;
            node.clock = ClockQuality::Synced;
        }
        self.come_to_rest(false);
        for device in &mut self.devices {
            device.is_stuck = false;
        }
        self.come_to_rest(true);
    }

    fn come_to_rest(&mut self, with_readers: bool) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let was_busy = self.round();
            self.check_books();
            let is_over = self.is_at_rest(with_readers);
            // At rest it must stay so: a timer, a retry or a flush may be due.
            quiet = if is_over && !was_busy { quiet + 1 } else { 0 };
            if quiet > 4 {
                return;
            }
            self.pass_time(if was_busy { 5 } else { 300 });
        }
        let level = self.uplink.is_level(&self.edge);
        panic!(
            "the world does not come to rest: link level {level}, edge idle {}, cloud idle {}, readers {with_readers}, devices {:?}",
            self.edge.is_idle(),
            self.cloud.is_idle(),
            self.devices
                .iter()
                .map(|d| (d.is_done(), d.up.len(), d.owes(), d.is_ready))
                .collect::<Vec<_>>()
        );
    }

    fn is_at_rest(&self, with_readers: bool) -> bool {
        let is_done = |device: &super::device::Device| {
            let reader_is_done = device.since.is_some() || device.is_stuck;
            device.is_done() && device.up.is_empty() && !device.owes() && (!device.is_reader || reader_is_done)
        };
        let stuck = self.devices.iter().any(|device| device.is_stuck);
        self.devices.iter().all(is_done)
            // A restored edge that the cloud turns away waits for an operator.
            && (self.uplink.is_fenced || self.uplink.is_level(&self.edge))
            && (stuck || !with_readers || (self.edge.is_idle() && self.cloud.is_idle()))
    }

    /// Everything that can happen happens once. True when something of weight did.
    fn round(&mut self) -> bool {
        let mut was_busy = false;
        self.miss_sockets();
        self.edge_misses_link();
        self.cloud_misses_links();
        self.connect_link();
        for at in 0..self.devices.len() {
            self.connect_device(at);
            while self.deliver_up(at) {
                was_busy = true;
            }
            if self.devices[at].is_stuck {
                continue;
            }
            while self.deliver_down(at) {
                was_busy = true;
            }
            was_busy |= self.devices[at].pay();
        }
        for side in [Side::Edge, Side::Cloud] {
            self.turn(side);
            self.begin_commit(side, usize::MAX);
            self.finish_commit(side);
            self.follow_store(side, usize::MAX);
            while self.answer_read(side, false) {
                was_busy = true;
            }
        }
        while self.finish_uplink_read(false) {
            was_busy = true;
        }
        self.drain_link();
        while self.deliver_link(4000) {
            was_busy = true;
            self.drain_link();
        }
        was_busy
    }
}
