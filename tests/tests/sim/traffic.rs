//! Devices of a world and their sockets: packets in both directions, and what a node has said compared with what is durable.

use fellbeck_broker::session::Pressure;
use fellbeck_broker::wire::ConnId;
use fellbeck_core::QoS;

use super::device::Side;
use super::message::{Publish, ToDevice, ToNode};
use super::node::{connect, device_of};
use super::world::World;

impl World {
    pub(crate) fn connect_device(&mut self, at: usize) {
        let side = self.devices[at].side;
        if self.devices[at].conn.is_some() || !self.node(side).is_up {
            return;
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn << 8 | at as u64);
        self.devices[at].connect(conn);
        self.trace
            .note("device {a} connects as {b}", [at as u64, self.last_conn, 0]);
    }

    /// The device's connection breaks. What is under way in both directions is lost; the node finds out later.
    pub(crate) fn cut_device(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(conn) = device.conn else { return };
        device.lose_connection();
        self.gone.push(conn);
        self.seen.device_cuts += 1;
        self.trace.note("device {a} is cut off", [at as u64, 0, 0]);
    }

    /// The node finds out that sockets are gone.
    pub(crate) fn miss_sockets(&mut self) {
        let now = self.now_ms;
        for conn in std::mem::take(&mut self.gone) {
            let side = self.devices[device_of(conn)].side;
            self.node(side).gone(conn, now);
            self.look(side);
        }
    }

    pub(crate) fn publish(&mut self, at: usize) {
        if !self.devices[at].may_publish() {
            return;
        }
        let expires = self.plan.clock_jumps && self.dice.chance(20);
        let publish = self.devices[at].publish(&mut self.dice, expires);
        let numbers = [at as u64, u64::from(publish.message.n), publish.qos as u64];
        self.trace.note("device {a} publishes {b} at QoS {c}", numbers);
    }

    /// The node reads one packet of a device. False: there was none, or it does not read.
    pub(crate) fn deliver_up(&mut self, at: usize) -> bool {
        let device = &mut self.devices[at];
        let (side, now) = (device.side, self.now_ms);
        let Some(conn) = device.conn else { return false };
        let node = match side {
            Side::Edge => &mut self.edge,
            Side::Cloud => &mut self.cloud,
        };
        if !node.may_read(conn) {
            return false;
        }
        let Some(packet) = device.up.pop_front() else {
            return false;
        };
        let current = node.now(now);
        match packet {
            ToNode::Connect => {
                let hello = connect(&device.name, device.version, device.clean, device.receive_maximum);
                node.connect(conn, hello, now);
            }
            ToNode::Publish(publish) => {
                self.trace.note(
                    "node {c} reads message {b} of device {a}",
                    [at as u64, u64::from(publish.message.n), side as u64],
                );
                self.seen.resends += u64::from(publish.dup);
                if node.publish(conn, publish, now) {
                    self.taken(side, vec![(conn, publish)]);
                }
            }
            ToNode::Subscribe => {
                let newest = node.store.newest();
                device.asked.get_or_insert(newest);
                node.subscribe(conn, device.filter, device.qos, now);
            }
            ToNode::PubAck(id) => node.core.handle_puback(conn, id, 0, current, &mut node.pipes),
            ToNode::PubRec(id) => node.core.handle_pubrec(conn, id, 0, current, &mut node.pipes),
            ToNode::PubRel(id) => node.core.handle_pubrel(conn, id, 0, current, &mut node.pipes),
            ToNode::PubComp(id) => node.core.handle_pubcomp(conn, id, 0, current, &mut node.pipes),
        }
        self.look(side);
        true
    }

    /// A device reads one packet. False: there was none.
    pub(crate) fn deliver_down(&mut self, at: usize) -> bool {
        let (side, now) = (self.devices[at].side, self.now_ms);
        let Some(conn) = self.devices[at].conn else {
            return false;
        };
        let Some(packet) = self.node(side).take_packet(conn, now) else {
            return false;
        };
        let newest = self.node(side).store.newest();
        match packet {
            ToDevice::Publish { message, qos, dup, .. } => {
                self.seen.delivered += 1;
                let text = match (qos, dup) {
                    (QoS::AtMostOnce, _) => "device {a} gets message {b} of device {c} at QoS 0",
                    (QoS::AtLeastOnce, false) => "device {a} gets message {b} of device {c} at QoS 1",
                    (QoS::AtLeastOnce, true) => "device {a} gets message {b} of device {c} at QoS 1, DUP",
                    (QoS::ExactlyOnce, false) => "device {a} gets message {b} of device {c} at QoS 2",
                    (QoS::ExactlyOnce, true) => "device {a} gets message {b} of device {c} at QoS 2, DUP",
                };
                self.trace
                    .note(text, [at as u64, u64::from(message.n), u64::from(message.device)]);
            }
            ToDevice::ConnAck { present, reason } => {
                self.trace.note(
                    "device {a} is welcome, session {b}, reason {c}",
                    [at as u64, u64::from(present), u64::from(reason)],
                );
                let lenient = self.oracle.damaged || self.oracle.edge_restored || self.oracle.cloud_restored;
                assert!(
                    present || reason != 0 || lenient || !self.devices[at].has_session,
                    "the session of device {at} is forgotten"
                );
            }
            _ => {}
        }
        if !self.devices[at].receive(packet, newest) {
            let conn = self.devices[at].conn;
            self.devices[at].lose_connection();
            self.trace.note("device {a} is closed by its node", [at as u64, 0, 0]);
            self.gone.extend(conn);
        }
        self.look(side);
        true
    }

    /// What a node has just sent, compared with what is durable (I1).
    pub(crate) fn look(&mut self, side: Side) {
        let (devices, oracle, trace) = (&mut self.devices, &self.oracle, &mut self.trace);
        let node = match side {
            Side::Edge => &mut self.edge,
            Side::Cloud => &mut self.cloud,
        };
        let newest = node.store.newest();
        for (conn, packet) in node.pipes.sent.drain(..) {
            let device = &mut devices[device_of(conn)];
            if device.conn != Some(conn) {
                continue;
            }
            match packet {
                ToDevice::PubAck(id, reason) | ToDevice::PubRec(id, reason) => {
                    let at = device.id as u64;
                    trace.note(
                        "node acknowledges {b} to device {a} with {c}",
                        [at, u64::from(id), u64::from(reason)],
                    );
                    let in_flight = device.in_flight(id);
                    if let Some(message) = in_flight.filter(|_| reason >= 0x80) {
                        device.sent[message.n as usize].was_refused = true;
                    }
                    let message = in_flight.filter(|_| reason < 0x80);
                    let lenient = oracle.edge_restored || oracle.cloud_restored || oracle.damaged;
                    if let Some(message) = message {
                        assert!(
                            lenient || oracle.copies(side, message) > 0,
                            "I1: message {} of device {at} is acknowledged and not durable",
                            message.n
                        );
                    }
                }
                ToDevice::SubAck(_) => device.since = device.since.or(Some(newest)),
                _ => {}
            }
        }
        for conn in node.pipes.closed.drain(..) {
            trace.note("node closes connection {a}", [conn.0 >> 8, 0, 0]);
        }
    }

    /// The core of a node has stored these, or refused them: under pressure, and their device may never hear that.
    pub(crate) fn taken(&mut self, side: Side, taken: Vec<(ConnId, Publish)>) {
        let is_pressed = self.node(side).pressure != Pressure::Normal;
        for (conn, publish) in taken {
            let sent = &mut self.devices[device_of(conn)].sent[publish.message.n as usize];
            sent.taken += 1;
            sent.was_refused |= is_pressed;
        }
    }
}
