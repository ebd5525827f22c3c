//! The link of a world: dialling, cutting, bytes that arrive, and the drivers at both ends.

use super::network::{Connection, DOWN};
use super::world::World;

impl World {
    pub(crate) fn connect_link(&mut self) {
        if self.uplink.connection.is_some() || !self.edge.is_up || self.uplink.is_fenced {
            return;
        }
        self.last_connection += 1;
        let id = self.last_connection;
        self.connections.push(Connection::new(id, self.uplink.lane_count()));
        self.uplink.connect(id, &self.edge, self.now_ms);
        self.trace.note("the edge dials connection {a}", [id, 0, 0]);
    }

    pub(crate) fn cut_link(&mut self) {
        let used = self.uplink.connection;
        let current = self
            .connections
            .iter_mut()
            .find(|connection| Some(connection.id) == used);
        if let Some(connection) = current.filter(|connection| !connection.is_cut) {
            connection.cut();
            self.seen.link_cuts += 1;
            self.trace.note("link {a} is cut", [connection.id, 0, 0]);
        }
    }

    pub(crate) fn edge_misses_link(&mut self) {
        let used = self.uplink.connection;
        let current = self.connections.iter().find(|connection| Some(connection.id) == used);
        if current.is_some_and(|connection| connection.is_cut) {
            self.uplink.disconnect();
        }
    }

    pub(crate) fn cloud_misses_links(&mut self) {
        for connection in self.connections.iter().filter(|connection| connection.is_cut) {
            self.ingest.connection_lost(connection.id);
        }
        let used = self.uplink.connection;
        self.connections
            .retain(|connection| !connection.is_cut || used == Some(connection.id));
    }

    /// Moves some bytes of one stream of one connection. True when there were any.
    pub(crate) fn deliver_link(&mut self, bytes_max: usize) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        let which = self.dice.index(self.connections.len());
        let turn = self.dice.roll();
        let connection = &mut self.connections[which];
        let Some(stream) = connection.busy(turn) else {
            return false;
        };
        let (id, bytes) = (connection.id, connection.take(stream, bytes_max));
        self.trace.note(
            "{c} bytes of stream {b} of link {a} arrive",
            [id, stream as u64, bytes.len() as u64],
        );
        if stream == DOWN {
            if self.uplink.connection == Some(id) {
                self.uplink.receive(&bytes, self.now_ms);
            }
        } else {
            let instance = self.uplink.instance;
            self.ingest
                .receive((id, instance), stream, &bytes, &self.cloud, self.now_ms);
        }
        true
    }

    pub(crate) fn finish_uplink_read(&mut self, fails: bool) -> bool {
        let which = self.dice.roll();
        let (oracle, devices) = (&mut self.oracle, &self.devices);
        self.uplink
            .finish_read((which, fails), &self.edge, self.now_ms, |lane, first, last| {
                oracle.skipped(lane, first, last, |message| {
                    devices[usize::from(message.device)].sent[message.n as usize].expires
                });
            })
    }

    /// Both drivers do what is due, without anything being delivered.
    pub(crate) fn drain_link(&mut self) {
        let now = self.now_ms;
        if let Some(id) = self.uplink.connection {
            let found = self.connections.iter_mut().find(|connection| connection.id == id);
            let connection = found.expect("a connection lives while the edge uses it");
            self.uplink.drain(&mut self.edge, connection, &mut self.oracle, now);
        }
        let closed = self.ingest.drain(&mut self.cloud, &mut self.connections, now);
        for connection in self
            .connections
            .iter_mut()
            .filter(|connection| closed.contains(&connection.id))
        {
            connection.cut();
        }
        if self.uplink.wants_close() {
            self.cut_link();
            self.uplink.disconnect();
        }
    }
}
