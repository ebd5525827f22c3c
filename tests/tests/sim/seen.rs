//! How often each thing happened, so that worlds in which nothing goes wrong are noticed.

/// Counts of what happened in a world.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) edge_crashes: u64,
    pub(crate) cloud_crashes: u64,
    pub(crate) link_cuts: u64,
    pub(crate) device_cuts: u64,
    pub(crate) damages: u64,
    pub(crate) gaps: u64,
    pub(crate) cloud_restores: u64,
    pub(crate) edge_restores: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) pressures: u64,
    pub(crate) edge_records: u64,
    pub(crate) cloud_records: u64,
    pub(crate) delivered: u64,
    pub(crate) trims: u64,
    pub(crate) resends: u64,
}

/// Fails where something that the worlds are for did not happen in any of them.
pub(crate) fn assert_all_happened(seen: &Seen) {
    for (name, count) in seen.list() {
        assert!(count > 0, "no {name} in all these worlds");
    }
}

impl Seen {
    fn list(&self) -> [(&'static str, u64); 15] {
        [
            ("crash of the edge", self.edge_crashes),
            ("crash of the cloud", self.cloud_crashes),
            ("cut of the link", self.link_cuts),
            ("cut of a device", self.device_cuts),
            ("damage", self.damages),
            ("gap stored", self.gaps),
            ("restored cloud", self.cloud_restores),
            ("restored edge", self.edge_restores),
            ("jump of a clock", self.clock_jumps),
            ("full store", self.pressures),
            ("record of the edge", self.edge_records),
            ("record of the cloud", self.cloud_records),
            ("delivery", self.delivered),
            ("trim", self.trims),
            ("resend of a device", self.resends),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.edge_crashes += other.edge_crashes;
        self.cloud_crashes += other.cloud_crashes;
        self.link_cuts += other.link_cuts;
        self.device_cuts += other.device_cuts;
        self.damages += other.damages;
        self.gaps += other.gaps;
        self.cloud_restores += other.cloud_restores;
        self.edge_restores += other.edge_restores;
        self.clock_jumps += other.clock_jumps;
        self.pressures += other.pressures;
        self.edge_records += other.edge_records;
        self.cloud_records += other.cloud_records;
        self.delivered += other.delivered;
        self.trims += other.trims;
        self.resends += other.resends;
    }
}
